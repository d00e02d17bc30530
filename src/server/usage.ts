/**
 * The numbers of tokens of an answer.
 * @module
 */
import type { EndPiece } from "../generate/generate.ts";
import type { Usage } from "./schemas/common.ts";

/** Adds the sequences of an answer up. */
export class Tally {
  readonly #prompts: boolean;
  #prompt = 0;
  #cached = 0;
  #completion = 0;

  /** @param prompts Whether each sequence has a prompt of its own: else it counts once. */
  constructor(prompts = false) {
    this.#prompts = prompts;
  }

  /** Adds one sequence. */
  end({ promptTokens, cachedTokens, completionTokens }: EndPiece): void {
    this.#completion += completionTokens;
    if (this.#prompts || this.#prompt === 0) {
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
