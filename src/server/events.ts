/**
 * Answers that are sent by and by: server-sent events, as OpenAI's clients read them.
 * @module
 */
import type { Context } from "hono";
import { AbortError } from "../errors.ts";
import { apiErrorOf } from "./errors.ts";

/** Events are UTF-8 by their definition; who does not know that is told. */
const HEADERS = {
  "Content-Type": "text/event-stream; charset=utf-8",
  "Cache-Control": "no-cache",
  // Proxies that collect answers would send all of it at the end.
  "X-Accel-Buffering": "no",
};

/** How events are sent. */
export interface Sending {
  /** Milliseconds in which a client must take what it is sent. */
  readonly patience: number;
  /** Aborted when the client has gone, time is up, or the server stops; here when the client does not read. */
  readonly work: AbortController;
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
  sending: Sending,
): Promise<Response> {
  const first = await chunks.next();
  const source = new EventStreamSource(chunks, first, sending);
  const body = new ReadableStream(source);
  // No runtime need cancel a body that it has no room for at that moment, or one that it never took.
  const { signal } = sending.work;
  signal.addEventListener("abort", () => source.finish(), { once: true });
  if (signal.aborted) await source.finish();
  return context.body(body, 200, HEADERS);
}

/**
 * The source of a body. A token's way to the client is this one step: Hono's streams of events are three
 * pipes and a timer for each, which took a tenth of a millisecond for each token.
 */
class EventStreamSource implements UnderlyingDefaultSource<Uint8Array> {
  readonly #utf8 = new TextEncoder();
  readonly #chunks: AsyncGenerator<object, void, undefined>;
  readonly #sending: Sending;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  /** What has come already. */
  #first: IteratorResult<object, void> | undefined;
  /** Since when the client has left what it was sent where it is; undefined while the next is made. */
  #left: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether a chunk is being made: whoever makes it then also ends the work. */
  #isBusy = false;
  /** Whether nothing can be sent any more. */
  #isClosed = false;
  #isOver = false;

  constructor(
    chunks: AsyncGenerator<object, void, undefined>,
    first: IteratorResult<object, void>,
    sending: Sending,
  ) {
    this.#chunks = chunks;
    this.#first = first;
    this.#sending = sending;
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#controller = controller;
    const { patience } = this.#sending;
    // One timer for all events, that looks again when the client has taken one.
    const look = () => {
      const waited = this.#left === undefined ? 0 : performance.now() - this.#left;
      if (waited < patience) this.#timer = setTimeout(look, patience - waited);
      else this.#giveUp();
    };
    this.#timer = setTimeout(look, patience);
  }

  /** Sends one event: the client has taken all that was sent. */
  async pull(): Promise<void> {
    // What stopped the work asks, too, and goes on to the end.
    if (this.#isOver || this.#isBusy) return;
    this.#left = undefined;
    this.#isBusy = true;
    try {
      const { done, value } = this.#first ?? await this.#chunks.next();
      this.#first = undefined;
      if (this.#isClosed) throw new AbortError("the client has gone");
      this.#send(done ? "[DONE]" : JSON.stringify(value));
      this.#left = performance.now();
      if (done) await this.#end();
    } catch (error) {
      await this.#fail(error);
    } finally {
      this.#isBusy = false;
    }
    if (this.#sending.work.signal.aborted) await this.finish();
  }

  /** The body is read no further. */
  cancel(): void {
    this.#isClosed = true;
    this.#sending.work.abort();
  }

  /** The work has been stopped: what is left is sent, most likely why, whether somebody reads or not. */
  async finish(): Promise<void> {
    if (!this.#isBusy) await this.pull();
  }

  /**
   * Drops a client that does not read. The answer ends with an error: one that reads on one day must not
   * take what it was sent for the whole. The runtime writes the error to standard error, beside the log.
   */
  #giveUp(): void {
    this.#isClosed = true;
    this.#controller.error("a client did not read in time");
    this.#sending.work.abort();
  }

  #send(data: string): void {
    this.#controller.enqueue(this.#utf8.encode(`data: ${data}\n\n`));
  }

  async #fail(error: unknown): Promise<void> {
    if (!this.#isClosed) this.#send(JSON.stringify(apiErrorOf(error).body));
    await this.#end(error);
  }

  async #end(error?: unknown): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    if (!this.#isClosed) this.#controller.close();
    await this.#chunks.return().catch(() => {});
    this.#sending.done(error);
  }
}
