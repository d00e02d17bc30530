import { describe, expect, test } from "bun:test";
import { Alone } from "../../../src/engine/sparse/alone.ts";

/** Which of so many runs of some tokens are alone, by what a token takes. */
function runsOf(
  alone: Alone,
  tokens: number,
  count: number,
  each: (isAlone: boolean, run: number) => number,
  cost = 2,
): boolean[] {
  return Array.from({ length: count }, (_, run) => {
    const isAlone = alone.choose(tokens, cost);
    alone.took(tokens, isAlone, tokens * each(isAlone, run));
    return isAlone;
  });
}

const countOf = (runs: readonly boolean[], isAlone: boolean) =>
  runs.filter((run) => run === isAlone).length;

describe("a run of several tokens", () => {
  test("is never alone where one token is not, but for few tokens: they try it by themselves", () => {
    for (const [tokens, least, most] of [[17, 0, 0], [128, 0, 0], [2, 980, 991], [16, 980, 991]]) {
      const runs = runsOf(new Alone(), tokens, 1000, (isAlone) => isAlone ? 10 : 100, 0.7);
      expect(countOf(runs, true), `${tokens} tokens`).toBeGreaterThanOrEqual(least);
      expect(countOf(runs, true), `${tokens} tokens`).toBeLessThanOrEqual(most);
    }
  });

  test("of many is not alone where one token alone takes a little less: together they compute twice as much", () => {
    const prompts = (tokens: number, cost: number) =>
      countOf(runsOf(new Alone(), tokens, 100, (isAlone) => isAlone ? 20 : 10, cost), true);
    for (const tokens of [17, 128, 512]) {
      expect(prompts(tokens, 1.3)).toBe(0);
      expect(prompts(tokens, 1.5)).toBeGreaterThan(0);
    }
    expect(prompts(16, 1.3)).toBeGreaterThan(0);
  });

  test("of few tokens costs next to nothing where together is faster", () => {
    for (const tokens of [2, 3, 5, 8, 16]) {
      const runs = runsOf(new Alone(), tokens, 1000, (isAlone) => isAlone ? 20 : 10, 0.7);
      expect(countOf(runs, true)).toBeLessThanOrEqual(4);
      expect(runs.slice(0, 8)).toEqual(new Array(8).fill(false));
    }
  });

  test("of few tokens goes back at once where a lucky run had it alone", () => {
    const lucky = (isAlone: boolean, run: number) => isAlone && run > 8 ? 20 : isAlone ? 5 : 10;
    const runs = runsOf(new Alone(), 8, 250, lucky, 0);
    expect(countOf(runs, true)).toBeLessThan(8);
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
