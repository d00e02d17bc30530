/**
 * What OpenAI's interface has and this server has not: refused where it would change the answer, so that
 * nobody waits for a tool call that never comes.
 * @module
 */
import { badRequest } from "./errors.ts";

/** Why a field cannot be served. */
interface Refusal {
  readonly field: string;
  readonly why: string;
  /** Values that ask for nothing, in this request. */
  readonly harmless?: (value: unknown, request: Readonly<Record<string, unknown>>) => boolean;
}

const isEmpty = (value: unknown) => Array.isArray(value) && value.length === 0;

const IN_CHAT: readonly Refusal[] = [
  { field: "tools", why: "tools are not supported", harmless: isEmpty },
  { field: "functions", why: "functions are not supported", harmless: isEmpty },
  {
    field: "tool_choice",
    why: "tools are not supported",
    harmless: (value) => value === "none" || value === "auto",
  },
  {
    field: "function_call",
    why: "functions are not supported",
    harmless: (value) => value === "none" || value === "auto",
  },
  { field: "audio", why: "audio is not supported" },
  {
    field: "modalities",
    why: "only text is supported",
    harmless: (value) => Array.isArray(value) && value.every((kind) => kind === "text"),
  },
  { field: "prediction", why: "predicted outputs are not supported" },
  { field: "web_search_options", why: "web search is not supported" },
];

const IN_COMPLETIONS: readonly Refusal[] = [
  { field: "echo", why: "echo is not supported", harmless: (value) => value === false },
  {
    field: "suffix",
    why: "text cannot be inserted before a suffix",
    harmless: (value) => value === "",
  },
  {
    field: "best_of",
    why: "best_of is not supported: use n",
    // As many as are given out: none is to be left out for a better one.
    harmless: (value, { n }) => value === (n ?? 1),
  },
  {
    field: "response_format",
    why: "a text is continued as it is: ask /v1/chat/completions for a form",
    harmless: (value) => (value as { readonly type?: unknown }).type === "text",
  },
];

/** Refuses a request for a conversation. */
export function refuseInChat(request: Readonly<Record<string, unknown>>): void {
  refuse(request, IN_CHAT);
}

/** Refuses a request for a text. */
export function refuseInCompletions(request: Readonly<Record<string, unknown>>): void {
  refuse(request, IN_COMPLETIONS);
}

function refuse(request: Readonly<Record<string, unknown>>, refusals: readonly Refusal[]): void {
  for (const { field, why, harmless } of refusals) {
    const value = request[field];
    if (value === undefined || value === null || harmless?.(value, request)) continue;
    throw badRequest(`${field}: ${why}`, field, "unsupported_parameter");
  }
}
