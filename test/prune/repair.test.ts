import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  descendOnGrid,
  espalier,
  exchange,
  inverseFactor,
  type Mask,
  type Matrix,
  penalised,
  penaltyOf,
  plainAlgebra,
  pullOf,
  ridge,
  solveOnMask,
  sparseGpt,
} from "../../src/prune/mod.ts";
import { liesOnGrid } from "../../src/prune/int4_grid.ts";
import { int4Rounding } from "../../src/prune/sparsegpt.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { hessian, inverse, loss, matrix, meanOf } from "../support/matrices.ts";

const closeTo = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  for (let i = 0; i < a.length; i++) expect(Math.abs(a[i] - b[i])).toBeLessThan(2e-3);
};

/** A matrix to prune to, a Hessian, a random mask that keeps `n` of each `run`, and its best values. */
async function solved(rows: number, columns: number, n: number, run: number, seed: number) {
  const target = matrix(rows, columns, seed);
  const h = hessian(columns, seed + 1);
  const random = uniformNumbers(seed + 2);
  const mask: Mask = new Uint8Array(rows * columns);
  for (let start = 0; start < mask.length; start += run) {
    const places = Array.from({ length: run }, (_, i) => [random(), start + i]);
    for (const [, i] of places.sort((a, b) => a[0] - b[0]).slice(0, n)) mask[i] = 1;
  }
  const values = { data: target.data.map((w, i) => mask[i] === 0 ? 0 : w), rows, columns };
  const pull = await pullOf(target, values, h, plainAlgebra);
  await solveOnMask(values, mask, pull, h, 60, plainAlgebra);
  return { target, h, mask, values, pull: await pullOf(target, values, h, plainAlgebra) };
}

/**
 * Exchange from its definition: for each kept weight, the loss of every exchange with a pruned one, by
 * trying it.
 */
function naiveExchange(values: Matrix, mask: Mask, target: Matrix, h: Matrix, run: number): void {
  const { rows, columns, data } = values;
  for (let r = 0; r < rows; r++) {
    const wanted = { ...target, data: target.data.slice(r * columns, (r + 1) * columns), rows: 1 };
    const row = Float64Array.from(data.subarray(r * columns, (r + 1) * columns));
    const stays = mask.subarray(r * columns, (r + 1) * columns);
    for (let i = 0; i < columns; i++) {
      if (stays[i] === 0) continue;
      const first = i - i % run;
      let least = loss(row, wanted, h);
      let best: { row: Float64Array; j: number } | undefined;
      for (let j = first; j < Math.min(first + run, columns); j++) {
        if (stays[j] !== 0) continue;
        const tried = row.slice();
        tried[i] = 0;
        let pull = 0;
        for (let c = 0; c < columns; c++) {
          pull += (wanted.data[c] - tried[c]) * h.data[c * columns + j];
        }
        tried[j] = pull / h.data[j * columns + j];
        const now = loss(tried, wanted, h);
        if (now < least) [least, best] = [now, { row: tried, j }];
      }
      if (!best) continue;
      row.set(best.row);
      stays[i] = 0;
      stays[best.j] = 1;
    }
    data.set(row, r * columns);
  }
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
    const pull = await pullOf(target, start, held, plainAlgebra);
    await solveOnMask(start, mask, pull, held, 60, plainAlgebra);
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
    const h = hessian(20, 15);
    await solveOnMask(
      start,
      mask,
      await pullOf(target, start, h, plainAlgebra),
      h,
      5,
      plainAlgebra,
    );
    expect(start.data).toEqual(before);
  });

  test("the ridge's weights are those of the normal equations, and the original ones where text says nothing", async () => {
    const [rows, n] = [3, 30];
    const weights = matrix(rows, n, 16);
    const h = hessian(n, 17);
    const penalty = penaltyOf(h, 8192);
    // As if half as many tokens more had been seen, none of whose inputs go together.
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

describe("the exchange of weights", () => {
  test("takes for each kept weight the pruned one of its run that gains most, as trying them all does", async () => {
    for (const [columns, n, run] of [[16, 2, 4], [32, 8, 16], [20, 3, 20], [30, 2, 6]]) {
      const { target, h, mask, values, pull } = await solved(3, columns, n, run, columns);
      const naive = { mask: mask.slice(), values: { ...values, data: values.data.slice() } };
      naiveExchange(naive.values, naive.mask, target, h, run);
      const before = mask.slice();
      const count = exchange(values, mask, pull, h, run);
      expect(mask).toEqual(naive.mask);
      closeTo(values.data, naive.values.data);
      // Some weight came in, and may have gone again for another.
      expect(count).toBeGreaterThan(0);
      expect(mask).not.toEqual(before);
      closeTo(pull.data, (await pullOf(target, values, h, plainAlgebra)).data);
    }
  });

  test("lowers the loss, keeps as many in each run, and leaves zeros where the mask is", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 1e6 }),
        fc.constantFrom([2, 4], [8, 16], [12, 40], [10, 10]),
        async (seed, [n, run]) => {
          const { target, h, mask, values, pull } = await solved(2, 2 * run, n, run, seed);
          const before = loss(values.data, target, h);
          exchange(values, mask, pull, h, run);
          expect(loss(values.data, target, h)).toBeLessThanOrEqual(before * (1 + 1e-5));
          for (let start = 0; start < mask.length; start += run) {
            expect(mask.subarray(start, start + run).reduce((a, b) => a + b)).toBe(n);
          }
          mask.forEach((bit, i) => bit === 0 && expect(values.data[i]).toBe(0));
        },
      ),
      { numRuns: 30 },
    );
  });
});

describe("the descent on a grid", () => {
  test("ends where no other level of any one weight is better, and never above where it began", async () => {
    let moves = 0;
    for (const [n, run] of [[32, 32], [8, 16], [10, 32]]) {
      const { target, h, mask, values } = await solved(3, 128, n, run, 40 + n);
      const rounding = int4Rounding({ density: n / run }, 32);
      const { upper } = (await inverseFactor(h, 1e-6, plainAlgebra))!;
      const pattern = { kind: "unstructured" } as const;
      const share = { density: n / run };
      const asked = { weights: values, upper, pattern, share, mask, rounding };
      const walked = await sparseGpt(asked, plainAlgebra);
      const rounded = { ...values, data: walked.values.slice() };
      const pull = await pullOf(target, rounded, h, plainAlgebra);
      const given = pull.data.slice();
      descendOnGrid(rounded, mask, pull, h, rounding);
      expect(pull.data).toEqual(given);
      const least = loss(rounded.data, target, h);
      expect(least).toBeLessThanOrEqual(loss(walked.values, target, h));
      moves += rounded.data.filter((w, i) => w !== walked.values[i]).length;
      for (let i = 0; i < mask.length; i++) {
        if (mask[i] === 0) {
          expect(rounded.data[i]).toBe(0);
          continue;
        }
        const start = i - i % rounding.columns;
        const on = (data: Float32Array) =>
          data.subarray(start, start + rounding.columns).filter((_, k) => mask[start + k] === 1);
        const scale = rounding.scale(on(walked.values), on(walked.values).length);
        for (const step of [-1, 1]) {
          const tried = rounded.data.slice();
          tried[i] = rounding.round(tried[i] + step * scale, scale);
          expect(loss(tried, target, h)).toBeGreaterThan(least * (1 - 1e-5));
        }
      }
    }
    expect(moves).toBeGreaterThan(10);
  });
});

describe("our method", () => {
  const patterns = [
    [{ kind: "unstructured" }, 0.3, 128],
    [{ kind: "nm", n: 2, m: 4 }, 0.5, 4],
    [{ kind: "mixed", m: 16 }, 0.5, 16],
    [{ kind: "slots" }, 0.5, 16],
  ] as const;
  for (const [pattern, density, run] of patterns) {
    test(`loses less than SparseGPT with what it keeps solved for: ${pattern.kind}`, async () => {
      const target = matrix(8, 128, 50);
      const h = hessian(128, 51);
      const { upper } = (await inverseFactor(h, 1e-6, plainAlgebra))!;
      const share = { density };
      const request = { target, hessian: h, upper, pattern, share };
      const { mask, values } = await espalier(request, plainAlgebra);
      const first = await sparseGpt({ weights: target, upper, pattern, share }, plainAlgebra);
      const alone = { data: first.values, rows: 8, columns: 128 };
      const pull = await pullOf(target, alone, h, plainAlgebra);
      await solveOnMask(alone, first.mask, pull, h, 16, plainAlgebra);
      expect(loss(values, target, h)).toBeLessThan(0.99 * loss(alone.data, target, h));
      expect(mask.reduce((a, b) => a + b)).toBe(first.mask.reduce((a, b) => a + b));
      for (let start = 0; start < mask.length; start += run) {
        const count = (of: Mask) => of.subarray(start, start + run).reduce((a, b) => a + b);
        expect(count(mask)).toBe(count(first.mask));
      }
      mask.forEach((bit, i) => bit === 0 && expect(values[i]).toBe(0));

      const rounding = int4Rounding(share, 32);
      const rounded = await espalier({ ...request, rounding }, plainAlgebra);
      expect(rounded.mask).toEqual(mask);
      for (let start = 0; start < mask.length; start += rounding.columns) {
        const group = rounded.values.slice(start, start + rounding.columns)
          .filter((_, i) => mask[start + i] === 1);
        expect(liesOnGrid(group, rounding.scale(group, group.length))).toBe(true);
      }
    });
  }

  test("leaves a matrix of which everything stays as it fits best", async () => {
    const target = matrix(4, 64, 60);
    const h = hessian(64, 61);
    const { upper } = (await inverseFactor(h, 1e-6, plainAlgebra))!;
    const pattern = { kind: "unstructured" } as const;
    const request = { target, hessian: h, upper, pattern, share: { density: 1 } };
    const { mask, values } = await espalier(request, plainAlgebra);
    expect(values).toEqual(target.data);
    expect(mask).toEqual(new Uint8Array(256).fill(1));
  });
});
