import { describe, expect, test } from "bun:test";
import { adamStep, packKept, packMask, unpackKept } from "../../src/prune/mod.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

const random = uniformNumbers(11);
const numbers = (length: number) => Float32Array.from({ length }, () => random() - 0.5);
const masks = (length: number, density: number) =>
  Uint8Array.from({ length }, () => random() < density ? 1 : 0);

describe("kept weights, packed", () => {
  for (const length of [1, 7, 8, 9, 64, 1001]) {
    for (const density of [0, 0.3, 1]) {
      test(`come back to their places: ${length} weights, ${density * 100} % of them kept`, () => {
        const matrix = numbers(length);
        const mask = masks(length, density);
        const kept = packKept(matrix, packMask(mask));
        expect(kept.values.length).toBe(mask.reduce((sum, bit) => sum + bit, 0));
        const target = numbers(length);
        unpackKept(kept.bits, kept.values, target);
        expect(target).toEqual(matrix.map((value, i) => mask[i] === 1 ? value : 0));
      });
    }
  }

  test("keep a weight that is 0 without being pruned", () => {
    const kept = packKept(Float32Array.of(0, 1, 0), packMask(Uint8Array.of(1, 1, 0)));
    expect([...kept.values]).toEqual([0, 1]);
  });
});

describe("a step of Adam", () => {
  test("is that of the paper's algorithm on each kept weight, in float64, and moves no other", () => {
    const length = 203;
    const matrix = numbers(length);
    const mask = masks(length, 0.4);
    const kept = packKept(matrix, packMask(mask));
    const expected = Float64Array.from(matrix, (value, i) => mask[i] * value);
    const m = new Float64Array(length);
    const v = new Float64Array(length);
    for (let t = 1; t <= 20; t++) {
      const gradient = numbers(length).map((g) => g * 1e-4);
      const rate = 0.01 / t;
      adamStep(kept, gradient, rate, t - 1);
      for (let i = 0; i < length; i++) {
        if (mask[i] === 0) continue;
        m[i] = 0.9 * m[i] + 0.1 * gradient[i];
        v[i] = 0.99 * v[i] + 0.01 * gradient[i] ** 2;
        const mean = m[i] / (1 - 0.9 ** t);
        expected[i] -= rate * mean / Math.sqrt(v[i] / (1 - 0.99 ** t));
      }
    }
    const found = new Float32Array(length);
    unpackKept(kept.bits, kept.values, found);
    found.forEach((value, i) => expect(Math.abs(value - expected[i])).toBeLessThan(1e-5));
  });

  test("leaves a weight where it is that has never had a gradient", () => {
    const kept = packKept(Float32Array.of(0.25), Uint8Array.of(1));
    adamStep(kept, Float32Array.of(0), 1, 0);
    expect(kept.values[0]).toBe(0.25);
  });
});
