/**
 * Finds the end of a text that comes in pieces.
 * @module
 */
import { UsageError } from "../errors.ts";

/** One stop string, and how much of it the text so far ends with (Knuth, Morris, Pratt). */
interface Pattern {
  readonly text: string;
  /** For each beginning of the pattern: the longest shorter beginning that it ends with. */
  readonly fallback: Int32Array;
  matched: number;
}

/**
 * Cuts a text at the first of several strings.
 *
 * The string that is complete first ends the text; of several that are complete at the same place,
 * the longest. So what is found does not depend on how the text is cut into pieces.
 */
export class StopStrings {
  readonly #patterns: Pattern[];
  /** Text that could be the beginning of a stop string. */
  #held = "";
  #found: string | undefined;

  /**
   * @param strings What to stop at; none for a text that just passes.
   * @throws {UsageError} When one is empty, or is not made of whole characters.
   */
  constructor(strings: readonly string[]) {
    this.#patterns = strings.map((text) => {
      if (text === "") throw new UsageError("a stop string must not be empty");
      if (!text.isWellFormed()) {
        throw new UsageError("a stop string must be made of whole characters: it has half of one");
      }
      return { text, fallback: fallbackOf(text), matched: 0 };
    });
  }

  /** The string that ended the text. */
  get found(): string | undefined {
    return this.#found;
  }

  /** UTF-16 units that are held back, since they could be the beginning of a stop string. */
  get held(): number {
    return this.#held.length;
  }

  /**
   * Takes a piece of text.
   *
   * @returns What certainly belongs to the text and was not given before. Nothing of the stop string.
   */
  push(piece: string): string {
    if (this.#found !== undefined) return "";
    if (this.#patterns.length === 0) return piece;
    const text = this.#held + piece;
    for (let i = this.#held.length; i < text.length; i++) {
      const found = this.#advance(text.charCodeAt(i));
      if (found !== undefined) {
        this.#found = found;
        this.#held = "";
        return text.slice(0, i + 1 - found.length);
      }
    }
    const held = Math.max(...this.#patterns.map(({ matched }) => matched));
    this.#held = text.slice(text.length - held);
    return text.slice(0, text.length - held);
  }

  /** Ends the text: what was held back belongs to it after all. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** Takes one UTF-16 unit. Returns the longest string that it completes. */
  #advance(unit: number): string | undefined {
    let found: string | undefined;
    for (const pattern of this.#patterns) {
      const { text, fallback } = pattern;
      let { matched } = pattern;
      while (matched > 0 && text.charCodeAt(matched) !== unit) matched = fallback[matched - 1];
      if (text.charCodeAt(matched) === unit) matched++;
      pattern.matched = matched;
      if (matched === text.length && matched > (found?.length ?? 0)) found = text;
    }
    return found;
  }
}

function fallbackOf(text: string): Int32Array {
  const fallback = new Int32Array(text.length);
  for (let i = 1, matched = 0; i < text.length; i++) {
    while (matched > 0 && text[i] !== text[matched]) matched = fallback[matched - 1];
    if (text[i] === text[matched]) matched++;
    fallback[i] = matched;
  }
  return fallback;
}
