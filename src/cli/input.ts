/**
 * Standard input.
 * @module
 */
import process from "node:process";
import { AbortError, FileReadError } from "../errors.ts";
import { readError } from "../platform/file_errors.ts";

/**
 * Standard input.
 *
 * @throws {FileReadError} When there is none, as where it is a folder.
 */
export function standardInput(): typeof process.stdin {
  try {
    return process.stdin;
  } catch (cause) {
    throw inputError(cause);
  }
}

/** The error for what cannot be read of it. */
export function inputError(cause: unknown): Error {
  return readError("standard input", cause);
}

/** The error for what is no text. */
export function notUtf8(cause: unknown): FileReadError {
  return new FileReadError("standard input is not UTF-8 text", { cause });
}

/**
 * All of it, as text.
 *
 * @param largest Bytes.
 * @param tooLong The error for more than that; no more is read then.
 * @param signal Stops it.
 * @throws {AbortError} When the signal says so.
 * @throws {FileReadError} When it cannot be read, or is no text.
 */
export async function readInput(
  largest: number,
  tooLong: () => Error,
  signal: AbortSignal,
): Promise<string> {
  const bytes = await new Blob(await partsOf(largest, tooLong, signal)).arrayBuffer();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw notUtf8(cause);
  }
}

async function partsOf(
  largest: number,
  tooLong: () => Error,
  signal: AbortSignal,
): Promise<BlobPart[]> {
  const input = standardInput();
  const parts: BlobPart[] = [];
  let size = 0;
  const stop = () => void input.destroy(new AbortError("stopped before the end of input"));
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  try {
    for await (const part of input) {
      size += part.length;
      if (size > largest) break;
      parts.push(part);
    }
  } catch (cause) {
    throw cause instanceof AbortError ? cause : inputError(cause);
  } finally {
    signal.removeEventListener("abort", stop);
  }
  if (size > largest) throw tooLong();
  return parts;
}
