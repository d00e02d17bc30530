/**
 * Folders, and what is done with their entries as they are.
 * @module
 */
import * as fs from "node:fs";
import { join, sep } from "node:path";
import { readError, writeError } from "./file_errors.ts";
import { fileSize, isLink, realPath, statOf } from "./paths.ts";

/** Names in a folder, sorted, so that work does not depend on the order of the file system. */
export function listFolder(path: string): { name: string; kind: "file" | "folder" | "other" }[] {
  let names: string[];
  try {
    names = fs.readdirSync(path);
  } catch (cause) {
    throw readError(path, cause);
  }
  return names.sort().map((name) => {
    // stat, not lstat: the hub's cache keeps files as links to its blobs.
    const stat = statOf(join(path, name));
    return { name, kind: stat?.isFile() ? "file" : stat?.isDirectory() ? "folder" : "other" };
  });
}

/**
 * Paths of all files in a folder and below, sorted, with slashes. Links are followed but for those to a folder that
 * they lie in: it would be found in itself, as often as the system follows links.
 *
 * @param isLeftOut Says of a path, of a folder's too, that neither it nor what is below is wanted.
 * @param follows Says of a link, and of where it ends, whether it counts.
 */
export function pathsIn(
  folder: string,
  isLeftOut: (path: string) => boolean = () => false,
  follows: (path: string, target: string, isFolder: boolean) => boolean = () => true,
): string[] {
  const walk = (below: string, above: readonly string[]): string[] => {
    const around = [...above, join(realPath(join(folder, below)), sep)];
    return listFolder(join(folder, below)).flatMap(({ name, kind }) => {
      const path = `${below}${name}`;
      if (kind === "other" || isLeftOut(path)) return [];
      const target = isLink(join(folder, path)) ? realPath(join(folder, path)) : undefined;
      if (target !== undefined && !follows(path, target, kind === "folder")) return [];
      if (kind === "file") return [path];
      const real = join(target ?? realPath(join(folder, path)), sep);
      return around.some((one) => one.startsWith(real)) ? [] : walk(`${path}/`, around);
    });
  };
  return walk("", []);
}

/** Bytes of all files in a folder and below. */
export function bytesIn(folder: string): number {
  return pathsIn(folder).reduce((sum, path) => sum + (fileSize(join(folder, path)) ?? 0), 0);
}

/** Makes a folder and the folders above it. */
export function makeFolder(path: string): void {
  try {
    fs.mkdirSync(path, { recursive: true });
  } catch (cause) {
    throw writeError(path, cause);
  }
}

/** Moves a file or a folder, on one device; a file that is there is replaced. */
export function move(from: string, to: string): void {
  try {
    fs.renameSync(from, to);
  } catch (cause) {
    throw writeError(to, cause);
  }
}

/**
 * Removes a file or a folder with all that is in it; nothing happens when it is not there.
 *
 * @throws {FileWriteError} When it cannot be removed.
 */
export function remove(path: string): void {
  try {
    fs.rmSync(path, { recursive: true, force: true });
  } catch (cause) {
    throw writeError(path, cause);
  }
}
