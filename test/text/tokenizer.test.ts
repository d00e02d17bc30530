import { describe, expect, test } from "bun:test";
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { TokenizerError } from "../../src/errors.ts";
import { openTokenizer } from "../../src/text/folder.ts";
import { tokenizerFrom } from "../../src/text/tokenizer.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";
import { LARGE_MODEL } from "./support.ts";

const TINY = fromRoot("examples/tiny");
const json = (path: string) => JSON.parse(readFileSync(path, "utf8"));
const tinyJson = json(join(TINY, "tokenizer.json"));

/** What the tokenizers library for Python makes of texts, for a tokenizer in Llama 2's form. */
interface Fixture {
  readonly tokenizer: object;
  readonly cases: readonly {
    readonly text: string;
    readonly ids: number[];
    readonly idsWithSpecialTokens: number[];
    readonly decoded: string;
    readonly decodedWithoutSpecialTokens: string;
  }[];
}
const sentencePiece = json(fromRoot("test/fixtures/tokenizers/sentencepiece.json")) as Fixture;

/** Random ids below `end`. */
function randomIds(count: number, end: number, seed: number): number[] {
  const next = uniformNumbers(seed);
  return Array.from({ length: count }, () => Math.floor(next() * end));
}

describe("decoding", () => {
  const replace = (from: string, to: string) => ({
    type: "Replace",
    pattern: { String: from },
    content: to,
  });
  const models = [["the example", TINY], ["the large model", LARGE_MODEL]] as const;
  for (const [name, folder] of models) {
    test.if(folder !== undefined)(`gives the library's text for ids of ${name}`, () => {
      const hub = new HubTokenizer(json(join(folder!, "tokenizer.json")), {});
      const tokenizer = openTokenizer(folder!);
      const vocabulary = hub.get_vocab().size;
      for (let seed = 0; seed < 200; seed++) {
        const ids = randomIds(1 + seed % 40, vocabulary, seed);
        if (seed % 3 === 0) ids[seed % ids.length] = 0;
        for (const skipSpecialTokens of [false, true]) {
          expect(tokenizer.decode(ids, { skipSpecialTokens })).toBe(
            hub.decode(ids, {
              skip_special_tokens: skipSpecialTokens,
              clean_up_tokenization_spaces: false,
            }),
          );
        }
      }
    });

    test.if(folder !== undefined)(`gives back any text that ${name} has encoded`, () => {
      const tokenizer = openTokenizer(folder!);
      const texts = [
        "",
        "a",
        " , . ' n't",
        "\ufeffmark",
        "你好 🌳👨‍👩‍👧 e\u0301\u0323",
        "\r\n\t\u0000",
        "don't .",
      ];
      for (const text of texts) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    });
  }

  test("gives the Python library's text for a tokenizer in Llama 2's form", () => {
    const tokenizer = tokenizerFrom({ tokenizer: sentencePiece.tokenizer });
    for (const { text, idsWithSpecialTokens, decoded, ...rest } of sentencePiece.cases) {
      expect({ text, decoded: tokenizer.decode(idsWithSpecialTokens) }).toEqual({ text, decoded });
      expect({ text, decoded: tokenizer.decode(idsWithSpecialTokens, { skipSpecialTokens: true }) })
        .toEqual({ text, decoded: rest.decodedWithoutSpecialTokens });
    }
  });

  test("keeps a space at the beginning that continues a text", () => {
    const tokenizer = tokenizerFrom({ tokenizer: sentencePiece.tokenizer });
    const ids = tokenizer.encode("the river");
    expect(tokenizer.decode(ids)).toBe("the river");
    expect(tokenizer.decode(ids, { continues: true })).toBe(" the river");
  });

  test("knows the decoders that models in use have", () => {
    const of = (decoder: unknown) => {
      const tokenizer = tokenizerFrom({ tokenizer: { ...tinyJson, decoder, added_tokens: [] } });
      const ids = ["T", "h", "e", "<|endoftext|>"].map((token) => tokenizer.idOf(token) ?? -1);
      return tokenizer.decode(ids);
    };
    const plain = "The<|endoftext|>";
    expect(of({ type: "ByteLevel" })).toBe(plain);
    expect(of({ type: "Sequence", decoders: [{ type: "ByteLevel" }, { type: "Fuse" }] })).toBe(
      plain,
    );
    expect(of(null)).toBe("T h e <|endoftext|>");
    expect(of({ type: "Metaspace", replacement: "T" })).toBe("he<|endoftext|>");
    expect(of({ type: "Metaspace", replacement: "T", prepend_scheme: "never" })).toBe(
      " he<|endoftext|>",
    );
    expect(of({ type: "Metaspace", replacement: "T", add_prefix_space: false })).toBe(
      " he<|endoftext|>",
    );
    expect(of({ type: "Sequence", decoders: [replace("h", " "), { type: "Fuse" }] })).toBe(
      "T e<|endoftext|>",
    );
    const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
    expect(of({ type: "Sequence", decoders: [replace("T", "  "), { type: "Fuse" }, strip] })).toBe(
      " he<|endoftext|>",
    );
  });

  test("is refused for other decoders, but encoding is not", () => {
    const nested = (depth: number): unknown =>
      depth === 0 ? { type: "Fuse" } : { type: "Sequence", decoders: [nested(depth - 1)] };
    const decoders = [
      { type: "WordPiece", prefix: "##", cleanup: true },
      { type: "CTC" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
      { type: "Sequence", decoders: [{ type: "ByteLevel" }, { type: "ByteFallback" }] },
      { type: "Sequence", decoders: [{ type: "Fuse" }, { type: "ByteFallback" }] },
      { type: "Sequence", decoders: [{ type: "ByteFallback" }, replace("e", " ")] },
      { type: "Sequence", decoders: [{ type: "Replace", pattern: { Regex: "a+" }, content: "" }] },
      { type: "Sequence", decoders: Array(60).fill(replace("e", "ee")) },
      nested(20),
    ];
    for (const decoder of decoders) {
      let tokenizer;
      try {
        tokenizer = tokenizerFrom({ tokenizer: { ...tinyJson, decoder } });
      } catch (error) {
        expect(error).toBeInstanceOf(TokenizerError);
        continue;
      }
      const ids = tokenizer.encode("The river");
      expect(ids.length).toBeGreaterThan(0);
      const error = thrownBy(() => tokenizer.decode(ids));
      expect(error).toBeInstanceOf(TokenizerError);
      expect(error.message).toContain("decoder");
    }
  });

  test("gives no text for ids that are not in the vocabulary", () => {
    const tokenizer = openTokenizer(TINY);
    const [the] = tokenizer.encode("The");
    expect(tokenizer.decode([4096, the, 999_999, -1])).toBe(tokenizer.decode([the]));
    expect(tokenizer.decode([])).toBe("");
  });

  test("writes tokens that are added as they are spelled, in any letters", () => {
    const added = [...tinyJson.added_tokens, {
      id: 4096,
      content: "naïve 你",
      special: false,
      normalized: false,
    }];
    const tokenizer = tokenizerFrom({ tokenizer: { ...tinyJson, added_tokens: added } });
    expect([...tokenizer.encode("naïve 你")]).toEqual([4096]);
    expect(tokenizer.decode([4096])).toBe("naïve 你");
    // Also in letters alone that stand for bytes.
    const short = [...tinyJson.added_tokens, { ...added.at(-1)!, content: "né" }];
    expect(tokenizerFrom({ tokenizer: { ...tinyJson, added_tokens: short } }).decode([4096])).toBe(
      "né",
    );
  });

  test("writes tokens of a byte-level vocabulary that are spelled in plain letters", () => {
    const model = { ...tinyJson.model, vocab: { ...tinyJson.model.vocab, 你: 4096 } };
    const tokenizer = tokenizerFrom({ tokenizer: { ...tinyJson, model } });
    // As the library for Python does.
    expect(tokenizer.decode([tokenizer.idOf("T")!, 4096])).toBe("T你");
  });
});

describe("encoding", () => {
  test("adds what the tokenizer's post-processor adds, where it is asked to", () => {
    const tokenizer = tokenizerFrom({ tokenizer: sentencePiece.tokenizer });
    for (const { text, ids, idsWithSpecialTokens } of sentencePiece.cases) {
      expect({ text, ids: [...tokenizer.encode(text)] }).toEqual({ text, ids });
      expect({ text, ids: [...tokenizer.encode(text, { addSpecialTokens: true })] }).toEqual({
        text,
        ids: idsWithSpecialTokens,
      });
    }
  });

  test("does with spaces and letters what tokenizer.json says, whatever the configuration beside it says", () => {
    const tokenizerConfig = { remove_space: true, do_lowercase_and_remove_accent: true };
    const plain = tokenizerFrom({ tokenizer: tinyJson });
    const configured = tokenizerFrom({ tokenizer: tinyJson, tokenizerConfig });
    for (const text of [" The  river ", "\n\tÉtat", "  "]) {
      expect(configured.encode(text)).toEqual(plain.encode(text));
    }
  });

  test("finds added tokens that are words where they are no parts of others, as the library for Python does", () => {
    const word = (id: number, content: string, more: object) => ({
      ...{ id, content, single_word: true, lstrip: false, rstrip: false, special: false },
      ...more,
    });
    const added_tokens = [
      ...tinyJson.added_tokens,
      word(4096, "foo", { normalized: false }),
      word(4097, "<x>", { normalized: true, lstrip: true }),
    ];
    const tokenizer = tokenizerFrom({ tokenizer: { ...tinyJson, added_tokens } });
    const cases: [string, number[]][] = [
      ["foo", [4096]],
      ["a foo, b", [65, 221, 4096, 12, 279]],
      ["foobar foo", [70, 79, 917, 285, 221, 4096]],
      [
        "foo_ foo-bar éfoo foo1",
        [70, 79, 79, 63, 221, 4096, 13, 66, 285, 221, 128, 103, 70, 79, 79, 284, 79, 79, 17],
      ],
      ["a <x>b <x> c<x>", [65, 221, 28, 88, 30, 66, 4097, 272, 28, 88, 30]],
      ["foofoo foo", [70, 79, 3143, 79, 79, 221, 4096]],
      // Letters of two UTF-16 units.
      ["𝐀foo", [173, 252, 239, 223, 70, 79, 79]],
      ["foo𝐀", [70, 79, 79, 173, 252, 239, 223]],
      ["🌳foo🌳", [173, 254, 235, 112, 4096, 173, 254, 235, 112]],
    ];
    for (const [text, ids] of cases) {
      expect([text, [...tokenizer.encode(text)]]).toEqual([text, ids]);
    }
  });

  test("gives tokens the white space around them that is theirs, as the library for Python does", () => {
    const added = (id: number, content: string, more: object) => ({
      ...{ id, content, single_word: false, lstrip: false, rstrip: false, special: true },
      ...{ normalized: false, ...more },
    });
    const added_tokens = [
      ...tinyJson.added_tokens,
      added(4096, "<|user|>", { rstrip: true }),
      added(4097, "<mask>", { lstrip: true }),
      added(4098, "\n\n", { special: false }),
    ];
    const tokenizer = tokenizerFrom({ tokenizer: { ...tinyJson, added_tokens } });
    const cases: [string, number[]][] = [
      ["<|user|> \n a", [4096, 65]],
      ["<|user|>\u0085a", [4096, 65]],
      ["<|user|>\ufeffa", [4096, 172, 120, 124, 65]],
      ["<|user|>\n\n a", [4096, 4098, 258]],
      ["a \u0085<mask>", [65, 4097]],
      ["a\ufeff<mask>", [65, 172, 120, 124, 4097]],
      ["a\n\n<mask>", [65, 4098, 4097]],
      ["a \n\n <mask> b", [65, 221, 4098, 4097, 279]],
      [" <|user|> <mask>", [221, 4096, 4097]],
    ];
    for (const [text, ids] of cases) {
      expect([text, [...tokenizer.encode(text)]]).toEqual([text, ids]);
    }
  });

  test("puts a space at the beginning of a text, not behind added tokens that are found after normalizing", () => {
    const pieces = ["<unk>", "\u2581", "a", "b", "\u2581b", "\u2581a", "<x>"];
    const adding = (content: string) => ({
      tokenizer: {
        version: "1.0",
        added_tokens: [{ id: 6, content, normalized: true, special: false }],
        normalizer: { type: "NFC" },
        pre_tokenizer: {
          type: "Metaspace",
          replacement: "\u2581",
          prepend_scheme: "first",
          split: true,
        },
        post_processor: null,
        decoder: null,
        model: {
          type: "Unigram",
          unk_id: 0,
          vocab: pieces.slice(0, 6).map((piece) => [piece, -1]),
          byte_fallback: false,
        },
      },
    });
    const tokens = (text: string, content = "<x>") => {
      const tokenizer = tokenizerFrom(adding(content));
      return [...tokenizer.encode(text)].map((id) => tokenizer.tokenOf(id));
    };
    expect(tokens("a<x>b")).toEqual(["\u2581a", "<x>", "b"]);
    expect(tokens("<x>b")).toEqual(["<x>", "b"]);
    expect(tokens(" a<x> b<x>b")).toEqual(["\u2581a", "<x>", "\u2581b", "<x>", "b"]);
    // Also where what follows begins as the text does.
    expect(tokens("ab<x>a")).toEqual(["\u2581a", "b", "<x>", "a"]);
    expect(tokens("aba", "ab")).toEqual(["ab", "a"]);
  });

  test("writes bytes for what a vocabulary of pieces with byte fallback lacks", () => {
    const bytes = Array.from(
      { length: 256 },
      (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
    );
    const pieces = ["<unk>", "<s>", ...bytes, "\u2581", "a", "ab", "é"];
    const unigram = (byteFallback: boolean) =>
      tokenizerFrom({
        tokenizer: {
          version: "1.0",
          added_tokens: [0, 1].map((id) => ({ id, content: pieces[id], special: true })),
          normalizer: { type: "Replace", pattern: { String: " " }, content: "\u2581" },
          pre_tokenizer: null,
          post_processor: null,
          decoder: {
            type: "Sequence",
            decoders: [
              { type: "Replace", pattern: { String: "\u2581" }, content: " " },
              { type: "ByteFallback" },
              { type: "Fuse" },
            ],
          },
          model: {
            type: "Unigram",
            unk_id: 0,
            vocab: pieces.map((piece, i) => [piece, i < 258 ? 0 : -1]),
            byte_fallback: byteFallback,
          },
        },
      });
    const tokens = (byteFallback: boolean, text: string) => {
      const tokenizer = unigram(byteFallback);
      return [...tokenizer.encode(text)].map((id) => tokenizer.tokenOf(id));
    };
    // As the library for Python has them.
    expect(tokens(true, "<s>ab\n🌳é ba")).toEqual([
      ..."<s> ab <0x0A> <0xF0> <0x9F> <0x8C> <0xB3> é \u2581 <0x62> a".split(" "),
    ]);
    expect(tokens(false, "ab\n🌳é")).toEqual(["ab", "<unk>", "é"]);
    const tokenizer = unigram(true);
    expect(tokenizer.decode(tokenizer.encode("ab\n🌳é ba"))).toBe("ab\n🌳é ba");
  });
});

describe("special tokens", () => {
  const files = { tokenizer: sentencePiece.tokenizer };
  const ends = (more: object) => [...tokenizerFrom({ ...files, ...more }).endIds].sort();

  test("that end a text are those of all configurations", () => {
    expect(ends({})).toEqual([]);
    expect(ends({ config: { eos_token_id: 5 } })).toEqual([5]);
    expect(ends({ config: { eos_token_id: null }, generationConfig: { eos_token_id: [6, 7] } }))
      .toEqual([6, 7]);
    expect(ends({ tokenizerConfig: { eos_token: "</s>" } })).toEqual([2]);
    expect(ends({ tokenizerConfig: { eos_token: { content: "</s>", lstrip: false } } })).toEqual([
      2,
    ]);
    expect(ends({ tokenizerConfig: { eos_token: "<not there>" } })).toEqual([]);
    const all = {
      config: { eos_token_id: 3 },
      generationConfig: { eos_token_id: [3, 4] },
      tokenizerConfig: { eos_token: "</s>" },
    };
    expect(ends(all)).toEqual([2, 3, 4]);
    expect(ends({ config: { eos_token_id: -1 } })).toEqual([]);
  });

  test("that begin a text are named by the tokenizer's configuration first", () => {
    const begin = (more: object) => tokenizerFrom({ ...files, ...more }).beginId;
    expect(begin({})).toBeUndefined();
    expect(begin({ config: { bos_token_id: 7 } })).toBe(7);
    expect(begin({ config: { bos_token_id: 7 }, tokenizerConfig: { bos_token: "<s>" } })).toBe(1);
  });

  test("are those that are declared so, by id", () => {
    const tokenizer = tokenizerFrom(files);
    expect([...tokenizer.specialIds]).toEqual([0, 1, 2]);
    expect(tokenizer.idOf("</s>")).toBe(2);
    expect(tokenizer.tokenOf(2)).toBe("</s>");
    expect(tokenizer.idOf("no such token")).toBeUndefined();
    expect(tokenizer.tokenOf(-1)).toBeUndefined();
    const more = { ...files, tokenizerConfig: { additional_special_tokens: ["▁the", "nowhere"] } };
    expect(tokenizerFrom(more).specialIds.has(tokenizer.idOf("▁the")!)).toBe(true);
  });

  test("of the example are all the one that ends a text", () => {
    const tokenizer = openTokenizer(TINY);
    expect([...tokenizer.endIds]).toEqual([0]);
    expect([...tokenizer.specialIds]).toEqual([0]);
    expect(tokenizer.beginId).toBe(0);
    expect([...tokenizer.encode("a", { addSpecialTokens: true })]).toEqual([
      ...tokenizer.encode("a"),
    ]);
  });
});
