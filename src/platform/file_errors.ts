/**
 * What went wrong with a file, or a folder, in words that say what to do.
 * @module
 */
import * as fs from "node:fs";
import { resolve, sep } from "node:path";
import {
  DiskFullError,
  type EspalierError,
  FileReadError,
  FileWriteError,
  PermissionMissingError,
} from "../errors.ts";

/** What an error says, in one line. */
export function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message.split("\n")[0] : String(cause);
}

/** The name that the system has for what went wrong, `ENOENT` and the like. */
export function systemCode(cause: unknown): string | undefined {
  return (cause as { code?: string } | null)?.code;
}

/** Whether Deno was not told to allow something. */
export function isDenial(cause: unknown): boolean {
  return (cause as { name?: string } | null)?.name === "NotCapable";
}

/** What Deno was not told to allow, where that is the error: its message names the flag. */
export function denied(cause: unknown, name: string): PermissionMissingError | undefined {
  if (!isDenial(cause)) return undefined;
  return new PermissionMissingError(`${name} lacks a permission: ${messageOf(cause)}`, { cause });
}

/** The error for a file, or a folder, that cannot be read. */
export function readError(path: string, cause: unknown): EspalierError {
  const why: Record<string, string> = {
    ENOENT: "there is no such file",
    EACCES: "permission denied",
    EISDIR: "it is a folder",
  };
  const reason = why[systemCode(cause) ?? ""] ?? messageOf(cause);
  return new FileReadError(`cannot read ${path}: ${reason}`, { cause });
}

/** The error for a path at which no file can be seen: what hides it, or that there is none. */
export function noFile(path: string): EspalierError {
  try {
    if (fs.statSync(path).isDirectory()) {
      return new FileReadError(`${path} is not a file that can be read: it is a folder`);
    }
  } catch (cause) {
    const code = systemCode(cause);
    if (code !== "ENOENT" && code !== "ENOTDIR") return readError(path, cause);
  }
  return new FileReadError(`${path} is not a file that can be read`);
}

/** Where temporary files may have room. */
export const TEMPORARY_ELSEWHERE = "set TMPDIR to a place with room";

/** Folders for temporary files, which nobody has named. */
const temporaryFolders = new Set<string>();

/** Has errors of a folder say what makes room for temporary files, until what is returned is called. */
export function markTemporary(folder: string): () => void {
  const path = resolve(folder) + sep;
  temporaryFolders.add(path);
  return () => void temporaryFolders.delete(path);
}

/** Where else there may be room for a file. */
export function elsewhereThan(path: string): string {
  const full = resolve(path);
  return [...temporaryFolders].some((folder) => full.startsWith(folder))
    ? TEMPORARY_ELSEWHERE
    : "name an output elsewhere";
}

/**
 * The error for a file that could not be written, made, moved or linked.
 *
 * @param elsewhere How it says where else there may be room.
 */
export function writeError(
  path: string,
  cause: unknown,
  elsewhere: string = elsewhereThan(path),
): EspalierError {
  if (systemCode(cause) === "ENOSPC" || systemCode(cause) === "EDQUOT") {
    return new DiskFullError(
      `no room left on the device while writing ${path}: free some space or ${elsewhere}`,
      { cause },
    );
  }
  return new FileWriteError(`cannot write ${path}: ${messageOf(cause)}`, { cause });
}
