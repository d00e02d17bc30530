/**
 * `POST /v1/chat/completions`: what comes in and what goes out.
 * @module
 */
import { z } from "@hono/zod-openapi";
import { logprobsNumber, usageOrNone, usageSchema } from "./common.ts";
import { optional, samplingFields } from "./sampling.ts";

/** Most messages of a conversation. */
const MOST_MESSAGES = 4096;
/** Most alternatives of which the probability is told. */
const MOST_LOGPROBS = 20;

/** A part of a message's content. Parts that are not text are refused by name later. */
const contentPart = z.looseObject({ type: z.string(), text: optional(z.string()) });

const messageSchema = z.looseObject({
  role: z.enum(["system", "developer", "user", "assistant", "tool", "function"]).describe(
    "Who says it; `developer` is taken for `system`",
  ),
  content: z.union(
    [z.string(), z.array(contentPart).min(1)],
    "text is needed, or a list of parts that each have a type",
  ).nullish().describe("What is said: text, or a list of parts of type `text`"),
  name: optional(z.string()).describe("Given to the chat template"),
}).openapi("ChatMessage");

const responseFormat = z.discriminatedUnion("type", [
  z.looseObject({ type: z.literal("text") }),
  z.looseObject({ type: z.literal("json_object") }).describe("Any JSON object"),
  z.looseObject({
    type: z.literal("json_schema"),
    json_schema: z.looseObject({
      name: z.string().min(1).max(64),
      description: optional(z.string()),
      strict: optional(z.boolean()),
      schema: z.record(z.string(), z.unknown()).describe("A JSON schema"),
    }),
  }).describe("JSON that a schema allows"),
]);

/** The body of a request. */
export const chatRequestSchema = z.looseObject({
  messages: z.array(messageSchema).min(1).max(MOST_MESSAGES),
  ...samplingFields,
  max_tokens: optional(z.int().min(1)).describe("Most tokens of the answer"),
  max_completion_tokens: optional(z.int().min(1)).describe("The same, by its newer name"),
  logprobs: optional(z.boolean()).describe("Tell the log probability of each token"),
  top_logprobs: optional(z.int().min(0).max(MOST_LOGPROBS)).describe("And of the likeliest ones"),
  response_format: optional(responseFormat).describe("What form the answer has to have"),
  chat_template_kwargs: optional(z.record(z.string(), z.unknown())).describe(
    "More variables for the chat template. Not of OpenAI's interface",
  ),
}).openapi("ChatRequest", {
  example: {
    messages: [{ role: "user", content: "Say hello." }],
    max_tokens: 32,
  },
});

/** A request, checked. */
export type ChatRequest = z.output<typeof chatRequestSchema>;
/** One of its messages. */
export type ChatRequestMessage = ChatRequest["messages"][number];

const tokenLogprob = z.object({
  token: z.string(),
  logprob: logprobsNumber,
  bytes: z.array(z.int()).nullable(),
});
const choiceLogprobs = z.object({
  content: z.array(tokenLogprob.extend({ top_logprobs: z.array(tokenLogprob) })).nullable(),
  refusal: z.null(),
}).openapi("ChatLogprobs");

/** Log probabilities of a part of an answer. */
export type ChatLogprobs = z.output<typeof choiceLogprobs>;

const finishReason = z.enum(["stop", "length"]);

/** An answer as a whole. */
export const chatCompletionSchema = z.object({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.int().describe("Seconds since 1970"),
  model: z.string(),
  choices: z.array(z.object({
    index: z.int(),
    message: z.object({
      role: z.literal("assistant"),
      content: z.string(),
      refusal: z.null(),
    }),
    logprobs: choiceLogprobs.nullable(),
    finish_reason: finishReason,
  })),
  usage: usageSchema,
  system_fingerprint: z.string(),
}).openapi("ChatCompletion");

/** An answer as a whole. */
export type ChatCompletion = z.output<typeof chatCompletionSchema>;

/** An event of an answer that is sent by and by. */
export const chatChunkSchema = z.object({
  id: z.string(),
  object: z.literal("chat.completion.chunk"),
  created: z.int(),
  model: z.string(),
  choices: z.array(z.object({
    index: z.int(),
    delta: z.object({
      role: z.literal("assistant").optional(),
      content: z.string().optional(),
    }),
    logprobs: choiceLogprobs.nullable(),
    finish_reason: finishReason.nullable(),
  })),
  usage: usageOrNone,
  system_fingerprint: z.string(),
}).openapi("ChatCompletionChunk");

/** An event of an answer that is sent by and by. */
export type ChatChunk = z.output<typeof chatChunkSchema>;
