/** Models that answer no more. @module */
import { hasCode } from "../errors.ts";
import type { ModelInfo } from "./model.ts";

/** Whether an error is of a model that answers no more, whatever it is asked. */
export function isEndOfModel(error: unknown, { engine }: Pick<ModelInfo, "engine">): boolean {
  // Our own engine does not go on once its program has broken off; ONNX Runtime may.
  const isBroken = hasCode(error, "BACKEND_FAILED") && engine === "sparse";
  return isBroken || hasCode(error, "WORKER_LOST") || hasCode(error, "MODEL_CLOSED");
}
