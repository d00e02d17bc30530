/**
 * How much memory this process may still take.
 * @module
 */
import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";
import process from "node:process";
import { GROUP } from "./machine.ts";
import { residentBytes } from "./runtime.ts";

/**
 * Bytes that the machine, or the container, can still give.
 *
 * @param group Where the container's limit and what it uses are told.
 */
export function freeBytes(group = GROUP): number {
  const limit = Number(textOf(`${group}/memory.max`) ?? NaN);
  const inGroup = Number.isFinite(limit) ? Math.max(0, limit - usedIn(group)) : Infinity;
  // What macOS calls free leaves out all that it would give at once if it were asked.
  return Math.min(process.platform === "darwin" ? totalmem() : freemem(), inGroup);
}

/**
 * Bytes that a container uses. Its account has files that were read, too, until others need the memory: without
 * them, whoever has just fetched a model could not load it.
 */
function usedIn(group: string): number {
  const all = Number(textOf(`${group}/memory.current`) ?? NaN);
  if (!Number.isFinite(all)) return residentBytes();
  const statistics = textOf(`${group}/memory.stat`) ?? "";
  const files = [...statistics.matchAll(/^(?:in)?active_file (\d+)$/gm)].map(([, bytes]) =>
    Number(bytes)
  );
  return Math.max(0, all - files.reduce((sum, bytes) => sum + bytes, 0));
}

/** What is in a file; undefined where there is none. */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
