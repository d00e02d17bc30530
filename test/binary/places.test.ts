/** Where large files lie in a binary: written by `bundle`, read by the binary. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { emptyPlaces, readPlaces, writePlaces } from "../../src/binary/places.ts";
import { Workshop } from "../checkpoint/support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** Bytes by chance, the same for the same seed. */
function bytesOf(seed: number, length: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = Math.imul(state, 1664525) + 1013904223 | 0;
    return state >>> 24;
  });
}

/** A binary with the room and a file in it, and `between` bytes before each. */
function makeBinary(file: Uint8Array, between: number, room = emptyPlaces()) {
  const folder = workshop.folder();
  const binary = join(folder, "binary");
  const path = join(folder, "file");
  const filler = bytesOf(3, between);
  writeFileSync(binary, Buffer.concat([filler, room, filler, file, filler]));
  writeFileSync(path, file);
  return { binary, path, room: between, offset: 2 * between + room.length };
}

/** What the room in a binary says. */
function placesIn(binary: string, at: number) {
  return readPlaces(readFileSync(binary).subarray(at, at + emptyPlaces().length));
}

describe("places", () => {
  test("say where a file lies, to the byte, and change nothing else", () => {
    for (const between of [1, 4095, 1_000_003]) {
      const { binary, path, room, offset } = makeBinary(bytesOf(7, 100_000), between);
      const before = readFileSync(binary);
      writePlaces(binary, [{ path: "onnx/model.onnx_data", file: path }]);
      expect(placesIn(binary, room)).toEqual({
        "onnx/model.onnx_data": { offset, bytes: 100_000 },
      });
      const after = readFileSync(binary);
      after.set(emptyPlaces(), room);
      expect(after.equals(before)).toBe(true);
    }
  });

  test("are found across the ends of the pieces that are looked through", () => {
    // A piece has 16 MiB: the head of the file lies across its end.
    const between = ((16 << 20) - 4096 - 2048) / 2;
    const { binary, path, room, offset } = makeBinary(bytesOf(9, 50_000), between);
    expect(offset).toBe((16 << 20) - 2048);
    writePlaces(binary, [{ path: "x", file: path }]);
    expect(placesIn(binary, room)).toEqual({ x: { offset, bytes: 50_000 } });
  });

  test("leave out a file that only begins like what is there", () => {
    const { binary, path, room } = makeBinary(bytesOf(7, 100_000), 100);
    const other = bytesOf(7, 100_000);
    other[99_999] ^= 1;
    writeFileSync(path, other);
    writePlaces(binary, [{ path: "x", file: path }]);
    expect(placesIn(binary, room)).toEqual({});
  });

  test("are not written where there is no room, or too little", () => {
    const { binary, path } = makeBinary(bytesOf(7, 100_000), 100, new Uint8Array(4096));
    const before = readFileSync(binary);
    writePlaces(binary, [{ path: "x", file: path }]);
    expect(readFileSync(binary).equals(before)).toBe(true);

    const full = makeBinary(bytesOf(7, 100_000), 100);
    const files = Array.from({ length: 100 }, (_, i) => ({
      path: `onnx/a rather long name of a file ${i}`,
      file: full.path,
    }));
    writePlaces(full.binary, files);
    expect(placesIn(full.binary, full.room)).toEqual({});
  });

  test("that were not written are none", () => {
    expect(readPlaces(emptyPlaces())).toEqual({});
  });
});
