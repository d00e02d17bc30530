import { describe, expect, test } from "bun:test";
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { readFileSync } from "node:fs";
import { TokenizerError } from "../../src/errors.ts";
import { cutAsPython } from "../../src/text/pre_tokenizers.ts";
import { tokenizerFrom } from "../../src/text/tokenizer.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";

const tinyJson = JSON.parse(readFileSync(fromRoot("examples/tiny/tokenizer.json"), "utf8"));

/** The words that a pre-tokenizer cuts a text into. */
function words(pre_tokenizer: object, text: string): string[] {
  const { pre_tokenizer: cutter } = new HubTokenizer({ ...tinyJson, pre_tokenizer }, {});
  cutAsPython(cutter, pre_tokenizer);
  return cutter!(text, { section_index: 0 } as object);
}

describe("a text is cut as the library for Python cuts it, by", () => {
  // What tokenizers 0.23.3 gives for this text.
  const text = "café 1½²  \ufeff# a..b_\u0661\u0662\u0085 c";
  const split = (pattern: object, behavior: string, invert = false) => ({
    type: "Split",
    ...{ pattern, behavior, invert },
  });
  const cases: [string, object, string[]][] = [
    ["single digits of all scripts", { type: "Digits", individual_digits: true }, [
      ...["café ", "1", "½", "²", "  \ufeff# a..b_", "\u0661", "\u0662", "\u0085 c"],
    ]],
    ["runs of digits", { type: "Digits", individual_digits: false }, [
      ...["café ", "1½²", "  \ufeff# a..b_", "\u0661\u0662", "\u0085 c"],
    ]],
    ["words of all scripts", { type: "Whitespace" }, [
      ...["café", "1", "½²", "\ufeff#", "a", "..", "b_\u0661\u0662", "c"],
    ]],
    ["white space of Unicode", { type: "WhitespaceSplit" }, [
      ...["café", "1½²", "\ufeff#", "a..b_\u0661\u0662", "c"],
    ]],
    ["each sign of punctuation", { type: "Punctuation" }, [
      ...["café 1½²  \ufeff", "#", " a", ".", ".", "b", "_", "\u0661\u0662\u0085 c"],
    ]],
    ["runs of punctuation", { type: "Punctuation", behavior: "Contiguous" }, [
      ...["café 1½²  \ufeff", "#", " a", "..", "b", "_", "\u0661\u0662\u0085 c"],
    ]],
    ["what ends words", split({ String: " " }, "MergedWithPrevious"), [
      ...["café ", "1½² ", " ", "\ufeff# ", "a..b_\u0661\u0662\u0085 ", "c"],
    ]],
    ["what begins words", split({ String: " " }, "MergedWithNext"), [
      ...["café", " 1½²", " ", " \ufeff#", " a..b_\u0661\u0662\u0085", " c"],
    ]],
    ["runs of a pattern", split({ Regex: "[a-z]" }, "Contiguous"), [
      ...["caf", "é 1½²  \ufeff# ", "a", "..", "b", "_\u0661\u0662\u0085 ", "c"],
    ]],
    ["what is left out", split({ Regex: "(\\s)" }, "Removed"), [
      ...["café", "1½²", "\ufeff#", "a..b_\u0661\u0662", "c"],
    ]],
    ["what is between the places of a pattern", split({ Regex: "\\s" }, "Isolated", true), [
      ...["café", " ", "1½²", " ", " ", "\ufeff#", " ", "a..b_\u0661\u0662", "\u0085", " ", "c"],
    ]],
    ["signs for spaces", { type: "Metaspace", replacement: "▁", prepend_scheme: "first" }, [
      ...["▁café", "▁1½²", "▁", "▁\ufeff#", "▁a..b_\u0661\u0662\u0085", "▁c"],
    ]],
    ["signs for spaces, all words together", {
      type: "Metaspace",
      ...{ replacement: "▁", prepend_scheme: "first", split: false },
    }, ["▁café▁1½²▁▁\ufeff#▁a..b_\u0661\u0662\u0085▁c"]],
    ["one after the other", {
      type: "Sequence",
      pretokenizers: [{ type: "Digits", individual_digits: true }, {
        type: "ByteLevel",
        ...{ add_prefix_space: false, use_regex: true },
      }],
    }, [
      ...["cafÃ©", "Ġ", "1", "Â½", "Â²", "Ġ", "Ġï»¿#", "Ġa", "..", "b", "_"],
      ...["Ù¡", "Ù¢", "Âħ", "Ġc"],
    ]],
  ];
  for (const [name, config, expected] of cases) {
    test(name, () => expect(words(config, text)).toEqual(expected));
  }

  test("signs for spaces at the beginning of a text alone, also behind others", () => {
    const pretokenizers = [
      { type: "Digits", individual_digits: true },
      { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: true },
    ];
    const cut = (text: string) => words({ type: "Sequence", pretokenizers }, text);
    expect(cut("café 12 a")).toEqual(["▁café", "▁", "1", "2", "▁a"]);
    expect(cut("1a")).toEqual(["▁1", "a"]);
    const behind = [{ type: "WhitespaceSplit" }, pretokenizers[1]];
    expect(words({ type: "Sequence", pretokenizers: behind }, " a b")).toEqual(["a", "b"]);
  });

  test("so many characters, and refused where those are none", () => {
    expect(words({ type: "FixedLength", length: 3 }, "a🌳🌳🌳\nb")).toEqual(["a🌳🌳", "🌳\nb"]);
    for (const length of [0, -1, 0.5, "3"]) {
      const pre_tokenizer = { type: "FixedLength", length };
      const error = thrownBy(() => tokenizerFrom({ tokenizer: { ...tinyJson, pre_tokenizer } }));
      expect(error).toBeInstanceOf(TokenizerError);
    }
  });

  test("five characters where no length is said", () => {
    expect(words({ type: "FixedLength" }, "abcdefgh")).toEqual(["abcde", "fgh"]);
  });

  test("the signs of ASCII, which are not all punctuation to Unicode", () => {
    expect(words({ type: "Punctuation" }, "a~b`{c|d}^$")).toEqual([..."a~b`{c|d}^$"]);
  });

  test("a pattern, which is refused where it is none", () => {
    const said = console.warn;
    console.warn = () => {};
    try {
      for (const pattern of [{}, { Unknown: "a" }]) {
        const split = { type: "Split", pattern, behavior: "Isolated" };
        const replace = { type: "Replace", pattern, content: "a" };
        for (
          const part of [
            { pre_tokenizer: split },
            { pre_tokenizer: { type: "Sequence", pretokenizers: [split] } },
            { normalizer: replace },
          ]
        ) {
          const error = thrownBy(() => tokenizerFrom({ tokenizer: { ...tinyJson, ...part } }));
          expect(error).toBeInstanceOf(TokenizerError);
          expect(error.message).toContain("needs a pattern");
        }
      }
    } finally {
      console.warn = said;
    }
  });

  test("no other pattern where a byte order mark or a next line stands", () => {
    const tokenizer = tokenizerFrom({ tokenizer: tinyJson });
    const cases: [string, number[]][] = [
      ["\ufeff's", [172, 120, 124, 7, 83]],
      ["Title  \ufeff#", [52, 271, 297, 221, 221, 172, 120, 124, 3]],
      ["a ½ mile", [65, 221, 127, 122, 287, 610]],
    ];
    for (const [text, ids] of cases) expect([...tokenizer.encode(text)]).toEqual(ids);
  });
});
