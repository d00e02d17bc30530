/**
 * Reads what the strings of a schema must match: `pattern`, `format`, `contentEncoding`, and lengths beside those; and
 * what names of properties must.
 * @module
 */
import { quote } from "../../checks.ts";
import { SchemaError } from "../../errors.ts";
import { ENCODINGS, FORMATS, SAID_BY_FORMATS, STANDARD_FORMATS } from "./formats.ts";
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
/** Most characters of a name whose length is asked for: longer ones are not written. */
const LONGEST_NAME = 64;
/** What one place may take of what is left, at first: others may come. */
const SHARES = [1 / 2, 1];

/** Keywords of a schema of strings, as they are read. */
interface StringKeywords {
  readonly pattern?: unknown;
  readonly format?: unknown;
  readonly contentEncoding?: unknown;
}

/** The patterns of one schema. */
export class StringPatterns {
  readonly #name: string;
  #count = 0;
  /** Places before strings, by their patterns and the fewest characters, and by the most that are written. */
  readonly #names = new Map<string, Place | undefined>();
  readonly #places = new Map<string, Map<number | undefined, Place>>();
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
    const sources = this.#sources(parts, at);
    const patterns = sources.filter(({ source }, i) =>
      sources.findIndex((other) => other.source === source) === i
    );
    if (patterns.length === 0) return undefined;
    if (min > MOST_BESIDE) {
      throw this.#refuse(`${at}/minLength`, `at most ${MOST_BESIDE} beside a pattern or a format`);
    }
    const key = JSON.stringify([...patterns.map(({ source }) => source), min]);
    let known = this.#places.get(key);
    if (!known) this.#places.set(key, known = new Map());
    let place = known.get(max);
    if (place) return place;
    this.#count += patterns.length;
    if (this.#count > MOST_PATTERNS) {
      throw this.#refuse(at, `more than ${MOST_PATTERNS} patterns and formats`);
    }
    place = this.#within(patterns, { min, max, known }, at);
    known.set(max, place);
    return place;
  }

  /**
   * The place before names that match some patterns, and do not match others.
   *
   * @param names What all names of the object are, as keywords of strings, with their lengths.
   * @param matching Patterns that they match. @param barred Patterns that they do not match.
   * @param at Where the object's schema stands.
   * @returns Undefined where there are no such names that can be written.
   * @throws {SchemaError} When patterns cannot be kept.
   */
  names(
    names: StringKeywords & { readonly min: number; readonly max: number | undefined },
    matching: readonly string[],
    barred: readonly string[],
    at: string,
  ): Place | undefined {
    const where = `${at}/propertyNames`;
    const { min, max } = names;
    if (min > LONGEST_NAME) throw this.#refuse(`${where}/minLength`, `at most ${LONGEST_NAME}`);
    const patterns = [
      ...this.#sources([names], where),
      ...matching.map((source) => this.#sourceOf(source, `${at}/patternProperties`)),
      ...barred.map((source) => ({
        ...this.#sourceOf(source, `${at}/patternProperties`),
        negate: true,
      })),
    ];
    if (min > 0 || max !== undefined) {
      const most = max === undefined ? "" : Math.min(max, LONGEST_NAME);
      patterns.push(this.#sourceOf(`^[^]{${min},${most}}$`, `${where}/maxLength`));
    }
    if (patterns.every(({ negate }) => negate)) patterns.push(this.#sourceOf("^[^]*$", at));
    const key = JSON.stringify(patterns.map(({ source, negate }) => [source, negate ?? false]));
    if (this.#names.has(key)) return this.#names.get(key);
    this.#count += matching.length;
    if (this.#count > MOST_PATTERNS) {
      throw this.#refuse(at, `more than ${MOST_PATTERNS} patterns and formats`);
    }
    let place: Place | undefined;
    try {
      place = patternPlace(patterns, this.#budget);
    } catch (error) {
      if (!(error instanceof NothingMatchesError)) throw error;
    }
    this.#names.set(key, place);
    return place;
  }

  /** All patterns of some keywords. */
  #sources(parts: readonly StringKeywords[], at: string): PatternSource[] {
    const isMeant = parts.some(({ pattern }) => pattern !== undefined);
    return parts.flatMap((keywords) => [
      this.#pattern(keywords, at),
      this.#format(keywords, isMeant, at),
      this.#encoding(keywords, at),
    ]).filter((pattern) => pattern !== undefined);
  }

  /** The place before strings that match and have so many characters: fewer than they may have where that is too much. */
  #within(
    patterns: readonly PatternSource[],
    { min, max, known }: {
      readonly min: number;
      readonly max: number | undefined;
      readonly known: Map<number | undefined, Place>;
    },
    at: string,
  ): Place {
    if (min === 0 && max === undefined) return patternPlace(patterns, this.#budget);
    const where = `${at}/${max === undefined ? "minLength" : "maxLength"}`;
    const upTo = (most: number | undefined, share: number) => {
      const length = this.#sourceOf(`^[^]{${min},${most ?? ""}}$`, where);
      const place = this.#place([...patterns, length], share);
      known.set(most, place);
      return place;
    };
    if (max === undefined) return upTo(max, 1);
    let tooLarge: PatternsTooLargeError | undefined;
    for (const share of SHARES) {
      for (let most = Math.min(max, MOST_BESIDE);; most = Math.max(min, most >> 1)) {
        try {
          return known.get(most) ?? upTo(most, share);
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
          // What another string has will do for this one, too, if it has no less than is tried next.
          const others = [...known.keys()].filter((length) =>
            length !== undefined && length < most
          );
          const longest = Math.max(...others as number[]);
          if (longest >= most >> 1) return known.get(longest)!;
          if (most <= Math.max(min, LEAST_BESIDE)) break;
        }
      }
    }
    throw tooLarge!;
  }

  /** A place that takes no more than a part of what is left; one that comes to nothing takes steps alone. */
  #place(patterns: readonly PatternSource[], share: number): Place {
    const { states, edges, steps } = this.#budget;
    const own = { states: Math.floor(states * share), edges: Math.floor(edges * share), steps };
    const { states: mostStates, edges: mostEdges } = own;
    try {
      const place = patternPlace(patterns, own);
      this.#budget.states -= mostStates - own.states;
      this.#budget.edges -= mostEdges - own.edges;
      return place;
    } finally {
      this.#budget.steps = own.steps;
    }
  }

  #pattern({ pattern, format }: StringKeywords, at: string): PatternSource | undefined {
    if (pattern === undefined) return undefined;
    if (typeof format === "string" && SAID_BY_FORMATS.get(format) === pattern) return undefined;
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

  #encoding({ contentEncoding: name }: StringKeywords, at: string): PatternSource | undefined {
    if (name === undefined) return undefined;
    const known = typeof name === "string" ? ENCODINGS.get(name.toLowerCase()) : undefined;
    if (known !== undefined) return this.#sourceOf(known, `${at}/contentEncoding`);
    throw this.#refuse(
      `${at}/contentEncoding`,
      `${quote(String(name))} is not one of ${[...ENCODINGS.keys()].join(", ")}`,
    );
  }

  #sourceOf(source: string, at: string): PatternSource {
    return { source, where: `${this.#name}: ${at}` };
  }

  #refuse(at: string, what: string): SchemaError {
    return new SchemaError(`${this.#name}: ${at}: ${what}`);
  }
}
