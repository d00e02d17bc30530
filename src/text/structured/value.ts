/**
 * What a value may be: a schema that was read, as a tree with shared branches and loops.
 * @module
 */
import { literalPlace } from "./literal.ts";
import { numberPlace } from "./number.ts";
import type { Place } from "./place.ts";
import { stringPlace } from "./string.ts";

/** A JSON type, as far as values of two of them are never equal. */
export type ValueType = "null" | "boolean" | "number" | "string" | "array" | "object";

/** What all values have. */
interface AnyForm {
  /** Whether the schema says no type, so that values of other types, which are never written, validate as well. */
  isUntyped?: boolean;
}

/** A value without parts. */
export interface ScalarValue extends AnyForm {
  readonly kind: "scalar";
  /** The place before it. */
  readonly start: Place;
  readonly types: ReadonlySet<ValueType>;
  /** All that it may be, where that was given. */
  readonly values?: readonly unknown[];
}

/** An array. */
export interface ArrayValue extends AnyForm {
  readonly kind: "array";
  /** The first items, each of its own form. */
  readonly first: readonly Value[];
  /** Items after them; undefined where there are none. */
  readonly rest: Value | undefined;
  readonly min: number;
  max: number;
  /** All values that items may have, none of them twice, where no two items may be equal. */
  distinct?: readonly unknown[];
}

/** A property of an object. */
export interface Property {
  readonly name: string;
  readonly value: Value;
  readonly required: boolean;
}

/** Properties by the form of their names. */
export interface NamedProperty {
  /** The place before the name, with its quotes. */
  readonly name: Place;
  readonly value: Value;
}

/** An object: its properties in their order, those that are not required left out or not, then others. */
export interface ObjectValue extends AnyForm {
  readonly kind: "object";
  properties: readonly Property[];
  /** Properties of other names; undefined where there are none. */
  others: Value | undefined;
  /** The same of names of some forms, of which no name has two. */
  named?: readonly NamedProperty[];
  /** Names that no property may have. */
  barred: readonly string[];
}

/** A value without more choice. */
export type PlainValue = ScalarValue | ArrayValue | ObjectValue;

/** One of several values. With one member that is set later it is a reference. */
export interface UnionValue {
  readonly kind: "union";
  members: readonly Value[];
  /** All that it may be, without choices among them; found once all is read. */
  plain?: readonly PlainValue[];
  /** Whether something was taken out of it of which the schema says no type: all values of other types validate. */
  isOpen?: boolean;
}

/** What a value may be. */
export type Value = PlainValue | UnionValue;

/** Levels of arrays and objects in a value of any form. */
const ANY_DEPTH = 32;

const scalar = (start: Place, ...types: ValueType[]): ScalarValue => ({
  kind: "scalar",
  start,
  types: new Set(types),
});

/** One of several values that are given. */
export function givenValue(values: readonly unknown[]): ScalarValue {
  return { ...scalar(literalPlace(values), ...values.map(typeOf)), values };
}

/** A string of so many characters. */
export function stringValue(min: number, max: number): ScalarValue {
  return scalar(stringPlace(min, max), "string");
}

/** A scalar of one type, by its place. */
export function scalarValue(start: Place, type: ValueType): ScalarValue {
  return scalar(start, type);
}

/** Any value, of at most so many levels; or any object. */
export function anyValue(): { readonly value: Value; readonly object: ObjectValue } {
  const scalars: Value[] = [
    scalar(stringPlace(0, Infinity), "string"),
    scalar(numberPlace(false), "number"),
    givenValue([true, false]),
    givenValue([null]),
  ];
  let value: Value = { kind: "union", members: scalars };
  let object: ObjectValue = { kind: "object", properties: [], others: value, barred: [] };
  for (let level = 0; level < ANY_DEPTH; level++) {
    object = { kind: "object", properties: [], others: value, barred: [] };
    const array: ArrayValue = { kind: "array", first: [], rest: value, min: 0, max: Infinity };
    value = { kind: "union", members: [...scalars, array, object] };
  }
  return { value, object };
}

/** The type of a value of JSON. */
export function typeOf(value: unknown): ValueType {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value as ValueType;
}

/** What a value may be, without choices. */
export function plainOf(value: Value): readonly PlainValue[] {
  if (value.kind !== "union") return [value];
  if (value.plain) return value.plain;
  const plain = new Set<PlainValue>();
  const seen = new Set<Value>();
  const waiting: Value[] = [value];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    if (seen.has(next)) continue;
    seen.add(next);
    if (next.kind === "union") waiting.push(...[...next.members].reverse());
    else plain.add(next);
  }
  return value.plain = [...plain];
}

/**
 * Takes out what has no end, such as an object that must hold another one like itself.
 *
 * @param values All values, those that are parts of others too. They are changed in place.
 * @returns Those that are left.
 */
export function keepFinite(values: readonly Value[]): ReadonlySet<Value> {
  const finite = new Set<Value>();
  const canEnd = (value: Value): boolean => {
    switch (value.kind) {
      case "scalar":
        return true;
      case "union":
        return value.members.some((member) => finite.has(member));
      case "object":
        return value.properties.every((property) =>
          !property.required || finite.has(property.value)
        );
      case "array":
        return Math.min(value.max, itemsThatEnd(value, finite)) >= value.min;
    }
  };
  let left = values.filter((value) => !finite.has(value));
  for (let before = -1; before !== left.length;) {
    before = left.length;
    // From the last one: parts are read after what they are parts of.
    left = left.toReversed().filter((value) => !(canEnd(value) && finite.add(value))).toReversed();
  }
  for (const value of values) {
    if (value.kind !== "union") continue;
    value.isOpen = plainOf(value).some((one) => one.isUntyped && !finite.has(one));
  }
  for (const value of finite) {
    if (value.kind === "union") {
      value.plain = undefined;
      value.members = value.members.filter((member) => finite.has(member));
    } else if (value.kind === "array") {
      value.max = Math.min(value.max, itemsThatEnd(value, finite));
    } else if (value.kind === "object") {
      const [properties, barred] = parted(
        value.properties,
        (property) => finite.has(property.value),
      );
      value.properties = properties;
      value.barred = barred.map(({ name }) => name);
      if (value.others && !finite.has(value.others)) value.others = undefined;
      value.named = value.named?.filter(({ value }) => finite.has(value));
    }
  }
  return finite;
}

/** Those of which something is true, and the others. */
function parted<T>(all: readonly T[], isTrue: (one: T) => boolean): [T[], T[]] {
  return [all.filter(isTrue), all.filter((one) => !isTrue(one))];
}

/** Most items that an array can have. */
function itemsThatEnd({ first, rest }: ArrayValue, finite: ReadonlySet<Value>): number {
  const endless = first.findIndex((item) => !finite.has(item));
  if (endless >= 0) return endless;
  return rest && finite.has(rest) ? Infinity : first.length;
}
