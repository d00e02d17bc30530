import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import process from "node:process";
import { AbortError, ContextOverflowError } from "../../src/errors.ts";
import { generate, type GenerationPiece } from "../../src/generate/generate.ts";
import type { GenerationOptions } from "../../src/generate/options.ts";
import { tokenizerFrom } from "../../src/text/tokenizer.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";
import {
  babbler,
  END,
  type Outcome,
  PROMPT,
  PROMPT_IDS,
  PROMPT_LENGTH,
  take,
  text,
  tokenizer,
  VOCABULARY,
} from "./support.ts";
import { certainly, ToyModel, type ToyOptions } from "./toy_model.ts";

/** A model that writes one text after any prompt of `prompt` tokens, then ends. */
function writer(answer: string, prompt: number, options: Partial<ToyOptions> = {}): ToyModel {
  const ids = [...tokenizer.encode(answer), END];
  return new ToyModel({
    vocabulary: VOCABULARY,
    logits: (tokens) => certainly(ids[tokens.length - prompt] ?? END, VOCABULARY),
    ...options,
  });
}

/** Runs a whole generation, and checks that the sequence was closed. */
async function outcome(
  model: ToyModel,
  options: GenerationOptions = {},
  prompt: string | readonly number[] = PROMPT,
): Promise<Outcome> {
  const closed = model.closed;
  const result = await take(generate(model, text, prompt, options));
  expect(model.closed).toBe(closed + 1);
  expect(model.opened).toBe(model.closed);
  return result;
}

/** The error of an iteration. */
async function failure(run: () => Promise<unknown>): Promise<Error> {
  try {
    await run();
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error("nothing was thrown");
}

describe("generate", () => {
  test("writes text until the model ends it", async () => {
    const answer = " is long. 你好 🌳!";
    const { text, tokens, end } = await outcome(writer(answer, PROMPT_LENGTH));
    expect(text).toBe(answer);
    expect(tokens).toEqual([...tokenizer.encode(answer), END]);
    expect(end).toEqual({
      type: "end",
      finishReason: "stop",
      promptTokens: PROMPT_LENGTH,
      cachedTokens: 0,
      completionTokens: tokens.length,
      seconds: end.seconds,
      seed: end.seed,
    });
  });

  test("runs the prompt at once, then one token at a time, and none that is not needed", async () => {
    const model = writer(" is", PROMPT_LENGTH);
    const { tokens } = await outcome(model);
    expect(model.runs).toEqual([PROMPT_IDS, ...tokens.slice(0, -1).map((id) => [id])]);
  });

  test("shows text as soon as its characters are whole", async () => {
    const answer = "ab🌳";
    const { pieces } = await outcome(writer(answer, PROMPT_LENGTH));
    const parts = pieces.map(({ text }) => text);
    expect(parts.length).toBeGreaterThan(2);
    expect(parts.slice(-2)).toEqual(["🌳", ""]);
    expect(pieces.at(-2)!.tokens.length).toBeGreaterThan(1);
  });

  test("goes on after the end where it is told to ignore it", async () => {
    const { text, end, tokens } = await outcome(writer(" is", PROMPT_LENGTH), {
      ignoreEos: true,
      maxTokens: 6,
    });
    expect(text).toBe(" is");
    expect(tokens.slice(-2)).toEqual([END, END]);
    expect([end.finishReason, end.completionTokens]).toEqual(["length", 6]);
  });

  test("stops after so many tokens", async () => {
    const answer = " is long and wide.";
    const ids = tokenizer.encode(answer);
    for (const maxTokens of [1, 2, ids.length]) {
      const model = writer(answer, PROMPT_LENGTH);
      const { text, tokens, end } = await outcome(model, { maxTokens });
      expect(tokens).toEqual([...ids.slice(0, maxTokens)]);
      expect(text).toBe(tokenizer.decode(tokens));
      expect(end.finishReason).toBe("length");
      expect(model.runs.length).toBe(maxTokens);
    }
    const { end } = await outcome(writer(answer, PROMPT_LENGTH), { maxTokens: ids.length + 1 });
    expect(end.finishReason).toBe("stop");
  });

  test("writes a character that was not completed as U+FFFD", async () => {
    const answer = "🌳";
    const { text } = await outcome(writer(answer, PROMPT_LENGTH), { maxTokens: 1 });
    expect(text).toBe("\ufffd");
  });

  test("stops when the context is full", async () => {
    const model = babbler({ context: PROMPT_LENGTH + 5 });
    const { end } = await outcome(model, { ignoreEos: true });
    expect([end.finishReason, end.completionTokens]).toEqual(["length", 5]);
    const more = await outcome(model, { ignoreEos: true, maxTokens: 100 });
    expect([more.end.finishReason, more.end.completionTokens]).toEqual(["length", 5]);
  });

  test("refuses a prompt that does not fit, with figures, before anything runs", () => {
    for (const context of [1, PROMPT_LENGTH - 1, PROMPT_LENGTH]) {
      const model = babbler({ context });
      const error = thrownBy(() => generate(model, text, PROMPT));
      expect(error).toBeInstanceOf(ContextOverflowError);
      expect(error.message).toContain(`${PROMPT_LENGTH} tokens`);
      expect(error.message).toContain(`holds ${context}`);
      expect(model.opened).toBe(0);
    }
  });

  test("refuses a list of texts, and an empty list, in words of its own", () => {
    const model = writer("x", 1);
    const refused = (prompt: unknown) =>
      thrownBy(() => generate(model, text, prompt as string)).message;
    expect(refused(["a", "b"])).toContain("not a list of texts");
    expect(refused([])).toBe("the prompt is an empty list");
    expect(model.opened).toBe(0);
  });

  test("runs only the tokens that the engine does not have", async () => {
    const model = writer(" is", PROMPT_LENGTH, { reusesPrefix: true });
    const first = await outcome(model);
    expect(first.end.cachedTokens).toBe(0);
    const before = model.runs.length;
    const second = await outcome(model);
    expect(second.end.cachedTokens).toBe(PROMPT_LENGTH - 1);
    expect(second.end.promptTokens).toBe(PROMPT_LENGTH);
    expect(model.runs[before]).toEqual(PROMPT_IDS.slice(-1));
    expect(second.text).toBe(first.text);

    const continued = [...PROMPT_IDS, ...tokenizer.encode(" is")];
    const third = await outcome(model, { maxTokens: 1 }, continued);
    expect(third.end.cachedTokens).toBe(continued.length - 1);
  });

  test("gives the same text for the same seed, and tells the seed", async () => {
    const options = { temperature: 1, topP: 0.9, maxTokens: 30 };
    const { text, tokens } = await outcome(babbler(), { ...options, seed: 5 });
    expect((await outcome(babbler(), { ...options, seed: 5 })).tokens).toEqual(tokens);
    expect((await outcome(babbler(), { ...options, seed: 6 })).tokens).not.toEqual(tokens);
    const random = await outcome(babbler(), options);
    const again = await outcome(babbler(), { ...options, seed: random.end.seed });
    expect(again.tokens).toEqual(random.tokens);
    expect(again.end.seed).toBe(random.end.seed);
    expect(text).toBe(tokenizer.decode(tokens, { skipSpecialTokens: true }));
  });

  test("counts the prompt for the repetition penalty", async () => {
    const constant = () =>
      new ToyModel({
        vocabulary: VOCABULARY,
        logits: () => {
          const logits = new Float32Array(VOCABULARY);
          logits[PROMPT_IDS[0]] = 2;
          logits[500] = 1.5;
          return logits;
        },
      });
    expect((await outcome(constant(), { maxTokens: 1 })).tokens).toEqual([PROMPT_IDS[0]]);
    const { tokens } = await outcome(constant(), { maxTokens: 1, repetitionPenalty: 2 });
    expect(tokens).toEqual([500]);
  });

  test("tells a log probability for each token", async () => {
    const { pieces, tokens } = await outcome(writer("🌳 is", PROMPT_LENGTH), { logprobs: 2 });
    const logprobs = pieces.flatMap((piece) => [...piece.logprobs ?? []]);
    expect(logprobs.map(({ token }) => token)).toEqual(tokens);
    for (const piece of pieces) expect(piece.logprobs?.length).toBe(piece.tokens.length);
    const certain = 10 - Math.log(Math.exp(10) + VOCABULARY - 1);
    for (const { token, logprob, top } of logprobs) {
      expect(logprob).toBeCloseTo(certain, 9);
      expect(top[0]).toEqual({ token, logprob });
      expect(top.length).toBe(2);
    }
    const without = await outcome(writer(" is", PROMPT_LENGTH));
    for (const piece of without.pieces) expect("logprobs" in piece).toBe(false);
  });
});

describe("stop strings", () => {
  test("end the text, wherever tokens begin", async () => {
    const answer = " is long. The river is wide. It flows.";
    for (const stop of ["river is", ". T", "wide. It", " is", "flows.", "e"]) {
      const { text, end } = await outcome(writer(answer, PROMPT_LENGTH), { stop });
      expect(text).toBe(answer.slice(0, answer.indexOf(stop)));
      expect([end.finishReason, end.stopString]).toEqual(["stop", stop]);
    }
  });

  test("are never shown in part, and stop the model", async () => {
    const answer = " a\n\nb\n\nUser: hello";
    const model = writer(answer, PROMPT_LENGTH);
    const { pieces, text, end } = await outcome(model, { stop: ["<END>", "\n\nUser:"] });
    expect(text).toBe(" a\n\nb");
    expect(end.stopString).toBe("\n\nUser:");
    let shown = "";
    for (const piece of pieces) {
      shown += piece.text;
      expect(text.startsWith(shown)).toBe(true);
    }
    expect(end.completionTokens).toBeLessThan(tokenizer.encode(answer).length);
  });

  test("leave the beginning that was none to the next piece, which says how long it is", async () => {
    const answer = " is long. The river is wide.";
    const stop = ["g; it", "ver wide", "er was"];
    const { pieces, text } = await outcome(writer(answer, PROMPT_LENGTH), { stop });
    expect(text).toBe(answer);
    let before = "";
    for (const piece of pieces) {
      const own = tokenizer.decode(piece.tokens.filter((id) => id !== END));
      const carried = piece.carried ?? 0;
      // With what was carried, and what is left to the next piece, it has the text of its tokens.
      expect((before + own).startsWith(piece.text)).toBe(true);
      expect(before).toHaveLength(carried);
      before = (before + own).slice(piece.text.length);
    }
    expect(pieces.some(({ carried = 0 }) => carried > 0)).toBe(true);
  });

  test("that do not come take nothing away", async () => {
    const answer = " is long. EN";
    const { text, end } = await outcome(writer(answer, PROMPT_LENGTH), { stop: "END" });
    expect(text).toBe(answer);
    expect([end.finishReason, "stopString" in end]).toEqual(["stop", false]);
    const cut = await outcome(writer(answer, PROMPT_LENGTH), {
      stop: "END",
      maxTokens: tokenizer.encode(answer).length,
    });
    expect([cut.text, cut.end.finishReason]).toEqual([answer, "length"]);
  });

  test("may end with half of a character, which is known at the end alone", async () => {
    const half = tokenizer.encode("é").filter((id) => tokenizer.decode([id]) === "\ufffd").slice(
      0,
      1,
    );
    expect(half).toHaveLength(1);
    const ids = [...tokenizer.encode(" is long"), ...half];
    const model = new ToyModel({
      vocabulary: VOCABULARY,
      logits: (tokens) => certainly(ids[tokens.length - PROMPT_LENGTH] ?? END, VOCABULARY),
    });
    const { text, end } = await outcome(model, { stop: ["g\ufffd"], maxTokens: ids.length });
    expect([text, end.finishReason, end.stopString]).toEqual([" is lon", "stop", "g\ufffd"]);
  });

  test("do not lie in the prompt", async () => {
    const { text, end } = await outcome(writer(" flows", PROMPT_LENGTH), { stop: "river flows" });
    expect([text, end.finishReason]).toEqual([" flows", "stop"]);
    expect(end.stopString).toBeUndefined();
  });

  test("may be special tokens, which are no text", async () => {
    const json = JSON.parse(readFileSync(fromRoot("examples/tiny/tokenizer.json"), "utf8"));
    const added = { id: VOCABULARY, content: "<|im_end|>", special: true, normalized: false };
    const chatting = tokenizerFrom({
      tokenizer: { ...json, added_tokens: [...json.added_tokens, added] },
    });
    const ids = [...tokenizer.encode(" is long. EN"), VOCABULARY, ...tokenizer.encode(" wide")];
    const model = new ToyModel({
      vocabulary: VOCABULARY + 1,
      logits: (tokens) => certainly(ids[tokens.length - PROMPT_LENGTH] ?? END, VOCABULARY + 1),
    });
    const answer = (stop: string[]) =>
      take(generate(model, { tokenizer: chatting }, PROMPT, { stop, maxTokens: ids.length }));
    const { text, tokens, end } = await answer(["END", "<|im_end|>"]);
    expect([text, end.finishReason, end.stopString]).toEqual([
      ...[" is long. EN", "stop", "<|im_end|>"],
    ]);
    expect(tokens.at(-1)).toBe(VOCABULARY);
    expect((await answer(["<|im"])).text).toBe(" is long. EN wide");
  });

  test("are not said to have ended a text that the model has ended", async () => {
    const model = writer(" is long.", PROMPT_LENGTH);
    const { end } = await outcome(model, { stop: ["<|endoftext|>"] });
    expect([end.finishReason, end.stopString]).toEqual(["stop", undefined]);
  });

  test("are what is written, not how a vocabulary spells it", async () => {
    const model = writer(" is long.", PROMPT_LENGTH);
    const [spelled] = [...tokenizer.encode(" is")].map((id) => tokenizer.tokenOf(id)!);
    expect(spelled).toContain("\u0120");
    expect((await outcome(model, { stop: [spelled] })).text).toBe(" is long.");
  });
});

describe("a generation that is stopped", () => {
  test("before it begins opens nothing", async () => {
    const model = babbler();
    const signal = AbortSignal.abort();
    const error = await failure(() => take(generate(model, text, PROMPT, { signal })));
    expect(error).toBeInstanceOf(AbortError);
    expect([model.opened, model.runs.length]).toEqual([0, 0]);
  });

  test("within the prompt ends there, and closes the sequence", async () => {
    const controller = new AbortController();
    const model = babbler({ beforeRun: () => controller.abort() });
    const run = () => take(generate(model, text, PROMPT, { signal: controller.signal }));
    expect(await failure(run)).toBeInstanceOf(AbortError);
    expect([model.opened, model.closed, model.runs.length]).toEqual([1, 1, 1]);
  });

  test("is one that the engine knows of, which need not run a long prompt to its end", async () => {
    const controller = new AbortController();
    const model = babbler({ beforeRun: () => controller.abort() });
    const run = () => take(generate(model, text, PROMPT, { signal: controller.signal }));
    expect((await failure(run)).message).toBe("stopped by the engine");
  });

  test("within a token ends there, and closes the sequence", async () => {
    const controller = new AbortController();
    const model = babbler({ beforeRun: (_, run) => run === 4 && controller.abort() });
    const options = { signal: controller.signal, ignoreEos: true };
    expect(await failure(() => take(generate(model, text, PROMPT, options)))).toBeInstanceOf(
      AbortError,
    );
    expect([model.opened, model.closed, model.runs.length]).toEqual([1, 1, 4]);
  });

  test("between two pieces ends before the next token, and says how many there were", async () => {
    const controller = new AbortController();
    const model = babbler();
    const shown: GenerationPiece[] = [];
    const error = await failure(async () => {
      const options = { signal: controller.signal, ignoreEos: true };
      for await (const piece of generate(model, text, PROMPT, options)) {
        shown.push(piece);
        if (shown.length === 3) controller.abort();
      }
    });
    expect(error).toBeInstanceOf(AbortError);
    const count = shown.reduce((sum, p) => sum + (p.type === "text" ? p.tokens.length : 0), 0);
    expect(error.message).toContain(`${count} generated`);
    expect([model.opened, model.closed, model.runs.length]).toEqual([1, 1, count]);
  });

  test("lets what else is to be done have its turn, so that a timer can stop it", async () => {
    const controller = new AbortController();
    const model = babbler({ context: 20_000 });
    setTimeout(() => controller.abort(), 1);
    const options = { signal: controller.signal, ignoreEos: true };
    expect(await failure(() => take(generate(model, text, PROMPT, options)))).toBeInstanceOf(
      AbortError,
    );
  });

  test("by its consumer while the next token fails elsewhere is told of no error", async () => {
    const lost: unknown[] = [];
    const listen = (reason: unknown) => lost.push(reason);
    process.on("unhandledRejection", listen);
    try {
      const model = babbler({
        background: true,
        beforeRun: (_, run) => {
          if (run === 3) throw new Error("of the engine");
        },
      });
      let pieces = 0;
      for await (const _ of generate(model, text, PROMPT, { ignoreEos: true })) {
        if (++pieces === 2) break;
      }
      expect([model.runs.length, model.closed]).toEqual([3, 1]);
      await new Promise((resolve) => setTimeout(resolve, 10));
    } finally {
      process.off("unhandledRejection", listen);
    }
    expect(lost).toEqual([]);
  });

  test("by its consumer closes the sequence", async () => {
    const model = babbler();
    let pieces = 0;
    for await (const _ of generate(model, text, PROMPT, { ignoreEos: true })) {
      if (++pieces === 2) break;
    }
    expect([pieces, model.opened, model.closed]).toEqual([2, 1, 1]);

    const thrown = await failure(async () => {
      for await (const _ of generate(model, text, PROMPT)) throw new Error("of the consumer");
    });
    expect(thrown.message).toBe("of the consumer");
    expect([model.opened, model.closed]).toEqual([2, 2]);
  });

  test("without a piece asked for has opened nothing", async () => {
    const model = babbler();
    const unused = generate(model, text, PROMPT);
    await unused.return();
    expect([model.opened, model.closed]).toEqual([0, 0]);
  });

  test("by an error of the engine closes the sequence and passes it on", async () => {
    const model = babbler({
      beforeRun: (_, run) => {
        if (run === 2) throw new TypeError("of the engine");
      },
    });
    const error = await failure(() => take(generate(model, text, PROMPT, { ignoreEos: true })));
    expect(error.message).toBe("of the engine");
    expect([model.opened, model.closed]).toEqual([1, 1]);
  });
});
