/** Room for logits. @module */
import { MemoryBudgetError } from "../errors.ts";

/**
 * Room for all logits of so many tokens, `[tokens, vocabulary]`.
 *
 * @throws {MemoryBudgetError} When the runtime has no array of that size.
 */
export function roomForLogits(tokens: number, vocabulary: number): Float32Array<ArrayBuffer> {
  try {
    return new Float32Array(tokens * vocabulary);
  } catch (cause) {
    throw new MemoryBudgetError(
      `all logits of ${tokens} tokens take ${
        4 * tokens * vocabulary
      } bytes, which this runtime has not at once: run fewer tokens at a time`,
      { cause },
    );
  }
}
