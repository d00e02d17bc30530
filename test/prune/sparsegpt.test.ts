import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  inverseFactor,
  type Matrix,
  type Pattern,
  plainAlgebra,
  slotsMask,
  sparseGpt,
} from "../../src/prune/mod.ts";
import { gridScale, liesOnGrid } from "../../src/prune/int4_grid.ts";
import { part, putAt, subtractAt } from "../../src/prune/matrix.ts";
import { int4Rounding } from "../../src/prune/sparsegpt.ts";
import { hessian, inverse, loss, matrix, meanOf } from "../support/matrices.ts";

describe("the factor of a Hessian's inverse", () => {
  for (const n of [1, 5, 64, 65, 150]) {
    test(`is upper triangular and gives the inverse, with ${n} columns`, async () => {
      const h = hessian(n, n);
      const found = (await inverseFactor(h, 0.01, plainAlgebra))!;
      expect(found.raised).toBe(0);
      expect(Math.abs(found.damping / (0.01 * meanOf(h)) - 1)).toBeLessThan(1e-6);
      const u = found.upper.data;
      const expected = inverse(h.data, n, found.damping);
      const scale = Math.max(...expected.map(Math.abs));
      for (let a = 0; a < n; a++) {
        for (let b = 0; b < n; b++) {
          if (b < a) expect(u[a * n + b]).toBe(0);
          let sum = 0;
          for (let k = 0; k < n; k++) sum += u[k * n + a] * u[k * n + b];
          expect(Math.abs(sum - expected[a * n + b]) / scale).toBeLessThan(1e-4);
        }
      }
    });
  }

  test("is damped further where the matrix is not positive definite", async () => {
    const h = hessian(70, 3);
    for (const i of [0, 69]) h.data[i * 70 + i] = -0.05 * meanOf(h);
    const found = (await inverseFactor(h, 0.01, plainAlgebra))!;
    expect(found.raised).toBeGreaterThan(0);
    expect(found.upper.data.every(Number.isFinite)).toBe(true);
  });

  test("is not there for a matrix that no damping mends", async () => {
    const h = hessian(8, 1);
    h.data[3] = NaN;
    expect(await inverseFactor(h, 0.01, plainAlgebra)).toBeUndefined();
    h.data[3] = h.data[24] = 1e30;
    expect(await inverseFactor(h, 0.01, plainAlgebra)).toBeUndefined();
  });
});

/**
 * The optimal brain surgeon column by column, from the definition: the Hessian of the columns that are
 * left is inverted anew for each.
 */
function surgeon(
  weights: Matrix,
  h: Matrix,
  damping: number,
  decide: (row: number, column: number, scoreOf: (c: number) => number) => boolean,
): Float64Array {
  const { rows, columns } = weights;
  const w = Float64Array.from(weights.data);
  const inverses = Array.from({ length: columns }, (_, c) => {
    const left = columns - c;
    return inverse(part(h, c, c, left, left).data, left, damping);
  });
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const inv = inverses[c];
      const scoreOf = (k: number) => w[r * columns + k] ** 2 / inverses[k][0];
      if (decide(r, c, scoreOf)) continue;
      const error = w[r * columns + c] / inv[0];
      for (let k = c; k < columns; k++) w[r * columns + k] -= error * inv[k - c];
      w[r * columns + c] = 0;
    }
  }
  return w;
}

const closeTo = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  for (let i = 0; i < a.length; i++) expect(Math.abs(a[i] - b[i])).toBeLessThan(2e-3);
};

describe("SparseGPT", () => {
  for (const [n, m] of [[2, 4], [8, 16], [2, 6]]) {
    test(`with ${n}:${m} is the surgeon that keeps the best of each group when it comes to it`, async () => {
      // More than one block of 128 columns.
      const columns = m * Math.ceil(140 / m);
      const weights = matrix(4, columns, 5);
      const h = hessian(columns, 6);
      const factor = (await inverseFactor(h, 0.01, plainAlgebra))!;
      const pattern: Pattern = { kind: "nm", n, m };
      const { values, mask } = await sparseGpt(
        { weights, upper: factor.upper, pattern, share: { density: n / m } },
        plainAlgebra,
      );
      const kept = new Set<number>();
      const expected = surgeon(weights, h, factor.damping, (r, c, scoreOf) => {
        if (c % m === 0) {
          const group = Array.from({ length: m }, (_, i) => c + i);
          group.sort((a, b) => scoreOf(b) - scoreOf(a));
          for (const column of group.slice(0, n)) kept.add(r * columns + column);
        }
        return kept.has(r * columns + c);
      });
      closeTo(values, expected);
      mask.forEach((bit, i) => expect(bit).toBe(kept.has(i) ? 1 : 0));
    });
  }

  test("unstructured takes a block's weights whose score is at most that of the rank, over all rows", async () => {
    const columns = 160;
    const weights = matrix(3, columns, 7);
    const h = hessian(columns, 8);
    const factor = (await inverseFactor(h, 0.01, plainAlgebra))!;
    const { mask, values } = await sparseGpt({
      weights,
      upper: factor.upper,
      pattern: { kind: "unstructured" },
      share: { density: 0.4 },
    }, plainAlgebra);
    // Its mask given, the values are the surgeon's.
    const expected = surgeon(weights, h, factor.damping, (r, c) => mask[r * columns + c] === 1);
    closeTo(values, expected);
    for (const [first, width] of [[0, 128], [128, 32]]) {
      const kept = part({ data: Float32Array.from(mask), rows: 3, columns }, 0, first, 3, width);
      const pruned = kept.data.filter((bit) => bit === 0).length;
      expect(pruned).toBe(Math.floor(3 * width * 0.6 + 1e-7) + 1);
    }
    // The first block's scores are those of the original weights.
    const scores = Array.from({ length: 3 * 128 }, (_, i) => {
      const [r, c] = [Math.floor(i / 128), i % 128];
      return {
        score: weights.data[r * columns + c] ** 2 / factor.upper.data[c * columns + c] ** 2,
        kept: mask[r * columns + c],
      };
    }).sort((a, b) => a.score - b.score);
    const border = scores.findIndex(({ kept }) => kept === 1);
    expect(scores.slice(border).every(({ kept }) => kept === 1)).toBe(true);
  });

  test("with slots is the surgeon on those that keep most of a block's scores when it begins", async () => {
    const columns = 160;
    const weights = matrix(8, columns, 7);
    const h = hessian(columns, 8);
    const factor = (await inverseFactor(h, 0.01, plainAlgebra))!;
    const { mask, values } = await sparseGpt({
      weights,
      upper: factor.upper,
      pattern: { kind: "slots" },
      share: { density: 0.37 },
    }, plainAlgebra);
    closeTo(values, surgeon(weights, h, factor.damping, (r, c) => mask[r * columns + c] === 1));
    // 16 weights a slot, and as many slots as the density says of 2 · 10 · 4, no matter where blocks end.
    expect(mask.filter((bit) => bit === 1).length).toBe(16 * Math.round(0.37 * 80));
    const first = part({ data: Float32Array.from(mask), rows: 8, columns }, 0, 0, 8, 128);
    const scores = Float32Array.from({ length: 8 * 128 }, (_, i) => {
      const [r, c] = [Math.floor(i / 128), i % 128];
      return weights.data[r * columns + c] ** 2 / factor.upper.data[c * columns + c] ** 2;
    });
    const slots = Math.round(0.37 * 64);
    expect([...first.data]).toEqual([...slotsMask(scores, 8, 128, slots)]);
  });

  test("leaves values alone that stay where nothing is pruned, and rounds them where it is told to", async () => {
    const weights = matrix(2, 128, 9);
    const factor = (await inverseFactor(hessian(128, 10), 0.01, plainAlgebra))!;
    const all = { weights, upper: factor.upper, pattern: { kind: "unstructured" } as const };
    const mask = new Uint8Array(256).fill(1);
    const same = await sparseGpt({ ...all, mask, share: { density: 1 } }, plainAlgebra);
    expect(same.values).toEqual(weights.data);
    const rounding = {
      columns: 64,
      scale: (values: Float32Array, count = values.length) =>
        Math.max(...values.subarray(0, count).map(Math.abs)) / 7,
      round: (value: number, scale: number) =>
        Math.max(-7, Math.min(7, Math.round(value / scale))) * scale,
    };
    const rounded = await sparseGpt(
      { ...all, mask, rounding, share: { density: 1 } },
      plainAlgebra,
    );
    for (let r = 0; r < 2; r++) {
      for (let g = 0; g < 2; g++) {
        const at = r * 128 + g * 64;
        const scale = rounding.scale(weights.data.subarray(at, at + 64));
        // The second group's scale is of what the block begins with, too.
        for (const v of rounded.values.subarray(at, at + 64)) {
          expect(Math.abs(v / scale - Math.round(v / scale))).toBeLessThan(1e-4);
        }
      }
    }
  });

  test("rounds whole groups that share a scale, whatever M is", async () => {
    const columns = 384;
    const weights = matrix(2, columns, 21);
    const { upper } = (await inverseFactor(hessian(columns, 22), 0.01, plainAlgebra))!;
    for (const [n, m] of [[6, 12], [12, 24], [1, 3], [8, 16]]) {
      const pattern: Pattern = { kind: "nm", n, m };
      const share = { density: n / m };
      const rounding = int4Rounding(share, 32);
      const { values } = await sparseGpt(
        { weights, upper, pattern, share, rounding },
        plainAlgebra,
      );
      for (let at = 0; at < values.length; at += rounding.columns) {
        const group = values.slice(at, at + rounding.columns);
        expect({ n, m, at, lies: liesOnGrid(group, gridScale(group)) })
          .toEqual({ n, m, at, lies: true });
      }
      for (let at = 0; at < values.length; at += m) {
        expect(values.slice(at, at + m).filter((w) => w !== 0).length).toBeLessThanOrEqual(n);
      }
    }
  });

  test("loses less than the same mask without the update", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 1e6 }), async (seed) => {
        const weights = matrix(4, 64, seed);
        const h = hessian(64, seed + 1);
        const { upper } = (await inverseFactor(h, 0.01, plainAlgebra))!;
        const { mask, values } = await sparseGpt({
          weights,
          upper,
          pattern: { kind: "nm", n: 2, m: 4 },
          share: { density: 0.5 },
        }, plainAlgebra);
        const masked = weights.data.map((w, i) => w * mask[i]);
        expect(loss(values, weights, h)).toBeLessThan(loss(masked, weights, h));
      }),
      { numRuns: 20 },
    );
  });
});

describe("parts of matrices", () => {
  test("are taken out, put back and subtracted where they belong", () => {
    fc.assert(fc.property(
      fc.record({
        rows: fc.integer({ min: 1, max: 8 }),
        columns: fc.integer({ min: 1, max: 8 }),
        seed: fc.nat(),
      }).chain(({ rows, columns, seed }) =>
        fc.record({
          whole: fc.constant(matrix(rows, columns, seed)),
          row: fc.integer({ min: 0, max: rows - 1 }),
          column: fc.integer({ min: 0, max: columns - 1 }),
        })
      ),
      ({ whole, row, column }) => {
        const [rows, columns] = [whole.rows - row, whole.columns - column];
        const piece = part(whole, row, column, rows, columns);
        const copy = { ...whole, data: whole.data.slice() };
        putAt(copy, { ...piece, data: piece.data.map((v) => 2 * v) }, row, column);
        subtractAt(copy, piece, row, column);
        copy.data.forEach((v, i) => expect(v).toBeCloseTo(whole.data[i], 5));
      },
    ));
  });
});
