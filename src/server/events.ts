/**
 * Answers that are sent by and by: server-sent events, as OpenAI's clients read them.
 * @module
 */
import type { Context } from "hono";
import { streamSSE } from "hono/streaming";
import { AbortError } from "../errors.ts";
import { apiErrorOf } from "./errors.ts";

/** How events are sent. */
export interface Sending {
  /** Milliseconds in which a client must take what it is sent. */
  readonly patience: number;
  /** Stops the work: the client has gone, or does not read. */
  readonly stop: () => void;
  /** Called once when all is over; `error` says why it ended early. */
  readonly done: (error?: unknown) => void;
}

/**
 * Sends chunks as events, and `[DONE]` after the last one.
 *
 * The first chunk is waited for before anything is sent, so that what goes wrong until then is an answer
 * with a status of its own. Later on an error is an event.
 *
 * @param chunks What becomes `data`, as JSON.
 * @throws What the chunks throw before the first one.
 */
export async function sendEvents(
  context: Context,
  chunks: AsyncGenerator<object, void, undefined>,
  { patience, stop, done }: Sending,
): Promise<Response> {
  const first = await chunks.next();
  // Proxies that collect answers would send all of it at the end.
  context.header("X-Accel-Buffering", "no");
  let isLate = false;
  const response = streamSSE(context, async (stream) => {
    let failure: unknown;
    let isGone = false;
    stream.onAbort(() => {
      isGone = true;
      stop();
    });
    /** Writes, unless the client has stopped reading. */
    const write = async (data: string) => {
      const timer = setTimeout(() => {
        isLate = true;
        isGone = true;
        stop();
        stream.abort();
      }, patience);
      try {
        await stream.writeSSE({ data });
      } finally {
        clearTimeout(timer);
      }
    };
    try {
      for (let next = first; !next.done; next = await chunks.next()) {
        await write(JSON.stringify(next.value));
        if (isGone) throw new AbortError("the client has gone");
      }
      await write("[DONE]");
    } catch (error) {
      failure = error;
      if (!isGone) await write(JSON.stringify(apiErrorOf(error).body)).catch(() => {});
    } finally {
      await chunks.return().catch(() => {});
      done(failure);
    }
  });
  // Events are UTF-8 by their definition; who does not know that is told.
  response.headers.set("Content-Type", "text/event-stream; charset=utf-8");
  return new Response(brokenWhen(response.body!, () => isLate), response);
}

/**
 * The same bytes, but an error for an end where something holds: a client that reads on one day must not
 * take what it was sent for the whole. The runtime writes the error to standard error, beside the log.
 */
function brokenWhen(
  body: ReadableStream<Uint8Array>,
  holds: () => boolean,
): ReadableStream<Uint8Array> {
  return body.pipeThrough(
    new TransformStream({
      flush: (controller) => {
        if (holds()) controller.error("a client did not read in time");
      },
    }),
  );
}
