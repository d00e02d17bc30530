/**
 * Which of many like cases a runtime takes: those of a format and an architecture, say, or of a seed and a number.
 *
 * Where Bun and Deno both run all tests, each takes every second case, and `scripts/test.ts` says which. Half of what
 * would be done twice finds as much, and leaves time for others. All are taken where one runtime runs, or some files.
 * @module
 */
import process from "node:process";

/** A runtime's turn, from 0, and how many take turns. */
type Turn = readonly [turn: number, turns: number];

/** What `ESPALIER_TEST_TURN` says: `0/2` is the first of two. */
export function readTurn(text: string): Turn {
  const [turn, turns] = text.split("/").map(Number);
  return [turn, turns];
}

const OURS = readTurn(process.env.ESPALIER_TEST_TURN ?? "0/1");

/** How many runtimes take turns. */
export const TURNS = OURS[1];

/** The number of the case that this runtime takes as its `i`-th. */
export function caseNumber(i: number): number {
  return OURS[0] + i * TURNS;
}

/** This runtime's of some cases; `first` is another where it is to take others of as many like ones. */
export function ours<T>(cases: readonly T[], first = 0, [turn, turns]: Turn = OURS): T[] {
  return cases.filter((_, i) => (first + i) % turns === turn);
}
