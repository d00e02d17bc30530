/**
 * Asking a server again: a model comes in many requests, and on the way some connection breaks off, or some answer is
 * that the server is busy.
 * @module
 */
import { AbortError, FileReadError } from "../errors.ts";
import { sleep } from "../platform/sleep.ts";

/** Milliseconds before each further attempt, as long as none brings anything. */
export const WAITS: readonly number[] = [250, 1000, 4000];

/** Statuses of servers, and of what stands before them, that are busy, or away for a moment. */
const BUSY = [429, 502, 503, 504];
/** Errors that tell of such an answer. */
const busy = new WeakSet<FileReadError>();

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
      await sleep(waits[fruitless - 1], signal).catch((cause) => {
        throw new AbortError(`stopped before the end: ${error.message}`, { cause });
      });
    }
  }
}

/** The error for an answer that is no success: that of a server that is busy may be another one soon. */
export function refused(message: string, status: number): FileReadError {
  const error = new FileReadError(message);
  if (BUSY.includes(status)) busy.add(error);
  return error;
}

function mayPass(error: unknown): error is FileReadError {
  return isBroken(error) || busy.has(error as FileReadError);
}

/** Whether a failure is the network's: there was no answer, or none to its end. */
export function isBroken(error: unknown): error is FileReadError {
  return error instanceof FileReadError && error.cause !== undefined;
}

function toldOften({ message, cause }: FileReadError, times: number): FileReadError {
  const told = `${message} (${times} times one after the other`;
  return cause === undefined
    ? new FileReadError(`${told}: try again later)`)
    : new FileReadError(`${told}: see to the connection, and try again)`, { cause });
}
