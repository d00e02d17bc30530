import { describe, expect, test } from "bun:test";
import { z } from "zod";
import { BYTE_IDS, check, constraint, isAllowed, object, refusal } from "./structured_support.ts";

describe("an object of a schema", () => {
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
});
