/**
 * What the log tells of each request: one record when it has been answered.
 * @module
 */
import { withoutControls } from "../checks.ts";
import type { EndPiece, TextPiece } from "../generate/generate.ts";

/** One line of the log. Prompts and answers are in it only where the server was asked for that. */
export interface LogEntry {
  readonly time: string;
  readonly event: "request" | "error" | "server";
  readonly message?: string;
  /** `x-request-id` of the answer. */
  readonly id?: string;
  readonly method?: string;
  readonly path?: string;
  readonly status?: number;
  readonly milliseconds?: number;
  /** The name of the key that the client came with. */
  readonly key?: string;
  readonly model?: string;
  readonly stream?: boolean;
  /** Of prompts of which an answer has begun. */
  readonly promptTokens?: number;
  /** Where all answers came to their ends. */
  readonly cachedTokens?: number;
  readonly completionTokens?: number;
  readonly firstTokenMilliseconds?: number;
  readonly finishReason?: string;
  readonly error?: string;
  readonly prompt?: unknown;
  /** The text, or the texts where the request asked for several. */
  readonly answer?: string | readonly string[];
}

/** Takes lines of the log. */
export type Log = (entry: LogEntry) => void;

/** What becomes one line when a request has been answered. */
export class RequestRecord {
  readonly #started = performance.now();
  #key: string | undefined;
  #model: string | undefined;
  #stream: boolean | undefined;
  #first: number | undefined;
  /** Tokens of the prompt of each sequence. */
  readonly #prompts: number[] = [];
  /** Prompts of which an answer has begun. */
  readonly #begun = new Set<number>();
  #cached = 0;
  #completion = 0;
  #ended = 0;
  #finishReason: string | undefined;
  #error: string | undefined;
  #cause: unknown;
  #prompt: unknown;
  /** By choice. */
  #answers: string[] = [];
  #choices = 1;

  /** @param withText Whether prompts and answers are written down. */
  constructor(
    readonly id: string,
    readonly method: string,
    readonly path: string,
    readonly withText: boolean,
  ) {}

  /** Seconds since the request came. */
  get seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  key(name: string): void {
    this.#key = name;
  }

  /**
   * @param choices Answers that it asks for to each prompt.
   * @param all Answers that it asks for.
   */
  asked(model: string, stream: boolean, prompt: unknown, choices: number, all: number): void {
    this.#model = model;
    this.#stream = stream;
    this.#choices = choices;
    if (!this.withText) return;
    this.#prompt = prompt;
    this.#answers = Array.from({ length: all }, () => "");
  }

  /** @param tokens Of the prompt of one sequence more. */
  prepared(tokens: number): void {
    this.#prompts.push(tokens);
  }

  /** @param milliseconds From the request's arrival in line to its first text. */
  firstToken(milliseconds: number): void {
    this.#first ??= milliseconds;
  }

  /** @param index Of which choice. */
  text(index: number, { text, tokens }: TextPiece): void {
    this.#begun.add(Math.floor(index / this.#choices));
    this.#completion += tokens.length;
    if (this.withText) this.#answers[index] += text;
  }

  /** @param index Of which choice. */
  end(index: number, { cachedTokens, finishReason }: EndPiece): void {
    // As the client is told: the others of one prompt have found it in the cache.
    if (index % this.#choices === 0) this.#cached += cachedTokens;
    this.#ended++;
    this.#finishReason = finishReason;
  }

  /**
   * @param error What the client is told.
   * @param cause What went wrong in the server itself, where that is what it was.
   */
  failed(error: string, cause?: unknown): void {
    this.#error = error;
    this.#cause ??= cause;
  }

  /** The line that tells of a failure of the server itself; undefined where there was none. */
  get failure(): LogEntry | undefined {
    if (this.#cause === undefined) return undefined;
    const { stack } = this.#cause as Error;
    return {
      time: new Date().toISOString(),
      event: "error",
      id: this.id,
      message: stack ?? String(this.#cause),
    };
  }

  /** The line. */
  entry(status: number): LogEntry {
    const hasText = this.#begun.size > 0;
    const prompts = [...this.#begun].map((prompt) => this.#prompts[prompt * this.#choices]);
    const isWhole = hasText && this.#ended === this.#prompts.length;
    const answer = this.#answers.length > 1 ? this.#answers : this.#answers[0] ?? "";
    return {
      time: new Date().toISOString(),
      event: "request",
      id: this.id,
      method: this.method,
      path: this.path,
      status,
      milliseconds: Math.round(1000 * this.seconds),
      key: this.#key,
      model: this.#model,
      stream: this.#stream,
      promptTokens: hasText ? prompts.reduce((sum, tokens) => sum + tokens, 0) : undefined,
      cachedTokens: isWhole ? this.#cached : undefined,
      completionTokens: hasText ? this.#completion : undefined,
      firstTokenMilliseconds: this.#first === undefined ? undefined : Math.round(this.#first),
      finishReason: this.#finishReason,
      error: this.#error,
      ...(this.withText ? { prompt: this.#prompt, answer } : {}),
    };
  }
}

/** A line as a program reads it. */
export function jsonLine(entry: LogEntry): string {
  return JSON.stringify(entry);
}

/** A line as a person reads it. Clients and models choose parts of it: they must not write to the terminal. */
export function textLine(entry: LogEntry): string {
  // What went wrong may be told in several lines.
  return withoutControls(lineOf(entry), entry.event === "request" ? "" : "\n\t");
}

function lineOf(entry: LogEntry): string {
  const { time, event, message, method, path, status, milliseconds, error } = entry;
  if (event === "server") return `${time} ${message}`;
  if (event === "error") return `${time} error${entry.id ? ` ${entry.id}` : ""}: ${message}`;
  const kept = entry.cachedTokens === undefined ? "" : ` (${entry.cachedTokens} kept)`;
  const facts = [
    entry.key && `key ${entry.key}`,
    entry.model,
    entry.promptTokens === undefined
      ? undefined
      : `${entry.promptTokens} tokens in${kept}, ${entry.completionTokens} out`,
    entry.firstTokenMilliseconds === undefined
      ? undefined
      : `first after ${entry.firstTokenMilliseconds} ms`,
    entry.finishReason,
    error,
    entry.prompt === undefined ? undefined : `prompt ${JSON.stringify(entry.prompt)}`,
    entry.answer === undefined ? undefined : `answer ${JSON.stringify(entry.answer)}`,
  ].filter((fact) => fact !== undefined && fact !== "");
  return `${time} ${method} ${path} ${status} ${milliseconds} ms ${entry.id}` +
    (facts.length > 0 ? `: ${facts.join("; ")}` : "");
}
