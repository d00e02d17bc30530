/** Log probabilities as OpenAI's interface writes them. @module */
import { expect, test } from "bun:test";
import type { TextPiece } from "../../src/generate/generate.ts";
import type { Model } from "../../src/generate/model.ts";
import { completionLogprobs } from "../../src/server/logprobs.ts";

test("of tokens that look the same, the likeliest is told", () => {
  // Parts of characters: none of them is text by itself.
  const bytes = [[0xe2], [0xf0, 0x9f], [0x61]];
  const model = { bytes: (token: number) => Uint8Array.from(bytes[token]) } as Model;
  const top = [
    { token: 0, logprob: -0.5 },
    { token: 2, logprob: -1.5 },
    { token: 1, logprob: -2.5 },
  ];
  const piece = { type: "text", text: "", tokens: [0], logprobs: [{ ...top[0], top }] };
  expect(completionLogprobs(model, piece as unknown as TextPiece, 3, 0).top_logprobs).toEqual([
    { "\ufffd": -0.5, a: -1.5 },
  ]);
});
