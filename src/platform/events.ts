/** Letting the runtime's events in. @module */

/**
 * Turns in which Deno looks at sockets, signals and pipes once: its scheduler (tokio) asks the system
 * when it has nothing to do, else each 61st time.
 */
const TURNS_OF_DENO = 64;
/** Milliseconds after which it is made to look again: those turns take a twentieth of one. */
const LOOK_EVERY = 5;

// Not `runtime.ts`, which needs what browsers lack.
const isDeno = "Deno" in globalThis;
/** When Deno has looked last. */
let lastLook = -Infinity;
/** What it does while it looks: whoever comes then goes on together with the others, not before them. */
let looking: Promise<void> | undefined;

/**
 * Waits until signals, timers, requests and output have had their turn.
 *
 * Our file calls are synchronous, and so is WebAssembly: a promise of theirs is kept already. Without a
 * pause between them, Ctrl-C would wait for the end of all work.
 */
export function letEventsIn(): Promise<void> {
  if (looking) return looking;
  if (!isDeno || performance.now() - lastLook <= LOOK_EVERY) return turn();
  return looking = look();
}

/** As many turns as Deno needs to look. */
async function look(): Promise<void> {
  for (let i = 0; i < TURNS_OF_DENO; i++) await turn();
  lastLook = performance.now();
  looking = undefined;
}

/** A turn of the event loop. */
function turn(): Promise<void> {
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
