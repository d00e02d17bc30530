/**
 * SHA-256 of files on this machine, in one pass.
 * @module
 */
import { createHash } from "node:crypto";
import { PositionedFile } from "./positioned_file.ts";
import { atOnce, type Steps } from "./steps.ts";

/** Hashes of a file, in hexadecimal. */
export interface FileHashes {
  readonly bytes: number;
  /** Of the whole file. */
  readonly sha256: string;
  /** Of each piece of it, one after the other. */
  readonly chunks: readonly string[];
}

/**
 * Hashes a file.
 *
 * @param path Where it is.
 * @param chunk Bytes of a piece; the last one may be shorter. So much is in memory at a time.
 * @throws {FileReadError} When it cannot be read.
 */
export function hashFile(path: string, chunk: number): FileHashes {
  return atOnce(hashFileInSteps(path, chunk));
}

/** The same, with a step for each piece. */
export function* hashFileInSteps(path: string, chunk: number): Steps<FileHashes> {
  const file = PositionedFile.open(path, "read");
  try {
    const bytes = file.size;
    const whole = createHash("sha256");
    const chunks: string[] = [];
    const buffer = new Uint8Array(Math.min(chunk, bytes));
    for (let at = 0; at < bytes; at += chunk) {
      const piece = buffer.subarray(0, Math.min(chunk, bytes - at));
      file.read(piece, at);
      whole.update(piece);
      chunks.push(createHash("sha256").update(piece).digest("hex"));
      yield;
    }
    return { bytes, sha256: whole.digest("hex"), chunks };
  } finally {
    file.close();
  }
}
