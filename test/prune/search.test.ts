import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DensitySearch, LEAST_DENSITY, withMean } from "../../src/prune/mod.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { doubles } from "../support/numbers.ts";

const sum = (values: Iterable<number>) => [...values].reduce((a, b) => a + b, 0);

type Loss = (densities: Float64Array) => number;
type Slopes = (densities: Float64Array) => Float64Array;

/** Blocks whose losses fall like a·exp(−k·d), as the search takes them to, and add up. */
const damage = (weights: readonly number[], decay = 8): Loss => (densities) =>
  3 + sum(weights.map((weight, b) => weight * Math.exp(-decay * densities[b])));

/** The densities of least loss: equal slopes, so each is (ln a − ν)/k. */
function optimum(weights: readonly number[], mean: number, decay = 8): number[] {
  const logs = weights.map(Math.log);
  const middle = sum(logs) / logs.length;
  return logs.map((log) => mean + (log - middle) / decay);
}

/** How much a loss falls with each density, by differences. */
function slopesOf(loss: Loss, densities: Float64Array): Float64Array {
  const step = 1e-5;
  const moved = (i: number, by: number) => densities.map((d, j) => i === j ? d + by : d);
  return densities.map((_, i) => (loss(moved(i, -step)) - loss(moved(i, step))) / (2 * step));
}

/** Runs a search to the end of its budget. */
function run(
  start: ArrayLike<number>,
  loss: Loss,
  budget: number,
  more: { seed?: number; quantum?: number; sizes?: number[]; slopes?: Slopes } = {},
) {
  const { seed = 1, quantum, sizes, slopes = (densities) => slopesOf(loss, densities) } = more;
  const search = new DensitySearch(start, { random: uniformNumbers(seed), quantum, sizes });
  const asked: { densities: number[]; kind: string }[] = [];
  while (search.evaluations < budget) {
    const { densities, kind } = search.next();
    asked.push({ densities: [...densities], kind });
    search.tell(kind === "slopes" ? slopes(densities) : loss(densities));
  }
  return { search, asked };
}

const weights = [0.9, 0.2, 0.3, 0.5, 0.25, 0.7, 0.4, 1.4];
const uniform = (blocks: number, density: number) => new Float64Array(blocks).fill(density);

describe("the search for densities", () => {
  test("moves straight to the optimum of parts that lose as it takes them to", () => {
    const loss = damage(weights);
    const start = uniform(8, 0.5);
    const best = optimum(weights, 0.5);
    // The start, its slopes, and moves of growing length.
    const { search, asked } = run(start, loss, 1 + 1 + 4);
    const moves = asked.filter(({ kind }) => kind === "move");
    expect(moves.length).toBeGreaterThan(1);
    for (const { densities } of moves.slice(0, 2)) {
      const length = (densities[0] - 0.5) / (best[0] - 0.5);
      densities.forEach((density, b) =>
        expect(density).toBeCloseTo(0.5 + length * (best[b] - 0.5), 6)
      );
    }
    const least = loss(Float64Array.from(best));
    expect(search.best.loss - least).toBeLessThan(0.2 * (loss(start) - least));
    expect(run(start, loss, 60).search.best.loss - least).toBeLessThan(
      1e-3 * (loss(start) - least),
    );
  });

  test("gives parts of unlike sizes what the same weights in parts of one size get", () => {
    // Two weights that count twice are as four: what is alike has one density in the end.
    const small = [0.9, 0.9, 0.2, 0.2, 0.2, 0.5];
    const large = [1.8, 0.6, 0.5];
    const sizes = [2, 3, 1];
    const start = 0.4;
    const fine = run(uniform(6, start), damage(small), 200).search.best;
    const coarse = run(uniform(3, start), damage(large), 200, { sizes }).search.best;
    expect(coarse.loss).toBeCloseTo(fine.loss, 3);
    const mean = sum(coarse.densities.map((density, i) => density * sizes[i])) / sum(sizes);
    expect(mean).toBeCloseTo(start, 9);
    for (const [i, of] of [0, 2, 5].entries()) {
      expect(Math.abs(coarse.densities[i] - fine.densities[of])).toBeLessThan(0.02);
    }
  });

  /** Where the first move goes from some densities: the logarithms of slopes a weight, less their mean. */
  function firstMove(start: number[], slopes: number[], sizes: number[], length: number): number[] {
    const each = slopes.map((slope, i) => slope / sizes[i] * sum(sizes) / sizes.length);
    const floor = 0.25 * sum(each) / each.length;
    const logs = each.map((slope) => Math.log(Math.max(slope, floor)));
    const middle = sum(logs.map((log, i) => log * sizes[i])) / sum(sizes);
    const most = Math.max(...logs.map((log) => Math.abs(log - middle)));
    return start.map((density, i) => density + length * (logs[i] - middle) / most);
  }

  test("moves first by a fifth of what is scarcer, as slopes a weight say, and heeds no noise", () => {
    const sizes = [2, 3, 1, 4];
    for (const mean of [0.3, 0.7]) {
      // The third is so flat that it is taken for a quarter of the mean.
      const start = new Array(4).fill(mean), slopes = [1.8, 0.6, 0.001, 5];
      const more = { sizes, slopes: () => Float64Array.from(slopes) };
      const { asked } = run(start, () => 1, 3, more);
      expect(asked.map(({ kind }) => kind)).toEqual(["start", "slopes", "move"]);
      const length = 0.2 * Math.min(mean, 1 - mean);
      const wanted = firstMove(start, slopes, sizes, length);
      for (const [i, density] of wanted.entries()) {
        expect(asked[2].densities[i]).toBeCloseTo(density, 9);
      }
    }
  });

  test("moves to the nearest whole numbers of the same sum, which trying all of them shows", () => {
    const dice = uniformNumbers(5);
    for (let repeat = 0; repeat < 20; repeat++) {
      const start = new Array(4).fill(0.5);
      const slopes = start.map(() => 0.3 + 3 * dice());
      const more = { quantum: 1 / 16, slopes: () => Float64Array.from(slopes) };
      const [, , { densities }] = run(start, () => 1, 3, more).asked;
      const exact = firstMove(start, slopes, [1, 1, 1, 1], 2 / 16).map((density) => density * 16);
      const distance = (counts: number[]) => sum(counts.map((count, i) => (count - exact[i]) ** 2));
      let least = Infinity;
      for (let a = 1; a <= 16; a++) {
        for (let b = 1; b <= 16; b++) {
          for (let c = 1; c <= 16; c++) {
            const d = 32 - a - b - c;
            if (d >= 1 && d <= 16) least = Math.min(least, distance([a, b, c, d]));
          }
        }
      }
      expect(distance(densities.map((density) => density * 16))).toBeCloseTo(least, 9);
    }
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
        fc.array(doubles(LEAST_DENSITY, 1), {
          minLength: 2,
          maxLength: 40,
        }),
        fc.nat(),
        (start, seed) => {
          const random = uniformNumbers(seed);
          const sizes = start.map(() => 1 + Math.floor(random() * 9));
          const slopes: Slopes = (densities) => densities.map(() => random() - 0.2);
          const { asked } = run(start, () => random(), 200, { seed, sizes, slopes });
          const kept = (of: readonly number[]) => sum(of.map((density, i) => density * sizes[i]));
          for (const { densities } of asked) {
            for (const density of densities) {
              expect(density).toBeGreaterThan(LEAST_DENSITY - 1e-12);
              expect(density).toBeLessThan(1 + 1e-12);
            }
            expect(Math.abs(kept(densities) - kept(start)) / sum(sizes)).toBeLessThan(1e-9);
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
          const slopes: Slopes = (densities) => densities.map(() => random());
          const more = { seed, quantum: 1 / 16, slopes };
          for (const { densities } of run(start, () => random(), 120, more).asked) {
            const found = densities.map((density) => density * 16);
            for (const count of found) {
              expect(Number.isInteger(count)).toBe(true);
              expect(count >= 1 && count <= 16).toBe(true);
            }
            expect(sum(found)).toBe(sum(counts));
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
    const { search } = run(uniform(4, 0.5), loss, 80, { seed: 3, quantum: 1 / 16 });
    expect(search.best.loss).toBeCloseTo(least, 12);
  });

  test("never ends above the start, whatever the slopes say", () => {
    const loss = damage(weights);
    const best = Float64Array.from(optimum(weights, 0.5));
    const wrong: Slopes = (densities) => slopesOf(loss, densities).map((slope) => 1 / slope);
    for (const slopes of [wrong, () => uniform(8, 0), () => uniform(8, NaN)]) {
      const { search } = run(best, loss, 60, { slopes });
      expect(search.best.loss).toBeLessThanOrEqual(loss(best));
    }
  });

  test("takes a loss for a loss, and slopes for slopes", () => {
    const search = new DensitySearch([0.5, 0.5], { random: uniformNumbers(1) });
    expect(() => search.tell(Float64Array.of(1, 1))).toThrow(TypeError);
    search.tell(1);
    expect(search.next().kind).toBe("slopes");
    expect(() => search.tell(1)).toThrow(TypeError);
    search.tell(Float64Array.of(1, 2));
    expect(search.next().kind).toBe("move");
  });

  test("does the same again with the same seed, and something else with another", () => {
    const loss = damage(weights);
    const first = run(uniform(8, 0.3), loss, 60, { seed: 7 });
    expect(run(uniform(8, 0.3), loss, 60, { seed: 7 }).asked).toEqual(first.asked);
    expect(run(uniform(8, 0.3), loss, 60, { seed: 8 }).asked).not.toEqual(first.asked);
  });

  test("is where it was when it is told the same losses, whatever the budget", () => {
    const loss = damage(weights);
    const whole = run(uniform(8, 0.3), loss, 80, { seed: 5 }).asked;
    expect(run(uniform(8, 0.3), loss, 33, { seed: 5 }).asked).toEqual(whole.slice(0, 33));
  });

  test("takes losses that are infinite, and models of one part", () => {
    const { search } = run(uniform(5, 0.3), (d) => d[2] < 0.29 ? Infinity : d[0], 60);
    expect(search.best.densities[2]).toBeGreaterThanOrEqual(0.29);
    expect([...run([0.3], () => 1, 20).search.best.densities]).toEqual([0.3]);
    expect([...run([1, 1], () => 1, 20).search.best.densities]).toEqual([1, 1]);
  });
});

describe("densities of a wanted mean", () => {
  test("are the nearest within the bounds", () => {
    fc.assert(fc.property(
      fc.array(doubles(-2, 3), { minLength: 1, maxLength: 40 }),
      doubles(0.02, 1),
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
