/**
 * Cuts texts into words as the library for Python does.
 *
 * `@huggingface/tokenizers` cuts some otherwise: its white space is JavaScript's, its digits are those of ASCII, its
 * words have letters of ASCII alone, and it passes over what becomes of places where a text is cut.
 *
 * @module
 */
import { z } from "zod";
import type { TokenizerError } from "../errors.ts";
import { unusable } from "./unusable.ts";

/** Cuts a part of a text into words. */
export type PreTokenizer = (text: string, options?: { section_index?: number }) => string[];

/** A pre-tokenizer of the package. */
interface Cutter {
  pattern?: RegExp | null;
  /** Of a sequence. */
  readonly tokenizers?: readonly (Cutter | null)[];
  pre_tokenize_text: PreTokenizer;
}

/** What words consist of, between the brackets of a pattern. */
export const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";
const WORDS = new RegExp(`[${WORD}]+|[^${WORD}\\p{White_Space}]+`, "gu");
const NO_SPACES = /\P{White_Space}+/gu;
/** White space at the beginning of a text, and at its end. */
export const FIRST_SPACES = /^\p{White_Space}+/u;
export const LAST_SPACES = /(?<!\p{White_Space})\p{White_Space}+$/u;
/** GPT-2's. */
const BYTE_LEVEL =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
const EACH_DIGIT = /\P{N}+|\p{N}/gu;
const DIGITS = /\P{N}+|\p{N}+/gu;
const PUNCTUATION = /[\p{P}\u0021-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007e]/gu;

const configSchema = z.looseObject({
  type: z.string().nullish(),
  pretokenizers: z.array(z.unknown()).nullish(),
  individual_digits: z.boolean().nullish(),
  behavior: z.string().nullish(),
  invert: z.boolean().nullish(),
  replacement: z.string().nullish(),
  split: z.boolean().nullish(),
  length: z.unknown().optional(),
});

/**
 * Makes a pre-tokenizer of the package cut as the library for Python does.
 *
 * @param preTokenizer Of `@huggingface/tokenizers`; changed in place.
 * @param config What it was made of: `pre_tokenizer` of `tokenizer.json`.
 */
export function cutAsPython(preTokenizer: unknown, config: unknown): void {
  const cutter = preTokenizer as Cutter | null;
  const parsed = configSchema.safeParse(config);
  if (!cutter || !parsed.success) return;
  const {
    type,
    pretokenizers,
    individual_digits,
    behavior,
    invert,
    replacement,
    split,
    length = 5,
  } = parsed.data;
  const { pattern } = cutter;
  const cut = cutter.pre_tokenize_text.bind(cutter);
  switch (type) {
    case "Sequence":
      cutter.tokenizers?.forEach((one, i) => cutAsPython(one, pretokenizers?.[i]));
      cutter.pre_tokenize_text = (text, options) => inTurn(cutter.tokenizers ?? [], text, options);
      break;
    case "FixedLength": {
      if (!Number.isSafeInteger(length) || (length as number) < 1) {
        throw unusable("the length of a FixedLength pre-tokenizer must be a whole number above 0");
      }
      const parts = new RegExp(`[^]{1,${length}}`, "gu");
      cutter.pre_tokenize_text = (text) => text.match(parts) ?? [];
      break;
    }
    case "ByteLevel":
      cutter.pattern = BYTE_LEVEL;
      break;
    case "Digits":
      cutter.pattern = individual_digits ? EACH_DIGIT : DIGITS;
      break;
    case "Whitespace":
      cutter.pre_tokenize_text = (text) => text.match(WORDS) ?? [];
      break;
    case "WhitespaceSplit":
      cutter.pre_tokenize_text = (text) => text.match(NO_SPACES) ?? [];
      break;
    case "Punctuation":
      cutter.pre_tokenize_text = (text) => pieces(text, PUNCTUATION, false, behavior);
      break;
    case "Split":
      if (!pattern) throw withoutPattern("Split pre-tokenizer");
      if (behavior === "Isolated" && !invert) break;
      cutter.pre_tokenize_text = (text) => pieces(text, pattern, invert === true, behavior);
      break;
    case "Metaspace": {
      if (split === false) break;
      const letters = Array.from(
        replacement || "\u2581",
        (letter) => `\\u{${letter.codePointAt(0)!.toString(16)}}`,
      );
      const space = new RegExp(letters.join(""), "gu");
      cutter.pre_tokenize_text = (text, options) =>
        cut(text, options).flatMap((part) => pieces(part, space, false, "MergedWithNext"));
      break;
    }
  }
}

/** Says that the file names none of the patterns that there are. */
export function withoutPattern(part: string): TokenizerError {
  return unusable(`a ${part} needs a pattern, a String or a Regex`);
}

/** Cuts a text by several, one after the other; what is behind the first word is not where the text begins. */
function inTurn(
  cutters: readonly (Cutter | null)[],
  text: string,
  options: { section_index?: number } | undefined,
): string[] {
  return cutters.reduce<string[]>(
    (words, cutter) =>
      cutter
        ? words.flatMap((word, i) =>
          cutter.pre_tokenize_text(
            word,
            i === 0 && text.startsWith(word) ? options : { ...options, section_index: 1 },
          )
        )
        : words,
    [text],
  );
}

/**
 * Cuts a text where a pattern is found.
 *
 * @param invert Takes what is between the places for them.
 * @param behavior What becomes of them.
 */
function pieces(
  text: string,
  pattern: RegExp,
  invert: boolean,
  behavior: string | null | undefined,
): string[] {
  const all: { text: string; isFound: boolean }[] = [];
  let end = 0;
  const add = (from: number, to: number, isFound: boolean) => {
    if (to > from) all.push({ text: text.slice(from, to), isFound: isFound !== invert });
  };
  for (const { 0: found, index } of text.matchAll(pattern)) {
    add(end, index, false);
    end = index + found.length;
    add(index, end, true);
  }
  add(end, text.length, false);

  if (behavior === "Removed") {
    return all.filter(({ isFound }) => !isFound).map(({ text }) => text);
  }
  const words: string[] = [];
  for (const [i, { text, isFound }] of all.entries()) {
    const before = all[i - 1];
    const joins = before !== undefined &&
      (behavior === "Contiguous"
        ? isFound === before.isFound
        : behavior === "MergedWithPrevious"
        ? isFound && !before.isFound
        : behavior === "MergedWithNext" && !isFound && before.isFound);
    if (joins) words[words.length - 1] += text;
    else words.push(text);
  }
  return words;
}
