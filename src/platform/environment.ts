/**
 * Variables of the environment, as native libraries see them.
 * @module
 */
import { createRequire } from "node:module";
import process from "node:process";
import { runtime } from "./runtime.ts";

/** Names of the C library: glibc, musl, macOS. */
const C_LIBRARIES = ["libc.so.6", "libc.so", "libSystem.dylib"];

/** As much of `bun:ffi` as is used. */
interface Ffi {
  dlopen(name: string, symbols: object): {
    symbols: { setenv(name: Uint8Array, value: Uint8Array, overwrite: number): number };
  };
}

/**
 * Sets a variable for native libraries that are loaded from now on, unless the user has set it.
 *
 * Deno and Node hand what is written to `process.env` to the system; Bun keeps it to itself.
 */
export function setForLibraries(name: string, value: string): void {
  if (process.env[name] !== undefined) return;
  process.env[name] = value;
  if (runtime().name !== "bun") return;
  const ffi = createRequire(import.meta.url)("bun:ffi") as Ffi;
  const text = (word: string) => new TextEncoder().encode(`${word}\0`);
  for (const library of C_LIBRARIES) {
    try {
      const setenv = { setenv: { args: ["ptr", "ptr", "i32"], returns: "i32" } };
      ffi.dlopen(library, setenv).symbols.setenv(text(name), text(value), 1);
      return;
    } catch {
      // Not on this system.
    }
  }
}
