/**
 * What a program writes: results to standard output, all else to standard error.
 *
 * A runtime takes text faster than a slow reader of a pipe does, and forgets the rest when the process
 * ends: whoever ends it waits for {@linkcode allPrinted} first. What cannot be written is told by the
 * call itself in Deno where output is a file, later everywhere else.
 *
 * @module
 */
import process from "node:process";
import type { EspalierError } from "../errors.ts";
import { writeError } from "./file_errors.ts";

/** Texts that have not reached the reader yet. */
let pending = 0;
let wake = () => {};
/** Whether errors of standard error have their listener. */
let isHeard = false;
let take: ((error: EspalierError | undefined) => void) | undefined;

/**
 * Writes to standard output.
 *
 * @throws {EspalierError} When it cannot be written and nobody has asked to be told.
 */
export function print(text: string): void {
  // Bun's callback comes at once then, whatever is still on its way.
  if (text === "") return;
  pending++;
  try {
    process.stdout.write(text, (error?: Error | null) => {
      if (error) failed(error);
      settle();
    });
  } catch (cause) {
    settle();
    failed(cause);
  }
}

/** Writes to standard error. Where that cannot be, as at a terminal that was closed, nobody is told. */
export function tell(text: string): void {
  if (!isHeard) process.stderr.on("error", () => {});
  isHeard = true;
  try {
    process.stderr.write(text);
  } catch {
    // Deno throws at once; elsewhere it is an event, which that listener takes.
  }
}

/** Waits until all that was printed has reached its reader. */
export async function allPrinted(): Promise<void> {
  while (pending > 0) await new Promise<void>((resolve) => wake = resolve);
}

/**
 * Tells when standard output cannot be written.
 *
 * @param taker Gets the error; undefined for a reader that has gone away (`… | head`): none of ours.
 */
export function onOutputFailure(taker: (error: EspalierError | undefined) => void): void {
  take = taker;
  process.stdout.on("error", failed);
}

function failed(cause: unknown): void {
  const hasGone = (cause as { code?: string } | null)?.code === "EPIPE";
  const error = hasGone ? undefined : writeError("standard output", cause);
  if (take) take(error);
  else if (error) throw error;
}

function settle(): void {
  pending--;
  wake();
}
