/**
 * How the kernels read one token's weights, and whether all threads do: found by trying, while tokens are generated.
 *
 * Processors differ in it by a third, either way, and so does one that others use as well; results are the same bits
 * (`assembly/places.ts`, `shareOut` in `assembly/program.ts`). Where others keep processors busy, threads that wait for
 * each other at every step may take many times as long as one of them alone; and so may those of a small model, whose
 * steps are shorter than it takes to meet.
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
  /** Whether the first thread computes alone, and others sleep. */
  readonly isAlone: boolean;
}

/**
 * Ways of one thread; the first where a clock tells nothing. What fetches ahead begins anew in each half of a product:
 * those of SmolLM2-135M that are larger than this gained by two places on Zen 5, smaller ones lost. Quarters gained
 * on another processor, at any size.
 */
const PLACES: readonly Omit<Way, "chunks" | "isAlone">[] = [
  { places: 1, least: 0 },
  { places: 2, least: 96 << 10 },
  { places: 4, least: 0 },
];
/** For the same reason several threads read whole shares faster; but who is late is then waited for. */
const CHUNKS = [1, 4] as const;
/** Of several threads' first one, alone: as many as make an even number with the others. */
const ALONE = PLACES.slice(0, 2).map((way): Way => ({ ...way, chunks: 1, isAlone: true }));

/** Runs of a trial with each way. The least time counts: a processor is shared with others. */
const ROUNDS = 4;
/**
 * Rounds after which ways are given up that take so many times as long as another. An even number of ways has met each
 * of two or three sequences that take turns by then, an odd one has not. What took too long in the trial before, too, is
 * given up after one.
 */
const LEAST_ROUNDS = 2, TOO_LONG = 1.1;
/** Where all ways of several threads take so many times as long as one of one, they are given up after one round. */
const FAR_TOO_LONG = 3;
/**
 * There is a trial after 8 runs of a token, 64, 512 and so on: what the first one times may be code that an engine has
 * not yet compiled for good, and what else a machine has to do changes.
 */
const BETWEEN = 8;
/**
 * There is another one after so many runs in a row that take this many times as long as the way did in its trial: others
 * have come. Where that changes nothing, runs differ in something else, as those of long sequences and short ones do, and
 * so many times as many have to be late before the next one. That others have gone is not noticed: while one thread
 * computes for several, there is a trial after so many runs.
 */
const LATE_RUNS = 8, LATE = 3, IN_VAIN = 4, BETWEEN_ALONE = 1024;

/** A way on trial, and the least time that a run took with it. */
interface Rival {
  readonly way: Way;
  least: number;
}

interface Trial {
  readonly all: readonly Rival[];
  /** Those that are not given up. */
  rivals: readonly Rival[];
  round: number;
  turn: number;
  /** Whether it was time for it, not that runs had been late. */
  readonly isDue: boolean;
}

/** Chooses from how long runs take. */
export class Ways {
  readonly #ways: readonly Way[];
  /** What the last trial ended with, and the least time that a run took with it there. */
  #chosen: Way;
  #least = Infinity;
  #cost = 0;
  /** Ways that took too long in it. */
  #slow = new Set<Way>();
  #trial: Trial | undefined;
  /** Runs so far, those before the next trial, and those in a row that took too long. */
  #runs = 0;
  #next = BETWEEN;
  #late = 0;
  /** How many of these make a trial. */
  #lateRuns = LATE_RUNS;

  /** @param threads Threads of the engine. */
  constructor(threads: number) {
    const chunks = threads > 1 ? CHUNKS : CHUNKS.slice(0, 1);
    const together = chunks.flatMap((chunks) =>
      PLACES.map((way): Way => ({ ...way, chunks, isAlone: false }))
    );
    this.#ways = threads > 1 ? [...together, ...ALONE] : together;
    this.#chosen = this.#ways[0];
  }

  /** How the next run of a token is to read. */
  get next(): Way {
    return this.#trial ? rivalOf(this.#trial).way : this.#chosen;
  }

  /** How many times as long all threads took for a token, in the last trial, as one of them alone; 0 before it. */
  get cost(): number {
    return this.#cost;
  }

  /** Takes note of what that run took, in milliseconds. */
  took(milliseconds: number): void {
    this.#runs++;
    if (this.#trial) return this.#judge(this.#trial, milliseconds);
    this.#late = milliseconds > LATE * this.#least ? this.#late + 1 : 0;
    const isDue = this.#runs >= this.#next;
    if (!isDue && this.#late < this.#lateRuns) return;
    if (isDue) this.#next *= BETWEEN;
    this.#late = 0;
    const rivals = this.#ways.map((way) => ({ way, least: Infinity }));
    this.#trial = { all: rivals, rivals, round: 0, turn: 0, isDue };
  }

  #judge(trial: Trial, milliseconds: number): void {
    const rival = rivalOf(trial);
    rival.least = Math.min(rival.least, milliseconds);
    if (++trial.turn < trial.rivals.length) return;
    trial.turn = 0;
    trial.round++;
    const least = Math.min(...trial.rivals.map(({ least }) => least));
    const isSlow = (rival: Rival) => rival.least > TOO_LONG * least;
    const together = trial.rivals.filter(({ way }) => !way.isAlone);
    if (together.every((rival) => rival.least > FAR_TOO_LONG * least)) {
      trial.rivals = trial.rivals.filter(({ way }) => way.isAlone);
    }
    const isEnough = trial.round >= LEAST_ROUNDS && trial.rivals.length % 2 === 0;
    trial.rivals = trial.rivals.filter((rival) =>
      !isSlow(rival) || !(isEnough || this.#slow.has(rival.way))
    );
    if (trial.round < ROUNDS && trial.rivals.length > 1) return;
    const best = trial.rivals.find((rival) => rival.least === least)!.way;
    if (best !== this.#chosen) this.#lateRuns = LATE_RUNS;
    else if (!trial.isDue) this.#lateRuns *= IN_VAIN;
    this.#chosen = best;
    this.#least = least;
    if (this.#chosen.isAlone) this.#next = Math.min(this.#next, this.#runs + BETWEEN_ALONE);
    const leastOf = (isAlone: boolean) =>
      Math.min(...trial.all.filter(({ way }) => way.isAlone === isAlone).map(({ least }) => least));
    this.#cost = leastOf(false) / leastOf(true);
    this.#slow = new Set(trial.all.filter(isSlow).map(({ way }) => way));
    this.#trial = undefined;
  }
}

/**
 * Whose turn it is: each once a round, some places further on in each, so that no pattern of runs that differ, such as of
 * two or three sequences that take turns, meets the same one always.
 */
function rivalOf({ rivals, round, turn }: Trial): Rival {
  const further = rivals.length % 3 === 0 ? 1 : 3;
  return rivals[(turn + further * round) % rivals.length];
}
