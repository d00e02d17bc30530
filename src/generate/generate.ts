/**
 * The loop that makes text: run the prompt, choose a token, run the token, choose the next.
 * @module
 */
import { parseOptions } from "../api/options.ts";
import type { EngineModel } from "../engine/model.ts";
import { checkObject, checkSignal } from "../checks.ts";
import { AbortError, UsageError } from "../errors.ts";
import { letEventsIn } from "../platform/events.ts";
import type { TokenConstraint } from "../text/constraint.ts";
import type { ChoiceLogprobs } from "../text/logprobs.ts";
import type { ModelText } from "../text/model_text.ts";
import { Sampler } from "../text/sampler.ts";
import { TextStream } from "../text/stream.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { type GenerationOptions, generationSchema } from "./options.ts";
import { type Prompt, PromptTokens, promptTokens } from "./prompt.ts";

/** Some more text. */
export interface TextPiece {
  readonly type: "text";
  /** Whole characters; empty at most in the last piece. All pieces together are the answer. */
  readonly text: string;
  /**
   * UTF-16 units at the beginning of the text that tokens before these have brought, where there are any: they could
   * have been the beginning of a stop string.
   */
  readonly carried?: number;
  /** Tokens since the piece before, also those without text: an end of text, a stop string. */
  readonly tokens: readonly number[];
  /** For each of the tokens, where `logprobs` was asked for. */
  readonly logprobs?: readonly ChoiceLogprobs[];
}

/** The end, after all text. */
export interface EndPiece {
  readonly type: "end";
  /**
   * `stop`: the model ended its text, a stop string came, or the text is all that its constraint lets it
   * be. `length`: `maxTokens`, or the context is full.
   */
  readonly finishReason: "stop" | "length";
  /** The stop string that ended the text, if one did. */
  readonly stopString?: string;
  readonly promptTokens: number;
  /** Tokens of the prompt that needed no run, since the engine still had them. */
  readonly cachedTokens: number;
  /** Tokens that were chosen, the end of text among them. */
  readonly completionTokens: number;
  /** Seconds from the start to the logits of the prompt, and from there to the end, the consumer's own not counted. */
  readonly seconds: { readonly prefill: number; readonly decode: number };
  /** The seed that gives the same text again. */
  readonly seed: number;
}

/** What `generate` yields: text pieces, then one end. */
export type GenerationPiece = TextPiece | EndPiece;

/**
 * Generates text.
 *
 * Options and prompt are checked by the call itself, before the first piece is asked for. The model's
 * sequence is opened with the first piece and closed at the end, however it comes: also when the
 * consumer stops early, or the signal stops the work. (`return()` of the generator waits for the token
 * that is being run; the signal does not.)
 *
 * @param model A loaded model.
 * @param text Its tokenizer and, for conversations, its chat template.
 * @param prompt Text to continue, messages to answer, or token ids; or what was made of one, on which the options
 *   of prompts have no bearing any more.
 * @returns Pieces of text as they are certain, then the end.
 * @throws {UsageError} When an option is wrong, the prompt is empty, or the constraint has served before.
 * @throws {SchemaError} From the iteration, when the tokenizer cannot write what the constraint wants.
 * @throws {ChatTemplateError} When there is no chat template for messages, or it refuses them.
 * @throws {ContextOverflowError} When the prompt leaves no room in the context, or is longer than its limit.
 * @throws {TokenRangeError} When an id is outside the vocabulary.
 * @throws {AbortError} From the iteration, when the signal says so.
 *
 * @example
 * ```ts
 * for await (const piece of generate(model, text, "Once upon a time", { maxTokens: 50 })) {
 *   if (piece.type === "text") process.stdout.write(piece.text);
 * }
 * ```
 */
export function generate(
  model: EngineModel,
  text: ModelText,
  prompt: Prompt | PromptTokens,
  options: GenerationOptions = {},
): AsyncGenerator<GenerationPiece, void, undefined> {
  checkObject(options, "options", "{ maxTokens: 50 }");
  const { signal, constraint, promptLimit, longestText, templateVariables, ...rest } = options;
  checkSignal(signal);
  assertUnused(constraint);
  const settings = parseOptions(generationSchema, rest);
  const { info } = model;
  const { tokenizer } = text;
  const stop = [settings.stop].flat();
  const { tokens, continues } = prompt instanceof PromptTokens
    ? prompt
    : promptTokens(text, prompt, info, { promptLimit, longestText, templateVariables });
  return run({
    model,
    tokens,
    sampler: new Sampler(settings, info.vocabulary, tokens, constraint),
    constraint,
    stream: new TextStream(tokenizer, { skipSpecialTokens: true, continues, stop }),
    endIds: tokenizer.endIds,
    ignoresEnds: settings.ignoreEos,
    stopTokens: stopTokensOf(tokenizer, stop),
    most: Math.min(settings.maxTokens ?? Infinity, info.context - tokens.length),
    signal,
  });
}

/** All that a run needs, checked. */
interface Run {
  readonly model: EngineModel;
  readonly tokens: Int32Array;
  readonly sampler: Sampler;
  readonly constraint: TokenConstraint | undefined;
  readonly stream: TextStream;
  readonly endIds: ReadonlySet<number>;
  /** Whether the text goes on behind them. */
  readonly ignoresEnds: boolean;
  /** Special tokens that end the text because they are stop strings: they have no text to find one in. */
  readonly stopTokens: ReadonlyMap<number, string>;
  /** Most tokens to generate; at least 1. */
  readonly most: number;
  readonly signal: AbortSignal | undefined;
}

/** Stop strings that are special tokens, by their ids. */
function stopTokensOf(tokenizer: Tokenizer, stop: readonly string[]): Map<number, string> {
  const tokens = new Map<number, string>();
  for (const string of stop) {
    const id = tokenizer.idOf(string);
    if (id !== undefined && tokenizer.specialIds.has(id)) tokens.set(id, string);
  }
  return tokens;
}

async function* run(given: Run): AsyncGenerator<GenerationPiece, void, undefined> {
  const { model, tokens, sampler, constraint, stream, stopTokens, most, signal } = given;
  assertGoingOn(signal, 0);
  assertUnused(constraint);
  const prefill = new Stopwatch();
  const decode = new Stopwatch();
  const sequence = prefill.time(() => model.open(tokens));
  /** Runs tokens, unless the work is to stop. */
  const step = async (tokens: ArrayLike<number>, count: number, watch: Stopwatch) => {
    // An engine that computes on this thread does so without a pause: signals, timers and other
    // sequences have their turn before.
    if (!model.info.background) await letEventsIn();
    assertGoingOn(signal, count);
    return await watch.wait(sequence.run(tokens, { signal, within: sampler.within }));
  };
  try {
    if (constraint) serving.add(constraint);
    const cachedTokens = sequence.length;
    let logits = await step(tokens.subarray(cachedTokens), 0, prefill);

    let piece = new Piece();
    for (let count = 1;; count++) {
      const { token, logprobs } = decode.time(() => sampler.next(logits, sequence.likeliest));
      // One that completes a constraint ends the text, and is none of it.
      const atEnd = given.endIds.has(token) &&
        (!given.ignoresEnds || constraint?.complete === true);
      piece.add(token, atEnd ? "" : stream.push(token), logprobs);
      const ended = atEnd || constraint?.complete === true;
      const stopped = stream.stopString ?? (atEnd ? undefined : stopTokens.get(token));

      if (ended || stopped !== undefined || count === most) {
        piece.text += stream.end();
        // Bytes that are no character may be what a stop string ends with.
        const stopString = stream.stopString ?? stopped;
        yield piece.done();
        yield {
          type: "end",
          finishReason: ended || stopString !== undefined ? "stop" : "length",
          ...(stopString === undefined ? {} : { stopString }),
          promptTokens: tokens.length,
          cachedTokens,
          completionTokens: count,
          seconds: { prefill: prefill.seconds, decode: decode.seconds },
          seed: sampler.seed,
        };
        return;
      }
      // What computes in the background does so while this token's text is on its way.
      const next = model.info.background ? step([token], count, decode) : undefined;
      // A consumer that stops early never hears of it.
      next?.catch(() => {});
      if (piece.text !== "") {
        yield piece.done();
        piece = new Piece(stream.held);
      }
      logits = await (next ?? step([token], count, decode));
    }
  } finally {
    if (constraint) serving.delete(constraint);
    sequence.close();
  }
}

/** Constraints of generations that go on: until its first token is taken, nothing else tells that one is in use. */
const serving = new WeakSet<TokenConstraint>();

/** @throws {UsageError} When the constraint is none, or belongs to another text. */
function assertUnused(constraint: TokenConstraint | undefined): void {
  if (constraint !== undefined && typeof Object(constraint).allowed !== "function") {
    throw new UsageError(
      "constraint must be what a model's constrain gives: await model.constrain({ schema })",
    );
  }
  if (!constraint || !(constraint.begun || serving.has(constraint))) return;
  throw new UsageError(
    "the constraint serves another generation, or has served it: it follows one text, so make another " +
      "one for each",
  );
}

/** @throws {AbortError} When the signal has been aborted. */
function assertGoingOn(signal: AbortSignal | undefined, count: number): void {
  if (signal?.aborted) throw new AbortError(`stopped after ${count} generated tokens`);
}

/** A text piece that grows until there is text to give. */
class Piece {
  text = "";
  readonly #carried: number;
  readonly #tokens: number[] = [];
  readonly #logprobs: ChoiceLogprobs[] = [];

  /** @param carried UTF-16 units of text that the piece before has left for it. */
  constructor(carried = 0) {
    this.#carried = carried;
  }

  add(token: number, text: string, logprobs: ChoiceLogprobs | undefined): void {
    this.text += text;
    this.#tokens.push(token);
    if (logprobs) this.#logprobs.push(logprobs);
  }

  done(): TextPiece {
    return {
      type: "text",
      text: this.text,
      ...(this.#carried === 0 ? {} : { carried: this.#carried }),
      tokens: this.#tokens,
      ...(this.#logprobs.length === 0 ? {} : { logprobs: this.#logprobs }),
    };
  }
}

/** Adds up stretches of time. */
class Stopwatch {
  seconds = 0;

  /** The time that something takes. */
  time<T>(work: () => T): T {
    const started = performance.now();
    const result = work();
    this.seconds += (performance.now() - started) / 1000;
    return result;
  }

  /** The time until a promise settles. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      return await promise;
    } finally {
      this.seconds += (performance.now() - started) / 1000;
    }
  }
}
