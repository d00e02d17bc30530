/**
 * Files that are read and written at positions.
 *
 * `node:fs` is the one file API that Deno, Bun and Node share. Calls are synchronous: a checkpoint is
 * read between two runs of ONNX Runtime, where nothing else could run, and a synchronous read costs
 * no promise for each of many small tensors.
 * @module
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { FileReadError } from "../errors.ts";
import {
  elsewhereThan,
  noFile,
  readError,
  TEMPORARY_ELSEWHERE,
  writeError,
} from "./file_errors.ts";
import { remove } from "./folders.ts";
import { exists, fileSize } from "./paths.ts";

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
   * @param mode `read` an existing file, `update` one in place, `create` a new, empty one, or a
   *   `temporary` one where there is none, for nobody else.
   * @param elsewhere How a message says where else there may be room for it.
   * @returns The open file; call {@linkcode close} when done.
   * @throws {FileReadError} When a file to read cannot be opened.
   * @throws {FileWriteError} When a file to write cannot be opened.
   */
  static open(
    path: string,
    mode: "read" | "update" | "create" | "temporary",
    elsewhere: string = elsewhereThan(path),
  ): PositionedFile {
    const flags = { read: "r", update: "r+", create: "w+", temporary: "wx+" }[mode];
    // To open a pipe waits for whoever writes to it, and Ctrl-C does not end that.
    if (mode === "read" && fileSize(path) === undefined && exists(path)) throw noFile(path);
    try {
      return new PositionedFile(
        path,
        fs.openSync(path, flags, mode === "temporary" ? 0o600 : 0o666),
        elsewhere,
      );
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
 * A file without a name, in the system's folder for temporary files (`TMPDIR`): it is gone when it is
 * closed, or when the process ends in whatever way.
 *
 * @param purpose Part of its name for as long as it has one.
 */
export function temporaryFile(purpose: string): PositionedFile {
  // Nobody can guess the name: the folder is for all users, and for other containers that have it.
  const path = join(tmpdir(), `espalier-${purpose}-${process.pid}-${crypto.randomUUID()}`);
  const file = PositionedFile.open(path, "temporary", TEMPORARY_ELSEWHERE);
  try {
    fs.unlinkSync(path);
  } catch {
    // Windows keeps the name of an open file: it goes when the process ends.
    process.on("exit", () => remove(path));
  }
  return file;
}
