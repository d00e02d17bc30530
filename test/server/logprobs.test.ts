/** Log probabilities as OpenAI's interface writes them. @module */
import { expect, test } from "bun:test";
import type { TextPiece } from "../../src/generate/generate.ts";
import type { Model } from "../../src/generate/model.ts";
import { chatLogprobs, completionLogprobs } from "../../src/server/logprobs.ts";

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

test("of a text, the token that was chosen is among those that are told, likely or not", () => {
  const model = { bytes: (token: number) => Uint8Array.of(0x61 + token) } as Model;
  const top = [{ token: 0, logprob: -0.5 }];
  const piece = {
    type: "text",
    text: "c",
    tokens: [2],
    logprobs: [{ token: 2, logprob: -4, top }],
  };
  expect(completionLogprobs(model, piece as unknown as TextPiece, 1, 0).top_logprobs).toEqual([
    { a: -0.5, c: -4 },
  ]);
});

test("what rounding puts above certainty, or is impossible, is told as JSON and probabilities have it", () => {
  const model = { bytes: () => Uint8Array.of(0x61) } as unknown as Model;
  const logprobs = [1e-12, -Infinity].map((logprob) => ({ token: 0, logprob, top: [] }));
  const piece = { type: "text", text: "aa", tokens: [0, 0], logprobs } as const;
  expect(completionLogprobs(model, piece, 0, 0).token_logprobs).toEqual([0, -9999]);
  expect(chatLogprobs(model, piece).content!.map(({ logprob }) => logprob)).toEqual([0, -9999]);
});

test("a token that begins with a byte order mark has it, as the text has", () => {
  const bytes = [[0xef, 0xbb, 0xbf], [0xef, 0xbb, 0xbf, 0x61]];
  const model = { bytes: (token: number) => Uint8Array.from(bytes[token]) } as Model;
  const logprobs = [0, 1].map((token) => ({ token, logprob: -1, top: [{ token, logprob: -1 }] }));
  const piece = { type: "text", text: "\ufeff\ufeffa", tokens: [0, 1], logprobs } as const;
  const told = completionLogprobs(model, piece, 1, 0);
  expect([told.tokens, told.text_offset]).toEqual([["\ufeff", "\ufeffa"], [0, 1]]);
  expect(told.top_logprobs).toEqual([{ "\ufeff": -1 }, { "\ufeffa": -1 }]);
  expect(chatLogprobs(model, piece).content!.map(({ token }) => token)).toEqual(told.tokens);
});
