/**
 * `POST /v1/completions`: what comes in and what goes out.
 * @module
 */
import { z } from "@hono/zod-openapi";
import { logprobsNumber, tokenIds, usageOrNone } from "./common.ts";
import { optional, samplingFields } from "./sampling.ts";

/** Most prompts of a request. */
const MOST_PROMPTS = 32;
/** Most alternatives of which the probability is told. */
const MOST_LOGPROBS = 5;

const ids = tokenIds.refine((list) => list.length > 0, "at least one token id is needed").openapi({
  minItems: 1,
});

/** The body of a request. */
export const completionRequestSchema = z.looseObject({
  prompt: z.union([
    z.string(),
    ids,
    z.array(z.string()).min(1).max(MOST_PROMPTS),
    z.array(ids).min(1).max(MOST_PROMPTS),
  ], `a text is needed, a list of token ids, or a list of at most ${MOST_PROMPTS} of either`)
    .describe("A text to continue, its token ids, or a list of either"),
  ...samplingFields,
  max_tokens: optional(z.int().min(1)).describe("Most tokens to generate. Default: 16"),
  logprobs: optional(z.int().min(0).max(MOST_LOGPROBS)).describe(
    "Tell the log probability of each token, and of so many of the likeliest ones",
  ),
}).openapi("CompletionRequest", {
  example: { prompt: "The population of", max_tokens: 16, temperature: 0 },
});

/** A request, checked. */
export type CompletionRequest = z.output<typeof completionRequestSchema>;

const choiceLogprobs = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(logprobsNumber),
  top_logprobs: z.array(z.record(z.string(), logprobsNumber)).nullable(),
  text_offset: z.array(z.int()).describe("Where each token's text begins, in UTF-16 units"),
}).openapi("CompletionLogprobs");

/** Log probabilities of a part of a text. */
export type CompletionLogprobs = z.output<typeof choiceLogprobs>;

/** A text as a whole, or an event of one that is sent by and by. */
export const completionSchema = z.object({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.int().describe("Seconds since 1970"),
  model: z.string(),
  choices: z.array(z.object({
    index: z.int(),
    text: z.string(),
    logprobs: choiceLogprobs.nullable(),
    finish_reason: z.enum(["stop", "length"]).nullable(),
  })),
  usage: usageOrNone,
  system_fingerprint: z.string(),
}).openapi("Completion");

/** A text as a whole, or an event of one that is sent by and by. */
export type Completion = z.output<typeof completionSchema>;
