/**
 * Schemas of objects: properties by name, by patterns of their names, and others.
 * @module
 */
import { quote } from "../../checks.ts";
import type { SchemaError } from "../../errors.ts";
import { KEYWORDS_OF, listedNames, namesOf, type Schema } from "./keywords.ts";
import { type State, States } from "./states.ts";
import type { StringPatterns } from "./string_patterns.ts";
import { type ObjectValue, type Property, typeOf, type Value } from "./value.ts";

/** UTF-16 units of names that are barred by one pattern. */
const LONGEST_ALTERNATIVES = 900;

const utf8 = new TextEncoder();

/** What reading a part of a schema asks of the whole. */
export interface SchemaContext {
  readonly patterns: StringPatterns;
  /** A schema in it. */
  schema(schema: unknown, at: string, depth: number): Value;
  /** Any value. */
  any(): { readonly value: Value };
  union(members: readonly Value[]): Value;
  /** Notes a value that has been made. */
  add<T extends Value>(value: T): T;
  /** A count, such as `minLength`. */
  count(schema: Schema, keyword: string, at: string): number | undefined;
  /** Counts values that are given. */
  countGiven(count: number, at: string): void;
  /** The error for a place of the schema. */
  refuse(at: string, what: string): SchemaError;
}

/** What is said of names of properties by their form. */
interface NameForms {
  /** Of `patternProperties`. */
  readonly patterns: readonly { readonly source: string; readonly value: Value }[];
  /** Whether `propertyNames` says more than that they are strings. */
  readonly names: boolean;
  readonly keywords: Parameters<StringPatterns["names"]>[0];
}

/**
 * Reads a schema of objects.
 *
 * @param at Its JSON pointer.
 * @param depth Levels of schemas that it lies in.
 * @throws {SchemaError} Naming the place.
 */
export function readObject(
  context: SchemaContext,
  schema: Schema,
  at: string,
  depth: number,
): ObjectValue {
  const { properties = {}, required = [], additionalProperties } = schema;
  if (typeOf(properties) !== "object") {
    throw context.refuse(`${at}/properties`, "must be an object");
  }
  if (!Array.isArray(required) || required.some((name) => typeof name !== "string")) {
    throw context.refuse(`${at}/required`, "must be a list of names");
  }
  const names = new Set<string>(required);
  const read: Property[] = Object.entries(properties as Schema).map(([name, value]) => ({
    name,
    value: context.schema(value, `${at}/properties/${pointer(name)}`, depth + 1),
    required: names.delete(name),
  }));
  const forms = formsOf(context, schema, at, depth);
  let others: Value | undefined;
  if (additionalProperties !== undefined) {
    others = context.schema(additionalProperties, `${at}/additionalProperties`, depth + 1);
  } else if (!Object.hasOwn(schema, "properties") && forms.patterns.length === 0) {
    others = context.any().value;
  }
  // What is required and not described has the form of the others, if there may be any.
  const undescribed = others ??
    (additionalProperties === undefined ? context.any().value : context.union([]));
  const none = context.union([]);
  const valueOf = (name: string) => formOf(context, name, forms.patterns, at) ?? undescribed;
  const listed = listedNames(schema);
  if (listed) {
    context.countGiven(listed.size, `${at}/propertyNames`);
    // What is not listed is in no object; what is listed and not described has the form of the others.
    const described = new Set(read.map(({ name }) => name));
    for (const name of listed) {
      if (described.has(name)) continue;
      const form = formOf(context, name, forms.patterns, at) ?? others;
      if (!form && !names.has(name)) continue;
      read.push({ name, value: form ?? undescribed, required: names.delete(name) });
    }
    for (const name of names) read.push({ name, value: none, required: true });
    const kept = read.map((property) =>
      listed.has(property.name) ? property : { ...property, value: none }
    );
    return context.add({ kind: "object", properties: kept, others: undefined, barred: [] });
  }
  for (const { name } of forms.patterns.length > 0 ? read : []) {
    if (formOf(context, name, forms.patterns, at)) {
      throw context.refuse(
        `${at}/properties/${pointer(name)}`,
        "its name matches a pattern of patternProperties, too, which is not supported",
      );
    }
  }
  for (const name of names) read.push({ name, value: valueOf(name), required: true });
  if (forms.patterns.length === 0 && !forms.names) {
    return context.add({ kind: "object", properties: read, others, barred: [] });
  }
  const kept = read.map((property) =>
    isName(context, property.name, forms, [], at) ? property : { ...property, value: none }
  );
  const barred = alternatives(read.map(({ name }) => name));
  const sources = forms.patterns.map(({ source }) => source);
  const all = [
    ...forms.patterns.map(({ source, value }) => ({ matching: [source], value })),
    ...others ? [{ matching: [], value: others }] : [],
  ];
  const named = all.flatMap(({ matching, value }) => {
    const not = sources.filter((source) => !matching.includes(source));
    const name = context.patterns.names(forms.keywords, matching, [...not, ...barred], at);
    return name ? [{ name, value }] : [];
  });
  return context.add({ kind: "object", properties: kept, others: undefined, named, barred: [] });
}

/** What names of properties must be, and what values of those have that match a pattern. */
function formsOf(context: SchemaContext, schema: Schema, at: string, depth: number): NameForms {
  const { patternProperties = {} } = schema;
  if (typeOf(patternProperties) !== "object") {
    throw context.refuse(`${at}/patternProperties`, "must be an object");
  }
  const patterns = Object.entries(patternProperties as Schema).map(([source, value]) => ({
    source,
    value: context.schema(value, `${at}/patternProperties/${pointer(source)}`, depth + 1),
  }));
  const names = listedNames(schema) ? undefined : namesOf(schema);
  const words = names && KEYWORDS_OF.string.some((word) => Object.hasOwn(names, word));
  const min = context.count(names ?? {}, "minLength", `${at}/propertyNames`) ?? 0;
  const max = context.count(names ?? {}, "maxLength", `${at}/propertyNames`);
  if (max !== undefined && min > max) {
    throw context.refuse(`${at}/propertyNames`, "minLength is above maxLength");
  }
  const { pattern, format, contentEncoding } = names ?? {};
  const keywords = { pattern, format, contentEncoding, min, max };
  return { patterns, names: words ?? false, keywords };
}

/** The form of a name that matches a pattern; undefined where it matches none. */
function formOf(
  context: SchemaContext,
  name: string,
  patterns: NameForms["patterns"],
  at: string,
): Value | undefined {
  const keywords = { min: 0, max: undefined };
  const matching = patterns.filter(({ source }) =>
    isName(context, name, { keywords }, [source], at)
  );
  if (matching.length < 2) return matching[0]?.value;
  throw context.refuse(
    at,
    `the name ${quote(name)} matches several patterns of patternProperties, which is not supported`,
  );
}

/** Whether a name is one that matches some patterns. */
function isName(
  context: SchemaContext,
  name: string,
  { keywords }: Pick<NameForms, "keywords">,
  matching: readonly string[],
  at: string,
): boolean {
  const length = Array.from(name).length;
  if (length < keywords.min || length > (keywords.max ?? Infinity)) return false;
  const form = { ...keywords, min: 0, max: undefined };
  const place = context.patterns.names(form, matching, [], at);
  // Patterns write no other control characters, and no halves of characters.
  if (/(?![\t\n\r])[\p{Cc}\p{Cs}]/u.test(name)) {
    throw context.refuse(at, `whether ${quote(name)} matches a pattern cannot be told`);
  }
  let state: State | null = place ? new States().begin(place) : null;
  for (const byte of utf8.encode(JSON.stringify(name))) state = state && state.step(byte);
  return state?.mayEnd ?? false;
}

/** Patterns that some names match, all together, and nothing else does. */
function alternatives(names: readonly string[]): string[] {
  const patterns: string[][] = [];
  let length = 0;
  for (const name of names) {
    const source = Array.from(
      name,
      (letter) =>
        /[A-Za-z0-9]/.test(letter) ? letter : `\\u{${letter.codePointAt(0)!.toString(16)}}`,
    ).join("");
    length += source.length + 1;
    if (patterns.length === 0 || length > LONGEST_ALTERNATIVES) {
      patterns.push([]);
      length = source.length;
    }
    patterns.at(-1)!.push(source);
  }
  return patterns.map((sources) => `^(?:${sources.join("|")})$`);
}

/** A name as a part of a JSON pointer. */
function pointer(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}
