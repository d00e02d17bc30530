/**
 * Checks of what callers hand over, and how messages name what they were given.
 * @module
 */
import { AbortError, UsageError } from "./errors.ts";

/**
 * Throws {@linkcode AbortError} when `signal` has been aborted.
 *
 * @param signal The caller's signal, if there is one.
 * @throws {AbortError} When it has been aborted.
 */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError("stopped before the end: nothing was written");
}

/**
 * What is thrown for work that was stopped when it had measured something, which the next run has.
 *
 * @param path Where that is kept.
 * @param how What the command must have, or not, to go on from there.
 */
export function stoppedKeeping(path: string, cause: AbortError, how = ""): AbortError {
  return new AbortError(
    `stopped before the end: what was measured is kept in ${path}, and the same command ${how}goes on from there`,
    { cause },
  );
}

/** @throws {UsageError} When it is something else than an `AbortSignal`, e.g. the controller that has one. */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  const { aborted, addEventListener } = (signal ?? {}) as Partial<AbortSignal>;
  if (typeof aborted === "boolean" && typeof addEventListener === "function") return;
  throw new UsageError("signal must be an AbortSignal: of an AbortController, its signal");
}

/**
 * Checks options that callers hand over: who writes JavaScript may hand over anything.
 *
 * @param what What they are called.
 * @param example How they are written.
 * @throws {UsageError} When they are no object.
 */
export function checkObject(value: unknown, what: string, example: string): void {
  if (typeof value === "object" && value !== null) return;
  throw new UsageError(`${what} must be an object, e.g. ${example}`);
}

/** @throws {UsageError} When tokens that callers hand over are no list. */
export function checkTokens(tokens: unknown): void {
  if (typeof tokens === "object" && tokens !== null && "length" in tokens) return;
  throw new UsageError("tokens must be a list of token ids");
}

/** A name for messages: it may come from a damaged file, and be of any length. */
export function quote(text: string): string {
  return withoutControls(JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text));
}

/**
 * Text that comes from a model, a file or a server, with its control characters as numbers: a terminal would obey them,
 * and a log take what follows for a line of its own.
 *
 * @param kept Those that stay, e.g. line breaks.
 */
export function withoutControls(text: string, kept = ""): string {
  return text.replaceAll(
    /[\p{Cc}\u2028\u2029]/gu,
    (sign) => kept.includes(sign) ? sign : `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
