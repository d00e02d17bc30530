/**
 * Requests to the Hub: redirects, the token, patience, and what is tried again.
 * @module
 */
import { quote, throwIfAborted } from "../checks.ts";
import { HubAnswerError, HubUnreachableError } from "../errors.ts";
import { fetchRaw, reasonOf } from "../platform/fetch_raw.ts";
import { sleep } from "../platform/sleep.ts";
import { VERSION } from "../version.ts";
import { type Failure, failureOf, type Subject } from "./failures.ts";
import type { HubSettings } from "./settings.ts";

/** Times that a request is tried before its failure counts. */
export const ATTEMPTS = 5;
/** Seconds that a server may ask to wait; with more it is an error at once, which says so. */
const LONGEST_WAIT = 120;
/** Redirects of one request. */
const MOST_REDIRECTS = 8;
const REDIRECTS = [301, 302, 303, 307, 308];

/** A failure that may pass; only this module and its callers in `hub` see it. */
export class PassingFailure extends Error {
  constructor(readonly failure: Failure) {
    super(failure.error.message);
  }
}

/** What a server answered: the head, and the body piece by piece. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /**
   * The body, each piece as it comes.
   *
   * @throws {PassingFailure} When the connection breaks off, or stays silent for too long.
   */
  body(): AsyncGenerator<Uint8Array>;
  /** Lets go of the connection. */
  cancel(): void;
}

/** A way to one Hub. */
export class HubConnection {
  readonly settings: HubSettings;
  readonly #origin: string;
  readonly #signal: AbortSignal | undefined;

  /** @param signal Ends every request. */
  constructor(settings: HubSettings, signal: AbortSignal | undefined) {
    this.settings = settings;
    this.#origin = new URL(settings.endpoint).origin;
    this.#signal = signal;
  }

  /**
   * Sends a request, and follows where it leads.
   *
   * @param headers Beside our own.
   * @returns An answer with status 200, 206 or 416.
   * @throws {EspalierError} Of the class that says what is wrong, after {@linkcode ATTEMPTS}.
   */
  open(url: string, subject: Subject, headers: Record<string, string> = {}): Promise<Answer> {
    return this.retry(() => this.#follow(url, subject, headers));
  }

  /**
   * Reads a whole answer into memory.
   *
   * @param largest Bytes above which it is refused.
   * @throws {HubAnswerError} When it is larger.
   * @throws {EspalierError} As {@linkcode open} does.
   */
  read(url: string, subject: Subject, largest: number): Promise<Response> {
    return this.retry(async () => {
      const answer = await this.#follow(url, subject, { accept: "application/json" });
      const pieces: Uint8Array[] = [];
      let size = 0;
      for await (const piece of answer.body()) {
        size += piece.length;
        if (size > largest) {
          throw new HubAnswerError(
            `${url} answers more than ${largest} bytes: no listing is so long`,
          );
        }
        pieces.push(piece);
      }
      const link = answer.headers.get("link");
      return new Response(new Blob(pieces as BlobPart[]), { headers: link ? { link } : {} });
    });
  }

  /** Does something that may fail in passing, several times if need be. */
  async retry<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1;; attempt++) {
      try {
        return await work();
      } catch (error) {
        throwIfAborted(this.#signal);
        if (!(error instanceof PassingFailure)) throw error;
        const { error: final, after } = error.failure;
        if (attempt === ATTEMPTS || (after ?? 0) > LONGEST_WAIT) throw final;
        await this.pause(attempt, after);
      }
    }
  }

  /**
   * Waits before something is tried again.
   *
   * @param attempt How many have failed, from 1.
   * @param after Seconds that the server asked for.
   */
  async pause(attempt: number, after?: number): Promise<void> {
    // By chance, so that machines that failed together do not come back together.
    const own = this.settings.backoff * 2 ** (attempt - 1) * (0.5 + Math.random() / 2);
    await sleep(after === undefined ? own : 1000 * after, this.#signal);
  }

  async #follow(
    start: string,
    subject: Subject,
    headers: Record<string, string>,
  ): Promise<Answer> {
    let url = new URL(start);
    for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects++) {
      const answer = await this.#send(url, headers);
      if ([200, 206, 416].includes(answer.status)) return answer;
      answer.cancel();
      if (!REDIRECTS.includes(answer.status)) {
        const failure = failureOf({
          status: answer.status,
          headers: answer.headers,
          subject,
          endpoint: this.settings.endpoint,
          host: url.host,
          isHub: url.origin === this.#origin,
          hasToken: this.settings.token !== undefined,
        });
        throw failure.passes ? new PassingFailure(failure) : failure.error;
      }
      url = redirectOf(url, answer.headers.get("location"));
    }
    throw new HubAnswerError(`${start} redirects more than ${MOST_REDIRECTS} times`);
  }

  async #send(url: URL, headers: Record<string, string>): Promise<Answer> {
    const { token, patience } = this.settings;
    const stop = new AbortController();
    const onAbort = () => stop.abort();
    this.#signal?.addEventListener("abort", onAbort);
    if (this.#signal?.aborted) stop.abort();
    const end = () => this.#signal?.removeEventListener("abort", onAbort);
    const broken = (cause: unknown) => {
      end();
      throwIfAborted(this.#signal);
      const reason = stop.signal.aborted
        ? `it said nothing for ${patience / 1000} s`
        : reasonOf(cause);
      return new PassingFailure({
        passes: true,
        error: new HubUnreachableError(`cannot reach ${url.host}: ${reason}`, { cause }),
      });
    };
    const patiently = async <T>(promise: Promise<T>): Promise<T> => {
      const timer = setTimeout(() => stop.abort(), patience);
      try {
        return await promise;
      } catch (cause) {
        throw broken(cause);
      } finally {
        clearTimeout(timer);
      }
    };
    const response = await patiently(fetchRaw(url, {
      headers: {
        "user-agent": `espalier/${VERSION}`,
        ...headers,
        // No other server gets it, wherever the Hub redirects to.
        ...(token && url.origin === this.#origin ? { authorization: `Bearer ${token}` } : {}),
      },
      signal: stop.signal,
    }));
    return {
      status: response.status,
      headers: response.headers,
      async *body() {
        const reader = response.body?.getReader();
        try {
          while (reader) {
            const { done, value } = await patiently(reader.read());
            if (done) return;
            yield value;
          }
        } finally {
          // Also where the reader has gone away before the end.
          stop.abort();
          end();
        }
      },
      cancel() {
        stop.abort();
        end();
      },
    };
  }
}

/**
 * Where a redirect leads.
 *
 * @param location What the answer says.
 * @throws {HubAnswerError} For what is no address of the web, or less safe than the one before.
 */
export function redirectOf(from: URL, location: string | null): URL {
  if (location === null || !URL.canParse(location, from)) {
    throw new HubAnswerError(`${from.href} redirects to no address: ${quote(location ?? "none")}`);
  }
  const to = new URL(location, from);
  const isSafe = to.protocol === "https:" || (to.protocol === "http:" && from.protocol === "http:");
  if (!isSafe) {
    throw new HubAnswerError(`${from.href} redirects to ${quote(to.href)}: that is not followed`);
  }
  return to;
}
