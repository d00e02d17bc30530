/** What the tests of structured text share. @module */
import { expect } from "bun:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import type { TokenConstraint } from "../../src/text/constraint.ts";
import { SchemaError } from "../../src/errors.ts";
import { openTokenizer } from "../../src/text/folder.ts";
import { constraintFor, type TextForm } from "../../src/text/structured/mod.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";

export const tokenizer = openTokenizer(fromRoot("examples/tiny"));
export const VOCABULARY = 4096;

/** Token ids of single bytes, by byte. */
export const BYTE_IDS = new Map(
  Array.from({ length: VOCABULARY }, (_, id) => id)
    .filter((id) => !tokenizer.specialIds.has(id) && tokenizer.bytesOf(id).length === 1)
    .map((id) => [tokenizer.bytesOf(id)[0], id]),
);

export function constraint(form: TextForm): TokenConstraint {
  return constraintFor(tokenizer, VOCABULARY, form);
}

export function isAllowed(constraint: TokenConstraint, token: number): boolean {
  return (constraint.allowed()[token >>> 5] >>> (token & 31) & 1) === 1;
}

/** Ids that are allowed. */
export function allowedIds(constraint: TokenConstraint): number[] {
  const mask = constraint.allowed();
  return Array.from({ length: VOCABULARY }, (_, id) => id).filter((id) =>
    (mask[id >>> 5] >>> (id & 31) & 1) === 1
  );
}

/** Whether a text may be written to its end, and may end there. */
export function accepts(schema: unknown, text: string): boolean {
  const one = constraint({ schema });
  for (const byte of new TextEncoder().encode(text)) {
    const id = BYTE_IDS.get(byte);
    if (id === undefined) throw new Error(`no token for byte ${byte}`);
    if (one.complete || !isAllowed(one, id)) return false;
    one.take(id);
  }
  return one.complete || [...tokenizer.endIds].some((id) => isAllowed(one, id));
}

/** Says whether values validate; the oracle. */
export function validator(schema: unknown): (value: unknown) => boolean {
  const ajv = new Ajv2020({ strict: false, strictTypes: false, allErrors: false, logger: false });
  // @ts-ignore: the plugin's type is that of its CommonJS form
  addFormats(ajv);
  const validate = ajv.compile(schema as object);
  return (value) => validate(value) === true;
}

/** Bytes by which values come to an end. */
const ENDING = [...'"}],:0'].map((letter) => BYTE_IDS.get(letter.charCodeAt(0))!);

/**
 * Writes a text, each token one of those that are allowed, at random.
 *
 * @param next Random numbers in [0, 1).
 * @returns Undefined where it came to no end.
 */
export function babble(
  constraint: TokenConstraint,
  next: () => number,
  most = 400,
): string | undefined {
  const tokens: number[] = [];
  while (tokens.length < most) {
    let ids = allowedIds(constraint);
    const ending = ids.filter((id) => ENDING.includes(id) || tokenizer.endIds.has(id));
    if (ending.length > 0 && next() < (tokens.length < most / 3 ? 0.3 : 0.9)) ids = ending;
    const id = ids[Math.floor(next() * ids.length)];
    constraint.take(id);
    if (!tokenizer.endIds.has(id)) tokens.push(id);
    if (constraint.complete) return tokenizer.decode(tokens);
  }
  return undefined;
}

/** Checks which texts a schema lets be written. */
export function check(
  schema: unknown,
  allowed: readonly string[],
  forbidden: readonly string[],
): void {
  for (const text of allowed) expect([text, accepts(schema, text)]).toEqual([text, true]);
  for (const text of forbidden) expect([text, accepts(schema, text)]).toEqual([text, false]);
}

/** The message of the error that a schema gives. */
export function refusal(schema: unknown): string {
  const error = thrownBy(() => constraint({ schema }));
  expect(error).toBeInstanceOf(SchemaError);
  return error.message;
}

/** A schema of an object that has all of these properties. */
export const object = (properties: object, more: object = {}) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  ...more,
});
