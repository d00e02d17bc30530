import { expect, test } from "bun:test";
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { readFileSync } from "node:fs";
import { TokenizerError } from "../../src/errors.ts";
import { normalizeAsPython } from "../../src/text/normalizers.ts";
import { tokenizerFrom } from "../../src/text/tokenizer.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";

const json = (path: string) => JSON.parse(readFileSync(fromRoot(path), "utf8"));
const tinyJson = json("examples/tiny/tokenizer.json");
/** A few rules that sentencepiece 0.2.3 has compiled, and what tokenizers 0.23.3 makes of a text by them. */
const charsmap = json("test/fixtures/tokenizers/charsmap.json") as {
  text: string;
  normalized: string;
  precompiled_charsmap: string;
};

function normalized(normalizer: object, text: string): string {
  const hub = new HubTokenizer({ ...tinyJson, normalizer }, {});
  normalizeAsPython(hub.normalizer, normalizer);
  return hub.normalizer!(text);
}

test("texts are normalized as by the library for Python", () => {
  const text = "\u0085\ufeffΟΔΟΣ ΑΣ İ\ufeff\u0085";
  const small = "\u0085\ufeffοδοσ ασ i\u0307\ufeff\u0085";
  const strip = (strip_left: boolean, strip_right: boolean) => ({
    type: "Strip",
    ...{ strip_left, strip_right },
  });
  const replace = (pattern: object, content: string) => ({ type: "Replace", pattern, content });
  const cases: [object, string, string][] = [
    [{ type: "Lowercase" }, text, small],
    [{ type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Lowercase" }] }, text, small],
    [{ type: "BertNormalizer", lowercase: true, clean_text: true }, "ΟΔΟΣ É", "οδοσ e"],
    [strip(true, true), text, text.slice(1, -1)],
    [strip(true, false), text, text.slice(1)],
    [strip(false, true), text, text.slice(0, -1)],
    [replace({ String: "b" }, "$&$$"), "abc", "a$&$$c"],
    [replace({ Regex: "(\\w)\\1" }, "$1"), "aab", "$1b"],
  ];
  for (const [normalizer, given, expected] of cases) {
    expect(normalized(normalizer, given)).toBe(expected);
  }
});

test("normalizers that make very much of a text are refused: anybody may have written them", () => {
  const doubling = { type: "Replace", pattern: { String: "a" }, content: "aa" };
  const doubled = (times: number) => ({
    type: "Sequence",
    normalizers: new Array(times).fill(doubling),
  });
  expect(normalized(doubled(5), "abc")).toBe(`${"a".repeat(32)}bc`);
  const text = "Once upon a time there was a";
  const many = { ...doubling, content: "a".repeat(33) };
  const nested = { type: "Sequence", normalizers: [doubled(6), doubled(6), doubled(6)] };
  for (const normalizer of [doubled(29), nested, many]) {
    const error = thrownBy(() => normalized(normalizer, text));
    expect(error).toBeInstanceOf(TokenizerError);
    expect(error.message).toContain("normalizers");
  }
});

test("the rules of a SentencePiece model are those of its file", () => {
  const { precompiled_charsmap } = charsmap;
  const rules = { type: "Precompiled", precompiled_charsmap };
  expect(normalized(rules, charsmap.text)).toBe(charsmap.normalized);
  expect(normalized(rules, "")).toBe("");

  for (
    const broken of ["*", "AA==", btoa("\xff\xff\xff\xff"), precompiled_charsmap.slice(0, 400)]
  ) {
    const normalizer = { type: "Precompiled", precompiled_charsmap: broken };
    const error = thrownBy(() => tokenizerFrom({ tokenizer: { ...tinyJson, normalizer } }));
    expect(error).toBeInstanceOf(TokenizerError);
    expect(error.message).toContain("tokenizer.json");
  }
});

test("the rules of a large SentencePiece model lie further apart, and may begin with a byte order mark", () => {
  // "a" becomes "\ufeffb": the root's children are 256 units away, which a unit writes as 1 with a flag.
  const units = new Uint32Array(512);
  units[0] = 1 << 10 | 0x200;
  units[0x161] = 0x61 | 0x100 | 1 << 10;
  units[0x160] = 0x80000000;
  const replacement = new TextEncoder().encode("\ufeffb\0");
  const bytes = [
    ...new Uint8Array(Uint32Array.of(units.byteLength).buffer),
    ...new Uint8Array(units.buffer),
    ...replacement,
  ];
  const rules = { type: "Precompiled", precompiled_charsmap: btoa(String.fromCharCode(...bytes)) };
  // What tokenizers 0.23.3 gives. Several characters that make one go as a whole only below 6 bytes.
  expect(normalized(rules, "xay")).toBe("x\ufeffby");
  expect(normalized(rules, "a\u0301\u0301")).toBe("\ufeffb");
  expect(normalized(rules, "a\u0301\u20e3")).toBe("\ufeffb\u0301\u20e3");
});
