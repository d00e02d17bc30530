/**
 * In how many places the kernels read one token's weights: found by trying, while tokens are generated.
 *
 * Processors differ in it by a third, either way, and results are the same bits (`assembly/places.ts`).
 * @module
 */

/** A way to read them. */
export interface Reading {
  readonly places: number;
  /** Products whose places would have fewer bytes are read in one. */
  readonly least: number;
}

/**
 * What is tried; the first where a clock tells nothing. What fetches ahead begins anew in each half of a product:
 * those of SmolLM2-135M that are larger than this gained by two places on Zen 5, smaller ones lost. Quarters gained
 * on another processor, at any size.
 */
const CHOICES: readonly Reading[] = [
  { places: 1, least: 0 },
  { places: 2, least: 96 << 10 },
  { places: 4, least: 0 },
];
/**
 * The choices of a trial's runs, each as often. The least time of each counts: a processor is shared with others.
 * No pattern of runs that differ, such as of two or three sequences that take turns, meets the same one always.
 */
const ORDER = [0, 1, 2, 1, 0, 2, 0, 2, 1, 1, 2, 0, 2, 0, 1, 2, 1, 0];
/**
 * Runs of a token after which there is a trial: what the first one times may be code that an engine has not yet
 * compiled for good.
 */
const TRIALS = [8, 64, 512] as const;

/** Chooses from how long runs take. */
export class Places {
  readonly #best: number[] = CHOICES.map(() => Infinity);
  /** Runs so far. */
  #runs = 0;
  /** What the last trial ended with. */
  #chosen = CHOICES[0];

  /** How the next run of a token is to read. */
  get next(): Reading {
    const turn = this.#turn();
    return turn < 0 ? this.#chosen : CHOICES[ORDER[turn]];
  }

  /** Takes note of what that run took, in milliseconds. */
  took(milliseconds: number): void {
    const turn = this.#turn();
    this.#runs++;
    if (turn < 0) return;
    const best = this.#best, which = ORDER[turn];
    best[which] = Math.min(best[which], milliseconds);
    if (turn < ORDER.length - 1) return;
    this.#chosen = CHOICES[best.indexOf(Math.min(...best))];
    best.fill(Infinity);
  }

  /** Which run of a trial the next one is; -1: of none. */
  #turn(): number {
    const begin = TRIALS.findLast((first) => first <= this.#runs) ?? Infinity;
    const turn = this.#runs - begin;
    return turn >= 0 && turn < ORDER.length ? turn : -1;
  }
}
