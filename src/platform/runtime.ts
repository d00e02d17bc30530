/**
 * Which JavaScript runtime this is, and what the machine has: the only file that looks.
 * @module
 */
import { readFileSync } from "node:fs";
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

/** The unit of maxRSS is KiB in Node and Deno; Bun on Linux reports the same. */
const MAX_RSS_UNIT = 1024;

/** Bytes of memory that this process holds now. */
export function residentBytes(): number {
  return process.memoryUsage.rss();
}

/** The largest number of bytes that this process has held since its start, as the system counts it. */
export function peakResidentBytes(): number {
  return peakOnLinux() ?? Math.max(process.resourceUsage().maxRSS * MAX_RSS_UNIT, residentBytes());
}

/** On Linux maxRSS has the peak of whoever started this process in it, as much of it as there was then. */
function peakOnLinux(): number | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    const peak = /^VmHWM:\s*([0-9]+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
    return peak ? Number(peak[1]) * 1024 : undefined;
  } catch {
    return undefined;
  }
}
