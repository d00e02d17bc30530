import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  inverseFactor,
  type Matrix,
  type Pattern,
  penalised,
  penaltyOf,
  plainAlgebra,
  ridge,
  slotsMask,
  solveOnMask,
  sparseGpt,
} from "../../src/prune/mod.ts";
import { part, putAt, subtractAt } from "../../src/prune/matrix.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

/** Normally distributed numbers, more or less. */
function matrix(rows: number, columns: number, seed: number): Matrix {
  const random = uniformNumbers(seed);
  const normal = () => random() + random() + random() - 1.5;
  return { data: Float32Array.from({ length: rows * columns }, normal), rows, columns };
}

/** XᵀX of `tokens` inputs that hang together. */
function hessian(n: number, seed: number, tokens = 3 * n): Matrix {
  const x = matrix(tokens, n, seed);
  for (let t = 0; t < tokens; t++) {
    for (let c = 1; c < n; c++) x.data[t * n + c] += 0.6 * x.data[t * n + c - 1];
  }
  const h = new Float32Array(n * n);
  for (let a = 0; a < n; a++) {
    for (let b = 0; b < n; b++) {
      let sum = 0;
      for (let t = 0; t < tokens; t++) sum += x.data[t * n + a] * x.data[t * n + b];
      h[a * n + b] = sum;
    }
  }
  return { data: h, rows: n, columns: n };
}

/** The inverse by Gauss and Jordan, in float64. */
function inverse(data: ArrayLike<number>, n: number, damping = 0): Float64Array {
  const a = Float64Array.from(data);
  const b = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    a[i * n + i] += damping;
    b[i * n + i] = 1;
  }
  for (let c = 0; c < n; c++) {
    const pivot = a[c * n + c];
    for (let k = 0; k < n; k++) {
      a[c * n + k] /= pivot;
      b[c * n + k] /= pivot;
    }
    for (let r = 0; r < n; r++) {
      const factor = a[r * n + c];
      if (r === c || factor === 0) continue;
      for (let k = 0; k < n; k++) {
        a[r * n + k] -= factor * a[c * n + k];
        b[r * n + k] -= factor * b[c * n + k];
      }
    }
  }
  return b;
}

const meanOf = ({ data, rows }: Matrix) =>
  Array.from({ length: rows }, (_, i) => data[i * rows + i]).reduce((a, b) => a + b) / rows;

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

/** tr (V − W)·H·(V − W)ᵀ */
function loss(values: ArrayLike<number>, { data, rows, columns }: Matrix, h: Matrix): number {
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    for (let a = 0; a < columns; a++) {
      for (let b = 0; b < columns; b++) {
        const [i, j] = [r * columns + a, r * columns + b];
        sum += (values[i] - data[i]) * h.data[a * columns + b] * (values[j] - data[j]);
      }
    }
  }
  return sum;
}

describe("the repair", () => {
  test("finds the weights of least loss on a mask: those of the normal equations", async () => {
    const [rows, n] = [3, 40];
    const target = matrix(rows, n, 11);
    const h = hessian(n, 12);
    const damping = 0.01 * meanOf(h);
    const random = uniformNumbers(13);
    const mask = Uint8Array.from({ length: rows * n }, () => random() < 0.4 ? 1 : 0);
    const data = target.data.map((w, i) => w * mask[i]);
    const start = { data, rows, columns: n };
    const held = penalised(h, new Float32Array(n).fill(damping));
    await solveOnMask(start, mask, target, held, 60, plainAlgebra);
    for (let r = 0; r < rows; r++) {
      const on = Array.from({ length: n }, (_, c) => c).filter((c) => mask[r * n + c] === 1);
      const at = (a: number, b: number) => h.data[a * n + b] + (a === b ? damping : 0);
      const small = inverse(on.flatMap((a) => on.map((b) => at(a, b))), on.length);
      const right = on.map((a) =>
        Array.from({ length: n }, (_, c) => at(a, c) * target.data[r * n + c])
          .reduce((x, y) => x + y)
      );
      on.forEach((c, i) => {
        const expected = right.reduce((sum, b, k) => sum + small[i * on.length + k] * b, 0);
        expect(Math.abs(data[r * n + c] - expected)).toBeLessThan(1e-3);
      });
      for (let c = 0; c < n; c++) {
        if (mask[r * n + c] === 0) expect(Math.abs(data[r * n + c])).toBe(0);
      }
    }
  });

  test("changes nothing of weights that are right already, and rows that are empty stay so", async () => {
    const target = matrix(2, 20, 14);
    const mask = new Uint8Array(40).fill(1, 0, 20);
    const start = { data: target.data.map((w, i) => w * mask[i]), rows: 2, columns: 20 };
    const before = start.data.slice();
    await solveOnMask(start, mask, target, hessian(20, 15), 5, plainAlgebra);
    expect(start.data).toEqual(before);
  });

  test("the ridge's weights are those of the normal equations, and the original ones where text says nothing", async () => {
    const [rows, n] = [3, 30];
    const weights = matrix(rows, n, 16);
    const h = hessian(n, 17);
    const penalty = penaltyOf(h);
    penalty.forEach((cost, c) =>
      expect(Math.abs(cost / (0.5 * h.data[c * n + c] + 0.01 * meanOf(h)) - 1)).toBeLessThan(1e-5)
    );
    const held = penalised(h, penalty);
    const { upper } = (await inverseFactor(held, 0, plainAlgebra))!;
    const cross = matrix(rows, n, 18);
    const inv = inverse(held.data, n);
    const expected = Float32Array.from({ length: rows * n }, (_, i) => {
      const [r, c] = [Math.floor(i / n), i % n];
      let sum = 0;
      for (let k = 0; k < n; k++) {
        sum += (cross.data[r * n + k] + penalty[k] * weights.data[r * n + k]) * inv[k * n + c];
      }
      return sum;
    });
    closeTo((await ridge(weights, cross, penalty, upper, plainAlgebra)).data, expected);

    const nothing = { data: new Float32Array(n * n), rows: n, columns: n };
    for (let i = 0; i < n; i++) nothing.data[i * n + i] = 1e-3;
    const strong = new Float32Array(n).fill(1e3);
    const free = (await inverseFactor(penalised(nothing, strong), 0, plainAlgebra))!;
    const none = { data: new Float32Array(rows * n), rows, columns: n };
    const kept = await ridge(weights, none, strong, free.upper, plainAlgebra);
    closeTo(kept.data, weights.data);
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
