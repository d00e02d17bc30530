/** Members of `oneOf` that refer to each other, and those that are many. @module */
import { describe, expect, test } from "bun:test";
import { readSchema } from "../../src/text/structured/schema.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { BYTE_IDS, check, constraint, isAllowed, object } from "./structured_support.ts";

/** Terms of sums and products, as pydantic writes a union that a field tells apart. */
function terms(isTagFirst: boolean) {
  const term = { oneOf: ["Add", "Mul", "Num"].map((name) => ({ $ref: `#/$defs/${name}` })) };
  const operation = (op: string) =>
    isTagFirst
      ? object({ op: { const: op }, left: term, right: term })
      : object({ left: term, right: term, op: { const: op } });
  return {
    $defs: {
      Add: operation("add"),
      Mul: operation("mul"),
      Num: object({ value: { type: "integer" }, op: { const: "num" } }),
    },
    ...term,
  };
}

describe("one of several forms", () => {
  test("may hold each other, wherever the property stands that tells them apart", () => {
    const [one, two] = ['{"value":1,"op":"num"}', '{"value":2,"op":"num"}'];
    check(terms(false), [
      one,
      `{"left":${one},"right":${two},"op":"add"}`,
      `{"left":{"left":${one},"right":${one},"op":"mul"},"right":${two},"op":"add"}`,
    ], [`{"left":${one},"right":${two},"op":"num"}`, `{"left":${one},"op":"add"}`]);
    check(terms(true), [`{"op":"mul","left":${one},"right":${two}}`], ['{"op":"num"}']);
  });

  test("that only differ in one that holds them again do not differ", () => {
    const node = object({ next: { anyOf: [{ $ref: "#" }, { type: "null" }] } });
    const { code, message } = thrownBy(() => readSchema({ oneOf: [node, { ...node }] }));
    expect(code).toBe("SCHEMA_UNSUPPORTED");
    expect(message).toContain("0 and 1 of oneOf");
  });

  test("may refer to ever new ones, hundreds in a row", () => {
    const chain = (letter: string, end: string) =>
      Array.from({ length: 600 }, (_, i) => [
        `${letter}${i}`,
        object({ next: i < 599 ? { $ref: `#/$defs/${letter}${i + 1}` } : { const: end } }),
      ]);
    const $defs = Object.fromEntries([...chain("a", "x"), ...chain("b", "y")]);
    // From their ends on: no more than some may be read within each other.
    const steps = Array.from({ length: 24 }, (_, i) => 575 - 25 * i);
    const all = steps.flatMap((i) => [{ $ref: `#/$defs/a${i}` }, { $ref: `#/$defs/b${i}` }]);
    const reading = (i: number) => {
      const one = { oneOf: [{ $ref: `#/$defs/a${i}` }, { $ref: `#/$defs/b${i}` }] };
      return () => readSchema({ $defs, prefixItems: [...all, one] });
    };
    expect(thrownBy(reading(0)).message).toContain("0 and 1 of oneOf");
    // Where it does not take so long to come to the difference, it is seen.
    expect(reading(575)).not.toThrow();
  });

  test("may share lists of thousands of values: two are compared once", () => {
    const values = Array.from({ length: 3900 }, (_, i) => `v${i}`);
    const names = Array.from({ length: 40 }, (_, i) => `p${i}`);
    const member = (kind: number) =>
      object({
        ...Object.fromEntries(names.map((name) => [name, { $ref: "#/$defs/values" }])),
        kind: { const: kind },
      });
    const oneOf = Array.from({ length: 60 }, (_, kind) => member(kind));
    readSchema({ $defs: { values: { enum: values } }, oneOf });
  });
});

test("a text may go as deep as it likes", () => {
  const nested = constraint({
    schema: { $defs: { a: { type: "array", items: { $ref: "#/$defs/a" } } }, $ref: "#/$defs/a" },
  });
  const [open, close] = [..."[]"].map((letter) => BYTE_IDS.get(letter.charCodeAt(0))!);
  const depth = 10_500;
  for (let i = 0; i < depth; i++) nested.take(open);
  for (let i = 0; i < depth - 1; i++) nested.take(close);
  expect(nested.complete).toBe(false);
  expect(isAllowed(nested, close)).toBe(true);
  nested.take(close);
  expect(nested.complete).toBe(true);
});
