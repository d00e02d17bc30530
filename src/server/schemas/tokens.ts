/**
 * `POST /tokenize` and `/detokenize`: what comes in and what goes out.
 * @module
 */
import { z } from "@hono/zod-openapi";
import { tokenIds } from "./common.ts";
import { optional, samplingFields } from "./sampling.ts";

const { model } = samplingFields;

/** A text, to be made into tokens. */
export const tokenizeRequestSchema = z.looseObject({
  model,
  prompt: z.string(),
  add_special_tokens: optional(z.boolean()).describe(
    "Also those that the model wants around a text. Default: true",
  ),
}).openapi("TokenizeRequest", { example: { prompt: "The population of" } });

/** Its tokens. */
export const tokenizeResponseSchema = z.object({
  tokens: z.array(z.int()),
  count: z.int(),
  max_model_len: z.int().describe("Most tokens of a sequence"),
}).openapi("Tokens");

/** Tokens, to be made into text. */
export const detokenizeRequestSchema = z.looseObject({
  model,
  tokens: tokenIds,
}).openapi("DetokenizeRequest", { example: { tokens: [464, 3265] } });

/** Their text. */
export const detokenizeResponseSchema = z.object({ prompt: z.string() }).openapi("Text");
