/**
 * Reads what the strings of a schema must match: `pattern`, `format`, and lengths beside those.
 * @module
 */
import { quote, SchemaError } from "../../errors.ts";
import { FORMATS, STANDARD_FORMATS } from "./formats.ts";
import {
  NothingMatchesError,
  type PatternBudget,
  patternPlace,
  type PatternSource,
  PatternsTooLargeError,
} from "./pattern.ts";
import type { Place } from "./place.ts";

/** Most patterns and formats that differ, and lengths beside them: each is an automaton. */
const MOST_PATTERNS = 32;
/**
 * Largest `minLength` of a string that has a pattern or a format, too, which takes states for each character.
 * `maxLength` may be larger, and fewer characters are written then.
 */
const MOST_BESIDE = 1000;
/** Characters that there must be room for, all the same. */
const LEAST_BESIDE = 16;

/** Keywords of a schema of strings, as they are read. */
interface StringKeywords {
  readonly pattern?: unknown;
  readonly format?: unknown;
}

/** The patterns of one schema. */
export class StringPatterns {
  readonly #name: string;
  #count = 0;
  /** Places before strings, by their patterns. */
  readonly #places = new Map<string, Place>();
  readonly #budget: PatternBudget = {
    states: 40_000,
    edges: 500_000,
    steps: 1e7,
  };

  /** @param name What the schema is called in messages. */
  constructor(name: string) {
    this.#name = name;
  }

  /**
   * The place before a string.
   *
   * @param parts Keywords that it must keep all of.
   * @param lengths In characters.
   * @param at Where the keywords stand, as a JSON pointer.
   * @returns Undefined where there is neither pattern nor format.
   * @throws {SchemaError} When they cannot be kept.
   */
  place(
    parts: readonly StringKeywords[],
    { min, max }: { readonly min: number; readonly max: number | undefined },
    at: string,
  ): Place | undefined {
    const isMeant = parts.some(({ pattern }) => pattern !== undefined);
    const sources = parts.flatMap((keywords) => [
      this.#pattern(keywords, at),
      this.#format(keywords, isMeant, at),
    ]).filter((pattern) => pattern !== undefined);
    const patterns = sources.filter(({ source }, i) =>
      sources.findIndex((other) => other.source === source) === i
    );
    if (patterns.length === 0) return undefined;
    if (min > MOST_BESIDE) {
      throw this.#refuse(`${at}/minLength`, `at most ${MOST_BESIDE} beside a pattern or a format`);
    }
    const key = JSON.stringify([...patterns.map(({ source }) => source), min, max]);
    let place = this.#places.get(key);
    if (place) return place;
    this.#count += patterns.length;
    if (this.#count > MOST_PATTERNS) {
      throw this.#refuse(at, `more than ${MOST_PATTERNS} patterns and formats`);
    }
    place = this.#within(patterns, min, max, at);
    this.#places.set(key, place);
    return place;
  }

  /** The place before strings that match and have so many characters: fewer than they may have where that is too much. */
  #within(
    patterns: readonly PatternSource[],
    min: number,
    max: number | undefined,
    at: string,
  ): Place {
    if (min === 0 && max === undefined) return patternPlace(patterns, this.#budget);
    const where = `${at}/${max === undefined ? "minLength" : "maxLength"}`;
    const upTo = (most: number | undefined) =>
      patternPlace(
        [...patterns, this.#sourceOf(`^[^]{${min},${most ?? ""}}$`, where)],
        this.#budget,
      );
    if (max === undefined) return upTo(max);
    let tooLarge: PatternsTooLargeError | undefined;
    for (let most = Math.min(max, MOST_BESIDE);; most = Math.max(min, most >> 1)) {
      try {
        return upTo(most);
      } catch (error) {
        if (error instanceof PatternsTooLargeError) tooLarge ??= error;
        // That fewer characters match nothing says nothing of the schema.
        else if (error instanceof NothingMatchesError && most < max) {
          throw tooLarge ??
            this.#refuse(
              where,
              `no string of at most ${most} characters matches, and longer ones are not written`,
            );
        } else throw error;
        if (most <= Math.max(min, LEAST_BESIDE)) throw tooLarge;
      }
    }
  }

  #pattern({ pattern }: StringKeywords, at: string): PatternSource | undefined {
    if (pattern === undefined) return undefined;
    if (typeof pattern !== "string") throw this.#refuse(`${at}/pattern`, "must be a string");
    return this.#sourceOf(pattern, `${at}/pattern`);
  }

  /** A format's pattern; none of one that is not JSON Schema's where a pattern says what it means. */
  #format({ format }: StringKeywords, isMeant: boolean, at: string): PatternSource | undefined {
    if (format === undefined) return undefined;
    if (typeof format !== "string") throw this.#refuse(`${at}/format`, "must be a string");
    const known = FORMATS.get(format);
    if (known !== undefined) return this.#sourceOf(known, `${at}/format`);
    if (isMeant && !STANDARD_FORMATS.has(format)) return undefined;
    throw this.#refuse(
      `${at}/format`,
      `${quote(format)} is not one of ${[...FORMATS.keys()].join(", ")}: write a pattern`,
    );
  }

  #sourceOf(source: string, at: string): PatternSource {
    return { source, where: `${this.#name}: ${at}` };
  }

  #refuse(at: string, what: string): SchemaError {
    return new SchemaError(`${this.#name}: ${at}: ${what}`);
  }
}
