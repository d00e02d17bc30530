/** Schemas that are refused, and what those of strangers may cost. */
import { describe, expect, test } from "bun:test";
import { uniformNumbers } from "../../src/text/windows.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { allowedIds, check, constraint, object, refusal } from "./structured_support.ts";

describe("a schema that cannot be kept", () => {
  test("is refused with the place, whatever JSON Schema has in other words", () => {
    for (
      const [schema, ...parts] of [
        [object({ "a/b": { not: {} } }), "#/properties/a~1b", "not"],
        [{ type: "array", items: { uniqueItems: true } }, "#/items/uniqueItems", "enum"],
        [
          { items: { enum: [1] }, prefixItems: [{}], uniqueItems: true },
          "uniqueItems",
          "prefixItems",
        ],
        [
          { items: { enum: Array.from({ length: 65 }, (_, i) => i) }, uniqueItems: true },
          "at most 64",
        ],
        [{ items: { enum: [1, 2] }, uniqueItems: true, minItems: 3 }, "comes to an end"],
        [{ uniqueItems: 1 }, "#/uniqueItems", "true or false"],
        [object({ a: { patternProperties: [] } }), "#/properties/a/patternProperties", "an object"],
        [{ patternProperties: { "^a": { not: {} } } }, "#/patternProperties/^a", "not"],
        [{ patternProperties: { "(": {} } }, "#/patternProperties", "Unterminated group"],
        [
          { patternProperties: { "^a": {} }, properties: { ab: {} } },
          "#/properties/ab",
          "matches a pattern",
        ],
        [{ patternProperties: { "^a": {}, "b$": {} }, required: ["ab"] }, '"ab" matches several'],
        [{ patternProperties: { "^a": {} }, required: ["\u0000"] }, "cannot be told"],
        [{ patternProperties: { "^(?=a)": {}, b: {} } }, "looks ahead"],
        [{ propertyNames: { pattern: "^a" }, required: ["b"] }, "comes to an end"],
        [{ propertyNames: { minLength: 65 } }, "#/propertyNames/minLength", "at most 64"],
        [{ propertyNames: { minLength: 2, maxLength: 1 } }, "#/propertyNames", "above"],
        [{ propertyNames: { not: {} } }, "propertyNames"],
        [{ type: "number", multipleOf: 0.01 }, "#/multipleOf", "whole eighths"],
        [{ type: "integer", multipleOf: 0 }, "#/multipleOf", "whole eighths"],
        [{ multipleOf: 7, minimum: 8, maximum: 13 }, "multiple of 7"],
        [{ contentEncoding: "quoted-printable" }, "#/contentEncoding", "base64"],
        [{ contentMediaType: "image/png" }, "contentMediaType"],
        [{ contentEncoding: "base64", maxLength: 3, minLength: 1 }, "matches all of them"],
        [{ $ref: "https://example.com/schema" }, "#/$ref", "only references within"],
        [{ $ref: "other.json#/a" }, "only references within"],
        [{ $ref: "#anchor" }, "only references within"],
        [{ $ref: "#/$defs/a" }, '"$defs"'],
        [{ $ref: "#/$defs/constructor", $defs: {} }, '"constructor"'],
        [{ $ref: "#/%zz" }, "JSON pointer"],
        [{ $ref: "#/a", a: {}, properties: {} }, "properties beside $ref"],
        [{ anyOf: [{ type: "text" }] }, "#/anyOf/0/type", '"text"'],
        [{ anyOf: [], type: "string" }, "type beside anyOf"],
        [{ anyOf: [] }, "#/anyOf", "not empty"],
        [{ allOf: [{}, {}] }, "allOf of several"],
        [{ allOf: [{ pattern: "a" }, { type: "number" }] }, "allOf of several"],
        [{ allOf: [{ pattern: "a" }, { enum: ["a"] }] }, "allOf of several"],
        [{ type: "string", allOf: [{ $ref: "#" }] }, "type beside allOf"],
        [{ minLength: 3, allOf: [{ maxLength: 2 }] }, "above"],
        [{ oneOf: [{ type: "integer" }, { type: "number" }] }, "0 and 1 of oneOf"],
        [{ oneOf: [{ const: "a" }, { type: "string" }] }, "0 and 1 of oneOf"],
        [
          { oneOf: [{ properties: { a: { const: 1 } }, required: ["a"] }, { type: "null" }] },
          "type",
        ],
        [{ oneOf: [{ type: "string" }, { minimum: 5 }] }, "0 and 1 of oneOf"],
        // No array validates against the second, but all other values do.
        [{ oneOf: [{ type: "string" }, { items: false, minItems: 1 }] }, "0 and 1 of oneOf"],
        [
          {
            oneOf: [
              object({ v: { type: "string" } }),
              object({ v: { anyOf: [{ items: false, minItems: 1 }, { type: "null" }] } }),
            ],
          },
          "0 and 1 of oneOf",
        ],
        [
          { oneOf: [object({ v: { minLength: 3 } }), object({ v: { type: "integer" } })] },
          "0 and 1 of oneOf",
        ],
        [{ format: "regex" }, "#/format", "date-time"],
        [{ format: "starts_with" }, "#/format", "date-time"],
        [{ format: "iri", pattern: ":" }, "#/format", "date-time"],
        [{ pattern: "^a$", minLength: 2 }, "#/pattern", "#/minLength", "matches all of them"],
        [
          { pattern: "^a{1100}$", maxLength: 2000 },
          "#/maxLength",
          "at most 1000 characters matches",
        ],
        [{ pattern: "^a{11}$", maxLength: 10 }, "#/maxLength", "matches all of them"],
        [{ pattern: "^x", format: "date" }, "#/pattern", "#/format", "matches all of them"],
        [{ pattern: 1 }, "#/pattern", "must be a string"],
        [{ pattern: "(" }, "#/pattern", "Unterminated group"],
        [{ pattern: "(?=a)" }, "look ahead after ^"],
        [{ pattern: "^a(?!b)" }, "look ahead after ^"],
        [{ pattern: "^(?<=a)b" }, "look ahead after ^"],
        [{ pattern: "^(?=a)|b" }, "look ahead after ^"],
        [{ pattern: "^(?!a)a" }, "no string that can be written"],
        [{ pattern: "(a)\\1" }, "not known"],
        [{ pattern: "a(^b)" }, "^ and $"],
        [{ pattern: "\\p{L}" }, "the characters themselves"],
        [{ pattern: "^[\\u0000]$" }, "no string that can be written"],
        [{ minLength: 3, maxLength: 2 }, "above"],
        [{ minItems: -1 }, "#/minItems", "whole number"],
        [{ type: "integer", minimum: 1.1, maximum: 1.9 }, "between the bounds"],
        [{ type: "number", minimum: "1" }, "must be a number"],
        [{ type: "string", const: 1 }, "no value has the type"],
        [{ const: 9007199254740993 }, "#/const", "9007199254740992", "beyond 2^53"],
        [{ enum: [5, { id: [-1234567890123456789] }] }, "#/enum", "beyond 2^53"],
        [{ const: JSON.parse("1e400") }, "too large"],
        [{ $ref: "#" }, "comes to an end"],
        [object({ a: { $ref: "#" } }), "comes to an end"],
        [{ required: ["a"], properties: {}, additionalProperties: false }, "comes to an end"],
        [false, "comes to an end"],
        [{ properties: { a: 1 } }, "#/properties/a", "must be an object"],
        [{ properties: [] }, "#/properties"],
        [{ required: "a", type: "object" }, "#/required"],
        [{ items: [{}], prefixItems: [{}] }, "#/items", "prefixItems"],
        [{ items: [{}, { type: "none" }] }, "#/items/1"],
        [{ items: [{}], additionalItems: { type: "none" } }, "#/additionalItems"],
        [{ items: {}, additionalItems: { type: "string" } }, "additionalItems"],
        [{ properties: { a: { $id: "x" } } }, "$id"],
        [1, "must be an object"],
        [undefined, "no JSON"],
        [10n, "no JSON"],
      ] as const
    ) {
      const message = refusal(schema);
      for (const part of parts) expect(message).toContain(part);
    }
    const circle: { properties?: unknown } = {};
    circle.properties = circle;
    expect(refusal(circle)).toContain("holds itself");
    const named = thrownBy(() => constraint({ schema: { not: {} }, name: "response_format" }));
    expect(named.message).toContain("response_format: #: not");
  });

  test("passes what says nothing about values", () => {
    const schema = {
      $schema: "https://json-schema.org/draft/2020-12/schema",
      $id: "https://example.com/a",
      $comment: "",
      title: "A",
      description: "a",
      default: 1,
      examples: [1],
      deprecated: true,
      "x-order": 3,
      uniqueItems: false,
      const: 1,
    };
    check(schema, ["1"], ["2"]);
    // As zod has it of a record.
    check(
      {
        type: "object",
        propertyNames: { type: "string" },
        unevaluatedProperties: {},
        additionalProperties: { type: "boolean" },
      },
      ['{"a":true}'],
      ['{"a":1}'],
    );
    const names = [{ type: "number" }, { enum: ["a", 1] }, { enum: [] }, {
      enum: ["a"],
      minLength: 1,
    }, false];
    for (const propertyNames of names) {
      expect(refusal({ type: "object", propertyNames })).toContain("propertyNames");
    }
    const required = { propertyNames: { enum: ["a"] }, required: ["b"] };
    expect(refusal({ type: "object", ...required })).toContain("no value");
  });
});

describe("a schema from a stranger", () => {
  const deep = (levels: number) => {
    let schema: object = { type: "null" };
    for (let i = 0; i < levels; i++) schema = { type: "array", items: schema, minItems: 1 };
    return schema;
  };

  test("is refused where it is too large, in any direction", () => {
    const many = <T>(count: number, make: (i: number) => T): T[] =>
      Array.from({ length: count }, (_, i) => make(i));
    const nested = (levels: number) => {
      let value: unknown[] = [];
      for (let i = 1; i < levels; i++) value = [value];
      return value;
    };
    check({ const: nested(900) }, ["[".repeat(900) + "]".repeat(900)], []);
    for (
      const [schema, part] of [
        [{ description: "x".repeat(300_000) }, "characters"],
        [{ const: nested(50_000) }, "in each other"],
        [{ "x-unknown": nested(50_000) }, "in each other"],
        [deep(100), "within each other"],
        [object(Object.fromEntries(many(5000, (i) => [`p${i}`, {}] as const))), "schemas"],
        [{ enum: many(5000, (i) => i) }, "values in all"],
        [{ anyOf: many(65, (i) => ({ const: i })) }, "members"],
        [{ pattern: "a".repeat(1001) }, "characters"],
        [{ pattern: "^(((a{30}){30}){30})$" }, "too large"],
        [{ pattern: "^.{9999}$" }, "too large"],
        [{ pattern: "^[a-z]*$", minLength: 1001 }, "#/minLength: at most 1000 beside a pattern"],
        [{ pattern: "^(a|b)*a.{150}$", maxLength: 190, format: "email" }, "too large"],
        // Few states, of which each has edges to nearly all others: some hundred megabytes of them.
        [{ pattern: "^(?=(?:a?){60}$)(?:a?){100}$" }, "too large"],
        [
          { prefixItems: many(30, (i) => ({ pattern: `x{${i + 60}}`, maxLength: 190 })) },
          "too large",
        ],
        [{ prefixItems: many(40, (i) => ({ pattern: `^${i}` })) }, "patterns"],
        [{ minLength: 1e6 }, "at most"],
      ] as const
    ) {
      const start = performance.now();
      expect(refusal(schema)).toContain(part);
      expect(performance.now() - start).toBeLessThan(2000);
    }
  });

  test("costs little, whatever it says", () => {
    const next = uniformNumbers(1);
    const start = performance.now();
    for (
      const schema of [
        // Every bracket could belong to any of many arrays: stacks double at each.
        {
          $ref: "#/$defs/a",
          $defs: {
            a: { anyOf: Array.from({ length: 40 }, () => ({ items: { $ref: "#/$defs/a" } })) },
          },
        },
        { pattern: "^(a|b|ab|ba)*a(a|b){20}$" },
        { pattern: "^(([a-z]*)*x*)*$" },
        { pattern: ".*a.{12}" },
        { pattern: "(.*e.{30}|.*t.{31}|.*a.{29}|.*o.{33})x" },
        { type: "string", maxLength: 4000 },
        deep(50),
        {
          items: {
            items: { items: { type: "integer" }, minItems: 1, maxItems: 90 },
            minItems: 1,
            maxItems: 90,
          },
          minItems: 90,
        },
        { anyOf: Array.from({ length: 30 }, (_, i) => ({ pattern: `.{${i}}a.*` })) },
        object(
          Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`property ${i}`, {}])),
          { required: [], additionalProperties: {} },
        ),
      ]
    ) {
      const one = constraint({ schema });
      for (let i = 0; i < 40 && !one.complete; i++) {
        const ids = allowedIds(one);
        one.take(ids[Math.floor(next() * ids.length)]);
      }
    }
    // Some seconds on a busy machine.
    expect(performance.now() - start).toBeLessThan(20_000);
  });

  test("leaves the next one alone", () => {
    for (let i = 0; i < 3; i++) {
      refusal({ pattern: "^.{9999}$" });
      check({ type: "boolean" }, ["true"], ["1"]);
    }
  });
});
