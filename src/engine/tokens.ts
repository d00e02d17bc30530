/**
 * What every engine asks of the tokens that it is given.
 * @module
 */
import { checkObject, checkSignal, checkTokens } from "../checks.ts";
import { ContextOverflowError, TokenRangeError, UsageError } from "../errors.ts";
import type { RunOptions } from "./model.ts";

/** @throws {UsageError} When what a caller hands over to be run is no list, or its options are none. */
export function checkRun(tokens: unknown, options: RunOptions): void {
  checkTokens(tokens);
  checkObject(options, "options", "{ signal }");
  const { signal, logits, within } = options;
  checkSignal(signal);
  if (logits !== undefined && logits !== "last" && logits !== "all") {
    throw new UsageError('logits: "last" or "all" was expected');
  }
  if (within !== undefined && !(typeof within === "number" && within >= 0)) {
    throw new UsageError("within: a number of 0 or more was expected");
  }
}

/**
 * Checks tokens before they are run.
 *
 * @param tokens The ids.
 * @param length Tokens of the sequence that have been run.
 * @param vocabulary Ids are below it.
 * @param context Most tokens of a sequence.
 * @throws {UsageError} When there are none.
 * @throws {TokenRangeError} Naming the first that is no id of the model.
 * @throws {ContextOverflowError} When they do not fit behind those before.
 */
export function assertRunnable(
  tokens: readonly number[],
  length: number,
  vocabulary: number,
  context: number,
): void {
  if (tokens.length === 0) throw new UsageError("no tokens to run: at least one is needed");
  const at = tokens.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < vocabulary));
  if (at >= 0) {
    throw new TokenRangeError(
      `token ${at}: id ${tokens[at]} is outside the model's vocabulary of ${vocabulary}: ` +
        `the text was tokenized for another model`,
    );
  }
  if (length + tokens.length > context) {
    throw new ContextOverflowError(
      `${length} tokens and ${tokens.length} more do not fit into the context of ${context}`,
    );
  }
}

/**
 * The context of a model: what was asked for, or all that it has.
 *
 * @throws {ContextOverflowError} When more was asked for.
 */
export function contextWithin(wanted: number | undefined, most: number): number {
  if (wanted === undefined || wanted <= most) return wanted ?? most;
  throw new ContextOverflowError(
    `a context of ${wanted} tokens was asked for: the model allows ${most}`,
  );
}

/** How many tokens two lists have in common at their beginning. */
export function commonLength(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) if (a[i] !== b[i]) return i;
  return shorter;
}
