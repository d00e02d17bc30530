/**
 * Standard input.
 * @module
 */
import process from "node:process";
import { AbortError } from "../errors.ts";

/**
 * All of it, as text.
 *
 * @param largest Bytes.
 * @param tooLong The error for more than that; no more is read then.
 * @param signal Stops it.
 * @throws {AbortError} When the signal says so.
 */
export async function readInput(
  largest: number,
  tooLong: () => Error,
  signal: AbortSignal,
): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  const stop = () => void process.stdin.destroy(new AbortError("stopped before the end of input"));
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  try {
    for await (const part of process.stdin) {
      size += part.length;
      if (size > largest) throw tooLong();
      parts.push(part);
    }
  } finally {
    signal.removeEventListener("abort", stop);
  }
  return new TextDecoder().decode(await new Blob(parts as BlobPart[]).arrayBuffer());
}
