/**
 * In how many places one token's weights are read: what takes less time is found while tokens are generated.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { Places } from "../../../src/engine/sparse/places.ts";

/** What runs take, in milliseconds, by the places that they read in. */
type Clock = (places: number, run: number) => number;

/** The places of so many runs. */
function runsOf(count: number, clock: Clock, places = new Places()): number[] {
  return Array.from({ length: count }, (_, run) => {
    const { next } = places;
    places.took(clock(next, run));
    return next;
  });
}

/** All runs but those in which both are tried. */
const isSettled = (_: unknown, run: number) =>
  run >= 24 && !(run >= 64 && run < 80) && !(run >= 512 && run < 528);

describe("places that weights are read in", () => {
  test("are those in which runs take less", () => {
    const four = runsOf(1000, (places) => places === 4 ? 3 : 4).filter(isSettled);
    expect(new Set(four)).toEqual(new Set([4]));
    const one = runsOf(1000, (places) => places === 4 ? 4 : 3).filter(isSettled);
    expect(new Set(one)).toEqual(new Set([1]));
  });

  test("are one before anything is known, and where a clock stands still or tells them not apart", () => {
    expect(runsOf(8, () => 1)).toEqual(new Array(8).fill(1));
    for (const took of [0, 5]) {
      expect(new Set(runsOf(1000, () => took).filter(isSettled))).toEqual(new Set([1]));
    }
  });

  test("are tried as often, in an order that runs which alternate do not have", () => {
    const tried = runsOf(24, () => 1).slice(8);
    expect(tried.filter((places) => places === 4).length).toBe(tried.length / 2);
    // Every other run has more to do.
    const alternating: Clock = (places, run) => (places === 4 ? 3 : 4) + (run % 2 === 0 ? 10 : 0);
    expect(new Set(runsOf(60, alternating).filter(isSettled))).toEqual(new Set([4]));
  });

  test("are not decided by a run that was interrupted", () => {
    const interrupted: Clock = (places, run) => (places === 4 ? 3 : 4) + (run % 3 === 0 ? 50 : 0);
    expect(new Set(runsOf(60, interrupted).filter(isSettled))).toEqual(new Set([4]));
  });

  test("are tried again when an engine has had the time to compile its code for good", () => {
    const late: Clock = (places, run) =>
      run < 30 ? (places === 4 ? 40 : 20) : (places === 4 ? 3 : 4);
    const found = runsOf(1000, late);
    expect(new Set(found.slice(24, 64))).toEqual(new Set([1]));
    expect(new Set(found.slice(80).filter((_, i) => isSettled(0, i + 80)))).toEqual(new Set([4]));
  });
});
