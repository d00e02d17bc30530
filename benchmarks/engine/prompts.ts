/**
 * What the engines go on from: the same tokens for all.
 * @module
 */
import { Tokenizer } from "@huggingface/tokenizers";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../support/process.ts";
import type { Prompt } from "./adapters/engine.ts";

/** English articles. */
const TEXT = join(ROOT, "examples", "tiny", "calibration.txt");
/** Characters of it that are enough for all prompts. */
const ENOUGH = 60_000;

/** Prompts of one text: shorter ones begin longer ones, but for the long one, which shares nothing. */
export interface Prompts {
  /** The first tokens of a text. */
  short(count: number): Prompt;
  readonly long: Prompt;
  /** The text of tokens. */
  decode(tokens: readonly number[]): string;
}

/**
 * Makes prompts with a checkpoint's own tokenizer.
 *
 * wllama takes text only: all prompts are cut where their text becomes the same tokens again.
 *
 * @param counts Tokens of the short prompts.
 * @param long Tokens of the long prompt.
 * @throws {Error} When no such place is found.
 */
export function makePrompts(model: string, counts: readonly number[], long: number): Prompts {
  const read = (name: string) => JSON.parse(readFileSync(join(model, name), "utf8"));
  const tokenizer = new Tokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
  const encode = (text: string) => [...tokenizer.encode(text, { add_special_tokens: false }).ids];
  const decode = (tokens: readonly number[]) => tokenizer.decode([...tokens]);
  const all = encode(readFileSync(TEXT, "utf8").slice(0, ENOUGH));

  /** The first place from `from` on where all these counts of tokens are the tokens of their text. */
  const place = (from: number, counts: readonly number[]): number => {
    for (let start = from; start + Math.max(...counts) <= all.length; start++) {
      const same = counts.every((count) => {
        const tokens = all.slice(start, start + count);
        return encode(decode(tokens)).join() === tokens.join();
      });
      if (same) return start;
    }
    throw new Error("the text has too few tokens for these prompts");
  };
  const prompt = (start: number, count: number): Prompt => {
    const tokens = all.slice(start, start + count);
    return { tokens, text: decode(tokens) };
  };
  const longStart = place(0, [long]);
  const shortStart = place(longStart + long, counts);
  return {
    short: (count) => prompt(shortStart, count),
    long: prompt(longStart, long),
    decode,
  };
}
