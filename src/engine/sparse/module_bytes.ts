/**
 * The kernels' bytes, for another kind of memory than they were built for. Instructions are the same: atomic ones
 * work on all kinds.
 * @module
 */
import { BackendError } from "../../errors.ts";

/** A memory that kernels import. */
export interface MemoryKind {
  /** Whether threads share it. */
  readonly shared: boolean;
  /** Pages of one that never grows; when left out it has one page at first, and grows. */
  readonly pages?: number;
}

const IMPORTS = 2;
const MEMORY = 2;
/** Flags of a memory with a maximum, that is shared or not. */
const SHARED = 3;
const UNSHARED = 1;

/**
 * The same module for another memory.
 *
 * @param bytes A module that imports nothing but a memory that is shared and grows.
 * @throws {BackendError} When it is none.
 */
export function forMemory(bytes: Uint8Array, kind: MemoryKind): Uint8Array<ArrayBuffer> {
  let at = 8;
  const number = (): number => {
    for (let value = 0, shift = 0;; shift += 7) {
      // A file that was cut off ends in zeros.
      const byte = bytes[at++] ?? 0;
      value |= (byte & 127) << shift;
      if (byte < 128) return value >>> 0;
    }
  };
  while (at < bytes.length) {
    const section = bytes[at++], afterSection = at;
    const size = number(), begin = at, end = begin + size;
    if (section !== IMPORTS) {
      at = end;
      continue;
    }
    // One import: the memory, its module and name before its kind, its flags and its limits.
    const count = number();
    for (let i = 0; i < 2; i++) {
      const length = number();
      at += length;
    }
    const flags = at + 1;
    if (count !== 1 || bytes[at++] !== MEMORY || bytes[at++] !== SHARED) break;
    const least = number(), most = number();
    if (at !== end || end > bytes.length) break;
    const body = [
      ...bytes.subarray(begin, flags),
      kind.shared ? SHARED : UNSHARED,
      ...encoded(kind.pages ?? least),
      ...encoded(kind.pages ?? most),
    ];
    const parts = [
      bytes.subarray(0, afterSection),
      encoded(body.length),
      body,
      bytes.subarray(end),
    ];
    const changed = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
    parts.reduce((to, part) => (changed.set(part, to), to + part.length), 0);
    return changed;
  }
  throw new BackendError("the kernels are damaged: they import no shared memory");
}

/**
 * The same module for a memory that is not shared: there may be no shared memory, as in pages without
 * cross-origin isolation.
 *
 * @throws {BackendError} As {@linkcode forMemory} does.
 */
export function unshared(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return forMemory(bytes, { shared: false });
}

/** An unsigned number as modules have it (LEB128). */
function encoded(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value >>>= 7) bytes.push(value & 127 | 128);
  return [...bytes, value];
}
