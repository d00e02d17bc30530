/**
 * In how many places one token's weights are read: what takes less time is found while tokens are generated.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { Places } from "../../../src/engine/sparse/places.ts";

/** What runs take, in milliseconds, by the places that they read in. */
type Clock = (places: number, run: number) => number;

/** Runs of a trial. */
const TRIED = 18;

/** The places of so many runs. */
function runsOf(count: number, clock: Clock, places = new Places()): number[] {
  return Array.from({ length: count }, (_, run) => {
    const { next } = places;
    places.took(clock(next.places, run));
    return next.places;
  });
}

/** All runs but those in which all are tried. */
const isSettled = (_: unknown, run: number) =>
  run >= 8 && [8, 64, 512].every((begin) => run < begin || run >= begin + TRIED);

/** A clock by which one choice takes less than the others. */
const fastIn = (best: number): Clock => (places) => places === best ? 3 : 4;

describe("places that weights are read in", () => {
  for (const best of [1, 2, 4]) {
    test(`are those in which runs take less: ${best}`, () => {
      expect(new Set(runsOf(1000, fastIn(best)).filter(isSettled))).toEqual(new Set([best]));
    });
  }

  test("are one before anything is known, and where a clock stands still or tells them not apart", () => {
    expect(runsOf(8, () => 1)).toEqual(new Array(8).fill(1));
    for (const took of [0, 5]) {
      expect(new Set(runsOf(1000, () => took).filter(isSettled))).toEqual(new Set([1]));
    }
  });

  test("are tried as often, in an order that runs which take turns do not have", () => {
    const tried = runsOf(8 + TRIED, () => 1).slice(8);
    for (const best of [1, 2, 4]) {
      expect(tried.filter((places) => places === best).length).toBe(TRIED / 3);
      // Every other run, or every third, has more to do.
      for (const sequences of [2, 3]) {
        const turns: Clock = (places, run) =>
          fastIn(best)(places, run) + (run % sequences === 0 ? 10 : 0);
        expect(new Set(runsOf(60, turns).filter(isSettled))).toEqual(new Set([best]));
      }
    }
  });

  test("are not decided by a run that was interrupted", () => {
    const interrupted: Clock = (places, run) => (places === 4 ? 3 : 4) + (run % 4 === 0 ? 50 : 0);
    expect(new Set(runsOf(60, interrupted).filter(isSettled))).toEqual(new Set([4]));
  });

  test("are tried again when an engine has had the time to compile its code for good", () => {
    const late: Clock = (places, run) =>
      run < 30 ? (places === 4 ? 40 : 20) : fastIn(4)(places, run);
    const found = runsOf(1000, late);
    expect(new Set(found.slice(8 + TRIED, 64))).toEqual(new Set([1]));
    expect(new Set(found.filter((_, run) => run >= 64 && isSettled(0, run)))).toEqual(new Set([4]));
  });
});
