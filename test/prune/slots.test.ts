/**
 * The mask of slots against a reading of its definition that sorts everything.
 * @module
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  maskOf,
  PatternError,
  sharesOfLinears,
  slotGains,
  slotShares,
  slotsMask,
  slotsOf,
  type Weight,
} from "../../src/prune/mod.ts";
import { doubles, floats } from "../support/numbers.ts";

/** Few different scores, so that ties are the rule, or many. */
const score = fc.oneof(
  fc.integer({ min: 0, max: 5 }),
  floats(0, 9).map((x) => x === 0 ? 0 : x),
);

const matrices = fc.record({
  groups: fc.integer({ min: 1, max: 4 }),
  windows: fc.integer({ min: 1, max: 4 }),
}).chain(({ groups, windows }) =>
  fc.record({
    rows: fc.constant(groups * 4),
    columns: fc.constant(windows * 16),
    scores: fc.array(score, { minLength: groups * windows * 64, maxLength: groups * windows * 64 })
      .map((scores) => Float32Array.from(scores)),
    share: doubles(0, 1),
  })
);

type Case = typeof matrices extends fc.Arbitrary<infer T> ? T : never;

/** Columns of a row's window, the best first; of equals the higher column. */
function ranked({ scores, columns }: Case, row: number, window: number): number[] {
  const at = (c: number) => scores[row * columns + c];
  return Array.from({ length: 16 }, (_, i) => window * 16 + i)
    .sort((a, b) => at(b) - at(a) || b - a);
}

/** The gain of slot k of a window, as the definition has it. */
function gainOf(matrix: Case, group: number, window: number, k: number): number {
  let sum = 0;
  for (let row = group * 4; row < group * 4 + 4; row++) {
    for (const c of ranked(matrix, row, window).slice(4 * k, 4 * k + 4)) {
      sum += matrix.scores[row * matrix.columns + c];
    }
  }
  return sum;
}

/** Slots of each window of a mask; fails where a window has no whole number, or not the best weights. */
function countsOf(mask: Uint8Array, matrix: Case): number[][] {
  const { rows, columns } = matrix;
  return Array.from(
    { length: rows / 4 },
    (_, group) =>
      Array.from({ length: columns / 16 }, (_, window) => {
        const kept = Array.from({ length: 4 }, (_, i) => {
          const row = group * 4 + i;
          const order = ranked(matrix, row, window);
          const count = order.filter((c) => mask[row * columns + c] === 1).length;
          for (const c of order.slice(0, count)) expect(mask[row * columns + c]).toBe(1);
          return count;
        });
        expect(new Set(kept).size).toBe(1);
        expect(kept[0] % 4).toBe(0);
        return kept[0] / 4;
      }),
  );
}

const sum = (counts: readonly number[]) => counts.reduce((a, b) => a + b, 0);

describe("slots", () => {
  test("gain what they keep of the four rows' scores", () => {
    fc.assert(fc.property(matrices, (matrix) => {
      const gains = slotGains(matrix.scores, matrix.rows, matrix.columns);
      gains.forEach((gain, i) => {
        const windows = matrix.columns / 16;
        const [group, window] = [Math.floor(i / 4 / windows), Math.floor(i / 4) % windows];
        const wanted = gainOf(matrix, group, window, i % 4);
        expect(Math.abs(gain - wanted)).toBeLessThan(1e-5 * (1 + wanted));
      });
    }));
  });

  test("are as many as were asked for, in each four rows as many as in the others but for one", () => {
    fc.assert(fc.property(matrices, (matrix) => {
      const { rows, columns, scores } = matrix;
      const slots = Math.round(matrix.share * slotsOf(matrix));
      const counts = countsOf(slotsMask(scores, rows, columns, slots), matrix);
      expect(sum(counts.flat())).toBe(slots);
      const perGroup = counts.map(sum);
      expect(Math.max(...perGroup) - Math.min(...perGroup)).toBeLessThanOrEqual(1);
    }));
  });

  test("that are left over go to the fours of rows whose next one gains most", () => {
    fc.assert(fc.property(matrices, (matrix) => {
      const { rows, columns, scores } = matrix;
      const slots = Math.round(matrix.share * slotsOf(matrix));
      const counts = countsOf(slotsMask(scores, rows, columns, slots), matrix);
      const even = Math.floor(slots / counts.length);
      const next = counts.map((windows, group) => {
        const gains = windows.flatMap((_, window) =>
          Array.from({ length: 4 }, (_, k) => gainOf(matrix, group, window, k))
        );
        return { gain: gains.sort((a, b) => b - a)[even], hasMore: sum(windows) > even };
      });
      const more = next.filter(({ hasMore }) => hasMore).map(({ gain }) => gain);
      const others = next.filter(({ hasMore }) => !hasMore).map(({ gain }) => gain);
      if (more.length === 0 || others.length === 0) return;
      const most = Math.max(...others);
      expect(Math.min(...more)).toBeGreaterThanOrEqual(most - 1e-5 * (1 + most));
    }));
  });

  test("stay where they gain most", () => {
    fc.assert(fc.property(matrices, (matrix) => {
      const { rows, columns, scores } = matrix;
      const slots = Math.round(matrix.share * slotsOf(matrix));
      const counts = countsOf(slotsMask(scores, rows, columns, slots), matrix);
      counts.forEach((windows, group) => {
        const kept = windows.flatMap((count, window) =>
          Array.from({ length: count }, (_, k) => gainOf(matrix, group, window, k))
        );
        const left = windows.flatMap((count, window) =>
          Array.from({ length: 4 - count }, (_, k) => gainOf(matrix, group, window, count + k))
        );
        const slack = 1e-5 * (1 + Math.max(0, ...left));
        if (kept.length > 0 && left.length > 0) {
          expect(Math.min(...kept)).toBeGreaterThanOrEqual(Math.max(...left) - slack);
        }
      });
    }));
  });

  test("are as many in each four rows as is asked for", () => {
    fc.assert(fc.property(matrices, (matrix) => {
      const { rows, columns, scores } = matrix;
      const wanted = Array.from({ length: rows / 4 }, (_, i) => (i * 7 + rows) % (columns / 4 + 1));
      expect(countsOf(slotsMask(scores, rows, columns, wanted), matrix).map(sum)).toEqual(wanted);
    }));
  });

  test("do not fit rows that are no fours or columns that are no sixteens, and say what to do", () => {
    for (const [rows, columns] of [[6, 16], [4, 24]]) {
      const weight: Weight = {
        name: "mlp.up_proj",
        rows,
        columns,
        values: new Float32Array(rows * columns),
        norms: new Float32Array(columns),
      };
      const mask = () => maskOf(weight, "wanda", { kind: "slots" }, { density: 0.5 });
      expect(mask).toThrow(PatternError);
      expect(mask).toThrow(`slots do not fit mlp.up_proj: `);
      expect(mask).toThrow("leave it dense with --skip");
    }
  });
});

describe("a block's slots", () => {
  /** Linears of one width after the other, whose weights are of very different sizes. */
  const blocks = fc.array(
    fc.record({
      groups: fc.integer({ min: 1, max: 3 }),
      windows: fc.integer({ min: 1, max: 3 }),
      size: fc.constantFrom(1e-3, 1, 100),
    }),
    { minLength: 1, maxLength: 4 },
  ).chain((shapes) =>
    fc.tuple(
      ...shapes.map(({ groups, windows, size }) =>
        fc.array(floats(-1, 1), {
          minLength: groups * windows * 64,
          maxLength: groups * windows * 64,
        }).map((values): Weight => ({
          name: "q_proj",
          rows: groups * 4,
          columns: windows * 16,
          values: Float32Array.from(values, (value) => value * size),
          norms: Float32Array.from({ length: windows * 16 }, (_, c) => 1 + c % 3),
        }))
      ),
    )
  );

  for (const method of ["wanda", "magnitude"] as const) {
    test(`are as many as the density says, those that keep most of their rows' scores: ${method}`, () => {
      fc.assert(
        fc.property(blocks, doubles(0, 1), (weights, density) => {
          const total = weights.reduce((all, weight) => all + slotsOf(weight), 0);
          const shares = slotShares(weights, method, density);
          expect(sum(shares.map((share) => sum([...share])))).toBe(Math.round(density * total));
          // The definition again: gains over the mean of their four rows, the greatest of all.
          const all = weights.flatMap((weight, linear) => {
            const scores = weight.values.map((value, i) =>
              Math.abs(value) * (method === "wanda" ? weight.norms[i % weight.columns] : 1)
            );
            const gains = slotGains(scores, weight.rows, weight.columns);
            const perGroup = weight.columns / 4;
            return Array.from(gains, (gain, i) => {
              const group = Math.floor(i / perGroup);
              const mean = sum([...gains.slice(group * perGroup, (group + 1) * perGroup)]) /
                perGroup;
              return { linear, group, gain: mean > 0 ? gain / mean : 0 };
            });
          }).sort((a, b) => b.gain - a.gain);
          const kept = all.slice(0, Math.round(density * total));
          const [last, next] = [kept.at(-1)?.gain ?? Infinity, all[kept.length]?.gain ?? -1];
          // Nothing is said of gains that are as good as equal.
          if (last - next < 1e-5 * last) return;
          weights.forEach((weight, linear) => {
            for (let group = 0; group < weight.rows / 4; group++) {
              const count = kept.filter((slot) => slot.linear === linear && slot.group === group);
              expect(shares[linear][group]).toBe(count.length);
            }
          });
        }),
      );
    });
  }

  test("are those of its masks", () => {
    fc.assert(fc.property(blocks, (weights) => {
      const pattern = { kind: "slots" } as const;
      const shares = sharesOfLinears(weights, "wanda", pattern, { density: 0.4 });
      const masks = weights.map((weight, i) => maskOf(weight, "wanda", pattern, shares[i]));
      const total = weights.reduce((all, weight) => all + slotsOf(weight), 0);
      expect(sum(masks.map((mask) => sum([...mask])))).toBe(16 * Math.round(0.4 * total));
    }));
  });
});
