/** Letting the runtime's events in. @module */

/**
 * Waits until signals, timers and output have had their turn.
 *
 * Our file calls are synchronous, and so is ONNX Runtime in WebAssembly: a promise that it returns is
 * kept already. Without a pause between them, Ctrl-C would wait for the end of all work.
 */
export function letEventsIn(): Promise<void> {
  return new Promise((resume) => setTimeout(resume, 0));
}
