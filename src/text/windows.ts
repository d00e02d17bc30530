/**
 * Windows of tokens: random ones to calibrate on, consecutive ones to evaluate on.
 * @module
 */
import { TextError, TokenRangeError } from "../errors.ts";

/**
 * A small generator of uniform numbers in [0, 1) (mulberry32): the same on every machine.
 *
 * @param seed Its 32 bits of state.
 */
export function uniformNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Windows from random places of a text.
 *
 * @param tokens The whole text's ids.
 * @param count Windows wanted.
 * @param length Tokens of each.
 * @param seed Seed of the places; the same seed takes the same windows.
 * @throws {TextError} When the text is shorter than one window.
 */
export function randomWindows(
  tokens: Int32Array,
  count: number,
  length: number,
  seed: number,
): Int32Array[] {
  assertLongEnough(tokens, length);
  const next = uniformNumbers(seed);
  return Array.from({ length: count }, () => {
    const start = Math.floor(next() * (tokens.length - length + 1));
    return tokens.slice(start, start + length);
  });
}

/**
 * Consecutive windows that do not overlap; what is left at the end is not used.
 *
 * @param tokens The whole text's ids.
 * @param length Tokens of each.
 * @param most At most so many windows.
 * @throws {TextError} When the text is shorter than one window.
 */
export function consecutiveWindows(
  tokens: Int32Array,
  length: number,
  most = Infinity,
): Int32Array[] {
  assertLongEnough(tokens, length);
  const count = Math.min(most, Math.floor(tokens.length / length));
  return Array.from({ length: count }, (_, i) => tokens.slice(i * length, (i + 1) * length));
}

/**
 * Checks that every id is in the vocabulary.
 *
 * @throws {TokenRangeError} Naming the first that is not.
 */
export function assertInVocabulary(windows: readonly Int32Array[], vocabulary: number): void {
  windows.forEach((window, w) => {
    const at = window.findIndex((id) => id < 0 || id >= vocabulary);
    if (at >= 0) {
      throw new TokenRangeError(
        `window ${w}, token ${at}: id ${
          window[at]
        } is outside the model's vocabulary of ${vocabulary}: ` +
          `the text was tokenized for another model`,
      );
    }
  });
}

function assertLongEnough(tokens: Int32Array, length: number): void {
  if (tokens.length < length) {
    throw new TextError(
      `the text has ${tokens.length} tokens, one window needs ${length}: give more text or a smaller --seqlen`,
    );
  }
}
