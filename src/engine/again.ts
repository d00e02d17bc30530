/**
 * Asking a server again: a model comes in many requests, and on the way some connection breaks off.
 * @module
 */
import { AbortError, FileReadError } from "../errors.ts";
import { sleep } from "../platform/sleep.ts";

/** Milliseconds before each further attempt, as long as none brings anything. */
export const WAITS: readonly number[] = [250, 1000, 4000];

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
 * @throws What an attempt throws that is no broken connection; what the last one threw, and how often it was tried.
 * @throws {AbortError} When the signal says so between two of them.
 */
export async function again<T>(attempt: () => Promise<T>, how: Again): Promise<T> {
  const { signal, done = () => 0 } = how;
  for (let fruitless = 0;;) {
    const before = done();
    try {
      return await attempt();
    } catch (error) {
      if (!isBroken(error)) throw error;
      fruitless = done() > before ? 1 : fruitless + 1;
      const waits = how.waits();
      if (fruitless > waits.length) throw fruitless === 1 ? error : toldOften(error, fruitless);
      await sleep(waits[fruitless - 1], signal).catch((cause) => {
        throw new AbortError(`stopped before the end: ${error.message}`, { cause });
      });
    }
  }
}

/** Whether a failure is the network's: there was no answer, or none to its end. */
export function isBroken(error: unknown): error is FileReadError {
  return error instanceof FileReadError && error.cause !== undefined;
}

function toldOften({ message, cause }: FileReadError, times: number): FileReadError {
  return new FileReadError(
    `${message} (${times} times one after the other: see to the connection, and try again)`,
    { cause },
  );
}
