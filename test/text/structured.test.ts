import { describe, expect, test } from "bun:test";
import { SchemaError, TokenRangeError } from "../../src/errors.ts";
import { modelTextFrom } from "../../src/text/model_text.ts";
import { constraintFor } from "../../src/text/structured/mod.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { thrownBy } from "../checkpoint/support.ts";
import {
  accepts,
  allowedIds,
  babble,
  BYTE_IDS,
  constraint,
  isAllowed,
  tokenizer,
  VOCABULARY,
} from "./structured_support.ts";

/** Checks which texts a schema lets be written. */
function check(schema: unknown, allowed: readonly string[], forbidden: readonly string[]): void {
  for (const text of allowed) expect([text, accepts(schema, text)]).toEqual([text, true]);
  for (const text of forbidden) expect([text, accepts(schema, text)]).toEqual([text, false]);
}

/** The message of the error that a schema gives. */
function refusal(schema: unknown): string {
  const error = thrownBy(() => constraint({ schema }));
  expect(error).toBeInstanceOf(SchemaError);
  return error.message;
}

const object = (properties: object, more: object = {}) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  ...more,
});

describe("a text of a schema", () => {
  test("has one space at most at its beginning, after commas and after colons", () => {
    const schema = object({ a: { type: "integer" }, b: { type: "array", items: {} } });
    check(schema, ['{"a":1,"b":[]}', ' {"a": 1, "b": [1, 2,3]}'], [
      '  {"a":1,"b":[]}',
      '{ "a":1,"b":[]}',
      '{"a" :1,"b":[]}',
      '{"a":  1,"b":[]}',
      '{"a":1 ,"b":[]}',
      '{"a":1,\n"b":[]}',
      '{"a":1,"b":[ ]}',
      '{"a":1,"b":[1 ]}',
      '{"a":1,"b":[]} ',
    ]);
  });

  test("has properties in their order, those left out that may be", () => {
    const schema = {
      type: "object",
      properties: { a: { const: 1 }, ab: { const: 2 }, b: { const: 3 } },
      required: ["ab"],
    };
    check(schema, ['{"a":1,"ab":2,"b":3}', '{"ab":2}', '{"ab":2,"b":3}', '{"a":1,"ab":2}'], [
      "{}",
      '{"a":1}',
      '{"b":3}',
      '{"ab":2,"a":1}',
      '{"ab":2,"ab":2}',
      '{"ab":2,"c":0}',
      '{"ab":2,}',
      '{"a":2,"ab":2}',
    ]);
  });

  test("has other properties only where they are asked for, and never one twice under another form", () => {
    const schema = {
      type: "object",
      properties: { a: { type: "integer" } },
      additionalProperties: { type: "string" },
    };
    check(schema, ['{"a":1,"b":"x"}', '{"b":"x","aa":"y"}', '{"":"x"}', "{}"], [
      '{"a":"x"}',
      '{"b":"x","a":1}',
      '{"b":1}',
      '{"\\u0061":"x"}',
    ]);
    check({ type: "object", additionalProperties: false }, ["{}"], ['{"a":1}']);
    check({ type: "object" }, ["{}", '{"a":[{"b":null}]}'], ["[]"]);
    check({ type: "object", required: ["a"] }, ['{"a":1}', '{"a":1,"b":2}'], ["{}"]);
    const own = JSON.parse('{"properties":{"__proto__":{"const":1}},"required":["__proto__"]}');
    check(own, ['{"__proto__":1}'], ['{"__proto__":2}', "{}"]);
  });

  test("has no property that is forbidden, or that has no end, as another one", () => {
    const forbidden = object({ name: {}, password: false, pass: true });
    check({ ...forbidden, required: ["name"], additionalProperties: { type: "string" } }, [
      '{"name":"a","pass":"b"}',
      '{"name":"a","passwords":"b"}',
    ], ['{"name":"a","password":"b"}', '{"name":"a","pass":"b","password":"c"}']);
    check(object({ "\\": { type: "integer" } }), ['{"\\\\":1}'], ['{"\\n":1}', '{"\\":1}']);
    const $defs = { endless: object({ it: { $ref: "#/$defs/endless" } }) };
    const schema = { type: "object", properties: { next: { $ref: "#/$defs/endless" } }, $defs };
    check({ ...schema, additionalProperties: true }, ['{"text":1}', "{}"], ['{"next":1}']);
  });

  test("has strings of whole characters, counted as characters", () => {
    check({ type: "string" }, ['"é🌳\\n\\u00e9"', '"\\ud83c\\udf33"', '""', '"\\/"'], [
      '"\n"',
      '"\t"',
      '"\\ud83c"',
      '"\\udf33"',
      '"\\ud83c\\u0041"',
      '"\\x41"',
      '"\\u00g0"',
      '"a',
    ]);
    check({ type: "string", minLength: 2, maxLength: 3 }, [
      '"ab"',
      '"🌳🌳🌳"',
      '"\\ud83c\\udf33a"',
    ], ['"a"', '"🌳"', '"\\ud83c\\udf33"', '"abcd"', '""']);
    for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90], [0x80]]) {
      const one = constraint({ schema: { type: "string" } });
      const ids = [0x22, ...bytes].map((byte) => BYTE_IDS.get(byte));
      const refused = ids.some((id) => {
        if (id === undefined || !isAllowed(one, id)) return true;
        one.take(id);
        return false;
      });
      expect(refused).toBe(true);
    }
  });

  test("has numbers that are finite and exact", () => {
    check({ type: "number" }, ["0", "-0", "-1.5e-10", "12E+3", "0.25", "123456789012345"], [
      "1e999",
      "1e100",
      "01",
      "+1",
      ".5",
      "1.",
      "1e",
      "NaN",
      "1234567890123456",
    ]);
    check({ type: "integer" }, ["0", "-7", "100"], ["-0", "1.0", "1e2", "00"]);
  });

  test("has numbers between bounds", () => {
    check({ type: "integer", minimum: 3, exclusiveMaximum: 120 }, ["3", "9", "10", "119"], [
      "2",
      "120",
      "-5",
      "0",
      "1",
      "3.5",
      "03",
    ]);
    check({ type: "integer", minimum: -12, maximum: -3 }, ["-3", "-12", "-10"], ["-2", "-13", "3"]);
    check({ type: "number", minimum: 0, maximum: 1 }, ["0", "1", "0.5", "1.0", "0.0", "0.999"], [
      "-0.1",
      "1.1",
      "2",
      "1e0",
      "-0",
    ]);
    check({ type: "number", exclusiveMinimum: 0.1, maximum: 10.25 }, ["0.11", "10.25", "10.2"], [
      "0.1",
      "0.10",
      "10.26",
      "0",
      "11",
    ]);
    check({ type: "number", minimum: -0.5, exclusiveMaximum: 1e-7 }, [
      "-0.5",
      "0.00000009",
      "0",
    ], ["0.0000001", "-0.51"]);
    check({ minimum: 1e300, type: ["number", "null"] }, [], []);
  });

  test("has values that are given, as JSON writes them", () => {
    check({ enum: ["a", 1, 12, null, { b: [1, "é"] }, true] }, [
      '"a"',
      "1",
      "12",
      "null",
      '{"b":[1,"é"]}',
      "true",
    ], ["123", '"b"', "false", '{"b": [1,"é"]}']);
    check({ type: "string", enum: ["a", 1] }, ['"a"'], ["1"]);
    check({ const: "\n" }, ['"\\n"'], ['"\n"']);
  });

  test("has arrays of so many items", () => {
    check({ type: "array", items: { type: "boolean" }, minItems: 1, maxItems: 2 }, [
      "[true]",
      "[true,false]",
    ], ["[]", "[true,true,true]", "[1]", "[true,]", "[,]"]);
    const pair = { type: "array", prefixItems: [{ const: 1 }, { const: 2 }] };
    check(pair, ["[]", "[1]", "[1,2]"], ["[2]", "[1,2,3]"]);
    check({ ...pair, items: { const: 3 }, minItems: 2 }, ["[1,2]", "[1,2,3,3]"], [
      "[1]",
      "[1,2,4]",
    ]);
    check({ type: "array", items: false }, ["[]"], ["[1]"]);
    check({ type: "array", maxItems: 0 }, ["[]"], ["[1]"]);
  });

  test("is one of several, decided as late as possible", () => {
    const schema = {
      anyOf: [
        object({ kind: { const: "a" }, x: { type: "integer" } }),
        object({ kind: { const: "ab" }, y: { type: "string" } }),
        { type: ["integer", "null"] },
      ],
    };
    check(schema, ['{"kind":"a","x":1}', '{"kind":"ab","y":""}', "5", "null"], [
      '{"kind":"a","y":""}',
      '{"kind":"ab","x":1}',
      '"a"',
    ]);
    check({ oneOf: schema.anyOf }, ['{"kind":"a","x":1}'], ['{"kind":"a","y":""}']);
    const tagged = ["a", "b"].map((tag) => ({
      properties: { tag: { const: tag } },
      required: ["tag"],
    }));
    check({ oneOf: tagged }, ['{"tag":"a"}', '{"tag":"b"}'], ["{}", "null"]);
    check({ allOf: [{ const: 1 }], description: "one" }, ["1"], ["2"]);
  });

  test("follows references within the schema, also in circles", () => {
    const schema = {
      $ref: "#/$defs/a~1b",
      $defs: {
        "a/b": object({ next: { anyOf: [{ $ref: "#/%24defs/a~1b" }, { type: "null" }] } }),
      },
    };
    check(schema, ['{"next":null}', '{"next":{"next":{"next":null}}}'], ["{}", "null"]);
    check({ type: "array", items: { $ref: "#" } }, ["[]", "[[],[[]]]"], ["[1]"]);
  });

  test("leaves out what would never end", () => {
    const schema = {
      $ref: "#/$defs/a",
      $defs: {
        never: object({ more: { $ref: "#/$defs/never" } }),
        a: {
          type: "object",
          properties: {
            b: { $ref: "#/$defs/never" },
            c: { type: "array", items: { $ref: "#/$defs/never" } },
            d: { anyOf: [{ $ref: "#/$defs/d" }, { $ref: "#/$defs/never" }, { const: 1 }] },
          },
        },
        d: { $ref: "#/$defs/d2" },
        d2: { anyOf: [{ $ref: "#/$defs/d" }] },
      },
    };
    check(schema, ["{}", '{"c":[]}', '{"c":[],"d":1}'], ['{"b":', '{"c":[{']);
    const one = constraint({ schema });
    for (const byte of new TextEncoder().encode('{"')) one.take(BYTE_IDS.get(byte)!);
    expect(isAllowed(one, BYTE_IDS.get(0x62)!)).toBe(false);
  });

  test("matches its pattern, anywhere or between anchors", () => {
    check({ type: "string", pattern: "^[A-Z]{2}\\d+$" }, ['"DE1"', '"XX12"'], ['"D1"', '"DE"']);
    check({ pattern: "b" }, ['"abc"', '"b"', '"\\n🌳b"'], ['"ac"', '""', "1"]);
    check({ pattern: "^a|b$" }, ['"ax"', '"xb"'], ['"xa"', '"bx"']);
    check({ pattern: '^["\\\\\\t]+$' }, ['"\\"\\\\\\t"'], ['"\\u0022"', '"""']);
    check({ pattern: "^[^a-c]$" }, ['"d"', '"é"', '"🌳"'], ['"a"', '"dd"']);
    check({ pattern: "^(?:x?){3}$" }, ['""', '"xxx"'], ['"xxxx"']);
  });

  test("has the format that it must have", () => {
    check({ format: "date" }, ['"2024-02-28"', '"1999-12-31"'], ['"2024-13-01"', '"2023-02-30"']);
    check({ format: "uuid" }, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']);
    check({ format: "ipv4" }, ['"255.0.10.1"'], ['"256.0.0.1"', '"1.2.3"']);
    check({ format: "email" }, ['"ada.l@example.com"'], ['"ada"', '"a@b"']);
  });
});

describe("a schema that cannot be kept", () => {
  test("is refused with the place, whatever JSON Schema has in other words", () => {
    for (
      const [schema, ...parts] of [
        [object({ "a/b": { not: {} } }), "#/properties/a~1b", "not"],
        [{ type: "array", items: { uniqueItems: true } }, "#/items", "uniqueItems"],
        [{ type: "object", patternProperties: {} }, "#:", "patternProperties"],
        [{ type: "number", multipleOf: 2 }, "multipleOf"],
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
        [{ oneOf: [{ type: "integer" }, { type: "number" }] }, "0 and 1 of oneOf"],
        [{ oneOf: [{ const: "a" }, { type: "string" }] }, "0 and 1 of oneOf"],
        [
          { oneOf: [{ properties: { a: { const: 1 } }, required: ["a"] }, { type: "null" }] },
          "type",
        ],
        [{ oneOf: [{ type: "string" }, { minimum: 5 }] }, "0 and 1 of oneOf"],
        [
          { oneOf: [object({ v: { minLength: 3 } }), object({ v: { type: "integer" } })] },
          "0 and 1 of oneOf",
        ],
        [{ format: "regex" }, "#/format", "date-time"],
        [{ pattern: "a", maxLength: 2 }, "maxLength beside pattern"],
        [{ pattern: "(" }, "#/pattern", "Unterminated group"],
        [{ pattern: "(?=a)" }, "assertions"],
        [{ pattern: "(a)\\1" }, "not known"],
        [{ pattern: "a(^b)" }, "^ and $"],
        [{ pattern: "\\p{L}" }, "the characters themselves"],
        [{ pattern: "^[\\u0000]$" }, "no string that can be written"],
        [{ minLength: 3, maxLength: 2 }, "above"],
        [{ minItems: -1 }, "#/minItems", "whole number"],
        [{ type: "integer", minimum: 1.1, maximum: 1.9 }, "between the bounds"],
        [{ type: "number", minimum: "1" }, "must be a number"],
        [{ type: "string", const: 1 }, "no value has the type"],
        [{ $ref: "#" }, "comes to an end"],
        [object({ a: { $ref: "#" } }), "comes to an end"],
        [{ required: ["a"], properties: {}, additionalProperties: false }, "comes to an end"],
        [false, "comes to an end"],
        [{ properties: { a: 1 } }, "#/properties/a", "must be an object"],
        [{ properties: [] }, "#/properties"],
        [{ required: "a", type: "object" }, "#/required"],
        [{ items: [{}] }, "prefixItems"],
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
    expect(refusal({ type: "object", propertyNames: { type: "string", enum: ["a"] } })).toContain(
      "propertyNames",
    );
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

describe("a constraint of a grammar", () => {
  const schema = object({ a: { type: "integer" } });
  const byte = (letter: string) => BYTE_IDS.get(letter.charCodeAt(0))!;

  test("follows its own text", () => {
    const [one, other] = [constraint({ schema }), constraint({ schema })];
    expect([one.begun, one.complete]).toEqual([false, false]);
    one.take(byte("{"));
    expect([one.begun, other.begun]).toEqual([true, false]);
    expect(isAllowed(one, byte("{"))).toBe(false);
    expect(isAllowed(other, byte("{"))).toBe(true);
  });

  test("refuses tokens that it forbids, special ones and those that are none", () => {
    const one = constraint({ schema });
    const [end] = tokenizer.endIds;
    for (const id of [byte("x"), end, VOCABULARY, -1]) {
      expect(thrownBy(() => one.take(id))).toBeInstanceOf(TokenRangeError);
    }
    expect(one.begun).toBe(false);
    for (const id of tokenizer.specialIds) expect(isAllowed(one, id)).toBe(false);
  });

  test("allows an end of text exactly where the text may end", () => {
    const one = constraint({ schema: { type: "number" } });
    const [end] = tokenizer.endIds;
    for (const [letter, may] of [["-", false], ["1", true], [".", false], ["5", true]] as const) {
      one.take(byte(letter));
      expect([letter, isAllowed(one, end)]).toEqual([letter, may]);
    }
    one.take(end);
    expect(one.complete).toBe(true);
    expect(thrownBy(() => one.take(byte("1")))).toBeInstanceOf(TokenRangeError);
  });

  test("is the same however much the grammar already knows", () => {
    const form = { schema: { ...schema, title: `${performance.now()}` } };
    const texts = [1, 1, 2, 1].map((seed) => babble(constraint(form), uniformNumbers(seed)));
    expect(texts[1]).toBe(texts[0]);
    expect(texts[3]).toBe(texts[0]);
  });

  test("works with SentencePiece and byte fallback, and says when a tokenizer cannot write it", () => {
    const words = ['{"', "a", '":', "▁", "1", "2", "}", "▁{", '"a"'];
    const bytes = Array.from(
      { length: 256 },
      (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
    );
    const make = (tokens: string[]) =>
      modelTextFrom({
        tokenizer: {
          version: "1.0",
          added_tokens: [{ id: 0, content: "</s>", special: true }],
          normalizer: null,
          pre_tokenizer: null,
          post_processor: null,
          decoder: {
            type: "Sequence",
            decoders: [
              { type: "Replace", pattern: { String: "▁" }, content: " " },
              { type: "ByteFallback" },
              { type: "Fuse" },
            ],
          },
          model: {
            type: "BPE",
            vocab: Object.fromEntries(["</s>", ...tokens].map((token, id) => [token, id])),
            merges: [],
            byte_fallback: true,
          },
        },
        tokenizerConfig: { eos_token: "</s>" },
      }).tokenizer;
    const whole = make([...words, ...bytes]);
    const one = constraintFor(whole, 300, { schema });
    for (const token of ["▁{", '"a"', "<0x3A>", "▁", "1", "2", "}"]) {
      const id = whole.idOf(token)!;
      expect([token, isAllowed(one, id)]).toEqual([token, true]);
      expect(isAllowed(one, whole.idOf("</s>")!)).toBe(false);
      one.take(id);
    }
    expect(one.complete).toBe(true);

    const poor = make(words);
    const other = constraintFor(poor, 20, { schema: { const: "é" } });
    other.take(poor.idOf("▁")!);
    const error = thrownBy(() => other.allowed());
    expect(error).toBeInstanceOf(SchemaError);
    expect(error.message).toContain("no token");
  });
});
