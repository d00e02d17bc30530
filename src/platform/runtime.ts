/**
 * Which JavaScript runtime this is, and what the machine has: the only file that looks.
 * @module
 */
import process from "node:process";

export { processors } from "./machine.ts";

/** The runtimes that Espalier knows apart. */
export type Runtime = "deno" | "bun" | "node";

/** The runtime that runs this program, with its version. */
export function runtime(): { name: Runtime; version: string } {
  const versions = process.versions as Record<string, string | undefined>;
  if (versions.deno) return { name: "deno", version: versions.deno };
  if (versions.bun) return { name: "bun", version: versions.bun };
  return { name: "node", version: process.version.replace(/^v/, "") };
}

/** Whether this program is one file that is the runtime, too, as `bun build --compile` makes it. */
export function isBinary(): boolean {
  const deno = (globalThis as { Deno?: { build: { standalone?: boolean } } }).Deno;
  if (deno) return deno.build.standalone ?? false;
  // Its main module lies in a file system of its own.
  return /^(\/\$bunfs\/|B:[\\/]~BUN[\\/])/.test(process.argv[1] ?? "");
}

/** Bytes of memory that this process holds now. */
export function residentBytes(): number {
  return process.memoryUsage.rss();
}

/** The largest number of bytes that this process has held since its start, as the system counts it. */
export function peakResidentBytes(): number {
  // The unit of maxRSS is KiB in Node and Deno; Bun on Linux reports the same.
  const reported = process.resourceUsage().maxRSS * 1024;
  return Math.max(reported, residentBytes());
}
