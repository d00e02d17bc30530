/**
 * What can go wrong with a request, as clients of OpenAI's interface are told of it.
 * @module
 */
import {
  type AbortError,
  type ChatTemplateError,
  type ContextOverflowError,
  EspalierError,
  hasCode,
  type MemoryBudgetError,
  type ModelClosedError,
  type SchemaError,
  type TextError,
  type TokenizerError,
  type TokenRangeError,
  type UsageError,
  type WorkerLostError,
} from "../errors.ts";

/** What went wrong with a prompt, beside its length. */
type PromptError =
  | ChatTemplateError
  | TextError
  | TokenizerError
  | TokenRangeError
  | UsageError;
/** What the server knows of, beside what it tells the log alone. */
type KnownError =
  | AbortError
  | ContextOverflowError
  | MemoryBudgetError
  | ModelClosedError
  | PromptError
  | SchemaError
  | WorkerLostError;

/** The status codes that are answered with. */
export type Status = 400 | 401 | 403 | 404 | 405 | 408 | 413 | 429 | 431 | 499 | 500 | 503 | 504;

/** The body of an answer that is an error. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** An error that a client is told of as it is. */
export class ApiError extends EspalierError {
  readonly code = "API";

  /**
   * @param status Of the answer.
   * @param message For people.
   * @param about `type` and `code` for programs, `param` for the field that is wrong; `retryAfter`
   *   seconds may help.
   */
  constructor(
    readonly status: Status,
    message: string,
    readonly about: {
      readonly type?: string;
      readonly code?: string;
      readonly param?: string;
      readonly retryAfter?: number;
    } = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** As OpenAI's server writes it. */
  get body(): ErrorBody {
    const { type = typeOf(this.status), code = null, param = null } = this.about;
    return { error: { message: this.message, type, param, code } };
  }
}

/** More requests than may wait. */
export class QueueFullError extends ApiError {
  constructor(waiting: number, retryAfter: number) {
    super(429, `${waiting} requests are waiting, and no more may: try again in ${retryAfter} s`, {
      type: "rate_limit_error",
      code: "queue_full",
      retryAfter,
    });
  }
}

/** A request that waited too long for its turn. */
export class QueueTimeoutError extends ApiError {
  constructor(milliseconds: number, retryAfter: number) {
    super(
      503,
      `the request waited ${
        milliseconds / 1000
      } s and its turn has not come: the server is overloaded`,
      { code: "queue_timeout", retryAfter },
    );
  }
}

/** A request that took too long. */
export class RequestTimeoutError extends ApiError {
  constructor(milliseconds: number) {
    super(
      504,
      `the request took longer than ${milliseconds / 1000} s, which is the server's limit`,
      {
        code: "timeout",
      },
    );
  }
}

/** A field that is wrong, or asks for something that is not there. */
export function badRequest(message: string, param?: string, code?: string): ApiError {
  return new ApiError(400, message, { param, code });
}

/** The kind of error that a status is, in OpenAI's words. */
function typeOf(status: Status): string {
  if (status === 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

/** Whether an error is of a kind that the server tells of, whichever module it comes from. */
export function isError<C extends KnownError["code"]>(
  error: unknown,
  code: C,
): error is Extract<KnownError, { readonly code: C }> {
  return hasCode(error, code);
}

/** Codes of what is wrong with a prompt. */
const ABOUT_PROMPT: readonly PromptError["code"][] = [
  "CHAT_TEMPLATE",
  "TEXT_UNUSABLE",
  "TOKENIZER_INVALID",
  "TOKEN_OUT_OF_RANGE",
  "USAGE",
];

/**
 * What a client is told of any error.
 *
 * @param where The field that holds the prompt, for errors about it.
 */
export function apiErrorOf(error: unknown, where?: string): ApiError {
  if (error instanceof ApiError) return error;
  if (isError(error, "CONTEXT_OVERFLOW")) {
    return new ApiError(400, error.message, { param: where, code: "context_length_exceeded" });
  }
  if (isError(error, "SCHEMA_UNSUPPORTED")) {
    return new ApiError(400, error.message, { param: "response_format", code: "invalid_schema" });
  }
  if (ABOUT_PROMPT.some((code) => isError(error, code))) {
    return new ApiError(400, (error as PromptError).message, { param: where });
  }
  if (isError(error, "MEMORY_BUDGET")) {
    return new ApiError(503, `no memory is left for this sequence: ${error.message}`, {
      code: "out_of_memory",
      retryAfter: 1,
    });
  }
  // Nobody is there to read it.
  if (isError(error, "ABORTED")) return new ApiError(499, "the client has gone");
  // What went wrong is for the log; it may tell of files and machines.
  return new ApiError(500, "the server failed: its log says how", {}, { cause: error });
}
