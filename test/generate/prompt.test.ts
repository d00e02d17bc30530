import { describe, expect, test } from "bun:test";
import {
  ChatTemplateError,
  ContextOverflowError,
  type EspalierError,
  TokenRangeError,
  UsageError,
} from "../../src/errors.ts";
import { generate } from "../../src/generate/generate.ts";
import type { GenerationOptions } from "../../src/generate/options.ts";
import { type Prompt, promptTokens } from "../../src/generate/prompt.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { babbler, PROMPT, PROMPT_IDS, take, text, tokenizer, VOCABULARY } from "./support.ts";

/** With a tokenizer that puts a token before a text. */
const adding = {
  ...text,
  tokenizer: Object.create(tokenizer, {
    encode: {
      value: (words: string, options?: { addSpecialTokens?: boolean }) => {
        const ids = tokenizer.encode(words);
        return options?.addSpecialTokens ? Int32Array.of(9, ...ids) : ids;
      },
    },
    bytesOf: { value: (id: number) => tokenizer.bytesOf(id) },
    leadingSpaces: { value: 0 },
  }) as typeof tokenizer,
};

describe("a prompt", () => {
  /** The tokens that the model is given. */
  const given = async (prompt: Prompt, options: GenerationOptions = {}, of = text) => {
    const model = babbler();
    await take(generate(model, of, prompt, { maxTokens: 1, ...options }));
    return model.runs[0];
  };

  test("may be text, token ids, or messages", async () => {
    expect(await given(PROMPT)).toEqual(PROMPT_IDS);
    for (const ids of [PROMPT_IDS, Int32Array.from(PROMPT_IDS), Uint16Array.from(PROMPT_IDS)]) {
      expect(await given(ids)).toEqual(PROMPT_IDS);
    }
    const messages = [{ role: "user", content: "Hi" }];
    expect(await given(messages)).toEqual([...tokenizer.encode("[user]Hi[me]")]);
    expect(await given(messages, { templateVariables: { who: "you" } }))
      .toEqual([...tokenizer.encode("[user]Hi[you]")]);
  });

  test("of text gets the tokens that the tokenizer adds, one of messages does not", async () => {
    expect(await given(PROMPT, {}, adding)).toEqual([9, ...PROMPT_IDS]);
    expect((await given([{ role: "user", content: "Hi" }], {}, adding))[0]).not.toBe(9);
    expect(await given(PROMPT_IDS, {}, adding)).toEqual(PROMPT_IDS);
  });

  test("of no text begins with the token that texts begin with", async () => {
    expect(await given("")).toEqual([tokenizer.beginId!]);
  });

  test("of text is continued within it, and one of messages or of nothing by a text of its own", () => {
    const info = { vocabulary: VOCABULARY, context: 100 };
    const continues = (prompt: Prompt) => promptTokens(text, prompt, info).continues;
    expect([PROMPT, PROMPT_IDS].map(continues)).toEqual([true, true]);
    // Of those, a SentencePiece tokenizer takes the space at the beginning away.
    expect(["", [{ role: "user", content: "Hi" }]].map(continues)).toEqual([false, false]);
    expect(["", PROMPT].map((prompt) => promptTokens(adding, prompt, info).continues))
      .toEqual([false, true]);
  });

  test("may be as long as the longest text that is taken, and no longer", () => {
    const info = { vocabulary: VOCABULARY, context: 100 };
    const { length } = PROMPT;
    const tokens = (longestText: number) =>
      promptTokens(text, PROMPT, info, { longestText }).tokens;
    expect([...tokens(length)]).toEqual(PROMPT_IDS);
    expect(thrownBy(() => tokens(length - 1))).toBeInstanceOf(ContextOverflowError);
  });

  test("that cannot be used is refused before anything runs", () => {
    const model = babbler();
    const cases: [Prompt, GenerationOptions, typeof text, new (m: string) => EspalierError][] = [
      [[], {}, text, UsageError],
      [new Int32Array(), {}, text, UsageError],
      [undefined as unknown as Prompt, {}, text, UsageError],
      [{ prompt: "Hi" } as unknown as Prompt, {}, text, UsageError],
      [[5, VOCABULARY], {}, text, TokenRangeError],
      [[5, -1], {}, text, TokenRangeError],
      [[0.5], {}, text, TokenRangeError],
      [Float64Array.of(NaN), {}, text, TokenRangeError],
      [PROMPT, { logitBias: { [VOCABULARY]: 1 } }, text, TokenRangeError],
      [PROMPT, { maxTokens: 0 }, text, UsageError],
      [PROMPT, { stop: "" }, text, UsageError],
      [PROMPT, { stop: ["a", ""] }, text, UsageError],
      [PROMPT, { stop: "\ud83c" }, text, UsageError],
      [PROMPT, { temperature: 3 }, text, UsageError],
      [PROMPT, { beams: 4 } as GenerationOptions, text, UsageError],
      [PROMPT, { promptLimit: NaN }, text, UsageError],
      [PROMPT, { longestText: "9" as unknown as number }, text, UsageError],
      [[{ role: "user", content: "Hi" }], {}, { tokenizer } as typeof text, ChatTemplateError],
      [[{ role: "user" } as { role: string; content: string }], {}, text, ChatTemplateError],
    ];
    for (const [prompt, options, of, kind] of cases) {
      const error = thrownBy(() => generate(model, of, prompt, options));
      expect([prompt, options, error.name]).toEqual([prompt, options, kind.name]);
      expect(error.message).not.toContain("\n");
    }
    expect([model.opened, model.runs.length]).toEqual([0, 0]);
  });
});
