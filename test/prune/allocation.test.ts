import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { atp, dlp, owl, uniform, wholeNumbersOf } from "../../src/prune/mod.ts";
import { AllocationError } from "../../src/errors.ts";
import { readOracle } from "../support/oracle.ts";
import { doubles } from "../support/numbers.ts";

const sum = (values: Iterable<number>) => [...values].reduce((a, b) => a + b, 0);
const scores = fc.array(doubles(0.01, 100), {
  minLength: 2,
  maxLength: 40,
});

for (const model of ["tiny", "smollm2-135m"] as const) {
  const { importance, densities } = readOracle(model);
  describe(`allocations of ${model} from the released code's scores`, () => {
    const reducers = [
      ["dlp-mean", importance.scoreMean],
      ["dlp-median", importance.scoreMedian],
    ] as const;
    for (const [name, scores] of reducers) {
      for (const [sparsity, expected] of Object.entries(densities[name])) {
        if (expected.some((density) => density <= 0)) {
          test(`${name} at ${sparsity} would empty a block, which is an error`, () => {
            expect(() => dlp(scores, Number(sparsity), 0.15)).toThrow("alpha 0.15");
          });
          continue;
        }
        test(`${name} at ${sparsity} gives its densities`, () => {
          dlp(scores, Number(sparsity), 0.15).forEach((density, i) =>
            expect(Math.abs(density - expected[i])).toBeLessThan(5e-7)
          );
        });
      }
    }
    for (const [sparsity, expected] of Object.entries(densities.owl)) {
      test(`owl at ${sparsity} gives its densities`, () => {
        owl(importance.outlierPercent, Number(sparsity), 0.08).forEach((density, i) =>
          expect(Math.abs(density - expected[i])).toBeLessThan(1e-12)
        );
      });
    }
  });
}

describe("allocations", () => {
  test("keep the mean, and span twice alpha, whatever the scores are", () => {
    fc.assert(fc.property(scores, (scores) => {
      const densities = [...dlp(scores, 0.5, 0.15)];
      expect(sum(densities) / densities.length).toBeCloseTo(0.5, 9);
      // Scores may be so near to each other that what is left of 1 is the same number.
      if (new Set(scores.map((score) => 1 - score / sum(scores))).size > 1) {
        expect(Math.max(...densities) - Math.min(...densities)).toBeCloseTo(0.3, 9);
      }
    }));
  });

  test("let the block with the highest score keep least under DLP, and most under OWL", () => {
    const scores = [2, 9, 1, 4];
    const byDlp = [...dlp(scores, 0.5, 0.1)];
    expect(byDlp.indexOf(Math.min(...byDlp))).toBe(1);
    expect(byDlp.indexOf(Math.max(...byDlp))).toBe(2);
    const byOwl = [...owl(scores, 0.5, 0.1)];
    expect(byOwl.indexOf(Math.max(...byOwl))).toBe(1);
  });

  test("share equally between blocks that are all alike", () => {
    expect([...dlp([3, 3, 3], 0.7, 0.15)].every((d) => Math.abs(d - 0.3) < 1e-12)).toBe(true);
    expect([...dlp([3], 0.7, 0.15)].every((d) => Math.abs(d - 0.3) < 1e-12)).toBe(true);
  });

  test("never leave a block denser than 99 %", () => {
    expect(Math.max(...dlp([1, 2], 0.1, 0.15))).toBe(0.99);
  });

  test("refuse what would empty a block, and name the parameter", () => {
    expect(() => dlp([1, 2, 3], 0.9, 0.15)).toThrow("alpha 0.15 would give block 2");
    expect(() => owl([1, 2, 3], 0.9, 0.2)).toThrow("lambda 0.2 would give block 0");
    expect(() => atp(10, 0.9, 0.05)).toThrow("beta 0.05 would give block");
  });

  test("refuse scores that say nothing of any block, and name what helps", () => {
    for (const scores of [[0, 0, 0], [0], [NaN, 1]]) {
      expect(() => dlp(scores, 0.7, 0.15)).toThrow(AllocationError);
      expect(() => dlp(scores, 0.7, 0.15)).toThrow("--reducer mean, or another allocation");
    }
    expect([...dlp([0, 1], 0.7, 0.15)].every((d) => d > 0 && d < 1)).toBe(true);
  });

  test("refuse what would give a block a density that is no number", () => {
    for (const outliers of [[NaN, 1], [1, Infinity]]) {
      expect(() => owl(outliers, 0.7, 0.08)).toThrow(AllocationError);
      expect(() => owl(outliers, 0.7, 0.08)).toThrow("a density of NaN");
    }
    expect(() => dlp([1, Infinity], 0.7, 0.15)).toThrow("alpha 0.15 would give block");
  });

  test("name blocks by their numbers, where only some of them are shared out to", () => {
    expect(() => dlp([1, 2, 3], 0.9, 0.15, [4, 7, 9])).toThrow("would give block 9");
    expect(() => owl([1, 2, 3], 0.9, 0.2, [4, 7, 9])).toThrow("would give block 4");
    expect(() => atp(3, 0.9, 0.2, [4, 7, 9])).toThrow("would give block 9");
  });

  test("grow by the same step under ATP", () => {
    const densities = atp(5, 0.6, 0.05);
    for (let i = 1; i < 5; i++) expect(densities[i - 1] - densities[i]).toBeCloseTo(0.05, 12);
    expect(sum(densities) / 5).toBeCloseTo(0.4, 12);
  });

  test("are flat when uniform", () => {
    expect([...uniform(3, 0.25)]).toEqual([0.75, 0.75, 0.75]);
  });
});

describe("whole numbers of M", () => {
  test("keep the sum and stay within one of the density", () => {
    const densities = fc.array(doubles(0.07, 1), {
      minLength: 1,
      maxLength: 50,
    });
    fc.assert(fc.property(densities, fc.integer({ min: 16, max: 32 }), (densities, m) => {
      const counts = wholeNumbersOf(densities, m);
      expect(sum(counts)).toBe(Math.round(sum(densities) * m));
      counts.forEach((n, i) => {
        expect(Number.isInteger(n) && n >= 1 && n <= m).toBe(true);
        expect(Math.abs(n - densities[i] * m)).toBeLessThanOrEqual(1 + 1e-9);
      });
    }));
  });

  test("are exact for densities that are whole already", () => {
    expect(wholeNumbersOf([0.25, 0.5, 0.75], 4)).toEqual([1, 2, 3]);
  });

  test("leave a block dense that is to stay so, whatever others lack", () => {
    expect(wholeNumbersOf([1, 0.01, 0.01, 0.01], 4)).toEqual([4, 1, 1, 1]);
  });

  test("never fall below one, however small the density", () => {
    expect(wholeNumbersOf([0.01, 0.01], 4)).toEqual([1, 1]);
  });
});
