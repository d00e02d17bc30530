/** What a machine can do, without modules that browsers lack. @module */
import { builtinNow } from "./builtin.ts";

/** Threads that it can run at once. */
export function processors(): number {
  const { navigator } = globalThis as { navigator?: { hardwareConcurrency?: number } };
  // Node 20 has no navigator; where there is a process, it may be allowed less than there is.
  const os = builtinNow<{ availableParallelism(): number }>("node:os");
  return Math.max(1, os?.availableParallelism() ?? navigator?.hardwareConcurrency ?? 1);
}

/** Whether this thread may wait for others asleep: the main thread of a browser may not. */
export function mainMaySleep(): boolean {
  return typeof document === "undefined";
}

/**
 * Threads of onnxruntime-web where nobody says how many: all processors, but under Deno one. With two (Deno 2.9,
 * onnxruntime-web 1.30), of 183 processes that shared two processors two never ended: the first thread spun for
 * another, which slept.
 */
export function threadsOfOnnxRuntimeWeb(): number {
  return "Deno" in globalThis ? 1 : processors();
}

/**
 * Whether a memory of WebAssembly that threads share had better have its whole size from the beginning. So it is where
 * each address is checked by instructions, of which a known size saves some: V8 leaves that to pages that nobody may
 * touch where its embedder handles faults, which Deno does not. Not on Windows, where all of it would be taken from
 * other programs at once.
 */
export function prefersFixedMemory(): boolean {
  const { Deno: deno } = globalThis as { Deno?: { build: { os: string } } };
  return deno !== undefined && deno.build.os !== "windows";
}
