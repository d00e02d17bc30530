/**
 * What the sampler knows of a form that a text must have.
 * @module
 */

/**
 * Says which tokens may come next. It follows one text from its beginning: make another one for the
 * next text.
 */
export interface TokenConstraint {
  /** Whether a token has been taken: it then serves no other text. */
  readonly begun: boolean;
  /**
   * Whether the text is whole, so that nothing can follow. Taking a token that ends the text makes it so
   * as well.
   */
  readonly complete: boolean;
  /**
   * The tokens that may come next, tokens that end the text among them where it may end: token `id` is
   * bit `id % 32` of word `⌊id / 32⌋`; those behind the last word are forbidden. At least one is allowed.
   * The array is the constraint's own, and lasts until the next token is taken.
   *
   * @throws {SchemaError} When the tokenizer has no token that could come next.
   */
  allowed(): Uint32Array;
  /**
   * Takes the token that was chosen.
   *
   * @param token One of those that are allowed.
   * @throws {TokenRangeError} When it is not.
   */
  take(token: number): void;
}

/**
 * Makes scores of forbidden tokens −∞.
 *
 * @param scores `[vocabulary]`, changed in place.
 * @param allowed A bit for each token, as {@linkcode TokenConstraint.allowed} gives them.
 */
export function forbid(scores: Float32Array, allowed: Uint32Array): void {
  const words = Math.min(allowed.length, Math.ceil(scores.length / 32));
  for (let word = 0; word < words; word++) {
    const bits = allowed[word];
    const from = word * 32;
    if (bits === 0) {
      scores.fill(-Infinity, from, from + 32);
    } else if (bits !== 0xffffffff) {
      const end = Math.min(scores.length, from + 32);
      for (let id = from; id < end; id++) {
        if ((bits >>> (id - from) & 1) === 0) scores[id] = -Infinity;
      }
    }
  }
  scores.fill(-Infinity, words * 32);
}
