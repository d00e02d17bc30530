/** Letting the runtime's events in. @module */

/**
 * Waits until signals, timers and output have had their turn.
 *
 * Our file calls are synchronous, and so is WebAssembly: a promise of theirs is kept already. Without a
 * pause between them, Ctrl-C would wait for the end of all work.
 */
export function letEventsIn(): Promise<void> {
  // Not setTimeout: runtimes make a timer of 0 wait for milliseconds, and there are many pauses.
  const { setImmediate } = globalThis as { setImmediate?: (run: () => void) => unknown };
  if (setImmediate) return new Promise((resume) => void setImmediate(resume));
  if (typeof MessageChannel === "undefined") return new Promise((resume) => setTimeout(resume, 0));
  return new Promise((resume) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resume();
    };
    port2.postMessage(undefined);
  });
}
