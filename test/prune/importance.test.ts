import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { blockScore, InputNorms, outlierPercent, type Weight } from "../../src/prune/mod.ts";
import { floats } from "../support/numbers.ts";

/** A block of random weights. */
const block = fc.array(
  fc.record({ rows: fc.integer({ min: 1, max: 9 }), columns: fc.integer({ min: 1, max: 20 }) }),
  { minLength: 1, maxLength: 4 },
).chain((shapes) =>
  fc.tuple(...shapes.map(({ rows, columns }) =>
    fc.record({
      values: fc.array(floats(-4, 4), {
        minLength: rows * columns,
        maxLength: rows * columns,
      }),
      norms: fc.array(floats(0, 8), {
        minLength: columns,
        maxLength: columns,
      }),
    }).map(({ values, norms }): Weight => ({
      name: "linear",
      values: Float32Array.from(values),
      norms: Float32Array.from(norms),
      rows,
      columns,
    }))
  ))
);

function naiveScores(weights: readonly Weight[]): number[] {
  return weights.flatMap(({ values, norms, columns }) =>
    Array.from(values, (w, i) => Math.fround(Math.abs(w) * norms[i % columns]))
  );
}

describe("a block's score", () => {
  test("by the median is the lower middle one of all its scores", () => {
    fc.assert(fc.property(block, (weights) => {
      const sorted = naiveScores(weights).sort((a, b) => a - b);
      expect(blockScore(weights, "median")).toBe(sorted[Math.floor((sorted.length - 1) / 2)]);
    }));
  });

  test("by the mean is the mean of all its scores, not of its linears", () => {
    fc.assert(fc.property(block, (weights) => {
      const all = naiveScores(weights);
      const mean = all.reduce((a, b) => a + b, 0) / all.length;
      expect(Math.abs(blockScore(weights, "mean") - mean)).toBeLessThanOrEqual(1e-9 * (1 + mean));
    }));
  });
});

describe("the outlier percent", () => {
  test("counts the scores above a multiple of their mean", () => {
    fc.assert(fc.property(block, fc.integer({ min: 1, max: 5 }), (weights, threshold) => {
      const all = naiveScores(weights);
      const limit = Math.fround(all.reduce((a, b) => a + b, 0) / all.length * threshold);
      const expected = 100 * all.filter((score) => score > limit).length / all.length;
      expect(outlierPercent(weights, threshold)).toBeCloseTo(expected, 9);
    }));
  });
});

describe("input norms", () => {
  test("are the root of the mean over windows of the squares", () => {
    const input = new InputNorms(3);
    input.add(Float32Array.of(4, 0, 9));
    input.add(Float32Array.of(12, 0, 9));
    expect([...input.norms()].map((n) => Number(n.toFixed(5)))).toEqual([2.82843, 0, 3]);
  });

  test("grow with the tokens of a window, not with the number of windows", () => {
    const once = new InputNorms(1);
    once.add(Float32Array.of(2));
    const thrice = new InputNorms(1);
    for (let i = 0; i < 3; i++) thrice.add(Float32Array.of(2));
    expect(thrice.norms()[0]).toBeCloseTo(once.norms()[0], 6);
  });
});
