/**
 * Files, as the rest of the project sees them: read and written at positions, errors with a cause.
 *
 * `node:fs` is the one file API that Deno, Bun and Node share. Calls are synchronous: a checkpoint is
 * read between two runs of ONNX Runtime, where nothing else could run, and a synchronous read costs
 * no promise for each of many small tensors.
 * @module
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve, sep } from "node:path";
import process from "node:process";
import { DiskFullError, type EspalierError, FileReadError, FileWriteError } from "../errors.ts";

/** One read or write of the system: below the 2 GiB that some runtimes refuse. */
const LARGEST_TRANSFER = 1 << 30;

/** A file that is read and written at byte positions. */
export class PositionedFile {
  readonly #descriptor: number;
  readonly #elsewhere: string;
  #open = true;

  private constructor(readonly path: string, descriptor: number, elsewhere: string) {
    this.#descriptor = descriptor;
    this.#elsewhere = elsewhere;
  }

  /**
   * Opens a file.
   *
   * @param path Where it is.
   * @param mode `read` an existing file, `update` one in place, or `create` a new, empty one.
   * @param elsewhere How a message says where else there may be room for it.
   * @returns The open file; call {@linkcode close} when done.
   * @throws {FileReadError} When a file to read cannot be opened.
   * @throws {FileWriteError} When a file to write cannot be opened.
   */
  static open(
    path: string,
    mode: "read" | "update" | "create",
    elsewhere: string = elsewhereThan(path),
  ): PositionedFile {
    const flags = { read: "r", update: "r+", create: "w+" }[mode];
    // To open a pipe waits for whoever writes to it, and Ctrl-C does not end that.
    if (mode === "read" && fileSize(path) === undefined && exists(path)) throw noFile(path);
    try {
      return new PositionedFile(path, fs.openSync(path, flags), elsewhere);
    } catch (cause) {
      throw mode === "read" ? readError(path, cause) : writeError(path, cause, elsewhere);
    }
  }

  /** Bytes in the file now. */
  get size(): number {
    return fs.fstatSync(this.#descriptor).size;
  }

  /**
   * Fills `target` with the bytes from `position` on.
   *
   * @throws {FileReadError} When the file ends before `target` is full, or cannot be read.
   */
  read(target: Uint8Array, position: number): void {
    let done = 0;
    while (done < target.length) {
      const wanted = Math.min(target.length - done, LARGEST_TRANSFER);
      let got: number;
      try {
        got = fs.readSync(this.#descriptor, target, done, wanted, position + done);
      } catch (cause) {
        throw readError(this.path, cause);
      }
      if (got === 0) {
        throw new FileReadError(
          `${this.path} ends at byte ${position + done}, inside data that should reach byte ${
            position + target.length
          }: the file was truncated; fetch it again`,
        );
      }
      done += got;
    }
  }

  /**
   * Writes all of `source` at `position`.
   *
   * @throws {DiskFullError} When there is no room.
   * @throws {FileWriteError} When it cannot be written for another reason.
   */
  write(source: Uint8Array, position: number): void {
    let done = 0;
    while (done < source.length) {
      const wanted = Math.min(source.length - done, LARGEST_TRANSFER);
      try {
        done += fs.writeSync(this.#descriptor, source, done, wanted, position + done);
      } catch (cause) {
        throw writeError(this.path, cause, this.#elsewhere);
      }
    }
  }

  /**
   * Waits until all that was written is on the device: after a power cut it is still there.
   *
   * @throws {DiskFullError} When there is no room after all.
   * @throws {FileWriteError} When it cannot be written for another reason.
   */
  flush(): void {
    try {
      fs.fsyncSync(this.#descriptor);
    } catch (cause) {
      throw writeError(this.path, cause);
    }
  }

  /** Closes the file; a second call does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    fs.closeSync(this.#descriptor);
  }
}

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

/** Reads and parses a JSON file; see {@linkcode readText}. */
export function readJson(path: string, largest: number): unknown {
  const text = readText(path, largest);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FileReadError(`${path} is not valid JSON: ${messageOf(cause)}`, { cause });
  }
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

/** Where a file's new content stands until it is whole. */
function pendingOf(file: string): string {
  return `${file}.${process.pid}.part`;
}

/**
 * Checks that {@linkcode replaceText} will be able to write a file, before work begins whose result goes there.
 *
 * @throws {FileWriteError} When it cannot be written.
 */
export function assertReplaceable(path: string): void {
  const file = realPath(path);
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
 */
export function pathsIn(
  folder: string,
  isLeftOut: (path: string) => boolean = () => false,
): string[] {
  const walk = (below: string, above: readonly string[]): string[] => {
    const around = [...above, join(realPath(join(folder, below)), sep)];
    return listFolder(join(folder, below)).flatMap(({ name, kind }) => {
      const path = `${below}${name}`;
      if (kind === "other" || isLeftOut(path)) return [];
      if (kind === "file") return [path];
      const real = join(realPath(join(folder, path)), sep);
      return around.some((one) => one.startsWith(real)) ? [] : walk(`${path}/`, around);
    });
  };
  return walk("", []);
}

/** Whether the last name of a path, with slashes, begins with a dot: such belong to tools, not to a model. */
export function isHidden(path: string): boolean {
  return path.slice(path.lastIndexOf("/") + 1).startsWith(".");
}

/** Bytes of all files in a folder and below. */
export function bytesIn(folder: string): number {
  return pathsIn(folder).reduce((sum, path) => sum + (fileSize(join(folder, path)) ?? 0), 0);
}

/** Copies one file's content; links are followed, permissions are not kept. */
export function copyFile(from: string, to: string): void {
  try {
    fs.copyFileSync(from, to);
    fs.chmodSync(to, 0o644);
  } catch (cause) {
    throw writeError(to, cause);
  }
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

/**
 * A file without a name, in the system's folder for temporary files (`TMPDIR`): it is gone when it is
 * closed, or when the process ends in whatever way.
 *
 * @param purpose Part of its name for as long as it has one.
 */
export function temporaryFile(purpose: string): PositionedFile {
  const path = join(tmpdir(), `espalier-${purpose}-${process.pid}-${temporaryCount++}`);
  const file = PositionedFile.open(path, "create", TEMPORARY_ELSEWHERE);
  try {
    fs.unlinkSync(path);
  } catch {
    // Windows keeps the name of an open file: it goes when the process ends.
    process.on("exit", () => remove(path));
  }
  return file;
}
let temporaryCount = 0;

/** What is at `path`; undefined where there is nothing, or nothing can be, e.g. below a file. */
export function statOf(path: string): fs.Stats | undefined {
  try {
    return fs.statSync(path);
  } catch {
    return undefined;
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message.split("\n")[0] : String(cause);
}

function systemCode(cause: unknown): string | undefined {
  return (cause as { code?: string } | null)?.code;
}

/** Whether Deno was not told to allow something. */
export function isDenial(cause: unknown): boolean {
  return (cause as { name?: string } | null)?.name === "NotCapable";
}

function readError(path: string, cause: unknown): EspalierError {
  const why: Record<string, string> = {
    ENOENT: "there is no such file",
    EACCES: "permission denied",
    EISDIR: "it is a folder",
  };
  const reason = why[systemCode(cause) ?? ""] ?? messageOf(cause);
  return new FileReadError(`cannot read ${path}: ${reason}`, { cause });
}

/** Where temporary files may have room. */
const TEMPORARY_ELSEWHERE = "set TMPDIR to a place with room";

/** Folders for temporary files, which nobody has named. */
const temporaryFolders = new Set<string>();

/** Has errors of a folder say what makes room for temporary files, until what is returned is called. */
export function markTemporary(folder: string): () => void {
  const path = resolve(folder) + sep;
  temporaryFolders.add(path);
  return () => void temporaryFolders.delete(path);
}

/** Where else there may be room for a file. */
function elsewhereThan(path: string): string {
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
