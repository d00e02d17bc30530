/** Letting the runtime's events in. @module */
import { setImmediate } from "node:timers";

/**
 * Waits until signals, timers and output have had their turn.
 *
 * Our file calls are synchronous, and so is ONNX Runtime in WebAssembly: a promise that it returns is
 * kept already. Without a pause between them, Ctrl-C would wait for the end of all work.
 */
export function letEventsIn(): Promise<void> {
  // Not setTimeout: runtimes make a timer of 0 wait for milliseconds, and there are many pauses.
  return new Promise((resume) => setImmediate(resume));
}
