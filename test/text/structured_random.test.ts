import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SchemaError } from "../../src/errors.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { MANY, SEED } from "../support/fuzz.ts";
import {
  accepts,
  allowedIds,
  babble,
  constraint,
  tokenizer,
  validator,
  VOCABULARY,
} from "./structured_support.ts";

/**
 * Names of properties. None has a backslash: after {"\"":1,"\\":2}, V8 14.6 and 15.0 read {"\"":1,"\n":2} as if its second
 * name were a backslash, too (JSON.parse in Deno 2.9 and Node 26).
 */
const name = fc.oneof(
  fc.constantFrom("a", "ab", "b", "é", "🌳", '"', "a/b", "", "type", "\n"),
  fc.string({ maxLength: 4, unit: "grapheme" }),
).filter((name) => !name.includes("\\"));
const range = (most: number) =>
  fc.tuple(fc.option(fc.nat(most)), fc.option(fc.nat(most))).map(([low, size]) => ({
    low: low ?? undefined,
    high: size === null ? undefined : (low ?? 0) + size,
  }));
const patterns = fc.constantFrom(
  "^[a-z]{2,5}$",
  "abc",
  "^a|b$",
  "^(foo|ba[rz])+$",
  "^\\d{3}-\\d{4}$",
  "^[^\\d\\s]{1,3}$",
  "^.{0,6}$",
  '^"\\\\[\\u{1F300}-\\u{1F5FF}é-ü]?$',
  "^\\S+ \\w*$",
  "x$",
  "^$",
  "^(?!a)(?!.*\\.\\.)[a-c.]{1,6}$",
  "^(?=.*\\d)(?!\\d|.*é$)\\S{2,7}$",
  "^(?![^]*[^ -~])",
);
/** Patterns of names of properties. */
const namePatterns = fc.constantFrom(
  "^x-",
  "^x-[a-c]{1,3}$",
  "^[a-z]{1,3}$",
  "é",
  "^\\d+$",
  "^$",
  "a|1",
  '^[^"a]{0,2}$',
  "^[A-Z_]+$",
);
const formats = fc.constantFrom(
  "date",
  "time",
  "date-time",
  "duration",
  "email",
  "hostname",
  "ipv4",
  "uuid",
);
const bound = fc.oneof(
  fc.integer({ min: -2000, max: 2000 }),
  fc.double({ min: -50, max: 50, noNaN: true }).map((value) => Number(value.toPrecision(4))),
  fc.constantFrom(0, 1, -1, 0.1, 0.001, 1e9, -1e14, 123456.789),
);
const scalarValue = fc.oneof(
  fc.string({ maxLength: 5, unit: "binary" }),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.boolean(),
  fc.constant(null),
);
const given = fc.oneof(scalarValue, fc.json({ maxDepth: 2 }).map((text) => JSON.parse(text)))
  .filter(isExact);

/** Whether all whole numbers in a value are read exactly: others are refused. */
function isExact(value: unknown): boolean {
  let exact = true;
  JSON.stringify(value, (_, inner) => {
    if (Number.isInteger(inner) && !Number.isSafeInteger(inner)) exact = false;
    return inner;
  });
  return exact;
}

const leaf: fc.Arbitrary<object> = fc.oneof(
  fc.constantFrom({ type: "boolean" }, { type: "null" }, { type: "integer" }, { type: "number" }),
  fc.constantFrom({}, { type: "object" }, { type: "array" }, { type: ["string", "null"] }),
  range(6).map(({ low, high }) => ({ type: "string", minLength: low, maxLength: high })),
  patterns.map((pattern) => ({ type: "string", pattern })),
  formats.map((format) => ({ type: "string", format })),
  fc.tuple(patterns, range(8)).map(([pattern, { low, high }]) => ({
    type: "string",
    pattern,
    minLength: low,
    maxLength: high,
  })),
  fc.tuple(formats, fc.constantFrom("^[02a]", "1", "^.{0,12}$", "[5-9a-f]$"), range(30)).map(
    ([format, pattern, { high }]) => ({ type: "string", format, pattern, maxLength: high }),
  ),
  fc.record({
    type: fc.constantFrom("integer", "number"),
    minimum: fc.option(bound, { nil: undefined }),
    exclusiveMaximum: fc.option(bound, { nil: undefined }),
  }),
  fc.record({
    type: fc.constantFrom("integer", "number"),
    exclusiveMinimum: fc.option(bound, { nil: undefined }),
    maximum: fc.option(bound, { nil: undefined }),
  }),
  fc.record({
    type: fc.constantFrom("integer", "number"),
    multipleOf: fc.oneof(
      fc.integer({ min: 1, max: 30 }),
      fc.constantFrom(1000, 1e12, 12345, 0.5, 0.25, 2.5, 0.125, 1.75),
    ),
    minimum: fc.option(bound, { nil: undefined }),
    exclusiveMaximum: fc.option(bound, { nil: undefined }),
  }),
  fc.array(given, { minLength: 1, maxLength: 5 }).map((values) => ({ enum: values })),
  fc.tuple(fc.array(given, { minLength: 1, maxLength: 5 }), range(4)).map((
    [values, { low, high }],
  ) => ({ items: { enum: values }, uniqueItems: true, minItems: low, maxItems: high })),
  fc.tuple(fc.constantFrom("base16", "base32", "base64", "base64url"), range(12)).map((
    [contentEncoding, { high }],
  ) => ({ type: "string", contentEncoding, maxLength: high })),
  given.map((value) => ({ const: value })),
  fc.constant({ $ref: "#/$defs/list" }),
  fc.constant({ $ref: "#/$defs/tree" }),
);
/** A property's schema; now and then there may be none. */
const member = (schema: fc.Arbitrary<object>) =>
  fc.oneof({ weight: 6, arbitrary: schema }, { weight: 1, arbitrary: fc.constant(false) });
const { schema } = fc.letrec<{ schema: object }>((tie) => ({
  schema: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    leaf,
    fc.array(tie("schema"), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
    fc.array(tie("schema"), { minLength: 1, maxLength: 2 }).map((oneOf) => ({ oneOf })),
    fc.record({ rest: fc.option(tie("schema")), first: fc.array(tie("schema"), { maxLength: 2 }) })
      .chain(({ rest, first }) =>
        range(3).map(({ low, high }) => ({
          type: "array",
          ...(rest ? { items: rest } : {}),
          ...(first.length > 0 ? { prefixItems: first } : {}),
          ...(low === undefined ? {} : { minItems: low }),
          ...(high === undefined ? {} : { maxItems: high }),
        }))
      ),
    fc.record({
      properties: fc.uniqueArray(fc.tuple(name, member(tie("schema")), fc.boolean()), {
        maxLength: 4,
        selector: ([name]) => name,
      }),
      others: fc.option(fc.oneof(fc.boolean(), tie("schema")), { nil: undefined }),
      byPattern: fc.oneof(
        { weight: 3, arbitrary: fc.constant([]) },
        {
          weight: 1,
          arbitrary: fc.uniqueArray(fc.tuple(namePatterns, tie("schema")), {
            minLength: 1,
            maxLength: 3,
            selector: ([pattern]) => pattern,
          }),
        },
      ),
      propertyNames: fc.oneof(
        { weight: 4, arbitrary: fc.constant(undefined) },
        { weight: 1, arbitrary: namePatterns.map((pattern) => ({ pattern, maxLength: 6 })) },
        {
          weight: 1,
          arbitrary: range(3).map(({ low, high }) => ({ minLength: low, maxLength: high })),
        },
      ),
    }).map(({ properties, others, byPattern, propertyNames }) => ({
      type: "object",
      ...(byPattern.length > 0 ? { patternProperties: Object.fromEntries(byPattern) } : {}),
      ...(propertyNames ? { propertyNames } : {}),
      properties: Object.fromEntries(properties.map(([name, schema]) => [name, schema])),
      required: properties.filter(([, schema, required]) => schema && required).map(([name]) =>
        name
      ),
      ...(others === undefined ? {} : { additionalProperties: others }),
    })),
  ),
}));
const whole = schema.map((schema) => ({
  ...schema,
  $defs: {
    list: {
      anyOf: [
        { type: "null" },
        {
          type: "object",
          properties: { head: { type: "integer" }, tail: { $ref: "#/$defs/list" } },
          required: ["head", "tail"],
        },
      ],
    },
    tree: { type: "array", items: { $ref: "#/$defs/tree" } },
  },
}));

const RUNS = MANY ? 1000 : 100;

/** Schemas at random that can be satisfied. */
function eachSchema(runs: number, check: (schema: object, seed: number) => void): void {
  let satisfiable = 0;
  fc.assert(
    fc.property(whole, fc.nat(), (schema, seed) => {
      try {
        constraint({ schema });
      } catch (error) {
        // Bounds and lengths at random may leave nothing.
        if (
          error instanceof SchemaError &&
          /comes to an end|lies between|above|no string|of oneOf|matches|cannot be told/.test(
            error.message,
          )
        ) return;
        throw error;
      }
      satisfiable++;
      check(schema, seed);
    }),
    { seed: SEED, numRuns: runs },
  );
  expect(satisfiable).toBeGreaterThan(runs / 3);
}

describe("any text that is allowed", () => {
  test("is JSON that validates, by ajv, whatever the schema and the tokens", () => {
    let ended = 0;
    eachSchema(RUNS, (schema, seed) => {
      const validate = validator(schema);
      const next = uniformNumbers(seed);
      for (let i = 0; i < 3; i++) {
        const text = babble(constraint({ schema }), next);
        if (text === undefined) continue;
        ended++;
        const value = JSON.parse(text);
        if (!validate(value)) throw new Error(`${text} does not validate`);
        // What can be written once can be written again, byte by byte.
        expect(accepts(schema, text)).toBe(true);
      }
    });
    expect(ended).toBeGreaterThan(RUNS);
  });

  test("is found by going through all tokens one by one", () => {
    eachSchema(25, (schema, seed) => {
      const next = uniformNumbers(seed);
      const one = constraint({ schema });
      const taken: number[] = [];
      for (let i = 0; i < 6 && !one.complete; i++) {
        const ids = new Set(allowedIds(one));
        for (let j = 0; j < 60; j++) {
          // Half of the tokens that are tried are allowed ones, so that both are met.
          const id = j % 2 === 0
            ? Math.floor(next() * VOCABULARY)
            : [...ids][Math.floor(next() * ids.size)];
          const other = constraint({ schema });
          taken.forEach((token) => other.take(token));
          let was = true;
          try {
            other.take(id);
          } catch {
            was = false;
          }
          expect(was).toBe(ids.has(id));
        }
        const id = [...ids][Math.floor(next() * ids.size)];
        one.take(id);
        taken.push(id);
        if (tokenizer.endIds.has(id)) break;
      }
    });
  });

  test("holds any JSON object, where no schema is given", () => {
    const next = uniformNumbers(SEED);
    let ended = 0;
    for (let i = 0; i < 30; i++) {
      const text = babble(constraint("json"), next);
      if (text === undefined) continue;
      ended++;
      const value = JSON.parse(text);
      expect(typeof value === "object" && value !== null && !Array.isArray(value)).toBe(true);
    }
    expect(ended).toBeGreaterThan(10);
  });
});
