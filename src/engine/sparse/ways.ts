/**
 * How the kernels read one token's weights: found by trying, while tokens are generated.
 *
 * Processors differ in it by a third, either way, and so does one that others use as well; results are the same bits
 * (`assembly/places.ts`, `shareOut` in `assembly/program.ts`).
 * @module
 */

/** A way to read them. */
export interface Way {
  /** In how many places a thread reads a product at once: one, or the halves or quarters of what it has taken. */
  readonly places: number;
  /** Products whose places would have fewer bytes are read in one. */
  readonly least: number;
  /** Chunks of each thread's share, which others take when they have done theirs. */
  readonly chunks: number;
}

/**
 * Ways of one thread; the first where a clock tells nothing. What fetches ahead begins anew in each half of a product:
 * those of SmolLM2-135M that are larger than this gained by two places on Zen 5, smaller ones lost. Quarters gained
 * on another processor, at any size.
 */
const PLACES: readonly Omit<Way, "chunks">[] = [
  { places: 1, least: 0 },
  { places: 2, least: 96 << 10 },
  { places: 4, least: 0 },
];
/** For the same reason several threads read whole shares faster; but who is late is then waited for. */
const CHUNKS = [1, 4] as const;

/** Runs of a trial with each way. The least time counts: a processor is shared with others. */
const ROUNDS = 6;
/**
 * There is a trial after 8 runs of a token, 64, 512 and so on: what the first one times may be code that an engine has
 * not yet compiled for good, and what else a machine has to do changes.
 */
const BETWEEN = 8;

/** Chooses from how long runs take. */
export class Ways {
  readonly #ways: readonly Way[];
  /** The ways of a trial's runs. */
  readonly #order: readonly number[];
  readonly #best: number[];
  /** Runs so far, and how many came before the last trial. */
  #runs = 0;
  #begin = Infinity;
  /** What the last trial ended with. */
  #chosen: Way;

  /** @param threads Threads of the engine. */
  constructor(threads: number) {
    const chunks = threads > 1 ? CHUNKS : CHUNKS.slice(0, 1);
    this.#ways = chunks.flatMap((chunks) => PLACES.map((way) => ({ ...way, chunks })));
    this.#order = orderOf(this.#ways.length);
    this.#best = this.#ways.map(() => Infinity);
    this.#chosen = this.#ways[0];
  }

  /** Runs of a trial. */
  get trial(): number {
    return this.#order.length;
  }

  /** How the next run of a token is to read. */
  get next(): Way {
    const turn = this.#turn();
    return turn < 0 ? this.#chosen : this.#ways[this.#order[turn]];
  }

  /** Takes note of what that run took, in milliseconds. */
  took(milliseconds: number): void {
    const turn = this.#turn();
    this.#runs++;
    if (turn >= 0) {
      const best = this.#best, which = this.#order[turn];
      best[which] = Math.min(best[which], milliseconds);
      if (turn === this.#order.length - 1) {
        this.#chosen = this.#ways[best.indexOf(Math.min(...best))];
        best.fill(Infinity);
      }
    }
    if (this.#runs === (this.#begin === Infinity ? BETWEEN : BETWEEN * this.#begin)) {
      this.#begin = this.#runs;
    }
  }

  /** Which run of a trial the next one is; -1: of none. */
  #turn(): number {
    const turn = this.#runs - this.#begin;
    return turn >= 0 && turn < this.#order.length ? turn : -1;
  }
}

/**
 * Each of so many once a round, one place further on in each: so no pattern of runs that differ, such as of two or
 * three sequences that take turns, meets the same one always.
 */
function orderOf(count: number): number[] {
  return Array.from({ length: ROUNDS * count }, (_, i) => (i + Math.floor(i / count)) % count);
}
