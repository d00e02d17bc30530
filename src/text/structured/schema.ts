/**
 * Reads a JSON schema.
 *
 * What is promised: a text that was written to its end is JSON that validates against the schema. So a
 * keyword is either kept or refused; none that restricts values is passed over. Where a schema allows
 * more than is needed, less is written (see `place.ts`), which keeps the promise:
 *
 * - `type` (also several), `const`, `enum`, `anyOf`; `oneOf` where its members plainly exclude each
 *   other, by types that they name or by a property's values; `allOf` of one member, or of what is
 *   said of strings alone; `$ref` within the schema, loops too; `true` and `false` as schemas;
 * - objects: `properties` in their order (JavaScript's: whole numbers first), `required`,
 *   `additionalProperties` (after the others). Where it is not given, an object that has `properties` has no
 *   more than those; `patternProperties`, where no name of `properties` matches a pattern of it, too (without
 *   `additionalProperties` there are no names that match none, and one that matches several is never written);
 *   `propertyNames` that lists the names, or says of them what is said of strings, or refers to what does;
 * - arrays: `items`, `prefixItems`, `minItems`, `maxItems`; where `prefixItems` is given without `items`
 *   there are no others; the same as draft 7 has it, by a list of `items` and `additionalItems`; `uniqueItems`
 *   where all that items may be is given, as by `enum`;
 * - strings: `minLength`, `maxLength`, `pattern`, `format` (`formats.ts` has those; others, which JSON Schema
 *   does not know either, say nothing beside a pattern), and `contentEncoding` (the same file has those), also
 *   together, where strings may be shorter than they might;
 * - numbers: `minimum`, `maximum`, both exclusive ones, and `multipleOf` of whole eighths; `number.ts` says which
 *   numbers are written;
 * - annotations (`title`, `description`, `default`, `examples`, …) and words that JSON Schema does not
 *   know are passed over, as it says.
 *
 * Schemas come from strangers: all that could grow has a limit.
 *
 * @module
 */
import { quote } from "../../checks.ts";
import { SchemaError } from "../../errors.ts";
import {
  CHOICES,
  isOldTuple,
  KEYWORDS_OF,
  MOST_MEMBERS,
  OF_TYPES,
  refusedKeyword,
  type Schema,
  stringParts,
  TYPES,
} from "./keywords.ts";
import { Comparisons } from "./disjoint.ts";
import { inexactIn } from "./literal.ts";
import { boundedNumberPlace, numberPlace } from "./number.ts";
import { jsonOf } from "./schema_json.ts";
import { referenceOf, referredTo } from "./reference.ts";
import { readObject, type SchemaContext } from "./object_schema.ts";
import { StringPatterns } from "./string_patterns.ts";
import {
  anyValue,
  type ArrayValue,
  givenValue,
  keepFinite,
  plainOf,
  type PlainValue,
  type ScalarValue,
  scalarValue,
  stringValue,
  typeOf,
  type UnionValue,
  type Value,
} from "./value.ts";

/** Levels of schemas in schemas. */
const DEEPEST = 64;
/** Most schemas in a schema. */
const MOST_SCHEMAS = 4000;
/** Most values of all `enum` together. */
const MOST_GIVEN = 4000;
/** Largest `minItems` and `minLength`; larger maxima are taken for this one. */
const LARGEST_COUNT = 100_000;

/** Largest number that others may have to be multiples of. */
const LARGEST_MULTIPLE = 1e12;
/** Keywords of the bounds of numbers. */
const BOUNDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
/** Most values of items that are kept apart. */
const MOST_DISTINCT = 64;
/** Comparisons for `oneOf`, in all. */
const MOST_COMPARISONS = 100_000;

/**
 * Reads a schema.
 *
 * @param schema As JSON has it.
 * @param name What it is called in messages.
 * @throws {SchemaError} Naming the place as a JSON pointer, e.g. `#/properties/age`.
 */
export function readSchema(schema: unknown, name = "the schema"): Value {
  return new Reader(JSON.parse(jsonOf(schema, name)), name).read();
}

class Reader implements SchemaContext {
  readonly #root: unknown;
  readonly #name: string;
  /** By pointer, which may be spelled in several ways, and by the schema itself. */
  readonly #known = new Map<unknown, UnionValue>();
  readonly #values: Value[] = [];
  readonly #exclusive: { readonly members: readonly Value[]; readonly at: string }[] = [];
  readonly #unique: { readonly array: ArrayValue; readonly at: string }[] = [];
  #schemas = 0;
  #given = 0;
  readonly patterns: StringPatterns;

  constructor(root: unknown, name: string) {
    this.#root = root;
    this.#name = name;
    this.patterns = new StringPatterns(name);
  }

  read(): Value {
    const root = this.schema(this.#root, "#", 0);
    for (const { array, at } of this.#unique) this.#keepDistinct(array, at);
    const finite = keepFinite(this.#values);
    if (!finite.has(root)) throw this.refuse("#", "no value that comes to an end validates");
    const comparisons = new Comparisons(MOST_COMPARISONS);
    for (const { members, at } of this.#exclusive) {
      members.forEach((member, i) => {
        const other = members.slice(0, i).findIndex((other) =>
          !comparisons.areDisjoint(member, other)
        );
        if (other < 0) return;
        throw this.refuse(
          at,
          `a value might validate against members ${other} and ${i} of oneOf: give each a type, or a ` +
            `required property another const in each, or write anyOf`,
        );
      });
    }
    return root;
  }

  /** Says what the items of an array may be of which no two are equal. */
  #keepDistinct(array: ArrayValue, at: string): void {
    const { first, rest } = array;
    const given = rest &&
      plainOf(rest).map((item) => item.kind === "scalar" ? item.values : undefined);
    if (first.length > 0 || !given?.every((values) => values !== undefined)) {
      throw this.refuse(
        `${at}/uniqueItems`,
        "supported only where all that items may be is given, as by enum, and without prefixItems",
      );
    }
    const distinct = new Map(given.flat().map((value) => [sortedJson(value), value]));
    if (distinct.size > MOST_DISTINCT) {
      throw this.refuse(`${at}/uniqueItems`, `at most ${MOST_DISTINCT} values are kept apart`);
    }
    array.distinct = [...distinct.values()];
    array.max = Math.min(array.max, distinct.size);
  }

  refuse(at: string, what: string): SchemaError {
    const place = at.length > 300 ? `${at.slice(0, 300)}…` : at;
    return new SchemaError(`${this.#name}: ${place}: ${what}`);
  }

  add<T extends Value>(value: T): T {
    this.#values.push(value);
    return value;
  }

  union(members: readonly Value[]): Value {
    return members.length === 1 ? members[0] : this.add({ kind: "union", members });
  }

  /** A schema; the same one twice is the same value, so loops come to an end. */
  schema(schema: unknown, at: string, depth: number): Value {
    if (typeof schema === "boolean") return schema ? this.any().value : this.union([]);
    if (typeOf(schema) !== "object") throw this.refuse(at, "a schema must be an object");
    const known = this.#known.get(schema);
    if (known) return known;
    if (depth > DEEPEST) throw this.refuse(at, `more than ${DEEPEST} schemas within each other`);
    if (++this.#schemas > MOST_SCHEMAS) throw this.refuse(at, `more than ${MOST_SCHEMAS} schemas`);
    const value: UnionValue = this.add({ kind: "union", members: [] });
    this.#known.set(schema, value);
    value.members = this.#members(schema as Schema, at, depth);
    if (value.members.length > MOST_MEMBERS) {
      throw this.refuse(at, `${value.members.length} members: at most ${MOST_MEMBERS} are read`);
    }
    return value;
  }

  /** What a schema says, as values of which each will do. */
  #members(given: Schema, at: string, depth: number): Value[] {
    const schema = this.#withNames(given, at);
    const has = (keyword: string) =>
      Object.hasOwn(schema, keyword) && !(keyword === "uniqueItems" && schema[keyword] === false);
    const refused = refusedKeyword(schema);
    if (refused !== undefined) throw this.refuse(at, `${refused} is not supported`);
    if (has("$id") && depth > 0) throw this.refuse(at, "$id is not supported within a schema");
    const strings = has("allOf") ? stringParts(schema) : undefined;
    if (strings) {
      const isUntyped = strings.every(({ type }) => type === undefined);
      return [Object.assign(this.#string(strings, at), { isUntyped })];
    }
    const choices = CHOICES.filter(has);
    if (choices.length > 0) {
      const isGiven = choices[0] === "const" || choices[0] === "enum";
      const beside = [
        ...choices.slice(1),
        ...OF_TYPES.filter(has),
        ...isGiven || !has("type") ? [] : ["type"],
      ];
      if (beside.length > 0) {
        throw this.refuse(
          at,
          `${beside[0]} beside ${choices[0]} is not supported: write it into ` +
            (isGiven ? "the values" : "each member"),
        );
      }
      return this.#choice(schema, choices[0], at, depth);
    }
    const types = this.#types(schema, at);
    if (types) return types.map((type) => this.#typed(type, schema, at, depth));
    const inferred = Object.entries(KEYWORDS_OF).filter(([, words]) => words.some(has));
    if (inferred.length === 0) return [this.any().value];
    return inferred.map(([type]) =>
      Object.assign(this.#typed(type, schema, at, depth), { isUntyped: true })
    );
  }

  /** A value of one type. */
  #typed(type: string, schema: Schema, at: string, depth: number): PlainValue {
    switch (type) {
      case "object":
        return readObject(this, schema, at, depth);
      case "array":
        return this.#array(schema, at, depth);
      case "string":
        return this.#string([schema], at);
      case "integer":
      case "number":
        return this.#number(schema, at, type === "integer");
      default:
        return this.add(givenValue(type === "null" ? [null] : [true, false]));
    }
  }

  #choice(schema: Schema, keyword: string, at: string, depth: number): Value[] {
    const given = schema[keyword];
    const here = `${at}/${keyword}`;
    if (keyword === "$ref") return [this.#reference(given, here, depth)];
    if (keyword === "const") return this.#values_([given], schema, here);
    if (!Array.isArray(given) || given.length === 0) {
      throw this.refuse(here, "must be a list, and not empty");
    }
    if (keyword === "enum") return this.#values_(given, schema, here);
    if (given.length > MOST_MEMBERS) {
      throw this.refuse(here, `${given.length} members: at most ${MOST_MEMBERS} are read`);
    }
    if (keyword === "allOf" && given.length > 1) {
      throw this.refuse(here, "allOf of several members is not supported: write them as one");
    }
    const members = given.map((member, i) => this.schema(member, `${here}/${i}`, depth + 1));
    if (keyword === "oneOf") this.#exclusive.push({ members, at: here });
    return members;
  }

  countGiven(count: number, at: string): void {
    if ((this.#given += count) > MOST_GIVEN) {
      throw this.refuse(at, `more than ${MOST_GIVEN} values in all`);
    }
  }

  /** Values that are given, those of the right type. */
  #values_(given: readonly unknown[], schema: Schema, at: string): Value[] {
    this.countGiven(given.length, at);
    const inexact = given.map(inexactIn).find((number) => number !== undefined);
    if (inexact !== undefined) {
      throw this.refuse(at, `${inexact} is beyond 2^53: such whole numbers are not read exactly`);
    }
    const types = this.#types(schema, at);
    const fitting = given.filter((value) =>
      !types || types.includes(typeOf(value)) ||
      (types.includes("integer") && Number.isInteger(value))
    );
    if (fitting.length === 0) throw this.refuse(at, "no value has the type");
    return [this.add(givenValue(fitting))];
  }

  #types({ type }: Schema, at: string): string[] | undefined {
    if (type === undefined) return undefined;
    const types = [...new Set([type].flat())];
    for (const one of types) {
      if (!TYPES.includes(one as string)) {
        throw this.refuse(`${at}/type`, `${quote(String(one))} is no type`);
      }
    }
    if (types.length === 0) throw this.refuse(`${at}/type`, "must not be empty");
    // A whole number is a number.
    return (types as string[]).filter((one) => one !== "integer" || !types.includes("number"));
  }

  #reference(reference: unknown, at: string, depth: number): Value {
    const target = referredTo(this.#root, reference, (what) => this.refuse(at, what));
    // What is referred to lies elsewhere, but a chain of references is followed within each other.
    return this.schema(target, reference as string, depth + 1);
  }

  /** The same schema with its names of properties said in place, as pydantic refers to an enum for them. */
  #withNames(schema: Schema, at: string): Schema {
    const reference = referenceOf(schema.propertyNames, [...CHOICES, ...OF_TYPES, "type"]);
    if (reference === undefined) return schema;
    const here = `${at}/propertyNames/$ref`;
    const names = referredTo(this.#root, reference, (what) => this.refuse(here, what));
    return { ...schema, propertyNames: names };
  }

  #array(schema: Schema, at: string, depth: number): ArrayValue {
    const [first, others] = isOldTuple(schema)
      ? ["items", "additionalItems"]
      : ["prefixItems", "items"];
    const { [first]: listed = [], [others]: items } = schema;
    if (!Array.isArray(listed)) throw this.refuse(`${at}/${first}`, "must be a list");
    if (Array.isArray(items)) {
      throw this.refuse(`${at}/${others}`, "a list of schemas is called prefixItems");
    }
    const firstItems = listed.map((item, i) => this.schema(item, `${at}/${first}/${i}`, depth + 1));
    const min = this.count(schema, "minItems", at) ?? 0;
    const given = this.count(schema, "maxItems", at) ?? Infinity;
    if (min > given) throw this.refuse(at, "minItems is above maxItems");
    let rest: Value | undefined;
    if (items !== undefined) rest = this.schema(items, `${at}/${others}`, depth + 1);
    else if (firstItems.length === 0 || min > firstItems.length) rest = this.any().value;
    const array: ArrayValue = { kind: "array", first: firstItems, rest, min, max: given };
    const { uniqueItems = false } = schema;
    if (typeof uniqueItems !== "boolean") {
      throw this.refuse(`${at}/uniqueItems`, "must be true or false");
    }
    if (uniqueItems && given > 1) this.#unique.push({ array, at });
    return this.add(array);
  }

  /** A string that keeps what all parts say. */
  #string(parts: readonly Schema[], at: string): ScalarValue {
    const counts = (keyword: string) =>
      parts.map((part) => this.count(part, keyword, at)).filter((count) => count !== undefined);
    const min = Math.max(0, ...counts("minLength"));
    const max = Math.min(Infinity, ...counts("maxLength"));
    if (min > max) throw this.refuse(at, "minLength is above maxLength");
    const lengths = { min, max: max === Infinity ? undefined : max };
    const place = this.patterns.place(parts, lengths, at);
    return this.add(place ? scalarValue(place, "string") : stringValue(min, max));
  }

  #number(schema: Schema, at: string, integer: boolean): ScalarValue {
    const bounds = BOUNDS.map((keyword) => {
      const value = schema[keyword];
      if (value === undefined) return undefined;
      if (typeof value !== "number") throw this.refuse(`${at}/${keyword}`, "must be a number");
      return { value, exclusive: keyword.startsWith("exclusive") };
    });
    const { multipleOf } = schema;
    // Readers divide floating point numbers, which is exact for those of eighths.
    const isExact = typeof multipleOf === "number" && multipleOf > 0 &&
      multipleOf <= LARGEST_MULTIPLE && Number.isInteger(multipleOf * 8);
    if (multipleOf !== undefined && !isExact) {
      throw this.refuse(
        `${at}/multipleOf`,
        `only numbers above 0 of whole eighths are supported, as 5 or 0.25, up to ${LARGEST_MULTIPLE}`,
      );
    }
    if (bounds.every((bound) => bound === undefined) && multipleOf === undefined) {
      return this.add(scalarValue(numberPlace(integer), "number"));
    }
    // Of two bounds the one that leaves less.
    const tighter = (i: number, sign: number) => {
      const [plain, exclusive] = [bounds[i], bounds[i + 2]];
      if (!plain || !exclusive) return plain ?? exclusive;
      return (exclusive.value - plain.value) * sign >= 0 ? exclusive : plain;
    };
    const place = boundedNumberPlace(
      integer,
      tighter(0, 1),
      tighter(1, -1),
      multipleOf as number | undefined,
    );
    if (!place) {
      const what = multipleOf === undefined ? "number" : `multiple of ${multipleOf}`;
      throw this.refuse(at, `no ${what} of at most 15 digits lies between the bounds`);
    }
    return this.add(scalarValue(place, "number"));
  }

  /** A count, which may be written as 2.0. */
  count(schema: Schema, keyword: string, at: string): number | undefined {
    const count = schema[keyword];
    if (count === undefined) return undefined;
    if (typeof count !== "number" || !Number.isInteger(count) || count < 0) {
      throw this.refuse(`${at}/${keyword}`, "must be a whole number, 0 or more");
    }
    if (keyword.startsWith("max")) return Math.min(count, LARGEST_COUNT);
    if (count > LARGEST_COUNT) {
      throw this.refuse(`${at}/${keyword}`, `at most ${LARGEST_COUNT} is supported`);
    }
    return count;
  }

  #anyOnce: ReturnType<typeof anyValue> | undefined;

  any(): ReturnType<typeof anyValue> {
    if (this.#anyOnce) return this.#anyOnce;
    const any = this.#anyOnce = anyValue();
    const seen = new Set<Value>();
    const visit = (value: Value) => {
      if (seen.has(value)) return;
      seen.add(value);
      this.add(value);
      if (value.kind === "union") value.members.forEach(visit);
      else if (value.kind === "array" && value.rest) visit(value.rest);
      else if (value.kind === "object" && value.others) visit(value.others);
    };
    visit(any.value);
    return any;
  }
}

/** A value as JSON, equal for equal ones: with the names of objects in their order. */
function sortedJson(value: unknown): string {
  return JSON.stringify(
    value,
    (_, one) =>
      typeOf(one) === "object"
        ? Object.fromEntries(Object.entries(one).sort(([a], [b]) => a < b ? -1 : 1))
        : one,
  );
}
