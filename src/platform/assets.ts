/** Files that come with the program. @module */
import { FileReadError } from "../errors.ts";
import { builtinModule } from "./builtin.ts";

/** Readers of files that lie in the program itself, by the end of their address. */
const carried = new Map<string, () => Promise<Uint8Array<ArrayBuffer>>>();

/**
 * Has a file taken from the program itself: a binary has no files beside its modules.
 *
 * @param name The end of its address, e.g. `wasm/simd.wasm`.
 */
export function carryAsset(name: string, read: () => Promise<Uint8Array<ArrayBuffer>>): void {
  carried.set(name, read);
}

/**
 * Reads a file that lies beside a module.
 *
 * @param url Made with `new URL(name, import.meta.url)`.
 * @throws {FileReadError} When it cannot be read.
 */
export async function readAsset(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  for (const [name, read] of carried) {
    if (url.pathname.endsWith(`/${name}`)) return await read();
  }
  try {
    if (url.protocol === "file:") {
      const { readFile } = await builtinModule<typeof import("node:fs/promises")>(
        "node:fs/promises",
      );
      return new Uint8Array(await readFile(url));
    }
    const response = await fetch(url);
    if (response.ok) return new Uint8Array(await response.arrayBuffer());
    throw new Error(`the server says ${response.status}`);
  } catch (cause) {
    const what = cause instanceof Error ? cause.message : String(cause);
    throw new FileReadError(`cannot read ${url.protocol}//${url.host}${url.pathname}: ${what}`, {
      cause,
    });
  }
}
