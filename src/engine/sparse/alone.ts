/**
 * Whether the first thread computes runs of several tokens alone: found while they are computed.
 *
 * Where one token takes less time so (`ways.ts`), the machine is busy, or the model small, or one thread has all that
 * memory gives. Then few tokens take less, too. A long prompt may only where one token takes far less: its time is that
 * of computing, of which two threads do twice as much, and between its steps they compute for longer than it takes to
 * meet. To try that elsewhere would make every other prompt wait.
 *
 * Sequences that generate together have runs of a few tokens, and where they never end at the same time, none of one:
 * so few are tried by themselves, rarely.
 */

/** Runs of a size after which what was slower is tried again: where one token takes less time alone. */
const BETWEEN = 16;
/** The same where it does not, or nobody knows, of so few tokens; and runs before the first trial. */
const FEW = 16, BETWEEN_FEW = 256, BEFORE_FEW = 8;
/**
 * How many times as long one token takes together where more tokens try it alone. Undisturbed, two threads take 0.7 of
 * one's time for one token, and 0.52 of it for a prompt: where they take as long for a prompt, it is 1.4 for one token.
 */
const FAR = 1.4;
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
   * @param cost How many times as long one token takes together as it does alone; 0 where that is not known.
   */
  choose(tokens: number, cost: number): boolean {
    const isFew = tokens <= FEW, isLikely = cost > (isFew ? 1 : FAR);
    if (!isLikely && !isFew) return false;
    const { together, alone, runs } = this.#timesOf(tokens);
    if (alone === undefined) return isLikely || runs >= BEFORE_FEW;
    if (together === undefined) return false;
    return (alone < together) !== (runs >= (isLikely ? BETWEEN : BETWEEN_FEW));
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
