import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  gridLevel,
  gridScale,
  groupColumns,
  liesOnGrid,
  roundToGrid,
  scaleAt,
  stepOf,
} from "../../src/prune/int4_grid.ts";
import { halves, toHalves } from "../../src/onnx/half.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { floats } from "../support/numbers.ts";

/** The nearest float16, by the routine that files are written with. */
function half(value: number): number {
  const bits = new Uint16Array(1);
  toHalves(Float32Array.of(value), bits);
  return halves()[bits[0]];
}

/** The nearest bfloat16, ties to even. */
function brain(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] = bits[0] + 0x7fff + (bits[0] >>> 16 & 1) & 0xffff0000;
  return new Float32Array(bits.buffer)[0];
}

function errorWith(values: Float32Array, scale: number): number {
  return values.reduce((sum, w) => {
    const q = Math.min(7, Math.max(-8, Math.round(w / scale)));
    return sum + (w - q * scale) ** 2;
  }, 0);
}

/**
 * The least squared error of any scale, of either sign: between two scales at which a weight is half
 * way between levels, all levels stay what they are, and one division gives the best scale for them.
 */
function leastError(values: Float32Array): number {
  const turns = [...values].flatMap((w) =>
    w === 0 ? [] : Array.from({ length: 8 }, (_, level) => Math.abs(w) / (level + 0.5))
  ).sort((a, b) => a - b);
  let least = Infinity;
  const middles = [turns[0] / 2, ...turns.slice(1).map((turn, i) => (turn + turns[i]) / 2)];
  for (const middle of middles.flatMap((s) => [s, -s])) {
    let products = 0, squares = 0;
    for (const w of values) {
      const q = Math.min(7, Math.max(-8, Math.round(w / middle)));
      products += w * q;
      squares += q * q;
    }
    if (squares > 0) least = Math.min(least, errorWith(values, products / squares));
  }
  return least;
}

/** Sums of twelve numbers: nearly normal, as weights are. */
function normal(next: () => number): number {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += next();
  return sum;
}

const levels = fc.array(fc.integer({ min: -8, max: 7 }), { minLength: 1, maxLength: 128 })
  .filter((qs) => qs.some((q) => q !== 0));
const scales = fc.tuple(fc.integer({ min: -320, max: 31 }), fc.boolean())
  .map(([step, negative]) => (negative ? -1 : 1) * scaleAt(step));

describe("the grid of int4 weights", () => {
  test("is found again by weights that lie on it, whatever their greatest level", () => {
    fc.assert(
      fc.property(levels, scales, (qs, scale) => {
        for (const stored of [brain, half, Math.fround]) {
          const values = Float32Array.from(qs, (q) => stored(q * scale));
          const found = gridScale(values);
          expect(liesOnGrid(values, found)).toBe(true);
          qs.forEach((q, i) => {
            // Stored values are off by 2^-8 at most; a grid of other levels may be as near to them.
            const bound = Math.abs(q * scale) * 2 ** -7;
            expect(Math.abs(roundToGrid(values[i], found) - q * scale)).toBeLessThanOrEqual(bound);
          });
        }
      }),
      { numRuns: 500 },
    );
  });

  test("rounding twice changes nothing that was not rounded in between", () => {
    fc.assert(fc.property(
      fc.array(floats(-4, 4), { minLength: 8, maxLength: 128 }),
      (numbers) => {
        const scale = gridScale(Float32Array.from(numbers));
        for (const value of numbers) {
          const once = roundToGrid(value, scale);
          expect(roundToGrid(once, scale)).toBe(once);
          expect(Math.fround(once)).toBe(once);
          expect(Object.is(once, -0)).toBe(false);
        }
      },
    ));
  });

  test("has scales 2^(k/16), of both signs, as float16 has them", () => {
    for (let step = -224; step < 256; step++) {
      const scale = scaleAt(step);
      expect(half(scale)).toBe(scale);
      expect(Math.abs(scale / 2 ** (step / 16) - 1)).toBeLessThan(2 ** -11);
      expect(stepOf(scale)).toBe(step);
      // The nearest, until half way to the next.
      for (const part of [-0.49, 0.49]) expect(stepOf(scale * 2 ** (part / 16))).toBe(step);
    }
    for (let step = -384; step < -224; step++) {
      const scale = scaleAt(step);
      expect(scale).toBeGreaterThan(0);
      expect(half(scale)).toBe(scale);
      expect(Math.abs(scale - 2 ** (step / 16))).toBeLessThanOrEqual(2 ** -25);
      // Of those that are denormal some are the same number.
      expect(scaleAt(stepOf(scale))).toBe(scale);
    }
    expect(stepOf(0)).toBe(-384);
    expect(stepOf(1e-30)).toBe(-384);
    expect(stepOf(3e38)).toBe(255);
  });

  test("has nearly the scale of least squared error, and hardly a worse one than without a search", () => {
    const next = uniformNumbers(7);
    let sum = 0, least = 0;
    for (let i = 0; i < 200; i++) {
      const values = Float32Array.from({ length: 8 + i % 121 }, () => normal(next) / 16);
      const error = errorWith(values, gridScale(values));
      const best = leastError(values);
      expect(error).toBeGreaterThanOrEqual(best * 0.999);
      expect(error).toBeLessThanOrEqual(best * 1.25);
      const extreme = values.reduce((a, b) => Math.abs(b) > Math.abs(a) ? b : a);
      for (const level of [-8, 7]) {
        expect(error).toBeLessThanOrEqual(errorWith(values, extreme / level) * 1.1);
      }
      sum += error;
      least += best;
    }
    expect(sum).toBeLessThan(least * 1.02);
  });

  test("is within half a step of every weight that it does not clip", () => {
    fc.assert(fc.property(
      fc.array(floats(-4, 4), { minLength: 1, maxLength: 128 }),
      (numbers) => {
        const scale = gridScale(Float32Array.from(numbers));
        for (const value of numbers) {
          const q = gridLevel(value, scale);
          expect(Number.isInteger(q) && q >= -8 && q <= 7).toBe(true);
          if (q > -8 && q < 7) {
            expect(Math.abs(value - q * scale)).toBeLessThanOrEqual(Math.abs(scale) * 0.500001);
          }
        }
      },
    ));
  });

  test("has a float16 scale other than 0 for any finite weights", () => {
    const extremes = [0, -0, 1e-45, -1e-38, 1e-8, 6e-8, 1e5, -3e38, 3.4e38];
    fc.assert(fc.property(
      fc.array(
        fc.oneof(fc.constantFrom(...extremes), fc.float({ noNaN: true, noDefaultInfinity: true })),
        {
          maxLength: 16,
        },
      ),
      (numbers) => {
        const scale = gridScale(Float32Array.from(numbers));
        expect(scale).not.toBe(0);
        expect(half(scale)).toBe(scale);
        expect(Number.isFinite(scale)).toBe(true);
      },
    ));
    expect(gridScale(new Float32Array(4))).toBe(1);
    expect(gridScale(new Float32Array(0))).toBe(1);
  });

  test("counts only as many weights as it is told to", () => {
    const values = Float32Array.of(0.5, -0.25, 0.125, 99, -99);
    expect(gridScale(values, 3)).toBe(gridScale(values.slice(0, 3)));
  });

  test("is not seen where weights were never rounded", () => {
    const next = uniformNumbers(3);
    for (let i = 0; i < 50; i++) {
      const values = Float32Array.from({ length: 64 }, () => normal(next));
      expect(liesOnGrid(values, gridScale(values))).toBe(false);
    }
  });

  test("shares scales among as many columns as hold the kept weights that were asked for", () => {
    expect(groupColumns(1, 64)).toBe(64);
    expect(groupColumns(1, 32)).toBe(32);
    expect(groupColumns(0.5, 64)).toBe(128);
    expect(groupColumns(0.5, 32)).toBe(64);
    expect(groupColumns(0.25, 64)).toBe(128);
    expect(groupColumns(0.25, 32)).toBe(128);
    // A dense matrix with some zeros in it is a dense matrix.
    expect(groupColumns(0.99, 64)).toBe(64);
    expect(groupColumns(0, 64)).toBe(128);
  });
});
