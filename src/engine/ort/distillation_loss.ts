/**
 * How far a model's predictions are from a teacher's, with the gradient of it.
 * @module
 */
import { toBinary } from "@bufbuild/protobuf";
import { GraphBuilder, modelOf } from "../../onnx/builder.ts";
import {
  ModelProtoSchema,
  TensorProto_DataType as DataType,
} from "../../onnx/generated/onnx_pb.ts";
import type { Head } from "../../onnx/sections.ts";
import { addLogits, declareRows, feedsOf, headPieces } from "./head.ts";
import { logSumsOf, PIECE_BYTES } from "./soft_head.ts";
import type { StagedModel } from "./staged.ts";

/** The loss of some positions. */
export interface DistillationLoss {
  /** Kullback-Leibler divergence Σ p·(log p − log q) from the teacher's p, mean over positions, in nats. */
  readonly loss: number;
  /** Its gradient by the model's activations before the head, `[positions, width]`. */
  readonly gradient: Float32Array;
}

/**
 * The divergence of a model's predictions from a teacher's under the same head, and its gradient,
 * (q − p)·W over the number of positions; where logits are capped, q − p times the slope of the cap.
 *
 * The vocabulary passes in pieces twice: for log Σ exp, then for what hangs on it.
 *
 * @param model The model whose head both use.
 * @param hidden The model's activations before the head, `[positions, width]`.
 * @param teacher The teacher's at the same positions, and log Σ exp of its logits.
 * @param pieceBytes Bytes that one piece's logits may take.
 */
export async function distillationLoss(
  model: StagedModel,
  hidden: Float32Array,
  teacher: { readonly hidden: Float32Array; readonly logSums: Float64Array },
  pieceBytes = PIECE_BYTES,
): Promise<DistillationLoss> {
  const { head } = model.sections;
  const { backend } = model;
  const width = head.columns;
  const count = hidden.length / width;
  const [logSums] = await logSumsOf(model, [hidden]);
  const session = await model.session(lossModel(head));
  const column = (values: Float64Array) => backend.floats(Float32Array.from(values), [count, 1]);
  const same = {
    student: backend.floats(hidden, [count, width]),
    student_logsum: column(logSums),
    teacher: backend.floats(teacher.hidden, [count, width]),
    teacher_logsum: column(teacher.logSums),
  };
  const gradient = new Float32Array(hidden.length);
  let loss = 0;
  for (const piece of headPieces(model, count, pieceBytes)) {
    const outputs = await session.run({ ...same, ...feedsOf(model, piece) });
    const part = outputs.gradient.data as Float32Array;
    for (let i = 0; i < gradient.length; i++) gradient[i] += part[i] / count;
    for (const each of outputs.divergence.data as Float32Array) loss += each / count;
  }
  return { loss, gradient };
}

function lossModel(head: Head): Uint8Array {
  const b = new GraphBuilder("distillation loss");
  declareRows(b, head);
  /** A piece's logits, and the log of its tokens' chances. */
  const foresee = (from: string) => {
    b.input(from, DataType.FLOAT, ["tokens", head.columns]);
    b.input(`${from}_logsum`, DataType.FLOAT, ["tokens", 1]);
    const logits = addLogits(b, head, from);
    return { logits, chances: b.node("Sub", [logits, `${from}_logsum`]) };
  };
  const { logits, chances: student } = foresee("student");
  const { chances: teacher } = foresee("teacher");
  const p = b.node("Exp", [teacher]);
  const apart = b.node("Sub", [b.node("Exp", [student]), p]);
  const byProducts = head.cap === undefined
    ? apart
    : b.node("Mul", [apart, slopeOfCap(b, logits, head.cap)]);
  b.node("MatMul", [byProducts, "weight"], { outputs: ["gradient"] });
  b.node("ReduceSum", [
    b.node("Mul", [p, b.node("Sub", [teacher, student])]),
    b.integers([1]),
  ], { attributes: { keepdims: 1 }, outputs: ["divergence"] });
  b.output("gradient", DataType.FLOAT, ["tokens", head.columns]);
  b.output("divergence", DataType.FLOAT, ["tokens", 1]);
  return toBinary(ModelProtoSchema, modelOf(b.graph));
}

/** How much a capped logit rises with what is capped: 1 − (logit / cap)². */
function slopeOfCap(b: GraphBuilder, logits: string, cap: number): string {
  const tanh = b.node("Div", [logits, b.scalar(cap)]);
  return b.node("Sub", [b.scalar(1), b.node("Mul", [tanh, tanh])]);
}
