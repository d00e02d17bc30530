/** What the tests of generation share. @module */
import { expect } from "bun:test";
import type { EndPiece, GenerationPiece, TextPiece } from "../../src/generate/generate.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import { openTokenizer } from "../../src/text/folder.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { fromRoot } from "../support/paths.ts";
import { ToyModel, type ToyOptions } from "./toy_model.ts";

export const tokenizer = openTokenizer(fromRoot("examples/tiny"));
export const VOCABULARY = 4096;
export const [END] = tokenizer.endIds;
export const text = {
  tokenizer,
  template: new ChatTemplate(
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[{{ who or 'me' }}]{% endif %}",
  ),
};

export const PROMPT = "The river";
export const PROMPT_IDS = [...tokenizer.encode(PROMPT)];
export const PROMPT_LENGTH = PROMPT_IDS.length;

/** A model whose logits are at random, but always the same after the same token. */
export function babbler(options: Partial<ToyOptions> = {}): ToyModel {
  return new ToyModel({
    vocabulary: VOCABULARY,
    logits: (tokens) => {
      const next = uniformNumbers(tokens.at(-1)!);
      return Float32Array.from({ length: VOCABULARY }, () => 8 * next());
    },
    ...options,
  });
}

/** All of a generation. */
export interface Outcome {
  readonly text: string;
  readonly tokens: number[];
  readonly pieces: TextPiece[];
  readonly end: EndPiece;
}

/** Takes all pieces, and checks what is true of every generation. */
export async function take(pieces: AsyncIterable<GenerationPiece>): Promise<Outcome> {
  const all = await Array.fromAsync(pieces);
  const end = all.pop();
  if (end?.type !== "end") throw new Error("the last piece is not the end");
  const texts = all.map((piece) => {
    if (piece.type !== "text") throw new Error("an end before the last piece");
    return piece;
  });
  for (const piece of texts.slice(0, -1)) expect(piece.text).not.toBe("");
  for (const { tokens, text } of texts) {
    expect(tokens.length).toBeGreaterThan(0);
    expect(text.isWellFormed()).toBe(true);
  }
  const tokens = texts.flatMap((piece) => [...piece.tokens]);
  expect(tokens.length).toBe(end.completionTokens);
  expect(end.seconds.prefill).toBeGreaterThanOrEqual(0);
  expect(end.seconds.decode).toBeGreaterThanOrEqual(0);
  return { text: texts.map((piece) => piece.text).join(""), tokens, pieces: texts, end };
}
