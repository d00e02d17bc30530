import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { UsageError } from "../../src/errors.ts";
import type { DetokenizerSource } from "../../src/text/detokenizer.ts";
import { openTokenizer } from "../../src/text/folder.ts";
import { StopStrings } from "../../src/text/stop_strings.ts";
import { TextStream } from "../../src/text/stream.ts";
import { tokenizerFrom } from "../../src/text/tokenizer.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { SEED } from "../support/fuzz.ts";
import { fromRoot } from "../support/paths.ts";
import { LARGE_MODEL } from "./support.ts";

const tiny = openTokenizer(fromRoot("examples/tiny"));
const large = LARGE_MODEL === undefined ? undefined : openTokenizer(LARGE_MODEL);
const sentencePiece = tokenizerFrom(
  JSON.parse(readFileSync(fromRoot("test/fixtures/tokenizers/sentencepiece.json"), "utf8")),
);
const TOKENIZERS = [
  { name: "the example's tokenizer", tokenizer: tiny, vocabulary: 4096 },
  { name: "a SentencePiece tokenizer", tokenizer: sentencePiece, vocabulary: 301 },
  { name: "the large model's tokenizer", tokenizer: large, vocabulary: 49_152 },
];

/** Every byte is a token: 256 single bytes, then tokens that are special. */
const bytes: DetokenizerSource = {
  bytesOf: (id) => id < 256 ? Uint8Array.of(id) : new TextEncoder().encode(`<${id}>`),
  specialIds: new Set([256, 257]),
  leadingSpaces: 0,
};
const utf8 = (text: string) => [...new TextEncoder().encode(text)];

/** The pieces of a stream; the last is what came at its end. */
function pieces(stream: TextStream, ids: Iterable<number>): string[] {
  const all: string[] = [];
  for (const id of ids) all.push(stream.push(id));
  all.push(stream.end());
  return all;
}

/** Where the text ends by definition, looked for at every place. */
function cut(text: string, stops: readonly string[]): { text: string; found?: string } {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop))
      .sort((a, b) => b.length - a.length)[0];
    if (found !== undefined) return { text: text.slice(0, end - found.length), found };
  }
  return { text };
}

const anyText = fc.string({ unit: "grapheme", maxLength: 60 });
const oddText = fc.array(
  fc.constantFrom(
    "🌳",
    "👨‍👩‍👧",
    "e\u0301\u0323",
    "漢",
    "字",
    "ﷺ",
    " ",
    "\ufeff",
    "\ufffd",
    "ab",
    "\n",
    "🇯🇵",
  ),
  { maxLength: 30 },
).map((parts) => parts.join(""));

describe("a stream of tokens", () => {
  for (const { name, tokenizer, vocabulary } of TOKENIZERS) {
    const check = (ids: readonly number[]) => {
      for (const skipSpecialTokens of [false, true]) {
        for (const continues of [false, true]) {
          const stream = new TextStream(tokenizer!, { skipSpecialTokens, continues });
          const parts = pieces(stream, ids);
          expect(parts.join("")).toBe(tokenizer!.decode(ids, { skipSpecialTokens, continues }));
          for (const part of parts) expect(part.isWellFormed()).toBe(true);
        }
      }
    };

    test.if(tokenizer !== undefined)(
      `of ${name} gives in pieces what decoding gives at once`,
      () => {
        const ids = fc.array(fc.nat(vocabulary - 1), { maxLength: 40 });
        // The first ids are special tokens and single bytes: most do not make whole characters.
        const brokenIds = fc.array(fc.nat(260), { maxLength: 40 });
        for (const arbitrary of [ids, brokenIds]) {
          fc.assert(fc.property(arbitrary, check), { seed: SEED, numRuns: 200 });
        }
      },
    );

    test.if(tokenizer !== undefined)(`of ${name} gives back any text`, () => {
      fc.assert(
        fc.property(fc.oneof(anyText, oddText), (text) => {
          const ids = tokenizer!.encode(text);
          check([...ids]);
          if (tokenizer === sentencePiece) return;
          expect(pieces(new TextStream(tokenizer!), ids).join("")).toBe(text);
        }),
        { seed: SEED, numRuns: 200 },
      );
    });
  }

  test("holds back the bytes of a character until it is whole", () => {
    const stream = new TextStream(bytes);
    const parts = pieces(stream, utf8("aé你🌳"));
    expect(parts).toEqual(["a", "", "é", "", "", "你", "", "", "", "🌳", ""]);
  });

  test("writes what is no character as U+FFFD, as soon as that is certain", () => {
    const whole = (ids: number[]) => pieces(new TextStream(bytes), ids);
    expect(whole([0xff, 0x41])).toEqual(["\ufffd", "A", ""]);
    expect(whole([0xe4, 0x41])).toEqual(["", "\ufffdA", ""]);
    expect(whole([0xf0, 0x9f, 0x8c])).toEqual(["", "", "", "\ufffd"]);
    expect(whole([0x80, 0x80])).toEqual(["\ufffd", "\ufffd", ""]);
  });

  test("lets special tokens through only where it is asked to", () => {
    const ids = [...utf8("a"), 256, ...utf8("b")];
    expect(pieces(new TextStream(bytes), ids).join("")).toBe("a<256>b");
    expect(pieces(new TextStream(bytes, { skipSpecialTokens: true }), ids).join("")).toBe("ab");
  });

  test("takes no longer for a token of a long text", () => {
    let asked = 0;
    const counting = { ...bytes, bytesOf: (id: number) => (asked++, bytes.bytesOf(id)) };
    const stream = new TextStream(counting, { stop: ["aab"] });
    for (let i = 0; i < 20_000; i++) expect(stream.push(0x61)).toBe(i < 2 ? "" : "a");
    expect(asked).toBe(20_000);
  });

  test("ends at a stop string that lies in several tokens, and never shows a part of it", () => {
    const stream = new TextStream(bytes, { stop: ["\n\nUser:"] });
    const parts = pieces(stream, utf8("Hi.\n\nUs\n\nUser: no"));
    expect(parts.join("")).toBe("Hi.\n\nUs");
    expect(parts.slice(0, 8)).toEqual(["H", "i", ".", "", "", "", "", "\n\nUs"]);
    expect(stream.stopString).toBe("\n\nUser:");
  });

  test("gives what it held back when no stop string came of it", () => {
    const stream = new TextStream(bytes, { stop: ["END"] });
    expect(pieces(stream, utf8("so EN"))).toEqual(["s", "o", " ", "", "", "EN"]);
    expect(stream.stopString).toBeUndefined();
  });

  test("finds a stop string that ends within a token, or is one character of several tokens", () => {
    const dot = new TextStream(tiny, { stop: ["."] });
    expect(pieces(dot, tiny.encode("The river. The end.")).join("")).toBe("The river");
    const tree = new TextStream(bytes, { stop: ["🌳"] });
    expect(pieces(tree, utf8("a🌲🌳b")).join("")).toBe("a🌲");
  });

  test("ends where the definition says, whatever the text, the strings and the tokens", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "é", "🌳"), maxLength: 40 });
    const stops = fc.array(
      fc.string({ unit: fc.constantFrom("a", "b", "é", "🌳"), minLength: 1, maxLength: 5 }),
      { maxLength: 4 },
    );
    fc.assert(
      fc.property(letters, stops, (text, stop) => {
        const stream = new TextStream(bytes, { stop });
        const wanted = cut(text, stop);
        let shown = "";
        for (const id of utf8(text)) {
          shown += stream.push(id);
          // What is shown is never taken back.
          expect(wanted.text.startsWith(shown)).toBe(true);
        }
        expect(shown + stream.end()).toBe(wanted.text);
        expect(stream.stopString).toBe(wanted.found);
      }),
      { seed: SEED, numRuns: 2000 },
    );
  });
});

describe("stop strings", () => {
  test("are found the same in any pieces of the text", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 });
    const stops = fc.array(
      fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 4 }),
      { minLength: 1, maxLength: 3 },
    );
    fc.assert(
      fc.property(text, stops, fc.nat(6), (whole, strings, size) => {
        const stop = new StopStrings(strings);
        let shown = "";
        for (let at = 0; at < whole.length; at += size + 1) {
          shown += stop.push(whole.slice(at, at + size + 1));
        }
        const wanted = cut(whole, strings);
        expect([shown + stop.end(), stop.found]).toEqual([wanted.text, wanted.found]);
      }),
      { seed: SEED, numRuns: 2000 },
    );
  });

  test("hold back no more than could be one", () => {
    const stop = new StopStrings(["abc"]);
    expect(stop.push("xab")).toBe("x");
    expect(stop.push("a")).toBe("ab");
    expect(stop.push("d")).toBe("ad");
  });

  test("are the longest of those that end at one place, and the first of others", () => {
    const found = (strings: string[], text: string) => {
      const stop = new StopStrings(strings);
      return [stop.push(text), stop.found];
    };
    expect(found(["b", "ab"], "xab")).toEqual(["x", "ab"]);
    expect(found(["abc", "b"], "xabc")).toEqual(["xa", "b"]);
  });

  test("must be whole characters, at least one", () => {
    for (const bad of ["", "\ud83c", "a\udf33"]) {
      expect(thrownBy(() => new StopStrings(["ok", bad]))).toBeInstanceOf(UsageError);
    }
  });
});
