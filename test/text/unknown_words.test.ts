/**
 * What stands for words and characters that a vocabulary lacks, and what else must be in it.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { TokenizerError } from "../../src/errors.ts";
import { tokenizerFrom } from "../../src/text/tokenizer.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";

const tinyJson = JSON.parse(readFileSync(fromRoot("examples/tiny/tokenizer.json"), "utf8"));

describe("what a vocabulary does not know", () => {
  const file = (model: object, others: object = {}) => ({
    ...{ added_tokens: [], normalizer: null, decoder: null, post_processor: null },
    ...{ pre_tokenizer: { type: "Whitespace" }, model, ...others },
  });
  const idsOf = (tokenizer: object, text: string, addSpecialTokens = false) => [
    ...tokenizerFrom({ tokenizer }).encode(text, { addSpecialTokens }),
  ];
  const vocab = { pad: 0, "[UNK]": 1, a: 2, "1": 3 };

  test("is the token that the file names, for words as well, as the library for Python has it", () => {
    const tokenizer = file({ type: "WordLevel", vocab, unk_token: "[UNK]" });
    expect(idsOf(tokenizer, "a b 1 é")).toEqual([2, 1, 3, 1]);
  });

  test("is not token 0: it is refused where no token stands for it", () => {
    for (
      const model of [
        { type: "WordLevel", vocab, unk_token: "<none>" },
        { type: "Unigram", vocab: [["pad", 0], ["a", -1], ["1", -2]], unk_id: null },
        { type: "WordLevel", vocab: { ...vocab, b: -1 }, unk_token: "[UNK]" },
        { type: "WordLevel", vocab: { ...vocab, b: 2 ** 32 }, unk_token: "[UNK]" },
      ]
    ) {
      expect(idsOf(file(model), "a 1").length).toBe(2);
      const error = thrownBy(() => idsOf(file(model), "a b"));
      expect(error).toBeInstanceOf(TokenizerError);
      expect(error.message).toContain('"b"');
    }
  });

  test("is the model's, whatever a configuration says of another", () => {
    const tokenizer = file({ type: "WordLevel", vocab, unk_token: "[UNK]" });
    const named = { unk_token: "pad" };
    expect([...tokenizerFrom({ tokenizer, tokenizerConfig: named }).encode("b a")]).toEqual([1, 2]);
  });

  test("is one token of each word, and not one of several words", () => {
    const model = { type: "Unigram", vocab: [["<unk>", 0], ["a", -1]], unk_id: 0 };
    const digits = { pre_tokenizer: { type: "Digits", individual_digits: true } };
    expect(idsOf(file(model, digits), "a12b3")).toEqual([1, 0, 0, 0, 0]);
  });

  test("has letters of its own in some models, which are refused", () => {
    const model = { type: "BPE", vocab, merges: [], unk_token: "[UNK]" };
    expect(idsOf(file({ ...model, continuing_subword_prefix: "" }), "a")).toEqual([2]);
    const error = thrownBy(() => idsOf(file({ ...model, continuing_subword_prefix: "##" }), "a"));
    expect(error).toBeInstanceOf(TokenizerError);
  });

  test("may be a name of several tokens around a text", () => {
    const post_processor = {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "BOS", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { BOS: { id: "BOS", ids: [3, 0], tokens: ["1", "pad"] } },
    };
    const model = { type: "WordLevel", vocab, unk_token: "[UNK]" };
    for (
      const around of [post_processor, {
        type: "Sequence",
        processors: [{ type: "ByteLevel" }, post_processor],
      }]
    ) {
      expect(idsOf(file(model, { post_processor: around }), "a", true)).toEqual([3, 0, 2]);
    }
  });
});

test("what is put around a text must be in the vocabulary", () => {
  const post_processor = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "BOS", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { BOS: { id: "BOS", ids: [1_000_000], tokens: ["BOS"] } },
  };
  const error = thrownBy(() => tokenizerFrom({ tokenizer: { ...tinyJson, post_processor } }));
  expect(error).toBeInstanceOf(TokenizerError);
  expect(error.message).toContain("1000000");
});

test("added tokens are looked for as the library for Python normalizes them", () => {
  const tokenizer = tokenizerFrom({
    tokenizer: {
      ...{ decoder: null, post_processor: null, pre_tokenizer: { type: "WhitespaceSplit" } },
      normalizer: { type: "Lowercase" },
      added_tokens: [{ id: 9, content: "ΑΣ", normalized: true, special: false }],
      model: { type: "WordLevel", vocab: { a: 0, b: 1, "?": 2 }, unk_token: "?" },
    },
  });
  expect([...tokenizer.encode("a ΑΣ b")]).toEqual([0, 9, 1]);
  expect([...tokenizer.encode("a Σ")]).toEqual([0, 2]);
});

test("a text without spaces may have any length with a vocabulary of pieces", () => {
  const tokenizer = tokenizerFrom({
    tokenizer: {
      ...{ added_tokens: [], normalizer: null, decoder: null, post_processor: null },
      pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "never" },
      model: { type: "Unigram", unk_id: 0, vocab: [["<unk>", 0], ["字", -1]] },
    },
  });
  expect(tokenizer.encode("字".repeat(200_000)).length).toBe(200_000);
});
