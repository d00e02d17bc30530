import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  applyMask,
  magnitudeMask,
  maskOf,
  nmMask,
  packMask,
  PatternError,
  selectRank,
  Threshold,
  wandaMask,
  type Weight,
} from "../../src/prune/mod.ts";
import { applyPackedMask } from "../../src/prune/mask.ts";
import { doubles, floats } from "../support/numbers.ts";

/** Few different values, so that ties are the rule. */
const coarse = fc.integer({ min: -6, max: 6 }).map((n) => n / 2);
const fine = floats(-3, 3);

function weights(columns: fc.Arbitrary<number>): fc.Arbitrary<Weight> {
  return fc.record({ rows: fc.integer({ min: 1, max: 6 }), columns, coarse: fc.boolean() }).chain((
    { rows, columns, coarse: ties },
  ) =>
    fc.record({
      values: fc.array(ties ? coarse : fine, {
        minLength: rows * columns,
        maxLength: rows * columns,
      }),
      norms: fc.array(ties ? fc.constantFrom(1, 2) : floats(0, 4), {
        minLength: columns,
        maxLength: columns,
      }),
    }).map(({ values, norms }) => ({
      name: "linear",
      values: Float32Array.from(values),
      norms: Float32Array.from(norms),
      rows,
      columns,
    }))
  );
}

const anyWeight = weights(fc.integer({ min: 1, max: 40 }));
const sparsity = doubles(0, 0.999);

/** Columns of a row in the order in which they go: lowest score first, of equals the lower column. */
function order(weight: Weight, row: number, scored: boolean): number[] {
  const score = (c: number) => {
    const magnitude = Math.abs(weight.values[row * weight.columns + c]);
    return scored ? Math.fround(magnitude * weight.norms[c]) : magnitude;
  };
  return Array.from({ length: weight.columns }, (_, c) => c).sort((a, b) =>
    score(a) - score(b) || a - b
  );
}

describe("Wanda's mask", () => {
  test("is what a stable sort of every row gives", () => {
    fc.assert(fc.property(anyWeight, sparsity, (weight, sparsity) => {
      const expected = new Uint8Array(weight.values.length).fill(1);
      for (let row = 0; row < weight.rows; row++) {
        const count = Math.floor(weight.columns * sparsity);
        for (const c of order(weight, row, true).slice(0, count)) {
          expected[row * weight.columns + c] = 0;
        }
      }
      expect(wandaMask(weight, sparsity)).toEqual(expected);
    }));
  });

  test("prunes a tenth of ten weights, though 1 − (1 − 0.1) is a little less", () => {
    const values = Float32Array.from({ length: 10 }, (_, i) => i + 1);
    const weight = { name: "w", values, rows: 1, columns: 10, norms: new Float32Array(10).fill(1) };
    expect(wandaMask(weight, 1 - (1 - 0.1))[0]).toBe(0);
  });
});

describe("the mask by magnitude", () => {
  test("prunes all that is at most the value of its rank, ties included", () => {
    fc.assert(fc.property(anyWeight, sparsity, (weight, sparsity) => {
      const sorted = Array.from(weight.values, Math.abs).sort((a, b) => a - b);
      const threshold = sorted[Math.floor(sorted.length * sparsity)];
      const expected = weight.values.map((w) => sparsity === 0 || Math.abs(w) > threshold ? 1 : 0);
      expect(magnitudeMask(weight, sparsity)).toEqual(Uint8Array.from(expected));
    }));
  });

  test("keeps everything where nothing is to go, whatever chooses", () => {
    fc.assert(fc.property(weights(fc.integer({ min: 1, max: 20 })), (weight) => {
      for (const method of ["magnitude", "wanda"] as const) {
        const mask = maskOf(weight, method, { kind: "unstructured" }, { density: 1 });
        expect(mask).toEqual(new Uint8Array(weight.values.length).fill(1));
      }
    }));
  });
});

describe("the N:M mask", () => {
  const patterns = [[2, 4], [4, 8], [8, 16], [4, 16], [1, 2], [3, 7], [31, 32], [5, 5]] as const;
  for (const [n, m] of patterns) {
    test(`keeps the ${n} best of every ${m}`, () => {
      const fitting = weights(fc.integer({ min: 1, max: 4 }).map((groups) => groups * m));
      fc.assert(fc.property(fitting, fc.boolean(), (weight, scored) => {
        const mask = nmMask(weight, n, m, scored ? "wanda" : "magnitude");
        for (let row = 0; row < weight.rows; row++) {
          for (let first = 0; first < weight.columns; first += m) {
            const inGroup = order(weight, row, scored).filter((c) => c >= first && c < first + m);
            const kept = inGroup.filter((c) => mask[row * weight.columns + c] === 1);
            expect(kept).toEqual(inGroup.slice(m - n));
          }
        }
      }));
    });
  }

  test("is refused where M does not divide a row, and names the linear", () => {
    const weight: Weight = {
      name: "mlp.down_proj",
      values: new Float32Array(12),
      rows: 2,
      columns: 6,
      norms: new Float32Array(6),
    };
    expect(() => nmMask(weight, 2, 4, "wanda")).toThrow(PatternError);
    expect(() => nmMask(weight, 2, 4, "wanda")).toThrow("mlp.down_proj");
    expect(() => nmMask(weight, 4, 2, "wanda")).toThrow("no pattern");
    expect(() => nmMask(weight, 0, 2, "wanda")).toThrow("no pattern");
  });
});

describe("a mask", () => {
  test("is made by the pattern's own rule", () => {
    const weight: Weight = {
      name: "w",
      values: Float32Array.of(4, 1, 3, 2),
      rows: 1,
      columns: 4,
      norms: Float32Array.of(1, 9, 1, 1),
    };
    const share = { density: 0.5, kept: 1 };
    expect([...maskOf(weight, "wanda", { kind: "unstructured" }, share)]).toEqual([1, 1, 0, 0]);
    expect([...maskOf(weight, "wanda", { kind: "nm", n: 3, m: 4 }, share)]).toEqual([1, 1, 1, 0]);
    expect([...maskOf(weight, "magnitude", { kind: "mixed", m: 2 }, share)]).toEqual([1, 0, 1, 0]);
  });

  test("sets what it prunes to zero and leaves the rest", () => {
    const values = Float32Array.of(1, -2, 3);
    applyMask(values, Uint8Array.of(1, 0, 1));
    expect([...values]).toEqual([1, 0, 3]);
  });

  test("sets the same to zero when it is packed", () => {
    const values = Float32Array.from({ length: 19 }, (_, i) => i + 1);
    const mask = Uint8Array.from(values, (_, i) => Number(i % 8 < 3));
    const packed = values.slice();
    applyPackedMask(packed, packMask(mask));
    applyMask(values, mask);
    expect(packed).toEqual(values);
  });

  test("packs eight weights a byte, the first in the lowest bit", () => {
    expect([...packMask(Uint8Array.of(1, 0, 0, 1, 0, 0, 0, 0, 1))]).toEqual([9, 1]);
  });
});

describe("selection", () => {
  test("finds the value of a rank, with what is smaller before it", () => {
    const values = fc.array(fc.oneof(coarse, fine), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(values, fc.nat(), (values, seed) => {
        const k = seed % values.length;
        const array = Float32Array.from(values);
        const sorted = Float32Array.from(values).sort();
        // Not Object.is: 0 and -0 have one rank, and either is right.
        expect(selectRank(array, k) === sorted[k]).toBe(true);
        expect(array.subarray(0, k).every((v) => v <= sorted[k])).toBe(true);
        expect(array.subarray(k).every((v) => v >= sorted[k])).toBe(true);
      }),
      { examples: [[[-0, 0], 0], [[0, -0], 0]] },
    );
  });

  test("finds a row's threshold and how many are below it, the row left as it is", () => {
    const score = fc.oneof(coarse, fine, fc.constantFrom(Infinity, 1e-45, 1)).map(Math.abs);
    const rows = fc.array(fc.array(score, { minLength: 1, maxLength: 200 }), { minLength: 1 });
    fc.assert(fc.property(rows, fc.nat(), (rows, seed) => {
      const lowest = new Threshold(200);
      for (const values of rows) {
        const k = seed % values.length;
        const scores = Float32Array.from(values);
        const sorted = scores.slice().sort();
        expect(lowest.find(scores, k)).toBe(sorted[k]);
        expect(lowest.below).toBe(sorted.indexOf(sorted[k]));
        expect(scores).toEqual(Float32Array.from(values));
      }
    }));
  });
});
