/**
 * Slots: what is packed comes back, byte for byte as `docs/format.md` says, and what breaks a rule is
 * refused.
 * @module
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { narrow, widen } from "../../compile/packed/quantize.ts";
import {
  bytesOfSlots,
  countSlots,
  decodeSlots,
  encodeSlots,
  fitsSlots,
  type PackedSlots,
} from "../../compile/packed/slots.ts";
import type { Matrix, ValueOptions } from "../../compile/packed/types.ts";
import { FormatUnfitError, NotFiniteError, PackedFormatError } from "../../src/errors.ts";
import { floats } from "../support/numbers.ts";

const OPTIONS: readonly ValueOptions[] = [
  { type: "f32" },
  { type: "f16" },
  { type: "int8" },
  { type: "int8", group: 5 },
];

/** Windows of every density beside each other, some of them empty or full. */
const matrices = fc.record({
  groups: fc.integer({ min: 1, max: 3 }),
  windows: fc.integer({ min: 1, max: 5 }),
}).chain(({ groups, windows }) => {
  const weights = groups * windows * 64;
  return fc.record({
    densities: fc.array(fc.constantFrom(0, 0.05, 0.3, 0.6, 1), {
      minLength: groups * windows,
      maxLength: groups * windows,
    }),
    weights: fc.array(fc.tuple(floats(-4, 4), fc.nat(99)), {
      minLength: weights,
      maxLength: weights,
    }),
  }).map(({ densities, weights }): Matrix => {
    const columns = windows * 16;
    const values = Float32Array.from(weights, ([weight, draw], i) => {
      const window = Math.floor(i / columns / 4) * windows + Math.floor(i % columns / 16);
      const kept = draw < 100 * densities[window];
      return kept ? weight || 1 : 0;
    });
    return { name: "q_proj", rows: groups * 4, columns, values };
  });
});

function bytesOf({ values, counts, masks }: PackedSlots): number {
  return values.data.byteLength + (values.type === "int8" ? values.scales.byteLength : 0) +
    counts.byteLength + masks.byteLength;
}

/** A matrix of one row group with the given windows, each four rows of 16 weights. */
function matrixOf(...windows: number[][][]): Matrix {
  const columns = 16 * windows.length;
  const values = new Float32Array(4 * columns);
  windows.forEach((rows, w) => rows.forEach((row, r) => values.set(row, r * columns + w * 16)));
  return { name: "q_proj", rows: 4, columns, values };
}

/** Sixteen weights, those given at their places and 0 elsewhere. */
function row(weights: Record<number, number>): number[] {
  return Array.from({ length: 16 }, (_, c) => weights[c] ?? 0);
}

const EMPTY = [row({}), row({}), row({}), row({})];

describe("slots", () => {
  for (const options of OPTIONS) {
    const label = options.group ? `${options.type} by ${options.group}` : options.type;
    test(`give back what was packed as ${label}, in as many bytes as they foretold`, () => {
      fc.assert(fc.property(matrices, (matrix) => {
        const packed = encodeSlots(matrix, options);
        const found = decodeSlots(packed);
        const expected = widen(narrow(matrix, options), matrix);
        expect(found.findIndex((w, i) => w !== expected[i])).toBe(-1);
        expect(found.length).toBe(expected.length);
        expect(bytesOf(packed)).toBe(bytesOfSlots(matrix, countSlots(matrix), options));
      }));
    });
  }

  test("are as many as the row with most weights of a window needs", () => {
    fc.assert(fc.property(matrices, (matrix) => {
      const { rows, columns, values } = matrix;
      let [slots, partial] = [0, 0];
      for (let r = 0; r < rows; r += 4) {
        for (let c = 0; c < columns; c += 16) {
          const kept = [0, 1, 2, 3].map((i) =>
            values.subarray((r + i) * columns + c, (r + i) * columns + c + 16)
              .filter((w) => w !== 0).length
          );
          const count = Math.ceil(Math.max(...kept) / 4);
          slots += count;
          if (count === 1 || count === 2 || count === 3) partial++;
        }
      }
      expect(countSlots(matrix)).toEqual({ slots, partial });
    }));
  });

  test("lie as docs/format.md says", () => {
    const full = Array.from({ length: 16 }, (_, i) => i + 1);
    const matrix = matrixOf(
      [row({ 1: 1.5, 3: -2 }), row({}), row({ 0: 4, 15: 2.5 }), row({ 2: 1, 4: 2, 8: 3, 9: 5 })],
      EMPTY,
      [full, row({}), row({}), row({})],
    );
    const packed = encodeSlots(matrix, { type: "f32" });
    expect([...packed.counts]).toEqual([0x01, 0x04]);
    expect(Array.from(packed.masks, (byte) => byte.toString(16)).join(" ")).toBe(
      "0 0 0 0 0 0 0 0 ff ff ff ff ff ff ff ff f 0 f 0 7 80 14 3",
    );
    expect([...packed.values.data]).toEqual([
      ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      ...[0, 1.5, 0, -2, 0, 0, 0, 0, 4, 0, 0, 2.5, 1, 2, 3, 5],
      ...[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      ...[5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      ...[9, 10, 11, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      ...[13, 14, 15, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]);
  });

  test("store zeros as +0, whichever zero they were", () => {
    const matrix = matrixOf([row({ 3: 1 }), row({}), row({}), row({})]);
    matrix.values.forEach((w, i) => matrix.values[i] = w === 0 ? -0 : w);
    for (const type of ["f32", "f16"] as const) {
      const { data } = encodeSlots(matrix, { type }).values;
      expect([...data].filter((w) => w === 0 || w === 0x8000).every((w) => Object.is(w, 0)))
        .toBe(true);
    }
  });

  test("are refused for shapes without windows, which are named with what to do", () => {
    for (const [rows, columns] of [[3, 16], [4, 15], [5, 17]]) {
      const matrix = { name: "q_proj", rows, columns, values: new Float32Array(rows * columns) };
      expect(fitsSlots(matrix)).toBe(false);
      expect(() => encodeSlots(matrix, { type: "f32" })).toThrow(FormatUnfitError);
      expect(() => encodeSlots(matrix, { type: "f32" })).toThrow("bitmap and csr take any shape");
    }
    const bad = matrixOf([row({ 1: NaN }), row({}), row({}), row({})]);
    expect(() => encodeSlots(bad, { type: "int8" })).toThrow(NotFiniteError);
  });
});

describe("damaged slots", () => {
  const whole = encodeSlots(
    matrixOf([row({ 1: 1 }), row({}), row({}), row({})], EMPTY, EMPTY),
    { type: "f32" },
  );
  const refused = (change: Partial<PackedSlots>, words: string) => {
    expect(() => decodeSlots({ ...whole, ...change })).toThrow(PackedFormatError);
    expect(() => decodeSlots({ ...whole, ...change })).toThrow(`"q_proj": ${words}`);
  };
  const changed = (bytes: Uint8Array, at: number, to: number) => bytes.with(at, to);

  test("are refused for a shape without windows", () => {
    refused({ rows: 3 }, "shape 3 × 48 has no windows");
    refused({ columns: 40 }, "shape 4 × 40 has no windows");
    refused({ rows: NaN }, "shape");
  });

  test("are refused for counts of another length, above 4, or behind the last window", () => {
    refused({ counts: Uint8Array.of(1) }, "counts has 1 elements, not 2");
    refused({ counts: Uint8Array.of(5, 0) }, "counts have 5 slots at rows 0 …, window 0");
    refused({ counts: Uint8Array.of(1, 0x10) }, "counts have 1 slots at rows 0 …, window 3");
  });

  test("are refused for values that are too few, not finite, or do not begin with zeros", () => {
    refused({ counts: Uint8Array.of(2, 0) }, "values has 32 elements, not 48");
    for (const [at, to] of [[3, 1], [20, NaN]]) {
      const data = (whole.values.data as Float32Array).slice();
      data[at] = to;
      refused(
        { values: { type: "f32", data } },
        at === 3 ? "values do not begin" : "values element 20 is not finite",
      );
    }
  });

  test("are refused for bits that are too few, too many, or do not begin with none and all", () => {
    refused({ masks: whole.masks.slice(0, 16) }, "masks has 16 elements, not 24");
    refused({ masks: changed(whole.masks, 0, 1) }, "masks do not begin");
    refused({ masks: changed(whole.masks, 15, 0x7f) }, "masks do not begin");
    refused({ masks: changed(whole.masks, 16, 0x1f) }, "masks have 5 bits, not 4, in row 0");
    refused({ masks: changed(whole.masks, 22, 7) }, "masks have 3 bits, not 4, in row 3");
  });
});
