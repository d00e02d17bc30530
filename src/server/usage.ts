/**
 * The numbers of tokens of an answer.
 * @module
 */
import type { EndPiece } from "../generate/generate.ts";
import type { Usage } from "./schemas/common.ts";

/** Adds the sequences of an answer up. */
export class Tally {
  readonly #choices: number;
  #prompt = 0;
  #cached = 0;
  #completion = 0;

  /** @param choices Sequences of each prompt, which counts once. */
  constructor(choices: number) {
    this.#choices = choices;
  }

  /**
   * Adds one sequence.
   *
   * @param index Which one: all of the first prompt come before those of the next.
   */
  end(index: number, { promptTokens, cachedTokens, completionTokens }: EndPiece): void {
    this.#completion += completionTokens;
    // The others have found its prompt in the cache.
    if (index % this.#choices === 0) {
      this.#prompt += promptTokens;
      this.#cached += cachedTokens;
    }
  }

  get usage(): Usage {
    return {
      prompt_tokens: this.#prompt,
      completion_tokens: this.#completion,
      total_tokens: this.#prompt + this.#completion,
      prompt_tokens_details: { cached_tokens: this.#cached },
    };
  }
}
