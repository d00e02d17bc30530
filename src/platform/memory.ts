/**
 * How much memory this process may still take.
 * @module
 */
import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";
import process from "node:process";
import { residentBytes } from "./runtime.ts";

/** Limits of the group of processes that a container is, where there is one. */
const GROUP = { limit: "/sys/fs/cgroup/memory.max", used: "/sys/fs/cgroup/memory.current" };

/** Bytes that the machine, or the container, can still give. */
export function freeBytes(): number {
  const limit = numberIn(GROUP.limit);
  const inGroup = limit === undefined
    ? Infinity
    : Math.max(0, limit - (numberIn(GROUP.used) ?? residentBytes()));
  // What macOS calls free leaves out all that it would give at once if it were asked.
  return Math.min(process.platform === "darwin" ? totalmem() : freemem(), inGroup);
}

/** The number that a file holds; undefined where there is no file, or a word such as `max` in it. */
function numberIn(path: string): number | undefined {
  try {
    const value = Number(readFileSync(path, "utf8"));
    return Number.isFinite(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
