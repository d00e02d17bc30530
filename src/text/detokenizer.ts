/**
 * Tokens to text, one at a time.
 * @module
 */

/** What a detokenizer needs to know of its tokenizer. */
export interface DetokenizerSource {
  /** Bytes of UTF-8 that a token stands for. */
  bytesOf(id: number): Uint8Array;
  /** Tokens that control the model and are no text. */
  readonly specialIds: ReadonlySet<number>;
  /** A whole text loses up to so many spaces at its beginning. */
  readonly leadingSpaces: number;
}

/** How tokens become text. */
export interface DetokenizerOptions {
  /** Leaves special tokens out. */
  readonly skipSpecialTokens?: boolean;
  /**
   * The tokens follow a text that is already there. A SentencePiece tokenizer writes a space at the
   * beginning of a text and takes it away again; in the middle of a text, the space counts.
   */
  readonly continues?: boolean;
}

/**
 * Writes tokens as text, character by character: bytes that are only a part of a character wait for
 * the rest of it. Each token costs its own length, however long the text is.
 */
export class Detokenizer {
  readonly #source: DetokenizerSource;
  readonly #skipSpecialTokens: boolean;
  readonly #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  /** Spaces that are still taken away. */
  #spaces: number;

  constructor(source: DetokenizerSource, options: DetokenizerOptions = {}) {
    this.#source = source;
    this.#skipSpecialTokens = options.skipSpecialTokens ?? false;
    this.#spaces = options.continues ? 0 : source.leadingSpaces;
  }

  /**
   * Takes a token.
   *
   * @param id A token id; one that the tokenizer does not know has no text.
   * @returns The characters that are now complete; often none.
   */
  push(id: number): string {
    if (this.#skipSpecialTokens && this.#source.specialIds.has(id)) return "";
    let bytes = this.#source.bytesOf(id);
    while (this.#spaces > 0 && bytes.length > 0) {
      if (bytes[0] === 0x20) {
        bytes = bytes.subarray(1);
        this.#spaces--;
      } else {
        this.#spaces = 0;
      }
    }
    return this.#utf8.decode(bytes, { stream: true });
  }

  /** Ends the text: U+FFFD for a character that was not completed, else nothing. */
  end(): string {
    return this.#utf8.decode();
  }
}
