/**
 * Where large files lie in a binary, so that they can be read from its file.
 *
 * Bun maps a binary into memory, and what is read through its own files stays there as long as the system
 * likes: for a model, which is copied out once, that is as much memory again. So `bundle` looks where Bun
 * has put each, and writes that into a file which it kept room with. Where there are no places, as on
 * systems that sign programs, Bun's files are read.
 *
 * @module
 */
import * as fs from "node:fs";

/** Bytes that are kept for places. */
const ROOM = 4096;
/** What it begins with, before and after. */
const EMPTY = "espalier: room for places\n";
const FULL = "espalier: places\n";
/** Bytes of a file that it is looked for by. */
const HEAD = 4096;
/** Bytes that are looked through at a time. */
const PIECE = 16 << 20;

/** A range of the binary's file. */
export interface FilePlace {
  readonly offset: number;
  readonly bytes: number;
}

/** What keeps room for places. */
export function emptyPlaces(): Uint8Array {
  return new TextEncoder().encode(EMPTY.padEnd(ROOM, "."));
}

/** Reads places; nothing where none were written. */
export function readPlaces(bytes: Uint8Array): Readonly<Record<string, FilePlace>> {
  const text = new TextDecoder().decode(bytes);
  return text.startsWith(FULL) ? JSON.parse(text.slice(FULL.length)) : {};
}

/**
 * Writes the places of files into a binary.
 *
 * A file that is not found as a whole has none, nor has any when they need more room than there is.
 *
 * @param files Paths in the model, and where they are.
 */
export function writePlaces(
  binary: string,
  files: readonly { readonly path: string; readonly file: string }[],
): void {
  const descriptor = fs.openSync(binary, "r+");
  try {
    const room = find(descriptor, emptyPlaces());
    if (room === undefined) return;
    const places: Record<string, FilePlace> = {};
    for (const { path, file } of files) {
      const offset = placeOf(descriptor, file);
      if (offset !== undefined) places[path] = { offset, bytes: fs.statSync(file).size };
    }
    const bytes = new TextEncoder().encode((FULL + JSON.stringify(places)).padEnd(ROOM));
    if (bytes.length === ROOM) fs.writeSync(descriptor, bytes, 0, ROOM, room);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Where a file lies in a binary, compared to its end. */
function placeOf(binary: number, path: string): number | undefined {
  const file = fs.openSync(path, "r");
  try {
    const { size } = fs.fstatSync(file);
    const offset = find(binary, readPiece(file, 0, Math.min(HEAD, size)));
    for (let at = 0; offset !== undefined && at < size; at += PIECE) {
      const piece = readPiece(file, at, Math.min(PIECE, size - at));
      if (!piece.equals(readPiece(binary, offset + at, piece.length))) return undefined;
    }
    return offset;
  } finally {
    fs.closeSync(file);
  }
}

/** Where bytes are for the first time. */
function find(file: number, bytes: Uint8Array): number | undefined {
  const { size } = fs.fstatSync(file);
  // Pieces overlap by what may lie across their ends.
  for (let at = 0; at < size; at += PIECE) {
    const found = readPiece(file, at, Math.min(PIECE + bytes.length, size - at)).indexOf(bytes);
    if (found >= 0) return at + found;
  }
  return undefined;
}

/** Reads bytes, as many as there are. */
function readPiece(file: number, offset: number, length: number): Buffer {
  const piece = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const read = fs.readSync(file, piece, done, length - done, offset + done);
    if (read === 0) break;
    done += read;
  }
  return piece.subarray(0, done);
}
