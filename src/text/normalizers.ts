/**
 * Normalizes texts as the library for Python does.
 *
 * `@huggingface/tokenizers` normalizes some otherwise: its white space is JavaScript's, a Greek word ends with another
 * small letter than the library's, what replaces a pattern is read for `$`, and the rules of a SentencePiece model, which
 * stand in its file, are not looked at.
 *
 * @module
 */
import { z } from "zod";
import type { TokenizerError } from "../errors.ts";
import { FIRST_SPACES, LAST_SPACES, withoutPattern } from "./pre_tokenizers.ts";
import { unusable } from "./unusable.ts";

/** Most characters that normalizers make of one: Unicode's own forms have up to 18. */
const MOST_GROWTH = 32;

/** A normalizer of the package. */
interface Normalizer {
  pattern?: RegExp | null;
  /** Of a sequence. */
  readonly normalizers?: readonly (Normalizer | null)[];
  normalize(text: string): string;
}

const configSchema = z.looseObject({
  type: z.string().nullish(),
  normalizers: z.array(z.unknown()).nullish(),
  strip_left: z.boolean().nullish(),
  strip_right: z.boolean().nullish(),
  lowercase: z.boolean().nullish(),
  content: z.string().nullish(),
  precompiled_charsmap: z.string().nullish(),
});

/**
 * Makes a normalizer of the package give what the library for Python gives.
 *
 * @param normalizer Of `@huggingface/tokenizers`; changed in place.
 * @param config What it was made of: `normalizer` of `tokenizer.json`.
 * @throws {TokenizerError} When the rules of a SentencePiece model cannot be read.
 */
export function normalizeAsPython(normalizer: unknown, config: unknown): void {
  const changed = normalizer as Normalizer | null;
  const parsed = configSchema.safeParse(config);
  if (!changed || !parsed.success) return;
  const { type, normalizers, strip_left, strip_right, lowercase, content, precompiled_charsmap } =
    parsed.data;
  const { pattern } = changed;
  const normalize = changed.normalize.bind(changed);
  switch (type) {
    case "Sequence":
      changed.normalizers?.forEach((one, i) => normalizeAsPython(one, normalizers?.[i]));
      changed.normalize = (text) => inTurn(changed.normalizers ?? [], text);
      break;
    case "Lowercase":
      changed.normalize = (text) => normalize(withoutFinalSigma(text));
      break;
    case "BertNormalizer":
      if (lowercase) changed.normalize = (text) => normalize(withoutFinalSigma(text));
      break;
    case "Strip":
      changed.normalize = (text) => {
        const rest = strip_left ? text.replace(FIRST_SPACES, "") : text;
        return strip_right ? rest.replace(LAST_SPACES, "") : rest;
      };
      break;
    case "Replace":
      if (!pattern) throw withoutPattern("Replace normalizer");
      if ((content?.length ?? 0) > MOST_GROWTH) throw growing();
      changed.normalize = (text) => text.replaceAll(pattern, () => content ?? "");
      break;
    case "Precompiled":
      if (precompiled_charsmap) changed.normalize = normalizerOf(precompiled_charsmap);
      break;
  }
}

/**
 * A text, normalized by one after the other.
 *
 * @throws {TokenizerError} When they make much of it: anybody may have written a tokenizer, and its rules may double a
 * text any number of times.
 */
function inTurn(normalizers: readonly (Normalizer | null)[], text: string): string {
  const most = MOST_GROWTH * (text.length + MOST_GROWTH);
  return normalizers.reduce((normalized, one) => {
    const next = one?.normalize(normalized) ?? normalized;
    if (next.length > most) throw growing();
    return next;
  }, text);
}

function growing(): TokenizerError {
  return unusable(`its normalizers make more than ${MOST_GROWTH} characters of one`);
}

/** The library's small letter of Σ is the same at the end of a word. */
function withoutFinalSigma(text: string): string {
  return text.replaceAll("\u03a3", "\u03c3");
}

const utf8 = new TextEncoder();
/** Bytes of UTF-8 from which on several characters that make one are looked up each by itself. */
const MANY_BYTES = 6;

/**
 * Rules of a SentencePiece model: a trie of what is replaced, as a double array, and what it is replaced by.
 *
 * @param charsmap In base64.
 */
function normalizerOf(charsmap: string): (text: string) => string {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = Uint8Array.from(atob(charsmap), (letter) => letter.charCodeAt(0));
  } catch (cause) {
    throw unusable("precompiled_charsmap is not base64", cause);
  }
  const view = new DataView(bytes.buffer);
  const size = bytes.length < 4 ? NaN : view.getUint32(0, true);
  if (!(size % 4 === 0 && size <= bytes.length - 4)) {
    throw unusable("precompiled_charsmap is cut off");
  }
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const replacements = bytes.subarray(4 + size);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  /** What the shortest beginning of a text that has a rule is replaced by; undefined where none has one. */
  const replacementOf = (text: string): string | undefined => {
    let at = offsetOf(units[0] ?? 0);
    for (const byte of utf8.encode(text)) {
      if (byte === 0) return undefined;
      at = (at ^ byte) >>> 0;
      const unit = units[at];
      if (unit === undefined || (unit & 0x800000ff) >>> 0 !== byte) return undefined;
      at = (at ^ offsetOf(unit)) >>> 0;
      if (!(unit >>> 8 & 1)) continue;
      const start = (units[at] ?? 0) & 0x7fffffff;
      const end = replacements.indexOf(0, start);
      return decoder.decode(replacements.subarray(start, end < 0 ? replacements.length : end));
    }
    return undefined;
  };
  const characters = new Intl.Segmenter("en", { granularity: "grapheme" });
  return (text) => {
    let normalized = "";
    for (const { segment } of characters.segment(text)) {
      const whole = utf8.encode(segment).length < MANY_BYTES ? replacementOf(segment) : undefined;
      normalized += whole ??
        Array.from(segment, (letter) => replacementOf(letter) ?? letter).join("");
    }
    return normalized;
  };
}

/** Where a unit's children lie, from its own place. */
function offsetOf(unit: number): number {
  return unit >>> 10 << ((unit & 0x200) >>> 6);
}
