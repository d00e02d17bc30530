/**
 * int4 values: bytes as `docs/format.md` has them, the groups that weights are found to be rounded with,
 * and what is refused.
 * @module
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeBitmap, encodeBitmap } from "../../compile/packed/bitmap.ts";
import {
  bytesOfInt4,
  indexScales,
  int4Columns,
  lookUpScales,
  packNibbles,
  scalesOf,
  toInt4,
  unpackNibbleRows,
  unpackNibbles,
} from "../../compile/packed/int4.ts";
import { decodeNm, encodeNm } from "../../compile/packed/nm.ts";
import { narrow, widen } from "../../compile/packed/quantize.ts";
import type { Matrix } from "../../compile/packed/types.ts";
import { gridScale, type GroupColumns, roundToGrid } from "../../src/prune/int4_grid.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { thrownBy } from "../checkpoint/support.ts";

const named = { name: "w" };

/** Random weights, of which a part is kept. */
function random(rows: number, columns: number, density: number, seed = 1): Matrix {
  const next = uniformNumbers(seed);
  const values = Float32Array.from(
    { length: rows * columns },
    () => next() < density ? next() + next() + next() - 1.5 : 0,
  );
  return { ...named, rows, columns, values };
}

/** The nearest bfloat16, ties to even. */
function brain(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] = bits[0] + 0x7fff + (bits[0] >>> 16 & 1) & 0xffff0000;
  return new Float32Array(bits.buffer)[0];
}

/** Weights rounded to the grid as pruning does it: levels of 0 become pruned weights. */
function onGrid(matrix: Matrix, group: GroupColumns): Matrix {
  const { rows, columns } = matrix;
  const values = matrix.values.slice();
  for (let row = 0; row < rows; row++) {
    for (let start = 0; start < columns; start += group) {
      const part = values.subarray(
        row * columns + start,
        row * columns + Math.min(start + group, columns),
      );
      const scale = gridScale(part.filter((w) => w !== 0));
      part.forEach((w, i) => part[i] = brain(roundToGrid(w, scale)));
    }
  }
  return { ...matrix, values };
}

describe("int4", () => {
  test("has the bytes of the example in docs/format.md", () => {
    // A scale of -0.25 puts 2 at -8.
    const values = Float32Array.of(2, -1.75, 0, 0.5, 0, 0, -0.25, 0);
    const packed = encodeBitmap({ ...named, rows: 1, columns: 8, values }, {
      type: "int4",
      group: 32,
    });
    if (packed.values.type !== "int4") throw new Error("int4 was asked for");
    expect([...packed.values.data]).toEqual([0, -8, 7, -2, 1]);
    expect([...packNibbles(packed.values.data)]).toEqual([0x80, 0xe7, 0x01]);
    expect([...packed.values.scales]).toEqual([0xb400]);
    expect([...packed.bits]).toEqual([0x4b]);
    expect([...decodeBitmap(packed)]).toEqual([...values]);
  });

  test("has two levels a byte, the first in the lower half, and they come back", () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: -8, max: 7 })), (levels) => {
      const bytes = packNibbles(Int8Array.from(levels));
      expect(bytes.length).toBe(Math.ceil(levels.length / 2));
      levels.forEach((level, i) => {
        const nibble = i % 2 === 0 ? bytes[i / 2] % 16 : Math.floor(bytes[(i - 1) / 2] / 16);
        expect(nibble < 8 ? nibble : nibble - 16).toBe(level);
      });
      expect([...unpackNibbles(bytes, levels.length, named)]).toEqual(levels);
    }));
  });

  test("refuses bytes that are too few or too many, and halves after the last level", () => {
    const refused = [
      () => unpackNibbles(new Uint8Array(2), 5, named),
      () => unpackNibbles(new Uint8Array(4), 5, named),
      () => unpackNibbles(Uint8Array.of(1, 0x12), 3, named),
      () => unpackNibbleRows(Uint8Array.of(1, 2, 3), { ...named, rows: 1, columns: 3 }),
      () => unpackNibbleRows(Uint8Array.of(1, 2, 1, 0x12), { ...named, rows: 2, columns: 3 }),
    ];
    for (const read of refused) {
      expect((thrownBy(read) as Error & { code?: string }).code).toBe("PACKED_INVALID");
    }
  });

  test("takes few bytes a weight: 0.39 at 8:16, 0.53 dense", () => {
    const shape = { rows: 576, columns: 1536 };
    const weights = shape.rows * shape.columns;
    const bitmap = bytesOfInt4(shape, 64, 1 + weights / 2) + weights / 8;
    expect(bitmap / weights).toBeLessThan(0.392);
    expect(bytesOfInt4(shape, 32, weights) / weights).toBeLessThan(0.532);
  });

  test("has groups of as many columns as hold the kept weights", () => {
    expect(int4Columns(random(16, 256, 1))).toBe(32);
    expect(int4Columns(random(16, 256, 1), 64)).toBe(64);
    expect(int4Columns(random(16, 256, 0.5))).toBe(64);
    expect(int4Columns(random(16, 256, 0.5), 64)).toBe(128);
    expect(int4Columns(random(16, 256, 0.1))).toBe(128);
    expect(int4Columns({ ...named, rows: 2, columns: 3, values: new Float32Array(6) })).toBe(128);
  });

  test("takes no few weights for a grid, on which a single one of a group always lies", () => {
    const single: Matrix = { ...named, rows: 1, columns: 32, values: new Float32Array(32) };
    single.values[7] = 0.3;
    expect(int4Columns(single, 1)).toBe(32);
  });

  test("counts no scale of a group that has no weights", () => {
    const matrix = random(2, 64, 1);
    matrix.values.fill(0, 32, 64);
    const scales = scalesOf(matrix, 32);
    expect([...scales].map((scale) => scale === 0)).toEqual([false, true, false, false]);
  });

  test("finds the groups that weights were rounded with, and loses nothing of them", () => {
    for (const density of [1, 0.5, 0.25]) {
      for (const group of [32, 64, 128] as const) {
        for (const columns of [256, 200]) {
          const rounded = onGrid(random(24, columns, density, group + columns), group);
          expect(int4Columns(rounded)).toBe(group);
          const found = widen(narrow(rounded, { type: "int4" }), rounded);
          found.forEach((value, i) => {
            const wanted = rounded.values[i];
            // bfloat16's rounding of the weight, or another grid as near to what it left.
            expect(Math.abs(value - wanted)).toBeLessThanOrEqual(2 ** -7 * Math.abs(wanted));
          });
        }
      }
    }
  });

  test("stores a matrix that lies on a grid in the same levels in every format", () => {
    const matrix = onGrid(random(8, 128, 0.4), 64);
    const wanted = widen(narrow(matrix, { type: "int4", group: 64 }), matrix);
    const options = { type: "int4", group: 64 } as const;
    expect([...decodeBitmap(encodeBitmap(matrix, options))]).toEqual([...wanted]);
    expect([...decodeNm(encodeNm(matrix, { n: 32, m: 32 }, options))]).toEqual([...wanted]);
  });

  test("has its scales in a table of 256, and they come back", () => {
    const scale = fc.integer({ min: 0, max: 199 }).map((n) => 0x2000 + 7 * n);
    fc.assert(fc.property(fc.array(scale), (scales) => {
      const { indices, table } = indexScales(Uint16Array.from(scales));
      expect(table.length).toBe(256);
      expect([...indices].map((index) => table[index])).toEqual(scales);
      const used = new Set(scales).size;
      expect([...table.subarray(0, used)]).toEqual([...new Set(scales)].sort((a, b) => a - b));
      expect([...table.subarray(used)]).toEqual(new Array(256 - used).fill(0x3c00));
      expect([...lookUpScales({ indices, table }, named)]).toEqual(scales);
    }));
    const most = Uint16Array.from({ length: 256 }, (_, i) => i + 1);
    expect([...lookUpScales(indexScales(most), named)]).toEqual([...most]);
    const error = thrownBy(() => indexScales(Uint16Array.of(...most, 999))) as { code?: string };
    expect(error.code).toBe("FORMAT_UNFIT");
    const short = { indices: Uint8Array.of(3), table: new Uint16Array(255) };
    expect((thrownBy(() => lookUpScales(short, named)) as { code?: string }).code)
      .toBe("PACKED_INVALID");
  });

  test("raises scales that a matrix has no room for, and keeps the 128 greatest magnitudes", () => {
    // 300 groups of 32 whose scales are 300 steps of 2^(1/16), of both signs.
    const rows = 300;
    const values = new Float32Array(rows * 32);
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < 16; i++) {
        values[row * 32 + i] = (row % 2 ? 1 : -1) * (i - 8) * 2 ** (-row / 16);
      }
    }
    const matrix = { ...named, rows, columns: 32, values };
    const stored = toInt4(matrix, 32);
    if (stored.type !== "int4") throw new Error("int4 was asked for");
    expect(new Set(stored.scales.map((bits) => bits & 0x7fff)).size).toBe(128);
    expect(indexScales(stored.scales).indices.length).toBe(rows);
    const found = widen(stored, matrix);
    for (let i = 0; i < values.length; i++) {
      const row = Math.floor(i / 32);
      // float16 fractions of 2^(k/16); behind the 128th, half a step of the least scale.
      const bound = row < 128 ? 2 ** -10 * Math.abs(values[i]) : 0.51 * 2 ** (-127 / 16);
      expect(Math.abs(found[i] - values[i])).toBeLessThanOrEqual(bound);
    }
    const empty = toInt4({ ...matrix, values: new Float32Array(rows * 32) }, 32);
    expect(empty).toMatchObject({ scales: new Uint16Array(rows).fill(0x3c00) });
  });

  test("keeps small weights as well as great ones", () => {
    const matrix = random(16, 128, 0.5);
    const lost = (part: number) => {
      const values = matrix.values.map((w) => w * part);
      const found = widen(narrow({ ...matrix, values }, { type: "int4" }), matrix);
      let error = 0, squares = 0;
      values.forEach((w, i) => {
        error += (w - found[i]) ** 2;
        squares += w * w;
      });
      return error / squares;
    };
    // Weights of 1.5 at most. The last ones have scales of which there are only some.
    for (const exponent of [-8, -12, -16, -18]) {
      expect(lost(2 ** exponent)).toBeLessThan(lost(1) * 1.1);
    }
  });

  test("refuses groups that it has not, and weights that are too great for its scales", () => {
    const matrix = random(2, 64, 1);
    for (const group of [0, 16, 48, 256, NaN]) {
      const error = thrownBy(() => toInt4(matrix, group)) as Error & { code?: string };
      expect(error.code).toBe("FORMAT_UNFIT");
    }
    const values = matrix.values.slice();
    values[70] = 502017;
    const error = thrownBy(() => toInt4({ ...matrix, values }, 32)) as Error & { code?: string };
    expect(error.code).toBe("FORMAT_UNFIT");
    expect(error.message).toContain("502017 at row 1, column 6");
    values[70] = 502016;
    expect(widen(toInt4({ ...matrix, values }, 32), matrix)[70]).toBe(502016);
  });
});
