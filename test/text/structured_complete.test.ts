/**
 * Nothing that a schema allows is left out: the tokens that may follow are those that can be taken, byte by byte, and
 * lead on. So texts are what the model would say, not what is left of its vocabulary.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { allowedIds, BYTE_IDS, constraint, tokenizer, VOCABULARY } from "./structured_support.ts";

/** A constraint after some text. */
function after(schema: unknown, text: string) {
  const one = constraint({ schema });
  for (const byte of new TextEncoder().encode(text)) one.take(BYTE_IDS.get(byte)!);
  return one;
}

/** Ids of all tokens of text that can be taken there. */
function takenIds(schema: unknown, text: string): number[] {
  return Array.from({ length: VOCABULARY }, (_, id) => id).filter((id) => {
    if (tokenizer.specialIds.has(id) || tokenizer.bytesOf(id).length === 0) return false;
    const one = after(schema, text);
    try {
      one.take(id);
    } catch {
      return false;
    }
    return true;
  });
}

function expectAll(schema: unknown, text: string): void {
  const allowed = new Set(allowedIds(after(schema, text)));
  const taken = takenIds(schema, text);
  expect(taken.filter((id) => !allowed.has(id))).toHaveLength(0);
  expect([...allowed].filter((id) => !tokenizer.endIds.has(id))).toHaveLength(taken.length);
}

describe("all tokens that may follow are allowed", () => {
  for (const members of [1, 4, 6, 40]) {
    test(`in a string that ${members} kinds of objects begin with`, () => {
      const anyOf = Array.from({ length: members }, (_, i) => ({
        type: "object",
        properties: { thought: { type: "string" }, tool: { const: `tool${i}` } },
        required: ["thought", "tool"],
      }));
      expectAll({ anyOf }, '{"thought":"I sh');
      expect(allowedIds(after({ anyOf }, '{"thought":"I sh')))
        .toContain(BYTE_IDS.get('"'.charCodeAt(0))!);
    });
  }

  test("in strings of several lengths", () => {
    const anyOf = Array.from({ length: 12 }, (_, i) => ({ type: "string", maxLength: 20 + i }));
    expectAll({ anyOf }, '"I sh');
  });

  const patterns = {
    "[a-z]{2,10}": "the",
    "\\w{1,20}": "the",
    "\\w+\\s\\w+": "the king",
    "\\d+|[a-z]+": "the",
    "^(\\w+\\s?){1,10}$": "the king",
    "^(\\S+\\s*){1,8}$": "the",
    "^(\\w+,? ?){1,5}$": "the",
    "[A-Za-z ]+, [A-Z]{2}": "Austin, TX",
    "\\S+@\\S+\\.\\S+": "ab@cd.ef",
  };
  for (const [pattern, text] of Object.entries(patterns)) {
    test(`in a string that matches ${pattern}`, () => {
      expectAll({ type: "string", pattern }, `"${text}`);
    });
  }
});

test("single bytes are allowed whatever it takes to look at longer tokens", () => {
  // Its states are sets of many, and other ones after each letter.
  const schema = { type: "string", pattern: "^([a-z]{1,9}[0-9A-Z ]?){1,12}$" };
  const allowed = allowedIds(after(schema, '"the king'));
  const bytes = takenIds(schema, '"the king').filter((id) => tokenizer.bytesOf(id).length === 1);
  // Else this says nothing.
  expect(allowed.length).toBeLessThan(takenIds(schema, '"the king').length);
  expect(bytes.filter((id) => !allowed.includes(id))).toHaveLength(0);
});
