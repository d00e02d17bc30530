/**
 * Reading the body of a request, within limits of size and time.
 * @module
 */
import type { HonoRequest, MiddlewareHandler } from "hono";
import { quote } from "../checks.ts";
import type { AppEnv } from "./context.ts";
import { ApiError, badRequest } from "./errors.ts";

/**
 * Takes JSON of at most so many bytes that arrives in time, before any handler runs.
 *
 * Other types are refused: a page of another origin may send them without asking first.
 *
 * @param limit Bytes.
 * @param patience Milliseconds.
 */
export function readBody(limit: number, patience: number): MiddlewareHandler<AppEnv> {
  const maxSize = Math.floor(limit);
  return async (context, next) => {
    if (!isJson(context.req.header("content-type"))) {
      throw badRequest("the body must be JSON: send Content-Type: application/json");
    }
    const encoding = context.req.header("content-encoding") || "identity";
    if (encoding.toLowerCase() !== "identity") {
      throw badRequest(
        `the body must be sent as it is: Content-Encoding ${
          quote(encoding.slice(0, 40))
        } is not read`,
      );
    }
    sayJson(context.req);
    const { signal } = context.get("work");
    let timer: ReturnType<typeof setTimeout> | undefined;
    let onStop = () => {};
    const ended = new Promise<never>((_, fail) => {
      timer = setTimeout(() => {
        fail(new ApiError(408, `the request did not arrive within ${patience / 1000} s`));
      }, patience);
      // A server that stops does not wait for what may never come.
      onStop = () => fail(signal.reason);
      signal.addEventListener("abort", onStop);
    });
    try {
      await Promise.race([readWithin(context.req, maxSize, ended), ended]);
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw badRequest("the body could not be read to its end");
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onStop);
    }
    await next();
  };
}

/**
 * Reads a body of at most so many bytes, until it is told to end. What has been read is kept, and given to whoever asks
 * for it as JSON.
 *
 * @param ended Fails when no more is to be read.
 */
async function readWithin(
  request: HonoRequest,
  most: number,
  ended: Promise<never>,
): Promise<void> {
  const { body, headers } = request.raw;
  const tooLarge = () =>
    new ApiError(413, `the request is larger than ${most} bytes`, { code: "request_too_large" });
  const length = headers.get("content-length");
  if (!body || (length !== null && !headers.has("transfer-encoding"))) {
    if (Number(length) > most) throw tooLarge();
    await request.text();
    return;
  }
  const reader = body.getReader();
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), ended]);
      if (done) break;
      size += value.length;
      if (size > most) throw tooLarge();
      pieces.push(value);
    }
  } catch (error) {
    // Deno takes no more of a body that is neither read nor let go, and many clients send all before they read an
    // answer. They need not be waited for.
    reader.cancel().catch(() => {});
    throw error;
  }
  request.raw = new Request(request.raw, { body: new Blob(pieces) });
  await request.text();
}

/** Whether a `Content-Type` is that of JSON, whatever parameters it has. */
function isJson(type = ""): boolean {
  return /^application\/([\w.-]+\+)?json$/i.test(type.split(";")[0].trim());
}

/** Has a request say that it is JSON: who reads it behind us asks again, and knows fewer ways to say so. */
function sayJson(request: HonoRequest): void {
  const header = request.header.bind(request) as (name?: string) => unknown;
  request.header =
    ((name?: string) =>
      name?.toLowerCase() === "content-type"
        ? "application/json"
        : header(name)) as typeof request.header;
}
