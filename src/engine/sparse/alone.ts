/**
 * Whether the first thread computes runs of several tokens alone: found while they are computed.
 *
 * Where one token takes less time so (`ways.ts`), the machine is busy, or the model small. Then few tokens take less,
 * too, and a long prompt may: between its steps threads compute for longer than it takes to meet. To try that elsewhere
 * would make every other prompt wait.
 *
 * Sequences that generate together have runs of a few tokens, and where they never end at the same time, none of one:
 * so few are tried by themselves, rarely.
 */

/** Runs of a size after which what was slower is tried again: where one token takes less time alone. */
const BETWEEN = 16;
/** The same where it does not, or nobody knows, of so few tokens; and runs before the first trial. */
const FEW = 16, BETWEEN_FEW = 256, BEFORE_FEW = 8;
/** What a time is forgotten by at each run with which it is compared: others come and go. */
const FORGETTING = 1.25;

/** Milliseconds a token that runs of a size have taken, together and alone; undefined before the first. */
interface Times {
  together?: number;
  alone?: number;
  /** Runs of this size in a row that were all together, or all alone. */
  runs: number;
  wasAlone: boolean;
}

/** Chooses from how long runs take. */
export class Alone {
  /** By the number of tokens where they are few, and by its power of two behind these. */
  readonly #times: Times[] = Array.from(
    { length: FEW + 32 },
    () => ({ runs: 0, wasAlone: false }),
  );

  /**
   * Whether the next run is to be alone.
   *
   * @param tokens Tokens of the run.
   * @param isOneAlone Whether one token takes less time alone.
   */
  choose(tokens: number, isOneAlone: boolean): boolean {
    if (!isOneAlone && tokens > FEW) return false;
    const { together, alone, runs } = this.#timesOf(tokens);
    if (alone === undefined) return isOneAlone || runs >= BEFORE_FEW;
    if (together === undefined) return false;
    return (alone < together) !== (runs >= (isOneAlone ? BETWEEN : BETWEEN_FEW));
  }

  /** Takes note of what a run took. */
  took(tokens: number, isAlone: boolean, milliseconds: number): void {
    const times = this.#timesOf(tokens), which = isAlone ? "alone" : "together";
    const each = milliseconds / tokens;
    times[which] = Math.min(each, (times[which] ?? Infinity) * FORGETTING);
    times.runs = isAlone === times.wasAlone ? times.runs + 1 : 0;
    times.wasAlone = isAlone;
  }

  #timesOf(tokens: number): Times {
    return this.#times[tokens <= FEW ? tokens : FEW + 31 - Math.clz32(tokens)];
  }
}
