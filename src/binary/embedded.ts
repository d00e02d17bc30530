/**
 * Files inside a binary of Bun.
 * @module
 */

/** As much of Bun as is used. */
interface BunFiles {
  file(path: string): Blob;
}

/**
 * A file that Bun put into the binary. Nothing of it is in memory until it is read, and then what was
 * read.
 *
 * @param path What `import path from "…" with { type: "file" }` gave.
 */
export function embeddedFile(path: string): Blob {
  return (globalThis as unknown as { Bun: BunFiles }).Bun.file(path);
}

/** Reads such a file whole. */
export async function embeddedBytes(path: string): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await embeddedFile(path).arrayBuffer());
}
