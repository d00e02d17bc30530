/**
 * References within a schema.
 * @module
 */
import { quote } from "../../checks.ts";
import type { Schema } from "./keywords.ts";
import { typeOf } from "./value.ts";

/**
 * What a reference leads to.
 *
 * @param root The whole schema.
 * @param reference A JSON pointer, behind a `#`.
 * @param refuse Makes the error for what cannot be followed.
 */
export function referredTo(
  root: unknown,
  reference: unknown,
  refuse: (what: string) => Error,
): unknown {
  if (typeof reference !== "string" || !/^#(\/|$)/.test(reference)) {
    throw refuse(
      `${
        quote(String(reference))
      }: only references within the schema are followed, as #/$defs/NAME`,
    );
  }
  let target = root;
  for (const part of reference.split("/").slice(1)) {
    let name: string;
    try {
      name = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
    } catch {
      throw refuse(`${quote(reference)} is no JSON pointer`);
    }
    if (typeof target !== "object" || target === null || !Object.hasOwn(target, name)) {
      throw refuse(`${quote(reference)}: there is no ${quote(name)}`);
    }
    target = (target as Schema)[name];
  }
  return target;
}

/** The reference that a schema consists of, beside annotations; undefined where it says anything else itself. */
export function referenceOf(schema: unknown, keywords: readonly string[]): unknown {
  if (typeOf(schema) !== "object" || !Object.hasOwn(schema as Schema, "$ref")) return undefined;
  const others = keywords.filter((word) =>
    word !== "$ref" && Object.hasOwn(schema as Schema, word)
  );
  return others.length > 0 ? undefined : (schema as Schema).$ref;
}
