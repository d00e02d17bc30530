/**
 * Whether the first thread computes runs of several tokens alone: found while they are computed.
 *
 * Where one token takes less time so (`ways.ts`), the machine is busy, or the model small. Then few tokens take less,
 * too, and a long prompt may: between its steps threads compute for longer than it takes to meet. To try it elsewhere
 * would make every other prompt wait.
 */

/** Runs of a size after which what was slower is tried again. */
const BETWEEN = 16;
/** What a time is forgotten by at each run with which it is compared: others come and go. */
const FORGETTING = 1.25;

/** Milliseconds a token that runs of a size have taken, together and alone; undefined before the first. */
interface Times {
  together?: number;
  alone?: number;
  /** Runs of this size since what was slower was tried. */
  runs: number;
}

/** Chooses from how long runs take. */
export class Alone {
  /** By the power of two of the number of tokens. */
  readonly #times: Times[] = Array.from({ length: 32 }, () => ({ runs: 0 }));

  /**
   * Whether the next run is to be alone.
   *
   * @param tokens Tokens of the run.
   * @param isOneAlone Whether one token takes less time alone.
   */
  choose(tokens: number, isOneAlone: boolean): boolean {
    if (!isOneAlone) return false;
    const { together, alone, runs } = this.#timesOf(tokens);
    if (together === undefined || alone === undefined) return alone === undefined;
    return (alone < together) !== (runs >= BETWEEN);
  }

  /** Takes note of what a run took. */
  took(tokens: number, isAlone: boolean, milliseconds: number): void {
    const times = this.#timesOf(tokens), which = isAlone ? "alone" : "together";
    const each = milliseconds / tokens;
    times[which] = Math.min(each, (times[which] ?? Infinity) * FORGETTING);
    times.runs = times.runs >= BETWEEN ? 0 : times.runs + 1;
  }

  #timesOf(tokens: number): Times {
    return this.#times[31 - Math.clz32(tokens)];
  }
}
