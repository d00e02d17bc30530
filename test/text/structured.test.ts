import { describe, expect, test } from "bun:test";
import { z } from "zod";
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
  refusal,
  tokenizer,
  validator,
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

  test("has the names that propertyNames lists, as zod lists those of a record, and no others", () => {
    check(
      z.toJSONSchema(z.record(z.enum(["b", "a"]), z.boolean())),
      ['{"b":true,"a":false}'],
      ['{"b":true}', '{"a":false,"b":true,"c":true}', '{"b":1,"a":true}'],
    );
    check(
      z.toJSONSchema(z.partialRecord(z.literal("x"), z.int())),
      ["{}", '{"x":1}'],
      ['{"y":1}', '{"x":"1"}'],
    );
    const described = {
      properties: { a: { const: 1 }, b: { const: 2 } },
      propertyNames: { enum: ["a", "c"] },
    };
    check(described, ["{}", '{"a":1}'], ['{"b":2}', '{"a":2}']);
    check({ ...described, additionalProperties: { const: 3 } }, ['{"a":1,"c":3}', '{"c":3}'], [
      '{"d":3}',
    ]);
    check({ ...described, required: ["c"] }, ['{"a":1,"c":null}'], ['{"a":1}']);
  });

  test("has names that propertyNames refers to, or lists with a title, as pydantic has those of an enum", () => {
    const $defs = {
      Color: { enum: ["red", "green"], title: "Color", type: "string" },
      Short: { type: "string", maxLength: 2 },
      Again: { $ref: "#/$defs/Color" },
    };
    const record = (propertyNames: unknown) => ({
      $defs,
      additionalProperties: { type: "integer" },
      propertyNames,
      title: "X",
      type: "object",
    });
    check(record({ $ref: "#/$defs/Color" }), ['{"red":1,"green":2}'], ['{"blue":1}', '{"red":""}']);
    check(record($defs.Color), ['{"red":1,"green":2}'], ['{"blue":1}']);
    check(record({ $ref: "#/$defs/Short", title: "Y" }), ['{"ab":1}'], ['{"abc":1}']);
    expect(refusal(record({ $ref: "#/$defs/Again" }))).toContain("propertyNames");
    expect(refusal(record({ $ref: "#/$defs/None" }))).toContain('there is no "None"');
    expect(refusal(record({ $ref: "#/$defs/Color", maxLength: 3 }))).toContain("propertyNames");
  });

  test("has properties by patterns of their names, of which each name matches one", () => {
    const schema = {
      type: "object",
      properties: { id: { type: "integer" } },
      patternProperties: { "^x-": { type: "string" }, "^\\d+$": { type: "boolean" } },
      additionalProperties: false,
      required: ["id"],
    };
    check(schema, ['{"id":1}', '{"id":1,"x-":"a","7":true,"x-é\\"":""}'], [
      '{"x-a":"b"}',
      '{"id":1,"x-a":1}',
      '{"id":1,"7a":true}',
      '{"id":1,"7":"a"}',
      '{"id":1,"y":null}',
    ]);
    check({ ...schema, additionalProperties: { type: "null" } }, [
      '{"id":1,"y":null,"x-a":"b","x":null,"ide":null}',
    ], ['{"id":1,"x-a":null}', '{"id":1,"y":true}', '{"id":1,"id":null}', '{"id":1,"7":null}']);
    // What is not said to be allowed is not written.
    check({ patternProperties: { "^a": { const: 1 } } }, ["{}", '{"ab":1,"a":1}'], ['{"b":2}']);
    // What matches two patterns is not written, for it would have to have both forms.
    check({ patternProperties: { "^a": { const: 1 }, "b$": { type: "string" } } }, [
      '{"a":1,"cb":"x","abc":1}',
    ], ['{"ab":1}', '{"ab":"x"}']);
    check({ patternProperties: { "^a": { const: 1 } }, required: ["ab"] }, ['{"ab":1,"ac":1}'], [
      "{}",
      '{"ab":2}',
      '{"ab":1,"ab":2}',
    ]);
    check({ patternProperties: { "^ab?$": { const: 1 } }, properties: { b: {} } }, [
      '{"b":2,"ab":1,"a":1}',
    ], ['{"ab":1,"b":2}', '{"a":2}']);
    check({ patternProperties: {}, additionalProperties: { const: 1 } }, ['{"a":1}'], ['{"a":2}']);
  });

  test("lets names of several patterns be written with any token", () => {
    const one = constraint({
      schema: {
        patternProperties: { a: {}, b: {}, c: {}, "^x": {} },
        properties: { id: {} },
        additionalProperties: {},
      },
    });
    for (const letter of '{"') one.take(BYTE_IDS.get(letter.charCodeAt(0))!);
    const letters = [...BYTE_IDS].filter(([byte]) => byte >= 0x20 && byte < 0x7f && byte !== 0x5c);
    for (const [byte, id] of letters) expect([byte, isAllowed(one, id)]).toEqual([byte, true]);
  });

  test("has names of the form that propertyNames asks for, as of a record in zod", () => {
    check(z.toJSONSchema(z.record(z.string().regex(/^[a-z]{2}$/), z.int())), [
      "{}",
      '{"de":1,"en":2}',
    ], ['{"deu":1}', '{"DE":1}', '{"de":"1"}']);
    check({ propertyNames: { minLength: 2, maxLength: 3 } }, ['{"ab":1,"🌳🌳🌳":{}}'], [
      '{"a":1}',
      '{"abcd":1}',
    ]);
    const long = "x".repeat(80);
    check({ propertyNames: { minLength: 2, maxLength: 100 }, required: [long] }, [
      `{"${long}":1,"ab":2}`,
    ], ["{}"]);
    check({ propertyNames: { format: "date" }, additionalProperties: { const: 1 } }, [
      '{"2024-02-01":1}',
    ], ['{"2024-02-31":1}', '{"":1}']);
    const described = {
      properties: { ab: { const: 1 }, c: { const: 2 } },
      propertyNames: { pattern: "^a" },
    };
    check(described, ["{}", '{"ab":1}'], ['{"c":2}', '{"aa":1}']);
    check({ ...described, additionalProperties: { const: 3 } }, ['{"ab":1,"aa":3}'], [
      '{"c":2}',
      '{"ab":3}',
      '{"c":3}',
    ]);
    check(
      { propertyNames: { enum: ["ab", "c"] }, patternProperties: { "^a": { const: 1 } } },
      ["{}", '{"ab":1}'],
      ['{"c":1}', '{"ab":2}', '{"aa":1}'],
    );
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

  test("has durations and names of hosts, as zod asks for them, too", () => {
    const texts = [
      ["P1Y", "P1Y2M10D", "P1Y2M10DT2H30M15S", "P3M", "P1DT5M", "P2W", "PT0S", "PT36H", "PT1M3S"],
      ["P", "PT", "P1DT", "P1W2D", "P1Y2D", "P1D2M", "PT1H3S", "1D", "P1.5D", "P1S"],
    ].map((all) => all.map((text) => `"${text}"`));
    const isDuration = validator({ format: "duration" });
    for (const text of texts[0]) expect(isDuration(JSON.parse(text))).toBe(true);
    check({ type: "string", format: "duration" }, texts[0], texts[1]);
    check(z.toJSONSchema(z.iso.duration()), texts[0], texts[1]);
    check(z.toJSONSchema(z.hostname()), ['"a.example"', '"localhost"'], ['"-a"', '"a..b"', '""']);
  });

  test("has strings that are bytes in an encoding, as of base64 in zod", () => {
    const base64 = z.toJSONSchema(z.base64());
    expect(base64).toHaveProperty("contentEncoding", "base64");
    check(base64, ['""', '"QQ=="', '"QUI="', '"QUJD"', '"+/+/QQ=="'], [
      '"QUJ"',
      '"QR=="',
      '"QUJ="',
      '"Q-_A"',
    ]);
    check(z.toJSONSchema(z.base64url()), ['""', '"QQ"', '"Q-_A"'], ['"Q"', '"QR"', '"Q+/A"']);
    check({ contentEncoding: "base16", minLength: 1 }, ['"0F"'], ['"0"', '""', '"0f"']);
    check({ contentEncoding: "BASE32" }, ['"ME======"', '"MFRGG==="'], ['"MF======"', '"ME=="']);
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

  test("matches what its pattern looks ahead for at its beginning", () => {
    check({ pattern: "^(?!a)[a-c]+$" }, ['"ba"', '"cab"'], ['"ab"', '"a"']);
    check({ pattern: "^(?=.*\\d)(?=.*[A-Z]).{3}$" }, ['"1aB"', '"B1🌳"'], ['"1ab"', '"1aBc"']);
    check({ pattern: '^(?!.*(?:é|"))(?!x$)[^b]*$' }, ['""', '"xx"', '"è\\n"'], [
      '"x"',
      '"aé"',
      '"\\""',
    ]);
    check({ pattern: "^(?=.{1,3}$)a" }, ['"a"', '"abc"'], ['"abcd"', '"b"']);
    const password = "^(?=.*[a-z])(?=.*[A-Z])(?=.*\\d)(?=.*[^\\w\\s]).{8,64}$";
    const text = babble(constraint({ schema: { pattern: password } }), uniformNumbers(3));
    expect(JSON.parse(text ?? "null")).toMatch(new RegExp(password, "u"));
  });

  test("has the format that it must have", () => {
    check({ format: "date" }, ['"2024-02-28"', '"1999-12-31"'], ['"2024-13-01"', '"2023-02-30"']);
    check({ format: "uuid" }, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']);
    check({ format: "ipv4" }, ['"255.0.10.1"'], ['"256.0.0.1"', '"1.2.3"']);
    check({ format: "ipv6" }, ['"2001:db8:0:0:0:0:0:1"'], ['"1:2"', '"1:2:3:4:5:6:7:g"']);
    check({ format: "uri" }, [
      '"https://example.com"',
      '"http://a.b-c.org:8080/d/e.html?f=1&g=2#h"',
      '"https://example.com/"',
    ], ['"example.com"', '"https://"', '"https://a b.com"', '"https://1.2.3.4"']);
    check({ format: "email" }, ['"ada.l@example.com"', '"a@b-c.d1.org"'], [
      '"ada"',
      '"a@b"',
      '"a@no--t.org"',
      '"a@b.17"',
    ]);
  });
});

describe("a text of several patterns", () => {
  test("matches all of them: a pattern, a format, and how long it may be", () => {
    check({ pattern: "^a+$", maxLength: 3 }, ['"a"', '"aaa"'], ['"aaaa"', '""']);
    check({ pattern: "b", minLength: 2, maxLength: 3 }, ['"ab"', '"🌳b"', '"b\\"\\n"'], [
      '"b"',
      '"abcd"',
      '"aa"',
    ]);
    check({ pattern: "^a", minLength: 3 }, ['"abc"', '"a🌳🌳🌳"'], ['"a🌳"', '"bcd"']);
    check({ format: "date", pattern: "^2" }, ['"2024-01-31"'], ['"1999-01-01"', '"2024-02-31"']);
    check({ pattern: "^[a-z]*$", maxLength: 5000 }, [`"${"a".repeat(1000)}"`], ['"A"']);
    check({ format: "ipv4", maxLength: 8 }, ['"1.2.3.44"'], ['"10.2.3.44"']);
  });

  test("takes a pattern's word for a format that JSON Schema does not know", () => {
    check({ format: "starts_with", pattern: "^ab" }, ['"abc"'], ['"bc"']);
  });

  test("matches what allOf adds, where it is said of strings alone", () => {
    check({ type: "string", maxLength: 3, allOf: [{ pattern: "\\d" }, { pattern: "[a-z]" }] }, [
      '"1a"',
      '"b 2"',
    ], ['"12"', '"ab"', '"ab12"', "1"]);
    check(
      { allOf: [{ type: "string", maxLength: 3 }, { minLength: 2 }, { title: "x" }] },
      ['"ab"'],
      [
        '"a"',
        '"abcd"',
      ],
    );
    check({ allOf: [{ pattern: "^2" }, { format: "date" }] }, ['"2024-01-31"'], ['"1999-01-01"']);
  });

  test("may be of many lengths beside one pattern: those that are too much have fewer characters", () => {
    for (
      const lengths of [[254, 100, 320, 64], [64, 65, 66, 67, 68, 69, 70, 71], [1000, 900, 800]]
    ) {
      const properties = Object.fromEntries(
        lengths.map((most) => [`of${most}`, z.toJSONSchema(z.email().max(most))]),
      );
      const written = Object.keys(properties).map((name) => `"${name}":"ada.lovelace@example.com"`);
      check({ properties, required: Object.keys(properties) }, [`{${written.join(",")}}`], [
        `{${written.slice(1).join(",")}}`,
      ]);
    }
  });

  test("is what zod asks for", () => {
    const next = uniformNumbers(3);
    for (
      const form of [
        z.email(),
        z.email().max(254),
        z.uuid(),
        z.iso.date(),
        z.iso.datetime({ offset: true }),
        z.ipv4(),
        z.ipv6(),
        z.url(),
        z.httpUrl(),
        z.url().max(60),
        z.string().startsWith("ab").max(9),
        z.string().regex(/^[a-z]+-[0-9]+$/).min(5).max(1000),
        z.cuid2(),
        z.nanoid(),
        z.e164(),
        z.record(z.string(), z.email()),
        z.string().startsWith("a").endsWith("z").max(6),
        z.string().regex(/\d/).regex(/[a-z]/).regex(/[A-Z]/).min(8).max(20),
        z.email().includes("x").max(20),
      ]
    ) {
      const schema = z.toJSONSchema(form);
      const texts = Array.from({ length: 12 }, () => babble(constraint({ schema }), next))
        .filter((text) => text !== undefined);
      expect(texts.length).toBeGreaterThan(6);
      for (const text of texts) {
        expect([text, form.safeParse(JSON.parse(text)).success]).toEqual([text, true]);
      }
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
