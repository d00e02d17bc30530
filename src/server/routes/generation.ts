/**
 * What the two routes that generate have in common: their description, and how an answer is sent.
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import { answer, type AnswerPiece, type Wanted } from "../answers.ts";
import type { AppContext } from "../context.ts";
import { sendEvents } from "../events.ts";
import { errorResponses, errorSchema } from "../schemas/common.ts";
import type { SamplingRequest } from "../schemas/sampling.ts";
import { FINGERPRINT, type Served, type Service } from "../service.ts";

/**
 * Describes a route that generates.
 *
 * @param request Schema of the body.
 * @param whole Schema of an answer as a whole.
 * @param chunk Schema of an event of one that is sent by and by.
 */
export function generationRoute<
  Path extends string,
  Request extends z.ZodType,
  Whole extends z.ZodType,
  Chunk extends z.ZodType,
>(path: Path, summary: string, request: Request, whole: Whole, chunk: Chunk) {
  return createRoute({
    method: "post",
    path,
    tags: ["completions"],
    summary,
    request: { body: { required: true, content: { "application/json": { schema: request } } } },
    responses: {
      200: {
        description: "The answer; with `stream` events, the last of them `[DONE]`",
        content: {
          "application/json": { schema: whole },
          // What goes wrong when the answer has begun is an event, too, and the last one.
          "text/event-stream": { schema: z.union([chunk, errorSchema]) },
        },
      },
      ...errorResponses,
    },
  });
}

/** What every answer and every chunk of one begins with. */
export interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

/** A request that has been understood. */
export interface Generation<Whole extends object> {
  readonly service: Service;
  readonly served: Served;
  readonly request: Pick<SamplingRequest, "stream" | "n">;
  readonly wanted: readonly Wanted[];
  /** The field that holds the prompt: its name and what it holds. */
  readonly field: string;
  readonly prompt: unknown;
  /** Before the identifier. */
  readonly prefix: string;
  readonly whole: (head: Head, pieces: AsyncIterable<AnswerPiece>) => Promise<Whole>;
  readonly chunks: (
    head: Head,
    pieces: AsyncIterable<AnswerPiece>,
  ) => AsyncGenerator<object, void, undefined>;
}

/**
 * Generates and answers, as a whole or by and by.
 *
 * @throws {ApiError} For what goes wrong before anything has been sent.
 */
export async function respond<Whole extends object>(
  context: AppContext,
  { service, served, request, wanted, field, prompt, prefix, whole, chunks }: Generation<Whole>,
) {
  const record = context.get("record");
  const work = context.get("work");
  record.asked(served.id, request.stream ?? false, prompt, request.n ?? 1, wanted.length);
  const pieces = answer({ service, served, wanted, work, field, record });
  const head: Head = {
    id: `${prefix}-${record.id}`,
    created: Math.floor(Date.now() / 1000),
    model: served.id,
    system_fingerprint: FINGERPRINT,
  };
  if (!request.stream) return context.json(await whole(head, pieces), 200);
  const done = context.get("later")();
  return await sendEvents(context, chunks(head, pieces), {
    patience: 1000 * service.settings.readTimeout,
    work,
    done,
  }).catch((error) => {
    done(error);
    throw error;
  });
}
