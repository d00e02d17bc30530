/**
 * From a request to pieces of text: a place for each sequence, the generation, and its figures.
 * @module
 */
import { isEndOfModel } from "../engine/end_of_model.ts";
import type { GenerationPiece } from "../generate/generate.ts";
import type { GenerationOptions } from "../generate/options.ts";
import type { Prompt, PromptTokens } from "../generate/prompt.ts";
import { ApiError, apiErrorOf, isError, RequestTimeoutError } from "./errors.ts";
import type { RequestRecord } from "./log.ts";
import type { Served, Service } from "./service.ts";

/**
 * UTF-16 units that a token of a prompt stands for at most, on the mean. Prose has 4 to 5; a tokenizer
 * takes seconds for a megabyte, in which the server does nothing else.
 */
export const MOST_PER_TOKEN = 24;

/** One sequence that a request asks for. */
export interface Wanted {
  readonly prompt: Prompt;
  readonly options: GenerationOptions;
}

/** A piece of one of them. */
export interface AnswerPiece {
  /** Which one. */
  readonly index: number;
  readonly piece: GenerationPiece;
}

/** What an answer is made with. */
export interface Answering {
  readonly service: Service;
  readonly served: Served;
  readonly wanted: readonly Wanted[];
  /** Aborted when the client goes away or the server stops, and by us when time is up. */
  readonly work: AbortController;
  /** The field that holds the prompt, for errors. */
  readonly field: string;
  readonly record: RequestRecord;
}

/**
 * Generates what a request asks for.
 *
 * What is wrong with the request is thrown by the call itself, before anybody waits.
 *
 * @returns Pieces of all sequences, as they come; one `end` for each.
 * @throws {ApiError} From the call and from the iteration.
 */
export function answer(answering: Answering): AsyncGenerator<AnswerPiece, void, undefined> {
  const { service, served, wanted, work, field, record } = answering;
  const { settings } = service;
  service.gate.assertRoom(wanted.length);
  const { context } = served.model.info;
  const limit = Math.min(settings.promptLimit ?? context - 1, context - 1);
  const most = Math.min(settings.maxTokens ?? context, context);
  try {
    const prepared = new Map<Prompt, PromptTokens>();
    const sequences = wanted.map(({ prompt, options }, index) => {
      const { templateVariables, ...rest } = options;
      const tokens = prepared.get(prompt) ?? served.model.prepare(prompt, {
        promptLimit: limit,
        longestText: limit * MOST_PER_TOKEN,
        templateVariables,
      });
      prepared.set(prompt, tokens);
      record.prepared(tokens.tokens.length);
      const pieces = served.model.generate(tokens, {
        ...rest,
        maxTokens: Math.min(options.maxTokens ?? most, most),
        signal: work.signal,
      });
      return sequence(answering, pieces, index);
    });
    return together(answering, sequences);
  } catch (error) {
    if (isEndOfModel(error, served.model.info)) service.lose(served);
    throw apiErrorOf(error, field);
  }
}

/** One sequence: waits for a place, generates, tells the metrics. */
async function* sequence(
  { service, served, work, record }: Answering,
  pieces: AsyncGenerator<GenerationPiece, void, undefined>,
  index: number,
): AsyncGenerator<AnswerPiece, void, undefined> {
  const { metrics, gate } = service;
  const model = served.id;
  const came = performance.now();
  // Patience is for getting in. Once the first of a request has had a place, the others are not to be in vain with it.
  const leave = await gate.enter(work.signal, index === 0 ? undefined : Infinity);
  let reason: string = "failed";
  try {
    metrics.queueSeconds.observe((performance.now() - came) / 1000);
    let last = performance.now();
    let isFirst = true;
    for await (const piece of pieces) {
      const now = performance.now();
      if (piece.type === "text") {
        const seconds = (now - last) / 1000;
        if (isFirst) {
          metrics.firstTokenSeconds.observe({ model }, seconds);
          record.firstToken(now - came);
        } else metrics.betweenTokensSeconds.observe({ model }, seconds / piece.tokens.length);
        metrics.generatedTokens.inc({ model }, piece.tokens.length);
        isFirst = false;
      } else {
        reason = piece.finishReason;
        metrics.promptTokens.inc({ model }, piece.promptTokens);
        metrics.cachedTokens.inc({ model }, piece.cachedTokens);
        if (piece.cachedTokens > 0) metrics.prefixHits.inc({ model });
      }
      yield { index, piece };
      // What the client takes to read is not the engine's time.
      last = performance.now();
    }
  } finally {
    if (reason === "failed" && work.signal.aborted) reason = "stopped";
    leave();
    metrics.answers.inc({ model, reason });
  }
}

/** All sequences, within the time that a request may take, and errors as a client is told of them. */
async function* together(
  { service, served, work, field, record }: Answering,
  sequences: readonly AsyncGenerator<AnswerPiece, void, undefined>[],
): AsyncGenerator<AnswerPiece, void, undefined> {
  const { parallel, requestTimeout } = service.settings;
  const milliseconds = 1000 * requestTimeout;
  const timer = setTimeout(
    () => work.abort(new RequestTimeoutError(milliseconds)),
    milliseconds,
  );
  try {
    const answers = sequences.length === 1
      ? sequences[0]
      : merged(sequences, parallel, () => work.abort());
    for await (const answered of answers) {
      const { index, piece } = answered;
      if (piece.type === "end") record.end(index, piece);
      else record.text(index, piece);
      yield answered;
    }
  } catch (error) {
    // The first to fail tells why; the others end with it.
    const { reason } = work.signal;
    if (isEndOfModel(error, served.model.info)) service.lose(served);
    throw apiErrorOf(
      isError(error, "ABORTED") && reason instanceof ApiError ? reason : error,
      field,
    );
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Pieces of several generators as they come. The second begins when the first has given something: its
 * prompt is in the cache by then.
 *
 * @param most How many are under way at once: more would stand in line behind their own kind, where
 *   nobody else finds room and patience runs out.
 * @param stop Stops them all, when one has failed: the others may wait in line.
 */
async function* merged(
  all: readonly AsyncGenerator<AnswerPiece, void, undefined>[],
  most: number,
  stop: () => void,
): AsyncGenerator<AnswerPiece, void, undefined> {
  const pending = new Map<number, Promise<{ from: number; result: IteratorResult<AnswerPiece> }>>();
  const ask = (from: number) =>
    pending.set(from, all[from].next().then((result) => ({ from, result })));
  let next = 0;
  ask(next++);
  try {
    while (pending.size > 0) {
      const { from, result } = await Promise.race(pending.values());
      if (result.done) pending.delete(from);
      while (next < all.length && pending.size < most) ask(next++);
      if (result.done) continue;
      yield result.value;
      ask(from);
    }
  } catch (error) {
    stop();
    throw error;
  } finally {
    // Errors of the others would be nobody's.
    for (const promise of pending.values()) promise.catch(() => {});
    await Promise.allSettled(all.map((generator) => generator.return()));
  }
}
