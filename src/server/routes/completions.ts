/**
 * `POST /v1/completions`
 * @module
 */
import type { Prompt } from "../../generate/prompt.ts";
import type { AnswerPiece, Wanted } from "../answers.ts";
import type { App } from "../context.ts";
import { wellFormed } from "../conversation.ts";
import { badRequest } from "../errors.ts";
import { completionLogprobs } from "../logprobs.ts";
import { refuseInCompletions } from "../refused.ts";
import {
  type Completion,
  type CompletionLogprobs,
  type CompletionRequest,
  completionRequestSchema,
  completionSchema,
} from "../schemas/completions.ts";
import { generationOptions, MOST_CHOICES, seedOfChoice } from "../schemas/sampling.ts";
import type { Served, Service } from "../service.ts";
import { Tally } from "../usage.ts";
import { generationRoute, type Head, respond } from "./generation.ts";

/** Tokens of an answer where a request does not say; OpenAI's default. */
const DEFAULT_TOKENS = 16;

const route = generationRoute(
  "/v1/completions",
  "Continue a text",
  completionRequestSchema,
  completionSchema,
  completionSchema,
);

/** Adds the route. */
export function addCompletions(app: App, service: Service): void {
  app.openapi(route, async (context) => {
    const request = context.req.valid("json");
    const served = service.find(request.model);
    refuseInCompletions(request);
    const wanted = wantedBy(request, served);
    return await respond(context, {
      service,
      served,
      request,
      wanted,
      field: "prompt",
      prompt: request.prompt,
      prefix: "cmpl",
      whole: (head, pieces) => whole(head, served, request, wanted.length, pieces),
      chunks: (head, pieces) => chunks(head, served, request, pieces),
    });
  });
}

/** The sequences that a request asks for: all choices of the first prompt, then of the next. */
function wantedBy(request: CompletionRequest, { model }: Served): Wanted[] {
  const { n = 1 } = request;
  const prompts = promptsOf(request.prompt);
  if (prompts.length * n > MOST_CHOICES) {
    throw badRequest(
      `n: ${prompts.length} prompts with ${n} choices each are more than ${MOST_CHOICES}`,
      "n",
    );
  }
  const options = generationOptions(request, model.info.vocabulary);
  return prompts.flatMap((prompt) =>
    Array.from({ length: n }, (_, i) => ({
      prompt,
      options: {
        ...options,
        seed: seedOfChoice(options.seed, i),
        maxTokens: request.max_tokens ?? DEFAULT_TOKENS,
        logprobs: request.logprobs,
      },
    }))
  );
}

/** A text, its token ids, or a list of either. */
function promptsOf(prompt: CompletionRequest["prompt"]): Prompt[] {
  if (typeof prompt === "string") return [wellFormed(prompt)];
  if (typeof prompt[0] === "number") return [prompt as number[]];
  return (prompt as (string | number[])[]).map((one) =>
    typeof one === "string" ? wellFormed(one) : one
  );
}

/** The text as a whole. */
async function whole(
  head: Head,
  { model }: Served,
  request: CompletionRequest,
  count: number,
  pieces: AsyncIterable<AnswerPiece>,
): Promise<Completion> {
  const tally = new Tally(request.n ?? 1);
  const choices = Array.from({ length: count }, (_, index): Completion["choices"][number] => ({
    index,
    text: "",
    logprobs: request.logprobs === undefined
      ? null
      : { tokens: [], token_logprobs: [], top_logprobs: null, text_offset: [] },
    finish_reason: null,
  }));
  for await (const { index, piece } of pieces) {
    const choice = choices[index];
    if (piece.type === "end") {
      choice.finish_reason = piece.finishReason;
      tally.end(index, piece);
      continue;
    }
    if (choice.logprobs) {
      const more = completionLogprobs(model, piece, request.logprobs!, choice.text.length);
      choice.logprobs = joined(choice.logprobs, more);
    }
    choice.text += piece.text;
  }
  return { object: "text_completion", ...head, choices, usage: tally.usage };
}

function joined(a: CompletionLogprobs, b: CompletionLogprobs): CompletionLogprobs {
  return {
    tokens: [...a.tokens, ...b.tokens],
    token_logprobs: [...a.token_logprobs, ...b.token_logprobs],
    top_logprobs: b.top_logprobs && [...a.top_logprobs ?? [], ...b.top_logprobs],
    text_offset: [...a.text_offset, ...b.text_offset],
  };
}

/** The text by and by. */
async function* chunks(
  head: Head,
  { model }: Served,
  request: CompletionRequest,
  pieces: AsyncIterable<AnswerPiece>,
): AsyncGenerator<Completion, void, undefined> {
  const tally = new Tally(request.n ?? 1);
  const usage = request.stream_options?.include_usage ? { usage: null } : {};
  const lengths: number[] = [];
  for await (const { index, piece } of pieces) {
    if (piece.type === "end") {
      tally.end(index, piece);
      const choice = { index, text: "", logprobs: null, finish_reason: piece.finishReason };
      yield { object: "text_completion", ...head, choices: [choice], ...usage };
    } else if (piece.text !== "" || request.logprobs !== undefined) {
      const offset = lengths[index] ?? 0;
      lengths[index] = offset + piece.text.length;
      const logprobs = request.logprobs === undefined
        ? null
        : completionLogprobs(model, piece, request.logprobs, offset);
      yield {
        object: "text_completion",
        ...head,
        choices: [{ index, text: piece.text, logprobs, finish_reason: null }],
        ...usage,
      };
    }
  }
  if (request.stream_options?.include_usage) {
    yield { object: "text_completion", ...head, choices: [], usage: tally.usage };
  }
}
