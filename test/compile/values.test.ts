/**
 * Weights as float16 and int8: each is the nearest there is, and what cannot be held is refused.
 * @module
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { elementsOf, halfOf, narrow, scaleOf } from "../../compile/packed/quantize.ts";
import { FormatUnfitError } from "../../src/errors.ts";
import {
  expectSame,
  F16,
  INT8,
  matrices,
  matrixOf,
  nearestHalf,
  rounded,
  weight,
} from "./matrices.ts";
import { floats } from "../support/numbers.ts";

describe("float16", () => {
  test("widens and narrows every finite number without a change", () => {
    const data = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const widened = elementsOf({ type: "f16", data });
    for (let bits = 0; bits < 65536; bits++) {
      if ((bits & 0x7c00) === 0x7c00) continue;
      // A weight of -0 is a pruned one.
      expect(halfOf(widened[bits]) === bits || bits === 0x8000).toBe(true);
    }
    expect([0x3c00, 0xc000, 0x0001, 0x0400, 0x7bff].map((bits) => widened[bits]))
      .toEqual([1, -2, 2 ** -24, 2 ** -14, 65504]);
  });

  test("rounds halfway numbers to the even one, and others to the nearest", () => {
    const data = Uint16Array.from({ length: 0x7c00 }, (_, i) => i);
    const widened = elementsOf({ type: "f16", data });
    for (let bits = 0; bits < 0x7bff; bits++) {
      const middle = (widened[bits] + widened[bits + 1]) / 2;
      const nudge = middle * 2 ** -20;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const found = [
        halfOf(middle),
        halfOf(-middle),
        halfOf(middle - nudge),
        halfOf(middle + nudge),
      ];
      if (`${found}` !== `${[even, even | 0x8000, bits, bits + 1]}`) {
        throw new Error(`around ${middle}: ${found}`);
      }
    }
  });

  test("is the nearest to any weight", () => {
    fc.assert(fc.property(matrices, (matrix) => {
      expectSame(rounded(matrix, F16), matrix.values.map(nearestHalf));
    }));
  });

  test("refuses what it cannot hold, and says where that is and what can", () => {
    expect(halfOf(Math.fround(65519.99))).toBe(0x7bff);
    const matrix = matrixOf(2, [1, 2], [3, -65520]);
    expect(() => narrow(matrix, F16)).toThrow(FormatUnfitError);
    expect(() => narrow(matrix, F16)).toThrow(
      '"q_proj" has -65520 at row 1, column 1, more than float16 can hold (65504): ' +
        "store it as f32 or int8",
    );
  });
});

describe("int8", () => {
  /** Groups of weights, some with one that is far greater than the others. */
  const groups = fc.oneof(
    fc.array(weight, { maxLength: 60 }),
    fc.array(floats(Math.fround(-1e30), Math.fround(1e30)), {
      maxLength: 8,
    }),
    fc.tuple(fc.array(floats(-1, 1), { maxLength: 60 }), weight)
      .map(([many, one]) => [...many, one]),
  ).filter((group) => group.length > 0);

  const errorOf = (weights: ArrayLike<number>, stored: ArrayLike<number>) =>
    Array.from(weights, (w, i) => (w - stored[i]) ** 2).reduce((a, b) => a + b, 0);

  test("never has a greater squared error than the scale of the greatest weight gives", () => {
    fc.assert(
      fc.property(groups, (group) => {
        const scale = Math.fround(Math.max(...group.map(Math.abs)) / 127) || 2 ** -149;
        const simple = group.map((w) =>
          Math.fround(Math.max(-127, Math.min(127, Math.round(w / scale))) * scale)
        );
        const found = rounded(matrixOf(group.length, group), INT8);
        expect(errorOf(group, found)).toBeLessThanOrEqual(errorOf(group, simple) * (1 + 1e-6));
      }),
      { numRuns: 500 },
    );
  });

  test("has a clearly smaller error for few weights a scale", () => {
    const next = uniform(7);
    let simple = 0;
    let found = 0;
    for (let i = 0; i < 200; i++) {
      const group = Float64Array.from({ length: 32 }, () => (next() + next() + next() - 1.5) ** 2);
      const error = (scale: number) =>
        errorOf(group, group.map((w) => Math.min(127, Math.round(w / scale)) * scale));
      simple += error(Math.max(...group) / 127);
      found += error(scaleOf(group));
    }
    expect(found).toBeLessThan(0.85 * simple);
  });

  test("rounds every weight to the nearest step, and keeps zeros", () => {
    fc.assert(fc.property(matrices, fc.integer({ min: 1, max: 50 }), (matrix, group) => {
      const values = narrow(matrix, { type: "int8", group });
      if (values.type !== "int8") throw new Error(values.type);
      expect(values.group).toBe(Math.min(group, matrix.columns));
      const perRow = Math.ceil(matrix.columns / values.group);
      expect(values.scales).toHaveLength(matrix.rows * perRow);
      matrix.values.forEach((w, i) => {
        const column = i % matrix.columns;
        const row = Math.floor(i / matrix.columns);
        const scale = values.scales[row * perRow + Math.floor(column / values.group)];
        const q = values.data[i];
        const nearest = Math.max(-127, Math.min(127, w / scale));
        if (!(Math.abs(nearest - q) <= 0.5 + 1e-9) || w === 0 && q !== 0) {
          throw new Error(`${w} with the scale ${scale} became ${q}`);
        }
      });
    }));
  });

  test("gives a group without weights the scale 1, and finds scales that fit exactly", () => {
    const matrix = matrixOf(4, [3.96875, -0.0625, 0, 254], [0, 0, -0, 127]);
    expect(narrow(matrix, { type: "int8", group: 2 })).toEqual({
      type: "int8",
      data: Int8Array.of(127, -2, 0, 127, 0, 0, 0, 127),
      scales: Float32Array.of(0.03125, 2, 1, 1),
      group: 2,
    });
    expect(scaleOf(new Float64Array(0))).toBe(1);
  });

  test("holds the least and the greatest float32", () => {
    for (const w of [2 ** -149, 2 ** -126, 3.4028234663852886e38]) {
      const [stored] = rounded(matrixOf(2, [w, -w]), INT8);
      expect(stored).toBeGreaterThan(0.98 * w);
      expect(stored).toBeLessThan(1.02 * w);
    }
  });

  test("refuses groups that are no positive whole number", () => {
    for (const group of [0, -1, 1.5, NaN]) {
      expect(() => narrow(matrixOf(2, [1, 2]), { type: "int8", group })).toThrow(
        `"q_proj" cannot have a scale for each ${group} weights of a row`,
      );
    }
  });
});

/** Uniform numbers in [0, 1) that are the same everywhere. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}
