/**
 * What the keywords of a schema are about: which are kept, which restrict nothing, which are refused.
 * @module
 */
import { typeOf } from "./value.ts";

/** Most members of a union: each may have to be followed for itself. */
export const MOST_MEMBERS = 64;
/** Keywords that restrict values, and that are not kept. */
const REFUSED = new Set([
  ..."not if then else dependentSchemas dependentRequired dependencies".split(" "),
  ..."propertyNames minProperties maxProperties unevaluatedProperties unevaluatedItems".split(" "),
  ..."contains minContains maxContains additionalItems divisibleBy".split(" "),
  ..."disallow extends $dynamicRef $recursiveRef contentMediaType contentSchema".split(" "),
]);
/** Values of refused keywords that restrict nothing, as JSON. */
const HARMLESS = new Map([
  ["minProperties", ["0"]],
  ["unevaluatedProperties", ["true", "{}"]],
  ["unevaluatedItems", ["true", "{}"]],
  // Names are strings; zod says so of every record.
  ["propertyNames", ["true", "{}", '{"type":"string"}']],
]);
/** Keywords that say something of values of one type. */
export const KEYWORDS_OF = {
  object: "properties required additionalProperties patternProperties propertyNames".split(" "),
  array: ["items", "prefixItems", "minItems", "maxItems", "uniqueItems"],
  string: ["minLength", "maxLength", "pattern", "format", "contentEncoding"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
};
/** All of them. */
export const OF_TYPES = Object.values(KEYWORDS_OF).flat();
/** Keywords by which a schema is others, or values that are given. */
export const CHOICES = ["$ref", "const", "enum", "anyOf", "oneOf", "allOf"];
/** Keywords beside a type that say more than nothing. */
const RESTRICTING = [...CHOICES, ...OF_TYPES, ...REFUSED, "$id"];
/** The types that there are. */
export const TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"];

/** A schema that is no truth value. */
export type Schema = Readonly<Record<string, unknown>>;

/** A keyword of a schema that restricts values in a way that is not kept; undefined where there is none. */
export function refusedKeyword(schema: Schema): string | undefined {
  return Object.keys(schema).find((keyword) =>
    REFUSED.has(keyword) && !HARMLESS.get(keyword)?.includes(JSON.stringify(schema[keyword])) &&
    !(keyword === "propertyNames" && (listedNames(schema) || namesOf(schema))) &&
    !(keyword === "additionalItems" && isOldTuple(schema))
  );
}

/** Whether `items` lists what comes first in an array, and `additionalItems` is the rest, as in draft 7. */
export function isOldTuple({ items, prefixItems }: Schema): boolean {
  return Array.isArray(items) && prefixItems === undefined;
}

/** The names that `propertyNames` lists, as zod lists those of a record; undefined where it says anything else. */
export function listedNames({ propertyNames }: Schema): ReadonlySet<string> | undefined {
  if (typeOf(propertyNames) !== "object") return undefined;
  const { type = "string", enum: several, const: one, ...rest } = propertyNames as Schema;
  const names = several ?? (one === undefined ? undefined : [one]);
  const isOther = Object.keys(rest).some((word) => RESTRICTING.includes(word)) ||
    (several !== undefined && one !== undefined);
  if (type !== "string" || isOther || !Array.isArray(names)) return undefined;
  return names.length > 0 && names.every((name) => typeof name === "string")
    ? new Set(names)
    : undefined;
}

/** What `propertyNames` says of names as of any strings; undefined where it says anything else. */
export function namesOf({ propertyNames }: Schema): Schema | undefined {
  if (typeOf(propertyNames) !== "object") return undefined;
  const { type = "string", ...rest } = propertyNames as Schema;
  const isOther = Object.keys(rest).some((word) =>
    RESTRICTING.includes(word) && !KEYWORDS_OF.string.includes(word)
  );
  return type === "string" && !isOther ? rest : undefined;
}

/** A schema and what its `allOf` adds, where that is said of strings alone. */
export function stringParts({ allOf, ...rest }: Schema): Schema[] | undefined {
  if (!Array.isArray(allOf) || allOf.length === 0 || allOf.length > MOST_MEMBERS) {
    return undefined;
  }
  const parts = [rest, ...allOf];
  const isOfStrings = (part: unknown) =>
    typeOf(part) === "object" &&
    ["string", undefined].includes((part as Schema).type as string) &&
    RESTRICTING.every((word) =>
      KEYWORDS_OF.string.includes(word) || !Object.hasOwn(part as Schema, word)
    );
  const saysLittle = parts.every((part) =>
    !["type", ...KEYWORDS_OF.string].some((word) => Object.hasOwn(part, word))
  );
  return saysLittle || !parts.every(isOfStrings) ? undefined : parts;
}
