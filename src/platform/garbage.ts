/** Giving memory back at once, where a runtime would wait for more of it to be garbage. @module */

/** Bytes of objects above which collecting takes longer than the memory is worth: they are not all ours. */
const MOST_OBJECTS = 256 << 20;

type Collect = () => void;

/** What of a runtime's globals there may be. */
export interface Globals {
  readonly Bun?: { gc(isThorough: boolean): void };
  readonly process?: {
    memoryUsage?(): { readonly heapUsed: number };
    getBuiltinModule?(name: "node:v8"): { setFlagsFromString?(flags: string): void } | undefined;
    getBuiltinModule?(name: "node:vm"): { runInNewContext?(code: string): unknown } | undefined;
  };
}

let known: { readonly collect: Collect | undefined } | undefined;

/**
 * Collects what is garbage now, where the runtime lets programs ask for it: Deno, Bun and Node do. V8 gives
 * pages back only when it has looked at all objects, which it does late: what was needed to read a vocabulary
 * (30 MB for one of 49,000 tokens) would otherwise stay until the weights are there.
 */
export function collectGarbage(): void {
  if (bytesOfObjects() > MOST_OBJECTS) return;
  known ??= { collect: collectorOf(globalThis) };
  known.collect?.();
}

/**
 * Gives the memory of a buffer back now, where the runtime has a way (Node 20 has none): nothing may look at it any
 * more. To collect it would take as long as there are objects.
 */
export function giveBack(buffer: ArrayBuffer): void {
  (buffer as { transfer?: ArrayBuffer["transfer"] }).transfer?.(0);
}

/** Bytes of all objects; 0 where nobody tells. */
function bytesOfObjects(): number {
  try {
    return (globalThis as Globals).process?.memoryUsage?.().heapUsed ?? 0;
  } catch {
    // It is asked for together with what the process holds, which Linux tells only where /proc is mounted.
    return 0;
  }
}

/** What collects garbage in the runtime that has these globals; nothing where there is no way. */
export function collectorOf({ Bun: bun, process }: Globals): Collect | undefined {
  if (bun) return () => bun.gc(true);
  try {
    // The flag counts for contexts made after it, and so leaves globals as they are.
    process?.getBuiltinModule?.("node:v8")?.setFlagsFromString?.("--expose-gc");
    const found = process?.getBuiltinModule?.("node:vm")?.runInNewContext?.("gc");
    return typeof found === "function" ? found as Collect : undefined;
  } catch {
    // Runtimes that know these modules by name only.
    return undefined;
  }
}
