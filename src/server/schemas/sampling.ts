/**
 * What chat and text completions have in common: fields of OpenAI's interface, and what we do with them.
 *
 * Fields that we do not know are ignored, as OpenAI's server ignores them. Fields that would change the
 * answer and that we cannot serve are refused (`refused.ts`).
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import type { GenerationOptions } from "../../generate/options.ts";
import { badRequest } from "../errors.ts";

/** Most choices of a request. */
export const MOST_CHOICES = 32;
/** Most stop strings; OpenAI takes 4. */
const MOST_STOPS = 16;
/** Longest stop string, in UTF-16 units. */
const LONGEST_STOP = 1000;
/** Of 64 bits with a sign. */
const LARGEST_SEED = 2 ** 63;
/** Most tokens with a bias. */
const MOST_BIASES = 1024;

/** A field that may be left out, or be null as some clients write it. */
export function optional<T extends z.ZodType>(type: T) {
  return type.nullish().transform((value) => value ?? undefined);
}

const stop = z.string().min(1).max(LONGEST_STOP).refine((text) => text.isWellFormed(), {
  message: "a stop string has half of a character",
});

/** As OpenAI's: those beyond 2^53 come rounded, since JSON's numbers are read as doubles. */
const seed = z.number().min(-LARGEST_SEED).max(LARGEST_SEED).refine(Number.isInteger, {
  message: "a whole number is needed",
});

/** Fields of both kinds of completions. */
export const samplingFields = {
  model: optional(z.string().max(1000)).describe("A model of `/v1/models`; left out, the first"),
  stream: optional(z.boolean()).describe("Send the answer by and by, as server-sent events"),
  stream_options: optional(z.looseObject({ include_usage: optional(z.boolean()) })).describe(
    "`include_usage`: a last event that tells the numbers of tokens",
  ),
  n: optional(z.int().min(1).max(MOST_CHOICES)).describe("How many answers"),
  temperature: optional(z.number().min(0).max(2)).describe(
    "0 takes the likeliest token each time. Default: 1",
  ),
  top_p: optional(z.number().min(0).max(1)).describe(
    "Draw from the fewest tokens that together have this probability. Default: 1",
  ),
  top_k: optional(z.int().min(0)).describe(
    "Draw from so many of the likeliest tokens; 0: all. Not of OpenAI's interface",
  ),
  min_p: optional(z.number().min(0).max(1)).describe(
    "Draw from tokens with this part of the likeliest one's probability. Not of OpenAI's interface",
  ),
  repetition_penalty: optional(z.number().min(0.01).max(10)).describe(
    "Divides logits of tokens that were there; 1: off. Not of OpenAI's interface",
  ),
  frequency_penalty: optional(z.number().min(-2).max(2)).describe(
    "Taken from a token's logit for each time that it was generated",
  ),
  presence_penalty: optional(z.number().min(-2).max(2)).describe(
    "Taken from a token's logit once it was generated",
  ),
  logit_bias: optional(
    z.record(z.string().regex(/^\d{1,10}$/, "must be a token id"), z.number().min(-100).max(100))
      .refine((biases) => Object.keys(biases).length <= MOST_BIASES, {
        message: `at most ${MOST_BIASES} tokens may have a bias`,
      }),
  ).describe("Added to logits, by token id"),
  seed: optional(seed).describe("The same seed and request give the same answer").openapi({
    type: ["integer", "null"],
  }),
  stop: optional(z.union(
    [stop, z.array(stop).max(MOST_STOPS)],
    `a text is needed, or a list of at most ${MOST_STOPS}`,
  )).describe("Text before which the answer ends"),
  user: optional(z.string()).describe("Ignored"),
};

/** The common fields of a request, checked. */
export type SamplingRequest = z.output<z.ZodObject<typeof samplingFields>>;

/**
 * The same as options of `generate`.
 *
 * @param vocabulary Tokens of the model.
 * @throws {ApiError} When a token that has a bias is none of them.
 */
export function generationOptions(
  request: SamplingRequest,
  vocabulary: number,
): GenerationOptions {
  const unknown = Object.keys(request.logit_bias ?? {}).find((id) => Number(id) >= vocabulary);
  if (unknown !== undefined) {
    throw badRequest(
      `logit_bias: token ${unknown} is outside of the vocabulary of ${vocabulary} tokens`,
      "logit_bias",
    );
  }
  return {
    // OpenAI's defaults, where ours differ.
    temperature: request.temperature ?? 1,
    topP: request.top_p ?? 1,
    topK: request.top_k,
    minP: request.min_p,
    repetitionPenalty: request.repetition_penalty,
    frequencyPenalty: request.frequency_penalty,
    presencePenalty: request.presence_penalty,
    logitBias: request.logit_bias,
    seed: request.seed === undefined ? undefined : seedOf(request.seed),
    stop: request.stop,
  };
}

/** The seed of a choice: each draws by itself, and again the same. */
export function seedOfChoice(seed: number | undefined, index: number): number | undefined {
  if (seed === undefined) return undefined;
  // Modulo that, with no sum beyond it: two of those would be the same.
  const beyond = index - (Number.MAX_SAFE_INTEGER - seed);
  return beyond >= 0 ? beyond : seed + index;
}

/** OpenAI's seeds may be below 0 and beyond 2^53, ours may not. */
function seedOf(seed: number): number {
  return (seed >= 0 ? seed : 2 ** 52 - seed) % Number.MAX_SAFE_INTEGER;
}
