/**
 * What the checks of the server's behaviour share: requests, a parser for events, equality. Nothing of a
 * runtime's own, so that the checks run wherever there is `fetch`.
 * @module
 */
import type { EndPiece, TextPiece } from "../../../src/generate/generate.ts";
import type { Model } from "../../../src/generate/model.ts";
import type { GenerationOptions } from "../../../src/generate/options.ts";
import type { Prompt } from "../../../src/generate/prompt.ts";

/** A model of the server, and the same one here, which says what is right. */
export interface Known {
  readonly id: string;
  readonly model: Model;
}

/** A server with two models: `plain` is the first and has no chat template, `chat` has one. */
export interface Server {
  /** Answers a request for a path. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  readonly plain: Known;
  readonly chat: Known;
}

/** Something that every server does. */
export interface Check {
  /** A sentence. */
  readonly name: string;
  /** @throws When the server does not. */
  readonly run: (server: Server) => Promise<void>;
}

/** The chat template of the model `chat`: a variable of its own, and a text that it refuses. */
export const TEMPLATE =
  "{% for m in messages %}{% if m.content == 'refuse me' %}{{ raise_exception('not this') }}{% endif %}" +
  "{{ m.role }}{% if m.name is defined %} {{ m.name }}{% endif %}: {{ m.content }}\n{% endfor %}" +
  "{{ who or 'assistant' }}:";

// deno-lint-ignore no-explicit-any
type Json = any;

/** An answer, read to its end. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The text as JSON; undefined where it is none. */
  readonly json: Json;
}

/** Reads an answer. */
export async function read(response: Response): Promise<Answer> {
  const text = await response.text();
  let json: Json;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, json };
}

/** A request with a JSON body. */
export function jsonRequest(body: unknown, headers: Record<string, string> = {}): RequestInit {
  return {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  };
}

/** Sends JSON and reads the answer. */
export async function post(
  { fetch }: Pick<Server, "fetch">,
  path: string,
  body: unknown,
  headers?: Record<string, string>,
): Promise<Answer> {
  return await read(await fetch(path, jsonRequest(body, headers)));
}

/** Sends JSON, which must be answered with 200. */
export async function ask(server: Pick<Server, "fetch">, path: string, body: object) {
  const { status, json, text } = await post(server, path, body);
  equal([status, text.slice(0, status === 200 ? 0 : 400)], [200, ""], path);
  return json;
}

/** Sends JSON with `stream`, and takes the events, whose last one must be `[DONE]`. */
export async function stream(
  { fetch }: Pick<Server, "fetch">,
  path: string,
  body: object,
): Promise<Json[]> {
  const response = await fetch(path, jsonRequest({ ...body, stream: true }));
  const { status, headers, text } = await read(response);
  equal([status, text.slice(0, status === 200 ? 0 : 400)], [200, ""], path);
  equal(headers.get("content-type")?.replace(/; *charset=utf-8$/i, ""), "text/event-stream");
  const data = eventsOf(text);
  equal(data.at(-1), "[DONE]");
  return data.slice(0, -1).map((one) => JSON.parse(one));
}

/**
 * The data of server-sent events. Strict: fields of other names, comments, and what follows the last
 * blank line are errors, since this server has no use for them.
 */
export function eventsOf(text: string): string[] {
  const blocks = text.split("\n\n");
  equal(blocks.pop(), "", "what follows the last event");
  return blocks.map((block) => {
    const lines = block.split("\n");
    for (const line of lines) ok(line.startsWith("data: "), `a line of data: ${line}`);
    return lines.map((line) => line.slice(6)).join("\n");
  });
}

/** What the model itself gives. */
export interface Expected {
  readonly text: string;
  readonly pieces: readonly TextPiece[];
  readonly end: EndPiece;
}

/** What `generate` gives for a prompt. */
export async function expected(
  { model }: Known,
  prompt: Prompt,
  options: GenerationOptions,
): Promise<Expected> {
  const all = await Array.fromAsync(model.generate(prompt, options));
  const end = all.pop() as EndPiece;
  const pieces = all as TextPiece[];
  return { text: pieces.map(({ text }) => text).join(""), pieces, end };
}

/** Checks that something holds. */
export function ok(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`it does not hold: ${what}`);
}

/** Checks that two values are the same JSON; a key without a value counts as none. */
export function equal(found: unknown, wanted: unknown, what = "a value"): void {
  const path = difference(found, wanted, "");
  if (path === undefined) return;
  throw new Error(
    `${what}${path}: found ${shown(found)}, expected ${shown(wanted)}`,
  );
}

/** Where two values differ: a path; undefined where they do not. */
function difference(a: unknown, b: unknown, path: string): string | undefined {
  if (Object.is(a, b)) return undefined;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return path;
  if (Array.isArray(a) !== Array.isArray(b)) return path;
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const found = difference(
      (a as Record<string, unknown>)[key],
      (b as Record<string, unknown>)[key],
      `${path}.${key}`,
    );
    if (found !== undefined) return found;
  }
  return undefined;
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 600);
}
