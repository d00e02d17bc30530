/**
 * Which values cannot be both of two forms: members of `oneOf` must not, or a text could validate against two of them.
 * @module
 */
import { plainOf, type PlainValue, type ScalarValue, type Value, type ValueType } from "./value.ts";

/** Objects in one another that are looked into; a schema may refer to ever new ones. */
const DEEPEST = 300;

/** Compares forms of values. What it has found of two it does not look for again: forms refer to each other. */
export class Comparisons {
  /** Pairs of forms that may still be compared. */
  #left: number;
  #depth = 0;
  readonly #known = new Map<PlainValue, Map<PlainValue, boolean>>();
  readonly #given = new Map<ScalarValue, ReadonlySet<string>>();

  /** @param most Pairs of forms that may be compared, in all. */
  constructor(most: number) {
    this.#left = most;
  }

  /** Whether no value is both. Where that is not plain to see, or too much work, the answer is no. */
  areDisjoint(a: Value, b: Value): boolean {
    if ([a, b].some((one) => one.kind === "union" && one.isOpen)) return false;
    return plainOf(a).every((one) => plainOf(b).every((other) => this.#differ(one, other)));
  }

  #differ(a: PlainValue, b: PlainValue): boolean {
    const of = this.#known.get(a) ?? new Map<PlainValue, boolean>();
    const known = of.get(b);
    if (known !== undefined) return known;
    if (this.#left-- <= 0 || this.#depth >= DEEPEST) return false;
    // Forms may hold each other: that two of them differ cannot follow from itself.
    this.#known.set(a, of.set(b, false));
    this.#depth++;
    const found = this.#compare(a, b);
    this.#depth--;
    of.set(b, found);
    return found;
  }

  #compare(a: PlainValue, b: PlainValue): boolean {
    const types = typesOf(a);
    if ([...typesOf(b)].every((type) => !types.has(type))) return !a.isUntyped && !b.isUntyped;
    if (a.kind === "scalar" && b.kind === "scalar" && a.values && b.values) {
      if ([...a.values, ...b.values].some((value) => typeof value === "object" && value !== null)) {
        return false;
      }
      const texts = this.#textsOf(a);
      return [...this.#textsOf(b)].every((text) => !texts.has(text));
    }
    if (a.kind !== "object" || b.kind !== "object") return false;
    // A property that both have, and in which they differ.
    const required = new Map(
      a.properties.filter((property) => property.required).map(({ name, value }) => [name, value]),
    );
    return b.properties.some((property) => {
      const other = required.get(property.name);
      return property.required && other !== undefined && this.areDisjoint(other, property.value);
    });
  }

  /** The values that are given, as JSON. */
  #textsOf(scalar: ScalarValue): ReadonlySet<string> {
    let texts = this.#given.get(scalar);
    if (!texts) {
      texts = new Set(scalar.values?.map((value) => JSON.stringify(value)));
      this.#given.set(scalar, texts);
    }
    return texts;
  }
}

function typesOf(value: PlainValue): ReadonlySet<ValueType> {
  return value.kind === "scalar" ? value.types : new Set([value.kind]);
}
