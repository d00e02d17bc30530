import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DensitySearch, LEAST_DENSITY, withMean } from "../../src/prune/mod.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

const sum = (values: Iterable<number>) => [...values].reduce((a, b) => a + b, 0);

type Loss = (densities: Float64Array) => number;

/** Blocks whose losses fall like a·exp(−k·d), as the search takes them to, and add up. */
const damage = (weights: readonly number[], decay = 8): Loss => (densities) =>
  3 + sum(weights.map((weight, b) => weight * Math.exp(-decay * densities[b])));

/** The densities of least loss: equal slopes, so each is (ln a − ν)/k. */
function optimum(weights: readonly number[], mean: number, decay = 8): number[] {
  const logs = weights.map(Math.log);
  const middle = sum(logs) / logs.length;
  return logs.map((log) => mean + (log - middle) / decay);
}

/** Runs a search to the end of its budget. */
function run(start: ArrayLike<number>, loss: Loss, budget: number, seed = 1, quantum?: number) {
  const search = new DensitySearch(start, { random: uniformNumbers(seed), quantum });
  const asked: { densities: number[]; kind: string }[] = [];
  while (search.evaluations < budget) {
    const { densities, kind } = search.next();
    asked.push({ densities: [...densities], kind });
    search.tell(loss(densities));
  }
  return { search, asked };
}

const weights = [0.9, 0.2, 0.3, 0.5, 0.25, 0.7, 0.4, 1.4];
const uniform = (blocks: number, density: number) => new Float64Array(blocks).fill(density);

describe("the search for densities", () => {
  test("moves straight to the optimum of blocks that lose as it takes them to", () => {
    const loss = damage(weights);
    const start = uniform(8, 0.5);
    const best = optimum(weights, 0.5);
    // The start, a probe for each block, and moves of growing length.
    const { search, asked } = run(start, loss, 1 + 8 + 4);
    const moves = asked.filter(({ kind }) => kind === "move");
    expect(moves.length).toBeGreaterThan(1);
    for (const { densities } of moves) {
      const length = (densities[0] - 0.5) / (best[0] - 0.5);
      densities.forEach((density, b) =>
        expect(density).toBeCloseTo(0.5 + length * (best[b] - 0.5), 9)
      );
    }
    const least = loss(Float64Array.from(best));
    expect(search.best.loss - least).toBeLessThan(0.2 * (loss(start) - least));
    expect(run(start, loss, 300).search.best.loss - least).toBeLessThan(
      1e-3 * (loss(start) - least),
    );
  });

  test("comes near the optimum where losses bend otherwise, and depend on each other", () => {
    // Quadratic about densities that no rule would give, with neighbours that must not both be sparse.
    const centre = [0.62, 0.31, 0.44, 0.55, 0.35, 0.4, 0.53, 0.8];
    const loss: Loss = (d) =>
      sum(d.map((density, b) => (density - centre[b]) ** 2)) +
      sum(d.map((density, b) =>
        b > 0 ? 0.3 * (density + d[b - 1] - centre[b] - centre[b - 1]) ** 2 : 0
      ));
    const start = uniform(8, sum(centre) / 8);
    const { search } = run(start, loss, 400);
    expect(search.best.loss).toBeLessThan(0.02 * loss(start));
  });

  test("keeps the mean, and each block within its bounds, in all that can become the result", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: LEAST_DENSITY, max: 1, noNaN: true }), {
          minLength: 2,
          maxLength: 40,
        }),
        fc.nat(),
        (start, seed) => {
          const random = uniformNumbers(seed);
          const { asked } = run(start, () => random(), 200, seed);
          for (const { densities, kind } of asked) {
            for (const density of densities) {
              expect(density).toBeGreaterThan(LEAST_DENSITY - 1e-12);
              expect(density).toBeLessThan(1 + 1e-12);
            }
            if (kind !== "probe") {
              expect(Math.abs(sum(densities) - sum(start)) / start.length)
                .toBeLessThan(1e-9);
            }
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test("counts in whole numbers where the pattern does", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 2, maxLength: 30 }),
        fc.nat(),
        (counts, seed) => {
          const random = uniformNumbers(seed);
          const start = counts.map((count) => count / 16);
          for (const { densities, kind } of run(start, () => random(), 120, seed, 1 / 16).asked) {
            const found = densities.map((density) => density * 16);
            for (const count of found) {
              expect(Number.isInteger(count)).toBe(true);
              expect(count >= 1 && count <= 16).toBe(true);
            }
            if (kind !== "probe") expect(sum(found)).toBe(sum(counts));
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test("finds the best whole numbers of a small case, which trying all of them shows", () => {
    const loss = damage([0.9, 0.2, 0.5, 1.6]);
    let least = Infinity;
    for (let a = 1; a <= 16; a++) {
      for (let b = 1; b <= 16; b++) {
        for (let c = 1; c <= 16; c++) {
          const d = 32 - a - b - c;
          if (d < 1 || d > 16) continue;
          least = Math.min(least, loss(Float64Array.of(a / 16, b / 16, c / 16, d / 16)));
        }
      }
    }
    const { search } = run(uniform(4, 0.5), loss, 80, 3, 1 / 16);
    expect(search.best.loss).toBeCloseTo(least, 12);
  });

  test("never ends above the start, and a probe never becomes the result", () => {
    // Losses that grow with every weight that is kept: a probe, which keeps less, is the lowest of all.
    const { search, asked } = run(uniform(6, 0.4), sum, 60);
    expect(search.best.loss).toBeCloseTo(2.4, 9);
    expect(asked.some(({ densities }) => sum(densities) < 2.4 - 1e-3)).toBe(true);
    expect(sum(search.best.densities)).toBeCloseTo(2.4, 9);
  });

  test("does the same again with the same seed, and something else with another", () => {
    const loss = damage(weights);
    const first = run(uniform(8, 0.3), loss, 60, 7);
    expect(run(uniform(8, 0.3), loss, 60, 7).asked).toEqual(first.asked);
    expect(run(uniform(8, 0.3), loss, 60, 8).asked).not.toEqual(first.asked);
  });

  test("is where it was when it is told the same losses, whatever the budget", () => {
    const loss = damage(weights);
    const whole = run(uniform(8, 0.3), loss, 80, 5).asked;
    expect(run(uniform(8, 0.3), loss, 33, 5).asked).toEqual(whole.slice(0, 33));
  });

  test("takes losses that are infinite, and models of one block", () => {
    const { search } = run(uniform(5, 0.3), (d) => d[2] < 0.29 ? Infinity : d[0], 60);
    expect(search.best.densities[2]).toBeGreaterThanOrEqual(0.29);
    expect([...run([0.3], () => 1, 20).search.best.densities]).toEqual([0.3]);
    expect([...run([1, 1], () => 1, 20).search.best.densities]).toEqual([1, 1]);
  });
});

describe("densities of a wanted mean", () => {
  test("are the nearest within the bounds", () => {
    fc.assert(fc.property(
      fc.array(fc.double({ min: -2, max: 3, noNaN: true }), { minLength: 1, maxLength: 40 }),
      fc.double({ min: 0.02, max: 1, noNaN: true }),
      (values, mean) => {
        const found = withMean(values, mean, 0.02, 1);
        expect(Math.abs(sum(found) / found.length - mean)).toBeLessThan(1e-9);
        // Those that are not at a bound are shifted by the same, those at a bound by less.
        const shifts = [...found].map((density, b) => density - values[b]);
        const free = shifts.filter((_, b) => found[b] > 0.02 && found[b] < 1);
        for (const shift of free) expect(shift).toBeCloseTo(free[0], 9);
        if (free.length > 0) {
          shifts.forEach((shift, b) => {
            if (found[b] === 0.02) expect(shift).toBeGreaterThan(free[0] - 1e-9);
            if (found[b] === 1) expect(shift).toBeLessThan(free[0] + 1e-9);
          });
        }
      },
    ));
  });
});
