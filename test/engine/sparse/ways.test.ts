/**
 * How one token's weights are read: what takes less time is found while tokens are generated.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { type Way, Ways } from "../../../src/engine/sparse/ways.ts";

/** What runs take, in milliseconds, by the way in which they read. */
type Clock = (way: string, run: number) => number;

const nameOf = ({ places, chunks, isAlone }: Way) =>
  `${places} of ${chunks}${isAlone ? ", alone" : ""}`;

/** By the number of threads, all ways that there are; the first comes before anything is known. */
const WAYS: readonly (readonly [number, readonly string[]])[] = [
  [1, ["1 of 1", "2 of 1", "4 of 1"]],
  [2, [
    ...["1 of 1", "2 of 1", "4 of 1", "1 of 4", "2 of 4", "4 of 4"],
    ...["1 of 1, alone", "2 of 1, alone"],
  ]],
];

/** The ways of so many runs. */
function runsOf(threads: number, count: number, clock: Clock): string[] {
  const ways = new Ways(threads);
  return Array.from({ length: count }, (_, run) => {
    const way = nameOf(ways.next);
    ways.took(clock(way, run));
    return way;
  });
}

/** Runs of a trial of so many ways at most. */
const trialOf = (ways: number) => 4 * ways;

/** Whether a run is after the first trial, and of none. */
function isSettled(ways: number): (_: unknown, run: number) => boolean {
  return (_, run) =>
    run >= 8 && [8, 64, 512, 4096].every((begin) => run < begin || run >= begin + trialOf(ways));
}

/** A clock by which one way takes less than the others. */
const fastIn = (best: string): Clock => (way) => way === best ? 3 : 4;

for (const [threads, all] of WAYS) {
  describe(`the way in which ${threads} threads read one token's weights`, () =>
    checkWays(threads, all));
}

function checkWays(threads: number, all: readonly string[]): void {
  const trial = trialOf(all.length);

  for (const best of all) {
    test(`is the one in which runs take less: ${best}`, () => {
      // While one computes for several it is looked for more often.
      const count = best.endsWith("alone") ? 1000 : 6000;
      const settled = runsOf(threads, count, fastIn(best)).filter(isSettled(all.length));
      expect(new Set(settled)).toEqual(new Set([best]));
    });
  }

  test("is the first before anything is known, and where a clock stands still or tells them not apart", () => {
    expect(runsOf(threads, 8, () => 1)).toEqual(new Array(8).fill(all[0]));
    for (const took of [0, 5]) {
      const settled = runsOf(threads, 1000, () => took).filter(isSettled(all.length));
      expect(new Set(settled)).toEqual(new Set([all[0]]));
    }
  });

  test("is tried as often as others, in an order that runs which take turns do not have", () => {
    const tried = runsOf(threads, 8 + trial, () => 1).slice(8);
    expect(trial).toBeLessThan(64 - 8);
    for (const best of all) {
      expect(tried.filter((way) => way === best).length).toBe(trial / all.length);
      // Every other run, or every third, has more to do.
      for (const sequences of [2, 3]) {
        for (let first = 0; first < sequences; first++) {
          const turns: Clock = (way, run) =>
            fastIn(best)(way, run) + (run % sequences === first ? 10 : 0);
          const settled = runsOf(threads, 60, turns).filter(isSettled(all.length));
          expect(new Set(settled)).toEqual(new Set([best]));
        }
      }
    }
  });

  test("is tried four times at most, and of many ways twice where it takes far longer than another", () => {
    const triesOf = (clock: Clock) =>
      runsOf(threads, 64, clock).filter((way) => way === all[2]).length;
    expect(triesOf(fastIn(all[1]))).toBe(all.length > 3 ? 2 : 4);
    expect(triesOf((way) => way === all[1] ? 3 : 3.2)).toBe(4);
  });

  test("is tried once where it took far longer in the trial before, too, and as ever where it did not", () => {
    const triesOf = (clock: Clock) =>
      runsOf(threads, 64 + trial, clock).slice(64).filter((way) => way === all[2]).length;
    expect(triesOf(fastIn(all[1]))).toBe(1);
    const slowLater: Clock = (way, run) => run < 64 ? 3 : fastIn(all[1])(way, run);
    expect(triesOf(slowLater)).toBe(all.length > 3 ? 2 : 4);
    const slowBefore: Clock = (way, run) => run < 64 ? fastIn(all[1])(way, run) : 3;
    expect(triesOf(slowBefore)).toBe(4);
  });

  test("is not decided by a run that was interrupted", () => {
    for (const best of all) {
      for (const each of [3, 4]) {
        const clock: Clock = (way, run) => fastIn(best)(way, run) + (run % each === 0 ? 50 : 0);
        const settled = runsOf(threads, 60, clock).filter(isSettled(all.length));
        expect(new Set(settled)).toEqual(new Set([best]));
      }
    }
  });

  test("is tried again when an engine has compiled its code for good, and when the machine has other work", () => {
    const [first, second, third] = all;
    const changing: Clock = (way, run) =>
      run < 60 ? (way === first ? 20 : 40) : fastIn(run < 4000 ? second : third)(way, run);
    const found = runsOf(threads, 5000, changing);
    expect(new Set(found.slice(8 + trial, 64))).toEqual(new Set([first]));
    expect(new Set(found.slice(64 + trial, 512))).toEqual(new Set([second]));
    expect(new Set(found.slice(4096 + trial))).toEqual(new Set([third]));
  });

  test("is tried again at once when runs take far longer, as where others come, but not for a few of them", () => {
    const best = all.at(-1)!;
    const others: Clock = (way, run) => run < 150 ? 3 : way === best ? 6 : 40;
    const found = runsOf(threads, 500, others);
    expect(new Set(found.slice(64 + trial, 150))).toEqual(new Set([all[0]]));
    expect(new Set(found.slice(150 + 8 + trial))).toEqual(new Set([best]));
    // Long sequences and short ones: a trial does not help.
    const long: Clock = (way, run) => fastIn(all[0])(way, run) * (run % 100 < 50 ? 1 : 5);
    const inVain = runsOf(threads, 4000, long).slice(100);
    expect(inVain.filter((way) => way !== all[0]).length).toBeLessThan(8 * all.length);
    const few: Clock = (_, run) => run > 130 && run % 8 !== 0 ? 40 : 3;
    expect(new Set(runsOf(threads, 500, few).slice(64 + trial))).toEqual(new Set([all[0]]));
  });
}

test("ways of several threads are tried once where all of them take far longer than one alone", () => {
  const found = runsOf(2, 64, (way) => way.endsWith("alone") ? 1 : 20);
  expect(found.slice(8).filter((way) => !way.endsWith("alone")).length).toBe(6);
});

test("several threads compute together again once others have gone", () => {
  const clock: Clock = (way, run) => (run < 3000) === way.endsWith("alone") ? 3 : 6;
  const found = runsOf(2, 5000, clock);
  expect(found.slice(2900, 3000).every((way) => way.endsWith("alone"))).toBe(true);
  expect(found.slice(4200).some((way) => way.endsWith("alone"))).toBe(false);
});

test("what all threads take for a token, beside one of them alone, is known after a trial", () => {
  for (const [threads, together, alone, cost] of [[2, 5, 2, 2.5], [2, 2, 4, 0.5], [1, 5, 2, 0]]) {
    const ways = new Ways(threads);
    expect(ways.cost).toBe(0);
    for (let run = 0; run < 60; run++) ways.took(ways.next.isAlone ? alone : together);
    expect(ways.cost).toBe(cost);
  }
});
