/**
 * Asking a server again: a model comes in many requests, and on the way some connection breaks off, or some answer is
 * that the server is busy.
 * @module
 */
import { AbortError, FileReadError } from "../errors.ts";
import { retryAfter } from "../platform/retry_after.ts";
import { sleep } from "../platform/sleep.ts";

/** Milliseconds before each further attempt, as long as none brings anything. */
export const WAITS: readonly number[] = [250, 1000, 4000];

/** Statuses of servers, and of what stands before them, that are busy, or away for a moment. */
const BUSY = [429, 502, 503, 504];
/** Milliseconds that a server may ask to be left alone; one that asks for more is not waited for. */
const LONGEST_WAIT = 60_000;
/** Errors that tell of such an answer, and the milliseconds that it asks to be left alone. */
const busy = new WeakMap<FileReadError, number>();

/** How it is done. */
export interface Again {
  /** Milliseconds before each further attempt: looked at when one has failed. */
  readonly waits: () => readonly number[];
  readonly signal?: AbortSignal;
  /** Bytes that attempts have brought, where the next one goes on from there. */
  readonly done?: () => number;
}

/**
 * Makes attempts until one comes to its end.
 *
 * @returns What that one gave.
 * @throws What an attempt throws that does not pass by itself; what the last one threw, and how often it was tried.
 * @throws {AbortError} When the signal says so between two of them.
 */
export async function again<T>(attempt: () => Promise<T>, how: Again): Promise<T> {
  const { signal, done = () => 0 } = how;
  for (let fruitless = 0;;) {
    const before = done();
    try {
      return await attempt();
    } catch (error) {
      if (!mayPass(error)) throw error;
      fruitless = done() > before ? 1 : fruitless + 1;
      const waits = how.waits();
      if (fruitless > waits.length) throw fruitless === 1 ? error : toldOften(error, fruitless);
      const asked = busy.get(error) ?? 0;
      if (asked > LONGEST_WAIT) throw toldLater(error, asked);
      await sleep(Math.max(waits[fruitless - 1], asked), signal).catch((cause) => {
        throw new AbortError(`stopped before the end: ${error.message}`, { cause });
      });
    }
  }
}

/** Errors of connections: there was no answer, or none to its end. */
const broken = new WeakSet<FileReadError>();

/** The error for a connection that broke off, or never came about. */
export function brokenOff(message: string, cause: unknown): FileReadError {
  const error = new FileReadError(message, { cause });
  broken.add(error);
  return error;
}

/** The error for an answer that is no success: that of a server that is busy may be another one soon. */
export function refused(message: string, { status, headers }: Response): FileReadError {
  const error = new FileReadError(message);
  if (BUSY.includes(status)) busy.set(error, 1000 * (retryAfter(headers) ?? 0));
  return error;
}

function mayPass(error: unknown): error is FileReadError {
  return isBroken(error) || busy.has(error as FileReadError);
}

/** Whether a failure is the network's: there was no answer, or none to its end. */
export function isBroken(error: unknown): boolean {
  return broken.has(error as FileReadError);
}

function toldLater({ message }: FileReadError, asked: number): FileReadError {
  return new FileReadError(`${message}, and asks to be left alone for ${asked / 1000} s`);
}

function toldOften({ message, cause }: FileReadError, times: number): FileReadError {
  const told = `${message} (${times} times one after the other`;
  return cause === undefined
    ? new FileReadError(`${told}: try again later)`)
    : brokenOff(`${told}: see to the connection, and try again)`, cause);
}
