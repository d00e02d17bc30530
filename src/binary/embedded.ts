/**
 * Files inside a binary of Bun.
 * @module
 */

import { existsSync } from "node:fs";
import { readPlaces } from "./places.ts";

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

/** The running binary's own file, even when it has been moved or replaced. */
const OWN_FILE = "/proc/self/exe";

/**
 * Files that Bun put into the binary, the large ones as ranges of the binary's file.
 *
 * @param files What imports gave, by any names.
 * @param places What the import of the file with places gave.
 */
export async function embeddedFiles(
  files: Readonly<Record<string, string>>,
  places: string | undefined,
): Promise<Record<string, Blob>> {
  const known = places === undefined || !existsSync(OWN_FILE)
    ? {}
    : readPlaces(await embeddedBytes(places));
  return Object.fromEntries(
    Object.entries(files).map(([name, path]) => {
      const place = known[name];
      const blob = place
        ? embeddedFile(OWN_FILE).slice(place.offset, place.offset + place.bytes)
        : embeddedFile(path);
      return [name, blob];
    }),
  );
}
