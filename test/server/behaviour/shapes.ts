/**
 * The forms of OpenAI's answers, as its published description has them; nothing more than that is
 * allowed but what we say here. Written by hand: the server's own schemas are what is tested.
 * @module
 */
import { z } from "zod";

const seconds = z.int().min(1_700_000_000).max(4_000_000_000);
const count = z.int().min(0);
const logprob = z.number().max(0);
const finishReason = z.enum(["stop", "length"]);
const head = { id: z.string().min(10), created: seconds, model: z.string().min(1) };
const fingerprint = z.string().min(1);

const usage = z.strictObject({
  prompt_tokens: count.min(1),
  completion_tokens: count.min(1),
  total_tokens: count.min(2),
  prompt_tokens_details: z.strictObject({ cached_tokens: count }),
}).refine((one) => one.total_tokens === one.prompt_tokens + one.completion_tokens);

const spelledToken = z.strictObject({
  token: z.string(),
  logprob,
  bytes: z.array(z.int().min(0).max(255)),
});
const chatLogprobs = z.strictObject({
  content: z.array(z.strictObject({
    ...spelledToken.shape,
    top_logprobs: z.array(spelledToken),
  })),
  refusal: z.null(),
});
const completionLogprobs = z.strictObject({
  tokens: z.array(z.string()),
  token_logprobs: z.array(logprob),
  top_logprobs: z.array(z.record(z.string(), logprob)).nullable(),
  text_offset: z.array(count),
});

/** Of `POST /v1/chat/completions`. */
export const chatCompletion = z.strictObject({
  ...head,
  object: z.literal("chat.completion"),
  system_fingerprint: fingerprint,
  choices: z.array(z.strictObject({
    index: count,
    message: z.strictObject({
      role: z.literal("assistant"),
      content: z.string(),
      refusal: z.null(),
    }),
    logprobs: chatLogprobs.nullable(),
    finish_reason: finishReason,
  })).min(1),
  usage,
});

/** An event of it. */
export const chatChunk = z.strictObject({
  ...head,
  object: z.literal("chat.completion.chunk"),
  system_fingerprint: fingerprint,
  choices: z.array(z.strictObject({
    index: count,
    delta: z.strictObject({
      role: z.literal("assistant").optional(),
      content: z.string().optional(),
    }),
    logprobs: chatLogprobs.nullable(),
    finish_reason: finishReason.nullable(),
  })),
  usage: usage.nullish(),
});

/** Of `POST /v1/completions`. */
export const completion = z.strictObject({
  ...head,
  object: z.literal("text_completion"),
  system_fingerprint: fingerprint,
  choices: z.array(z.strictObject({
    index: count,
    text: z.string(),
    logprobs: completionLogprobs.nullable(),
    finish_reason: finishReason,
  })).min(1),
  usage,
});

/** An event of it. */
export const completionChunk = completion.extend({
  choices: z.array(completion.shape.choices.element.extend({
    finish_reason: finishReason.nullable(),
  })),
  usage: usage.nullish(),
});

/** Whatever went wrong. */
export const apiError = z.strictObject({
  error: z.strictObject({
    message: z.string().min(5),
    type: z.enum(["invalid_request_error", "rate_limit_error", "server_error"]),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});

/** Of `GET /v1/models/{id}`: OpenAI's four fields, and ours. */
export const model = z.strictObject({
  id: z.string().min(1),
  object: z.literal("model"),
  created: seconds,
  owned_by: z.string().min(1),
  espalier: z.record(z.string(), z.unknown()),
});

/** Of `GET /v1/models`. */
export const modelList = z.strictObject({ object: z.literal("list"), data: z.array(model).min(1) });
