/** What the fuzz tests share: a seed, dice, and the rule that a case ends in a result or in an error of ours. @module */
import process from "node:process";
import { EspalierError } from "../../src/errors.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { caseNumber, TURNS } from "./turns.ts";

/** Repeats a run: `ESPALIER_FUZZ_SEED=… bun test fuzz`. */
export const SEED = Number(process.env.ESPALIER_FUZZ_SEED ?? 1);
/** Whether there is time for many cases. */
export const MANY = ["true", "1"].includes(process.env.CI ?? "");

/** How many cases to run: `few`, or this runtime's of `many`. The dice of each follow from its `caseNumber`. */
export function caseCount(many: number, few: number): number {
  return MANY ? many / TURNS : few;
}

/** Longest time for one case. Most take a millisecond; the rest is for a busy machine. */
const LIMIT_MS = 2_000;

/** Choices at random. */
export class Dice {
  readonly next: () => number;

  constructor(seed: number) {
    this.next = uniformNumbers(seed);
  }

  /** A whole number from 0 to below `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  /** One of several. */
  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)];
  }
}

/**
 * Runs cases, each with dice of its own. A case that throws anything but an error of ours, or takes
 * too long, fails the test with its number.
 *
 * @returns How many ended in a result, and how many in each error.
 */
export function fuzz(cases: number, run: (dice: Dice) => void): Map<string, number> {
  const endings = new Map<string, number>();
  for (let nth = 0; nth < cases; nth++) {
    const i = caseNumber(nth), start = performance.now();
    let ending = "result";
    try {
      run(new Dice(SEED * 1_000_003 + i));
    } catch (error) {
      if (!(error instanceof EspalierError)) {
        throw new Error(`case ${i} of seed ${SEED}: ${error}`, { cause: error });
      }
      if (error.message === "" || error.message.length > 2000) {
        throw new Error(`case ${i} of seed ${SEED}: message ${JSON.stringify(error.message)}`);
      }
      ending = error.code;
    }
    const took = performance.now() - start;
    if (took > LIMIT_MS) throw new Error(`case ${i} of seed ${SEED}: took ${took.toFixed()} ms`);
    endings.set(ending, (endings.get(ending) ?? 0) + 1);
  }
  return endings;
}

/** Fails a case for a reason of the test. */
export function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}
