/**
 * Work that is cut into steps, for callers that wait for it and for those that may want to stop it: a
 * generator that yields where there may be a pause, and returns the result.
 * @module
 */
import { throwIfAborted } from "../checks.ts";
import { letEventsIn } from "./events.ts";

/** Work in steps. */
export type Steps<Result> = Generator<void, Result, void>;

/** Does all steps at once. */
export function atOnce<Result>(steps: Steps<Result>): Result {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/**
 * Does the steps with pauses between them, in which events have their turn.
 *
 * @throws {AbortError} When the signal says so; the work has cleaned up then.
 */
export async function withPauses<Result>(
  steps: Steps<Result>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  try {
    for (;;) {
      throwIfAborted(signal);
      const { done, value } = steps.next();
      if (done) return value;
      await letEventsIn();
    }
  } finally {
    // Ends work that is not done.
    steps.return(undefined as never);
  }
}
