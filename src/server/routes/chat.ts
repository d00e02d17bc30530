/**
 * `POST /v1/chat/completions`
 * @module
 */
import type { Model } from "../../generate/model.ts";
import type { AnswerPiece, Wanted } from "../answers.ts";
import type { App } from "../context.ts";
import { promptOf } from "../conversation.ts";
import { badRequest } from "../errors.ts";
import { chatLogprobs } from "../logprobs.ts";
import { refuseInChat } from "../refused.ts";
import {
  type ChatChunk,
  chatChunkSchema,
  type ChatCompletion,
  chatCompletionSchema,
  type ChatLogprobs,
  type ChatRequest,
  chatRequestSchema,
} from "../schemas/chat.ts";
import { generationOptions, seedOfChoice } from "../schemas/sampling.ts";
import type { Served, Service } from "../service.ts";
import { Tally } from "../usage.ts";
import { generationRoute, type Head, respond } from "./generation.ts";

const route = generationRoute(
  "/v1/chat/completions",
  "Answer a conversation",
  chatRequestSchema,
  chatCompletionSchema,
  chatChunkSchema,
);

/** Adds the route. */
export function addChat(app: App, service: Service): void {
  app.openapi(route, async (context) => {
    const request = context.req.valid("json");
    const served = service.find(request.model);
    refuseInChat(request);
    const wanted = await wantedBy(request, served);
    return await respond(context, {
      service,
      served,
      request,
      wanted,
      field: "messages",
      // What is read of the messages: they may hold other fields, of any size.
      prompt: wanted[0].prompt,
      prefix: "chatcmpl",
      whole: (head, pieces) => whole(head, served, request, pieces),
      chunks: (head, pieces) => chunks(head, served, request, pieces),
    });
  });
}

/** The sequences that a request asks for, one a choice. */
async function wantedBy(request: ChatRequest, { model }: Served): Promise<Wanted[]> {
  const { logprobs, top_logprobs: top, response_format: format } = request;
  if (top !== undefined && !logprobs) {
    throw badRequest("top_logprobs: logprobs must be true", "top_logprobs");
  }
  const prompt = promptOf(model, request.messages);
  const options = generationOptions(request, model.info.vocabulary);
  const choices = Array.from({ length: request.n ?? 1 }, (_, i) => i);
  return await Promise.all(choices.map(async (i) => ({
    prompt,
    options: {
      ...options,
      seed: seedOfChoice(options.seed, i),
      maxTokens: request.max_completion_tokens ?? request.max_tokens,
      logprobs: logprobs ? top ?? 0 : undefined,
      templateVariables: request.chat_template_kwargs,
      constraint: await constraintFor(model, format),
    },
  })));
}

/** What the answer must look like; for one sequence. */
function constraintFor(model: Model, format: ChatRequest["response_format"]) {
  if (format === undefined || format.type === "text") return undefined;
  return model.constrain(
    format.type === "json_object"
      ? "json"
      : { schema: format.json_schema.schema, name: "response_format" },
  );
}

/** The answer as a whole. */
async function whole(
  head: Head,
  { model }: Served,
  { n = 1, logprobs }: ChatRequest,
  pieces: AsyncIterable<AnswerPiece>,
): Promise<ChatCompletion> {
  const tally = new Tally(n);
  const texts = Array.from({ length: n }, () => "");
  const reasons: ("stop" | "length")[] = [];
  const told: ChatLogprobs["content"][] = Array.from({ length: n }, () => []);
  for await (const { index, piece } of pieces) {
    if (piece.type === "end") {
      reasons[index] = piece.finishReason;
      tally.end(index, piece);
    } else {
      texts[index] += piece.text;
      if (logprobs) told[index]!.push(...chatLogprobs(model, piece).content!);
    }
  }
  return {
    object: "chat.completion",
    ...head,
    choices: texts.map((content, index) => ({
      index,
      message: { role: "assistant", content, refusal: null },
      logprobs: logprobs ? { content: told[index], refusal: null } : null,
      finish_reason: reasons[index],
    })),
    usage: tally.usage,
  };
}

/** The answer by and by. */
async function* chunks(
  head: Head,
  { model }: Served,
  { n = 1, logprobs, stream_options: options }: ChatRequest,
  pieces: AsyncIterable<AnswerPiece>,
): AsyncGenerator<ChatChunk, void, undefined> {
  const tally = new Tally(n);
  const usage = options?.include_usage ? { usage: null } : {};
  const chunk = (
    index: number,
    delta: ChatChunk["choices"][number]["delta"],
    finish_reason: "stop" | "length" | null = null,
    told: ChatLogprobs | null = null,
  ): ChatChunk => ({
    object: "chat.completion.chunk",
    ...head,
    choices: [{ index, delta, logprobs: told, finish_reason }],
    ...usage,
  });
  let areBegun = false;
  for await (const { index, piece } of pieces) {
    if (!areBegun) {
      for (let i = 0; i < n; i++) yield chunk(i, { role: "assistant", content: "" });
      areBegun = true;
    }
    if (piece.type === "end") {
      tally.end(index, piece);
      yield chunk(index, {}, piece.finishReason);
    } else if (piece.text !== "" || logprobs) {
      yield chunk(
        index,
        { content: piece.text },
        null,
        logprobs ? chatLogprobs(model, piece) : null,
      );
    }
  }
  if (options?.include_usage) {
    yield { object: "chat.completion.chunk", ...head, choices: [], usage: tally.usage };
  }
}
