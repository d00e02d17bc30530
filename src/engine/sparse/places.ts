/**
 * In how many places the kernels read one token's weights: found by trying, while tokens are generated.
 *
 * Processors differ in it by a third, either way, and results are the same bits (`assembly/places.ts`).
 * @module
 */

/** What is tried; the first where a clock tells nothing. */
const CHOICES = [1, 4] as const;
/**
 * The choices of a trial's runs, each as often. The least time of each counts: a processor is shared with others.
 * No pattern of runs that differ, such as of two sequences that take turns, meets the same one always.
 */
const ORDER = [0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0];
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
  #chosen: number = CHOICES[0];

  /** Places that the next run of a token is to read in. */
  get next(): number {
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
