/**
 * Text that appears while its tokens are made.
 * @module
 */
import { Detokenizer, type DetokenizerOptions, type DetokenizerSource } from "./detokenizer.ts";
import { StopStrings } from "./stop_strings.ts";

/** How tokens become text, and where it ends. */
export interface StreamOptions extends DetokenizerOptions {
  /** Strings that end the text. They are not a part of it. */
  readonly stop?: readonly string[];
}

/**
 * Token ids in, pieces of text out.
 *
 * A piece holds whole characters, and nothing that could be the beginning of a stop string: all pieces
 * together are the text of all tokens, up to the first stop string. Each token costs its own length,
 * however long the text is.
 */
export class TextStream {
  readonly #detokenizer: Detokenizer;
  readonly #stop: StopStrings;

  /**
   * @param tokenizer The tokenizer of the ids.
   * @throws {UsageError} When a stop string is empty.
   */
  constructor(tokenizer: DetokenizerSource, options: StreamOptions = {}) {
    this.#detokenizer = new Detokenizer(tokenizer, options);
    this.#stop = new StopStrings(options.stop ?? []);
  }

  /** The stop string that has ended the text. What is pushed afterwards has no text. */
  get stopString(): string | undefined {
    return this.#stop.found;
  }

  /** UTF-16 units of text that are held back, since they could be the beginning of a stop string. */
  get held(): number {
    return this.#stop.held;
  }

  /**
   * Takes a token.
   *
   * @param id Its id.
   * @returns The text that is now certain; often none.
   */
  push(id: number): string {
    return this.#stop.push(this.#detokenizer.push(id));
  }

  /**
   * Ends the text.
   *
   * @returns What was held back: a beginning of a stop string, U+FFFD for bytes that are no character.
   */
  end(): string {
    return this.#stop.push(this.#detokenizer.end()) + this.#stop.end();
  }
}
