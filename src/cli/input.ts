/**
 * Standard input.
 * @module
 */
import process from "node:process";

/**
 * All of it, as text.
 *
 * @param largest Bytes.
 * @param tooLong The error for more than that; no more is read then.
 */
export async function readInput(largest: number, tooLong: () => Error): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of process.stdin) {
    size += part.length;
    if (size > largest) throw tooLong();
    parts.push(part);
  }
  return new TextDecoder().decode(await new Blob(parts as BlobPart[]).arrayBuffer());
}
