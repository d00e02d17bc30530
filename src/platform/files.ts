/**
 * Files that are read and written as a whole, errors with a cause.
 * @module
 */
import * as fs from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { FileReadError, FileWriteError } from "../errors.ts";
import { messageOf, noFile, readError, writeError } from "./file_errors.ts";
import { remove } from "./folders.ts";
import { fileSize, isFolder, realPath, statOf } from "./paths.ts";

/**
 * Reads a whole text file.
 *
 * @param path Where it is.
 * @param largest Bytes above which the file is refused instead of being read into memory.
 * @throws {FileReadError} When it cannot be read, is too large, or is not UTF-8.
 */
export function readText(path: string, largest: number): string {
  const size = fileSize(path);
  if (size === undefined) throw noFile(path);
  if (size > largest) {
    throw new FileReadError(`${path} has ${size} bytes; at most ${largest} are read for this use`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(fs.readFileSync(path));
  } catch (cause) {
    if (cause instanceof TypeError) {
      throw new FileReadError(`${path} is not UTF-8 text`, { cause });
    }
    throw readError(path, cause);
  }
}

/** Levels of arrays and objects: what walks through values, or writes them, must not exhaust the stack. */
const DEEPEST = 500;

/** Reads and parses a JSON file, of {@linkcode DEEPEST} levels at most; see {@linkcode readText}. */
export function readJson(path: string, largest: number): unknown {
  const text = readText(path, largest);
  if (isDeep(text)) {
    throw new FileReadError(`${path} has values that are nested more than ${DEEPEST} levels deep`);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FileReadError(`${path} is not valid JSON: ${messageOf(cause)}`, { cause });
  }
}

/** Whether a text, if it is JSON, has more levels than {@linkcode DEEPEST}. */
function isDeep(text: string): boolean {
  let [depth, quoted] = [0, false];
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (quoted) {
      if (unit === 0x5c) i++;
      else if (unit === 0x22) quoted = false;
    } else if (unit === 0x22) quoted = true;
    else if (unit === 0x5b || unit === 0x7b) {
      if (++depth > DEEPEST) return true;
    } else if (unit === 0x5d || unit === 0x7d) depth--;
  }
  return false;
}

/** Reads a whole file of bytes. */
export function readBytes(path: string): Uint8Array {
  if (fileSize(path) === undefined) throw noFile(path);
  try {
    return fs.readFileSync(path);
  } catch (cause) {
    throw readError(path, cause);
  }
}

/** Writes a whole text file. */
export function writeText(path: string, text: string): void {
  try {
    fs.writeFileSync(path, text);
  } catch (cause) {
    throw writeError(path, cause);
  }
}

/**
 * Replaces a text file, or makes it; never a half of it. One that is there stays where it is, behind links, and
 * whoever could read it can.
 *
 * @param options `private`: a new one is for its owner's eyes only, which is the default.
 * @throws {FileWriteError} When it cannot be written.
 */
export function replaceText(
  path: string,
  text: string,
  options: { private: boolean } = { private: true },
): void {
  const file = realPath(path);
  const pending = pendingOf(file);
  const former = statOf(file);
  assertPlain(path, former);
  try {
    // No mode is not 0o666: what is given, Deno sets whatever the umask says.
    fs.writeFileSync(pending, text, options.private ? { mode: 0o600 } : {});
    if (former) giveTo(pending, former);
    fs.renameSync(pending, file);
  } catch (cause) {
    remove(pending);
    throw writeError(path, cause);
  }
}

/** Refuses to put a file in the place of a folder, a device or a pipe. */
function assertPlain(path: string, former: { isFile(): boolean } | undefined): void {
  if (former === undefined || former.isFile()) return;
  throw new FileWriteError(`cannot write ${path}: it is there, and is no file: name another place`);
}

/** Where a file's new content stands until it is whole: processes of two containers may have the same number. */
function pendingOf(file: string): string {
  return `${file}.${process.pid}.${crypto.randomUUID().slice(0, 8)}.part`;
}

/**
 * Checks that {@linkcode replaceText} will be able to write a file, before work begins whose result goes there.
 *
 * @throws {FileWriteError} When it cannot be written.
 */
export function assertReplaceable(path: string): void {
  const file = realPath(path);
  assertPlain(path, statOf(file));
  if (!isFolder(dirname(file))) {
    throw new FileWriteError(
      `cannot write ${path}: there is no folder ${dirname(file)}: make it, or name another place`,
    );
  }
  const pending = pendingOf(file);
  try {
    fs.writeFileSync(pending, "");
  } catch (cause) {
    throw writeError(path, cause);
  } finally {
    remove(pending);
  }
}

/** Gives a file to the owner of another, as far as the system lets us, and to whom it is open. */
function giveTo(path: string, { uid, gid, mode }: fs.Stats): void {
  try {
    fs.chownSync(path, uid, gid);
  } catch {
    // It is ours then.
  }
  fs.chmodSync(path, mode & 0o777);
}

/** Writes a whole file of bytes. */
export function writeBytes(path: string, bytes: Uint8Array): void {
  try {
    fs.writeFileSync(path, bytes);
  } catch (cause) {
    throw writeError(path, cause);
  }
}

/** Copies one file's content; links are followed, permissions are not kept. */
export function copyFile(from: string, to: string): void {
  try {
    // The error of a copy does not say which of the two it is about.
    fs.closeSync(fs.openSync(from, "r"));
  } catch (cause) {
    throw readError(from, cause);
  }
  try {
    fs.copyFileSync(from, to);
    fs.chmodSync(to, 0o644);
  } catch (cause) {
    throw writeError(to, cause);
  }
}
