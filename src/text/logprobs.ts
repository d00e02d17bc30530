/**
 * Log probabilities of tokens.
 * @module
 */
import { exp } from "./exp.ts";

/** A token, and the natural logarithm of its probability. */
export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
}

/** What the model thought of a token that was chosen. */
export interface ChoiceLogprobs extends TokenLogprob {
  /** The likeliest tokens, likeliest first, of equal ones the lower id first. */
  readonly top: readonly TokenLogprob[];
}

/**
 * Log probabilities by softmax over all logits, in double precision.
 *
 * @param logits `[vocabulary]`; NaN counts as impossible.
 * @param highest The largest of them, finite.
 * @param token The token that was chosen.
 * @param alternatives How many of the likeliest tokens to tell.
 */
export function logprobsOf(
  logits: Float32Array,
  highest: number,
  token: number,
  alternatives: number,
): ChoiceLogprobs {
  let sum = 0;
  for (let id = 0; id < logits.length; id++) {
    if (logits[id] > -Infinity) sum += exp(logits[id] - highest);
  }
  const logSum = highest + Math.log(sum);
  return {
    token,
    logprob: logits[token] - logSum,
    top: likeliest(logits, alternatives).map((id) => ({
      token: id,
      logprob: logits[id] - logSum,
    })),
  };
}

/** Ids of the `count` largest logits, by insertion: `count` is small. */
function likeliest(logits: Float32Array, count: number): number[] {
  const ids: number[] = [];
  if (count === 0) return ids;
  let lowest = -Infinity;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id];
    if (!(logit > lowest)) continue;
    let at = ids.length;
    while (at > 0 && logits[ids[at - 1]] < logit) at--;
    ids.splice(at, 0, id);
    if (ids.length > count) ids.pop();
    if (ids.length === count) lowest = logits[ids[count - 1]];
  }
  return ids;
}
