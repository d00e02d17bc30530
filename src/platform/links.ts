/** Names for files that lie elsewhere, and copies that share their bytes. @module */
import * as fs from "node:fs";
import { dirname, relative } from "node:path";
import process from "node:process";
import { writeError } from "./file_errors.ts";
import { makeFolder, remove } from "./folders.ts";
import { realPath } from "./paths.ts";

/**
 * Gives a file a second name, or replaces what has that name: a relative link, as everybody who shares
 * the folder can follow; where the system makes none (Windows, mostly), a hard link or a copy.
 *
 * @throws {FileWriteError} When none of them can be made.
 */
export function linkTo(file: string, name: string): void {
  makeFolder(dirname(name));
  const pending = `${name}.${process.pid}.${crypto.randomUUID().slice(0, 8)}.part`;
  try {
    firstThatWorks([
      () => fs.symlinkSync(relative(realPath(dirname(name)), realPath(file)), pending),
      () => fs.linkSync(file, pending),
      () => fs.copyFileSync(file, pending),
    ]);
    fs.renameSync(pending, name);
  } catch (cause) {
    remove(pending);
    throw writeError(name, cause);
  }
}

/**
 * Copies a file's content; the copy shares the bytes on the device until one of them is written to,
 * where the file system can do that. The call does not hold up the event loop.
 *
 * @throws {DiskFullError} When there is no room.
 * @throws {FileWriteError} When it cannot be written for another reason.
 */
export async function cloneFile(from: string, to: string): Promise<void> {
  makeFolder(dirname(to));
  try {
    await fs.promises.copyFile(from, to, fs.constants.COPYFILE_FICLONE);
    fs.chmodSync(to, 0o644);
  } catch (cause) {
    throw writeError(to, cause);
  }
}

function firstThatWorks(ways: readonly (() => void)[]): void {
  for (const [i, way] of ways.entries()) {
    try {
      return way();
    } catch (error) {
      if (i === ways.length - 1) throw error;
    }
  }
}
