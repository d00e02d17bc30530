/**
 * What is at a path.
 * @module
 */
import * as fs from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { isDenial, readError, systemCode } from "./file_errors.ts";

/**
 * Whether there is something at `path`.
 *
 * @throws {FileReadError} When we may not look: that is not to be taken for an empty place.
 */
export function exists(path: string): boolean {
  try {
    fs.statSync(path);
    return true;
  } catch (cause) {
    if (systemCode(cause) === "EACCES" || isDenial(cause)) throw readError(path, cause);
    return false;
  }
}

/** A path with its links followed, as far as there is something at it. */
export function realPath(path: string): string {
  const full = resolve(path);
  try {
    return fs.realpathSync(full);
  } catch {
    const folder = dirname(full);
    return folder === full ? full : join(realPath(folder), basename(full));
  }
}

/** Whether there is a folder at `path`. */
export function isFolder(path: string): boolean {
  return statOf(path)?.isDirectory() ?? false;
}

/** Bytes of the file at `path`, or undefined when there is no file. */
export function fileSize(path: string): number | undefined {
  const stat = statOf(path);
  return stat?.isFile() ? stat.size : undefined;
}

/** When the file at `path` was last written, in milliseconds since 1970; undefined when there is no file. */
export function writtenAt(path: string): number | undefined {
  const stat = statOf(path);
  return stat?.isFile() ? stat.mtimeMs : undefined;
}

/** What is at `path`; undefined where there is nothing, or nothing can be, e.g. below a file. */
export function statOf(path: string): fs.Stats | undefined {
  try {
    return fs.statSync(path);
  } catch {
    return undefined;
  }
}

/** Whether there is a link at `path`, wherever it leads. */
export function isLink(path: string): boolean {
  try {
    return fs.lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

/** Whether the last name of a path, with slashes, begins with a dot: such belong to tools, not to a model. */
export function isHidden(path: string): boolean {
  return path.slice(path.lastIndexOf("/") + 1).startsWith(".");
}
