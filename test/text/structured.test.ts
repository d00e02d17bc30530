import { describe, expect, test } from "bun:test";
import { SchemaError, TokenRangeError } from "../../src/errors.ts";
import { modelTextFrom } from "../../src/text/model_text.ts";
import { constraintFor } from "../../src/text/structured/mod.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { thrownBy } from "../checkpoint/support.ts";
import {
  allowedIds,
  babble,
  BYTE_IDS,
  check,
  constraint,
  isAllowed,
  object,
  tokenizer,
  VOCABULARY,
} from "./structured_support.ts";

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

  test("has multiples of whole numbers and of eighths, between bounds, too", () => {
    check({ type: "integer", multipleOf: 7 }, ["0", "7", "-14", "700", "999999999999994"], [
      "1",
      "-7.0",
      "15",
      "-0",
    ]);
    check({ type: "number", multipleOf: 25, minimum: -60, exclusiveMaximum: 125 }, [
      "-50",
      "0",
      "100",
    ], ["-75", "125", "5", "25.0", "2.5e1"]);
    check({ type: "number", multipleOf: 0.5, minimum: -0.5, maximum: 5 }, [
      "0.5",
      "4",
      "4.0",
      "-0.5",
      "5",
    ], ["0.4", "0.50", "5.5", "-1", ".5"]);
    check({ type: "number", multipleOf: 1.25 }, ["1.25", "2.50", "-3.75", "10"], [
      "1",
      "1.2",
      "1e1",
    ]);
    check({ type: "integer", multipleOf: 2.5 }, ["5", "-10"], ["2", "2.5"]);
    check({ type: "integer", multipleOf: 1000, exclusiveMaximum: 0 }, ["-1000", "-120000"], [
      "0",
      "-0",
      "-100",
      "1000",
    ]);
    // The only one between the bounds.
    const one = constraint({
      schema: { type: "integer", multipleOf: 997, minimum: 1000, maximum: 2000 },
    });
    for (const digit of "199") one.take(BYTE_IDS.get(digit.charCodeAt(0))!);
    expect(allowedIds(one).map((id) => tokenizer.tokenOf(id))).toEqual(["4"]);
  });

  test("has each of the items that are given once where no two may be equal", () => {
    const schema = { type: "array", items: { enum: ["a", "ab", 1, 12, null] }, uniqueItems: true };
    check(schema, ["[]", '["ab", "a",12,1,null]', "[1]"], ["[1,1]", '["a","ab","a"]', "[2]"]);
    check({ ...schema, minItems: 2, maxItems: 3 }, ["[1,12]", '[1,12,"a"]'], [
      "[1]",
      '[1,12,"a",null]',
    ]);
    const same = {
      items: { anyOf: [{ enum: [{ a: 1, b: 2 }, { b: 2, a: 1 }] }, { type: "boolean" }] },
    };
    check({ ...same, uniqueItems: true, type: "array" }, ['[true,{"b":2,"a":1},false]'], [
      '[{"b":2,"a":1},{"b":2,"a":1}]',
      "[true,true]",
    ]);
    check({ type: "array", items: {}, uniqueItems: true, maxItems: 1 }, ['["x"]', "[]"], ["[1,2]"]);
    check({ type: "array", items: { type: "string" }, uniqueItems: false }, ['["a","a"]'], ["[1]"]);
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
    // As draft 7 has it.
    const old = { type: "array", items: [{ const: 1 }, { const: 2 }] };
    check(old, ["[]", "[1]", "[1,2]"], ["[2]", "[1,2,3]"]);
    check({ ...old, additionalItems: { const: 3 }, minItems: 2 }, ["[1,2]", "[1,2,3,3]"], [
      "[1]",
      "[1,2,4]",
    ]);
    check({ ...old, additionalItems: false, minItems: 2 }, ["[1,2]"], ["[1]", "[1,2,3]"]);
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
