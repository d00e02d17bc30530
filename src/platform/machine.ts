/** What a machine can do, without modules that browsers lack. @module */
import { builtinNow } from "./builtin.ts";

/** Where the kernel tells of the group of processes that a container is, where there is one. */
export const GROUP = "/sys/fs/cgroup";

/**
 * Threads that it can run at once.
 *
 * @param group Where the container's limit is told.
 */
export function processors(group = GROUP): number {
  const { navigator } = globalThis as { navigator?: { hardwareConcurrency?: number } };
  // Node 20 has no navigator; where there is a process, it may be allowed less than there is.
  const os = builtinNow<{ availableParallelism(): number }>("node:os");
  const all = os?.availableParallelism() ?? navigator?.hardwareConcurrency ?? 1;
  return Math.max(1, Math.floor(Math.min(all, allowedIn(group))));
}

/** Whether threads may share memory: in browsers, where the page is cross-origin isolated. */
export function mayShareMemory(): boolean {
  return (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;
}

/**
 * Processors whose time a container may have: threads beyond them would use it up by waiting for each other, and then
 * all stand still. Not every runtime counts that in.
 */
function allowedIn(group: string): number {
  // Deno does, and asks its user before a file is read.
  if ("Deno" in globalThis) return Infinity;
  const fs = builtinNow<{ readFileSync(path: string, encoding: "utf8"): string }>("node:fs");
  try {
    const [time, period] = fs!.readFileSync(`${group}/cpu.max`, "utf8").split(" ").map(Number);
    return time > 0 && period > 0 ? time / period : Infinity;
  } catch {
    // There is no container, or no file system.
    return Infinity;
  }
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
