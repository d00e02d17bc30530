/**
 * Strings that match regular expressions, or have a format.
 *
 * Of assertions, `^` and `$` are known at the ends of a pattern, and lookaheads after `^` at its beginning.
 * Characters are written as `JSON.stringify` writes them; control characters other than tab and line
 * breaks are not written at all.
 *
 * @module
 */
import { type AST, RegExpParser } from "@eslint-community/regexpp";
import { quote } from "../../checks.ts";
import { SchemaError } from "../../errors.ts";
import { Automaton } from "./automaton.ts";
import { complementOf, intersection, type Machine, type Spend } from "./machine.ts";
import type { Place } from "./place.ts";
import { BACKSLASH, QUOTE } from "./string.ts";

/** UTF-16 units of the longest pattern. */
const LONGEST_PATTERN = 1000;
/** States of the largest automaton of a pattern; `.` takes about ten, and `.{9}` nine times as many. */
const MOST_STATES = 2000;
/** The same where patterns are kept together, of which one may count a thousand characters. */
const MOST_TOGETHER = 15_000;
/** Edges of the largest one. */
const MOST_EDGES = 500_000;

/** Patterns that are too large together. */
export class PatternsTooLargeError extends SchemaError {}

/** Patterns that no string matches. */
export class NothingMatchesError extends SchemaError {}

/** What the patterns of one schema may take that are kept together, two or more in one string. */
export interface PatternBudget {
  /** States of their automata. */
  states: number;
  /** Edges between those: where both patterns repeat what may be missing, far more than there are states. */
  edges: number;
  /** Steps to make them. */
  steps: number;
}

const parser = new RegExpParser({ ecmaVersion: 2024 });

/** A pattern of a schema. */
export interface PatternSource {
  /** As JSON Schema has it: ECMAScript's with the flag `u`, found anywhere unless `^` and `$` hold it. */
  readonly source: string;
  /** Where it stands, for messages. */
  readonly where: string;
  /** Whether strings must not match it. It looks ahead for nothing then. */
  readonly negate?: boolean;
}

/**
 * The place before a string that matches all of some patterns.
 *
 * @param patterns One or more.
 * @param budget What patterns may take that are kept together; what these take is taken off.
 * @throws {SchemaError} When one is no regular expression, too large, or has something that is not regular,
 *   or when nothing that can be written matches.
 */
export function patternPlace(patterns: readonly PatternSource[], budget: PatternBudget): Place {
  const tooLarge = () =>
    new PatternsTooLargeError(
      `${
        [...new Set(patterns.map(({ where }) => where))].join(", ")
      }: together they are too large: use smaller lengths, and ` +
        "fewer or smaller repetitions",
    );
  const spend = (steps: number) => {
    budget.steps -= steps;
    if (budget.steps < 0) throw tooLarge();
  };
  /** An automaton for a part of it. */
  const part = (make: (automaton: Automaton) => Machine) => {
    const made = make(new Automaton(budget.states, budget.edges, tooLarge));
    budget.states -= made.automaton.edges.length;
    budget.edges -= made.automaton.made;
    return made;
  };
  const most = patterns.length > 1 ? MOST_TOGETHER : MOST_STATES;
  const machine = patterns
    .flatMap((pattern) => conditionsOf(pattern, most))
    .map(({ machine, negate }) =>
      negate ? part((automaton) => complementOf(machine, automaton, spend)) : machine
    )
    // Small ones first: what comes in between counts, too.
    .toSorted((a, b) => a.automaton.edges.length - b.automaton.edges.length)
    .reduce((a, b) => part((automaton) => intersection(a, b, automaton, spend)));
  const { automaton, start, end } = patterns.some(({ negate }) => negate)
    ? deterministic(machine, part, spend)
    : machine;
  const place = automaton.place(start, end);
  if (place) return place;
  const all = patterns.map(({ source, where }) => `${where}: ${quote(source)}`).join(" and ");
  throw new NothingMatchesError(
    `${all}: no string that can be written matches ${patterns.length > 1 ? "all of them" : "it"}`,
  );
}

/** The same machine in states of which a text is always in one: several are followed together where names are told apart. */
function deterministic(
  machine: Machine,
  part: (make: (automaton: Automaton) => Machine) => Machine,
  spend: Spend,
): Machine {
  const others = part((automaton) => complementOf(machine, automaton, spend));
  return part((automaton) => complementOf(others, automaton, spend));
}

/** What strings must be in or, where `negate` says so, must not be in; with their quotes. */
interface Condition {
  readonly machine: Machine;
  readonly negate: boolean;
}

/** What the strings of a pattern fulfil: the pattern, and what it looks ahead for at its beginning. */
function conditionsOf(
  { source: pattern, where, negate = false }: PatternSource,
  most: number,
): Condition[] {
  const refuse = (what: string) => new SchemaError(`${where}: ${quote(pattern)}: ${what}`);
  if (pattern.length > LONGEST_PATTERN) {
    throw refuse(`a pattern of ${pattern.length} characters: at most ${LONGEST_PATTERN} are read`);
  }
  let tree: AST.Pattern;
  try {
    tree = parser.parsePattern(pattern, 0, pattern.length, { unicode: true });
  } catch (cause) {
    throw new SchemaError(`${where}: ${(cause as Error).message}`, { cause });
  }
  const strings = (alternatives: readonly (readonly AST.Element[])[]): Machine => {
    const automaton = new Automaton(
      most,
      MOST_EDGES,
      () => refuse("the pattern is too large: use fewer or smaller repetitions"),
    );
    const builder = new PatternBuilder(automaton, refuse);
    const [start, first, last, end] = [0, 0, 0, 0].map(() => automaton.state());
    automaton.edge(start, QUOTE, QUOTE, first);
    for (const elements of alternatives) {
      const isFrom = isAnchor(elements[0], "start");
      const isTo = isAnchor(elements.at(-1), "end");
      const from = isFrom ? first : builder.anything(first);
      const to = builder.sequence(
        elements.slice(isFrom ? 1 : 0, isTo ? -1 : undefined),
        from,
      );
      automaton.free[isTo ? to : builder.anything(to)].push(last);
    }
    automaton.edge(last, QUOTE, QUOTE, end);
    return { automaton, start, end };
  };
  const alternatives = tree.alternatives.map(({ elements }) => elements);
  const [[anchor, ...elements]] = alternatives;
  const isOne = alternatives.length === 1 && isAnchor(anchor, "start");
  const after = isOne ? elements.findIndex((element) => !isLookahead(element)) : 0;
  const ahead = elements.slice(0, after < 0 ? undefined : after).filter(isLookahead);
  if (ahead.length === 0) return [{ machine: strings(alternatives), negate }];
  if (negate) throw refuse("what looks ahead cannot be told from other patterns");
  return [
    { machine: strings([[anchor, ...elements.slice(ahead.length)]]), negate: false },
    ...ahead.map(({ alternatives, negate }) => ({
      machine: strings(alternatives.map(({ elements }) => [anchor, ...elements])),
      negate,
    })),
  ];
}

function isLookahead(element: AST.Element): element is AST.LookaheadAssertion {
  return element.type === "Assertion" && element.kind === "lookahead";
}

function isAnchor(element: AST.Element | undefined, kind: "start" | "end"): boolean {
  return element?.type === "Assertion" && element.kind === kind;
}

/** Code points from one to another. */
type Range = readonly [low: number, high: number];

const LAST_CODE_POINT = 0x10ffff;
const DIGITS: Range[] = [[0x30, 0x39]];
const WORD: Range[] = [[0x30, 0x39], [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]];
const LINE_ENDS: Range[] = [[0x0a, 0x0a], [0x0d, 0x0d], [0x2028, 0x2029]];
const SPACE: Range[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
/** Characters that JSON writes as a backslash and a letter, as far as patterns write them. */
const ESCAPES = new Map([[0x09, "t"], [0x0a, "n"], [0x0d, "r"], [QUOTE, '"'], [BACKSLASH, "\\"]]);

/** Adds the parts of a pattern to an automaton. Every method returns the state after the part. */
class PatternBuilder {
  constructor(
    readonly automaton: Automaton,
    readonly refuse: (what: string) => SchemaError,
  ) {}

  sequence(elements: readonly AST.Element[], from: number): number {
    return elements.reduce((state, element) => this.#element(element, state), from);
  }

  /** Any characters, also none. */
  anything(from: number): number {
    const state = this.automaton.state();
    this.automaton.free[from].push(state);
    this.#characters([[0, LAST_CODE_POINT]], state, state);
    return state;
  }

  #element(element: AST.Element, from: number): number {
    switch (element.type) {
      case "Character":
        return this.#oneOf([[element.value, element.value]], from);
      case "CharacterSet":
        return this.#oneOf(this.#setRanges(element), from);
      case "CharacterClass": {
        const ranges = element.elements.flatMap((part) => this.#classRanges(part));
        return this.#oneOf(element.negate ? complement(ranges) : ranges, from);
      }
      case "Group":
      case "CapturingGroup": {
        const end = this.automaton.state();
        for (const { elements } of element.alternatives) {
          this.automaton.free[this.sequence(elements, from)].push(end);
        }
        return end;
      }
      case "Quantifier":
        return this.#quantifier(element, from);
      case "Assertion":
        throw this.refuse(
          element.kind === "start" || element.kind === "end"
            ? "^ and $ are known at the ends of the pattern, and of its outermost alternatives"
            : `${
              quote(element.raw)
            } is not known: patterns look ahead after ^ at their beginning only`,
        );
      default:
        throw this.refuse(`${quote(element.raw)} is not known in a pattern`);
    }
  }

  #quantifier({ element, min, max }: AST.Quantifier, from: number): number {
    const { automaton } = this;
    let state = from;
    for (let i = 0; i < min; i++) state = this.#element(element, this.#fresh(state));
    if (max === Infinity) {
      const loop = this.#fresh(state);
      automaton.free[this.#element(element, loop)].push(loop);
      return loop;
    }
    const end = automaton.state();
    automaton.free[state].push(end);
    for (let i = min; i < max; i++) {
      state = this.#element(element, this.#fresh(state));
      automaton.free[state].push(end);
    }
    return end;
  }

  /** A state of its own, entered from another: nothing leads back into it. */
  #fresh(from: number): number {
    const state = this.automaton.state();
    this.automaton.free[from].push(state);
    return state;
  }

  #oneOf(ranges: readonly Range[], from: number): number {
    const to = this.automaton.state();
    this.#characters(ranges, from, to);
    return to;
  }

  #classRanges(part: AST.CharacterClassElement): Range[] {
    switch (part.type) {
      case "Character":
        return [[part.value, part.value]];
      case "CharacterClassRange":
        return [[part.min.value, part.max.value]];
      case "CharacterSet":
        return this.#setRanges(part);
      default:
        throw this.refuse(`${quote(part.raw)} is not known in a pattern`);
    }
  }

  #setRanges(set: AST.CharacterSet): Range[] {
    switch (set.kind) {
      case "any":
        return complement(LINE_ENDS);
      case "digit":
        return set.negate ? complement(DIGITS) : DIGITS;
      case "word":
        return set.negate ? complement(WORD) : WORD;
      case "space":
        return set.negate ? complement(SPACE) : SPACE;
      default:
        throw this.refuse(`${quote(set.raw)} is not known: write the characters themselves`);
    }
  }

  /** Edges for characters, as they are written in a string of JSON. */
  #characters(ranges: readonly Range[], from: number, to: number): void {
    const { automaton } = this;
    let escape: number | undefined;
    let tail: number[] | undefined;
    for (const [low, high] of merged(ranges)) {
      for (const [character, letter] of ESCAPES) {
        if (character < low || character > high) continue;
        if (escape === undefined) {
          escape = automaton.state();
          automaton.edge(from, BACKSLASH, BACKSLASH, escape);
        }
        const byte = letter.charCodeAt(0);
        automaton.edge(escape, byte, byte, to);
      }
      for (const [first, last] of [[0x20, 0x21], [0x23, 0x5b], [0x5d, 0x7f]]) {
        if (low <= last && high >= first) {
          automaton.edge(from, Math.max(low, first), Math.min(high, last), to);
        }
      }
      for (const [first, last] of [[0x80, 0x7ff], [0x800, 0xd7ff], [0xe000, 0xffff]]) {
        if (low <= last && high >= first) {
          tail ??= [to];
          this.#bytes(Math.max(low, first), Math.min(high, last), from, tail);
        }
      }
      if (high > 0xffff) {
        tail ??= [to];
        this.#bytes(Math.max(low, 0x10000), high, from, tail);
      }
    }
  }

  /** Edges for code points whose UTF-8 has equally many bytes. `tail[i]`: before i bytes of any kind. */
  #bytes(low: number, high: number, from: number, tail: number[]): void {
    const length = low < 0x800 ? 2 : low < 0x10000 ? 3 : 4;
    const lead = [0, 0, 0xc0, 0xe0, 0xf0][length];
    const add = (low: number, high: number, left: number, from: number, mark: number) => {
      const span = 64 ** left;
      const first = Math.floor(low / span);
      const last = Math.floor(high / span);
      if (left === 0) return this.automaton.edge(from, mark + low, mark + high, tail[0]);
      let whole = first;
      let wholeEnd = last;
      const partial = (unit: number, low: number, high: number) => {
        const state = this.automaton.state();
        this.automaton.edge(from, mark + unit, mark + unit, state);
        add(low, high, left - 1, state, 0x80);
      };
      if (first === last && (low % span !== 0 || high % span !== span - 1)) {
        return partial(first, low % span, high % span);
      }
      if (low % span !== 0) partial(whole++, low % span, span - 1);
      if (high % span !== span - 1) partial(wholeEnd--, 0, high % span);
      if (whole <= wholeEnd) {
        this.automaton.edge(from, mark + whole, mark + wholeEnd, this.#any(left, tail));
      }
    };
    add(low, high, length - 1, from, lead);
  }

  /** The state before so many bytes that continue a character. */
  #any(count: number, tail: number[]): number {
    while (tail.length <= count) {
      const state = this.automaton.state();
      this.automaton.edge(state, 0x80, 0xbf, tail[tail.length - 1]);
      tail.push(state);
    }
    return tail[count];
  }
}

/** Sorted, without overlaps. */
function merged(ranges: readonly Range[]): Range[] {
  const result: [number, number][] = [];
  for (const [low, high] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const before = result.at(-1);
    if (before && low <= before[1] + 1) before[1] = Math.max(before[1], high);
    else result.push([low, high]);
  }
  return result;
}

function complement(ranges: readonly Range[]): Range[] {
  const result: Range[] = [];
  let next = 0;
  for (const [low, high] of merged(ranges)) {
    if (low > next) result.push([next, low - 1]);
    next = high + 1;
  }
  if (next <= LAST_CODE_POINT) result.push([next, LAST_CODE_POINT]);
  return result;
}
