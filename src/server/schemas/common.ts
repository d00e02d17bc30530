/**
 * Forms that several routes share.
 * @module
 */
import { z } from "@hono/zod-openapi";

/** A natural logarithm of a probability; never −∞, which JSON cannot say. */
export const logprobsNumber = z.number().max(0);

/**
 * Token ids. They are checked together: schemas that check each tell of each that is wrong, and V8 has no
 * stack for a hundred thousand mistakes.
 */
export const tokenIds = z.custom<number[]>(
  (value) => Array.isArray(value) && value.every((id) => Number.isSafeInteger(id) && id >= 0),
  { error: "token ids are whole numbers from 0", abort: true },
).openapi({ type: "array", items: { type: "integer", minimum: 0 } });

/** How many tokens went in and came out. */
export const usageSchema = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.object({
    cached_tokens: z.int().describe("Tokens of the prompt that needed no run"),
  }),
}).openapi("Usage");

/** How many tokens went in and came out. */
export type Usage = z.output<typeof usageSchema>;

/** The same where it may be missing, or null. Of `nullish` the description says an object alone. */
export const usageOrNone = z.union([usageSchema, z.null()]).optional();

/** An answer that is an error. */
export const errorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
}).openapi("Error");

/** What errors there are, by status. */
const ERRORS = {
  400: "The request is wrong",
  401: "The key is missing or wrong",
  403: "The server is not to be asked by the name in `Host`",
  404: "There is no such model",
  408: "The request did not arrive in time",
  413: "The request is too large",
  429: "Too many requests are waiting; `Retry-After` says when to try again",
  500: "The server failed",
  503: "The server is loading, overloaded or about to stop",
  504: "The request took too long",
};

/** The answer that is an error of a status. */
export function errorResponse(status: keyof typeof ERRORS) {
  return { description: ERRORS[status], content: { "application/json": { schema: errorSchema } } };
}

/** What every route with a model may answer beside what it should. */
export const errorResponses = Object.fromEntries(
  Object.keys(ERRORS).map((
    status,
  ) => [status, errorResponse(Number(status) as keyof typeof ERRORS)]),
);
