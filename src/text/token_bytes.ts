/**
 * What bytes of UTF-8 a token stands for, as the `decoder` of `tokenizer.json` says.
 *
 * Bytes, not text: one character may be spread over several tokens. Text is made of the bytes of all
 * tokens, one after the other, so a token's part never depends on its neighbours.
 *
 * @module
 */
import { z } from "zod";
import { quote } from "../checks.ts";
import { TokenizerError } from "../errors.ts";

/** Deepest nesting of decoders that is read; files in use have two levels. */
const DEEPEST = 8;

/** UTF-16 units of the longest replacement; those in use have one. */
const LONGEST_REPLACEMENT = 16;
/** UTF-16 units that a token may grow to: replacements of replacements double its length at every step. */
const LONGEST_TOKEN = 1 << 16;

const decoderSchema = z.union([
  z.looseObject({ type: z.enum(["ByteLevel", "ByteFallback", "Fuse"]) }),
  z.looseObject({
    type: z.literal("Metaspace"),
    replacement: z.string().min(1).default("\u2581"),
    prepend_scheme: z.string().optional(),
    add_prefix_space: z.boolean().optional(),
  }),
  z.looseObject({
    type: z.literal("Replace"),
    pattern: z.looseObject({ String: z.string().min(1) }),
    content: z.string().max(LONGEST_REPLACEMENT),
  }),
  z.looseObject({
    type: z.literal("Strip"),
    content: z.literal(" "),
    start: z.int().nonnegative(),
    stop: z.literal(0),
  }),
]);
type Decoder = z.output<typeof decoderSchema>;

const sequenceSchema = z.looseObject({
  type: z.literal("Sequence"),
  decoders: z.array(z.unknown()),
});

/** The rule from tokens to bytes. */
export interface TokenBytes {
  /**
   * Bytes of one token.
   *
   * @param token As it is spelled in the vocabulary.
   * @param added Whether it is one of `added_tokens`, which are spelled in plain letters.
   */
  bytesOf(token: string, added: boolean): Uint8Array;
  /** A whole text loses up to so many spaces at its beginning. */
  readonly leadingSpaces: number;
}

/**
 * Reads a decoder. Byte-level BPE and all forms of SentencePiece with and without byte fallback are
 * known; others (WordPiece, CTC …) belong to models that do not generate text.
 *
 * Where bytes are no UTF-8, text has U+FFFD as browsers write it: one for each maximal part of a
 * character. (The `tokenizers` library does so for byte-level BPE as well; for byte fallback it looks
 * at runs of bytes as a whole, which nothing that streams can do.)
 *
 * @param decoder The field `decoder` of `tokenizer.json`.
 * @throws {TokenizerError} Naming the step that is not known.
 */
export function tokenBytesFrom(decoder: unknown): TokenBytes {
  // Without a decoder, tokens are words.
  if (decoder === null || decoder === undefined) {
    return { bytesOf: (token) => utf8.encode(` ${token}`), leadingSpaces: 1 };
  }
  const steps = flatten(decoder, 0);
  if (steps.some(({ type }) => type === "ByteLevel")) {
    const other = steps.find(({ type }) => type !== "ByteLevel" && type !== "Fuse");
    if (other) throw unknownDecoder(`${other.type} beside ByteLevel`);
    return {
      bytesOf: (token, added) => added ? utf8.encode(token) : byteLevel(token),
      leadingSpaces: 0,
    };
  }

  const replacements: [from: string, to: string][] = [];
  let fallback = false;
  let fused = false;
  let leadingSpaces = 0;
  for (const step of steps) {
    const late = fused || fallback;
    if (step.type === "Fuse") fused = true;
    else if (step.type === "ByteFallback" && !fused) fallback = true;
    else if (step.type === "Replace" && !late) {
      replacements.push([step.pattern.String, step.content]);
    } else if (step.type === "Metaspace" && !fused) {
      replacements.push([step.replacement, " "]);
      if (step.prepend_scheme !== "never" && step.add_prefix_space !== false) leadingSpaces = 1;
    } else if (step.type === "Strip" && fused) leadingSpaces += step.start;
    else throw unknownDecoder(`${step.type} at this place`);
  }
  return {
    bytesOf: (token) => {
      const byte = fallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token) : null;
      if (byte) return Uint8Array.of(parseInt(byte[1], 16));
      let text = token;
      for (const [from, to] of replacements) {
        text = text.replaceAll(from, to);
        if (text.length > LONGEST_TOKEN) throw unknownDecoder("a token of this length");
      }
      return utf8.encode(text);
    },
    leadingSpaces,
  };
}

/** The steps of a decoder, one after the other. */
function flatten(decoder: unknown, depth: number): Decoder[] {
  if (depth > DEEPEST) throw unknownDecoder("sequences in sequences");
  const sequence = sequenceSchema.safeParse(decoder);
  if (sequence.success) return sequence.data.decoders.flatMap((step) => flatten(step, depth + 1));
  const step = decoderSchema.safeParse(decoder);
  if (!step.success) throw unknownDecoder(quote(JSON.stringify(decoder) ?? "undefined"));
  return [step.data];
}

function unknownDecoder(what: string): TokenizerError {
  return new TokenizerError(
    `tokenizer.json: its decoder cannot be used to write text: ${what} is not known; ` +
      `byte-level BPE and SentencePiece decoders are`,
  );
}

const utf8 = new TextEncoder();

/** Bytes of a token of byte-level BPE, whose letters stand for a byte each. */
function byteLevel(token: string): Uint8Array {
  const bytes = Array.from(token, (letter) => BYTE_OF_LETTER.get(letter));
  // Some vocabularies hold a few tokens in plain letters, without declaring them as added.
  return bytes.includes(undefined) ? utf8.encode(token) : Uint8Array.from(bytes as number[]);
}

/**
 * GPT-2's alphabet of bytes: printable ones of Latin-1 stand for themselves, all others, in their
 * order, for the letters from U+0100 on.
 */
const BYTE_OF_LETTER: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  const letters = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    letters.set(String.fromCharCode(printable(byte) ? byte : next++), byte);
  }
  return letters;
})();
