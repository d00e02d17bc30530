import { describe, expect, test } from "bun:test";
import { Alone } from "../../../src/engine/sparse/alone.ts";

/** Which of so many runs of some tokens are alone, by what a token takes. */
function runsOf(
  alone: Alone,
  tokens: number,
  count: number,
  each: (isAlone: boolean, run: number) => number,
): boolean[] {
  return Array.from({ length: count }, (_, run) => {
    const isAlone = alone.choose(tokens, true);
    alone.took(tokens, isAlone, tokens * each(isAlone, run));
    return isAlone;
  });
}

const countOf = (runs: readonly boolean[], isAlone: boolean) =>
  runs.filter((run) => run === isAlone).length;

describe("a run of several tokens", () => {
  test("is never alone where one token is not", () => {
    const alone = new Alone();
    for (let run = 0; run < 100; run++) {
      expect(alone.choose(8, false)).toBe(false);
      alone.took(8, false, 100);
    }
  });

  test("is alone, or not, as it takes less, and the other is tried now and then", () => {
    for (const best of [true, false]) {
      const runs = runsOf(new Alone(), 8, 340, (isAlone) => isAlone === best ? 3 : 9);
      expect(countOf(runs, !best)).toBeGreaterThan(10);
      expect(countOf(runs, !best)).toBeLessThan(25);
    }
  });

  test("of one size says nothing of those of another", () => {
    const alone = new Alone();
    const few = (isAlone: boolean) => isAlone ? 1 : 10,
      many = (isAlone: boolean) => isAlone ? 2 : 1;
    expect(countOf(runsOf(alone, 4, 100, few), true)).toBeGreaterThan(90);
    expect(countOf(runsOf(alone, 128, 100, many), true)).toBeLessThan(10);
    expect(countOf(runsOf(alone, 4, 100, few), true)).toBeGreaterThan(90);
  });

  test("follows what the machine has to do, and not a single run", () => {
    const changing = (isAlone: boolean, run: number) => isAlone === run < 200 ? 3 : 9;
    const runs = runsOf(new Alone(), 20, 400, changing);
    expect(countOf(runs.slice(20, 200), true)).toBeGreaterThan(160);
    expect(countOf(runs.slice(250), true)).toBeLessThan(20);
    const once = (isAlone: boolean, run: number) => isAlone ? (run === 50 ? 500 : 3) : 9;
    expect(countOf(runsOf(new Alone(), 20, 100, once), true)).toBeGreaterThan(90);
  });
});
