/**
 * Reading the body of a request, within limits of size and time.
 * @module
 */
import type { HonoRequest, MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
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
  const limited = bodyLimit({
    maxSize,
    onError: () => {
      throw new ApiError(413, `the request is larger than ${maxSize} bytes`, {
        code: "request_too_large",
      });
    },
  });
  return async (context, next) => {
    if (!isJson(context.req.header("content-type"))) {
      throw badRequest("the body must be JSON: send Content-Type: application/json");
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
    // What has been read is kept, and given to whoever asks for it as JSON. The limit reads a body of
    // unknown length by itself, so that its time counts, too.
    const read = limited(context, async () => void await context.req.text());
    try {
      await Promise.race([read, ended]);
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
