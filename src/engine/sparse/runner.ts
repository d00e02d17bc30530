/**
 * Who computes a run: the caller's thread, or others while it does something else.
 * @module
 */
import { letEventsIn } from "../../platform/events.ts";
import type { Setup } from "./setup.ts";

/** Runs programs; short ones on the caller's thread, where `setup.ts` says that this is faster. */
export class Runner {
  readonly #setup: Setup;
  /** Milliseconds that the last run of so many tokens took; a prompt's hundreds are none of them. */
  readonly #took = new Float64Array(32).fill(Infinity);

  constructor(setup: Setup) {
    this.#setup = setup;
  }

  /**
   * Runs the program that is written down.
   *
   * @param tokens Tokens of the run.
   * @returns Whether it was done; false when a thread was lost.
   */
  async run(tokens: number): Promise<boolean> {
    const { background, team, kernels, shortRun } = this.#setup;
    if (!background) return kernels.run() === 0;
    const isShort = this.#took[tokens] < shortRun;
    // The text of the token before is sent, and requests come in.
    if (isShort) await letEventsIn();
    const started = performance.now();
    const isDone = isShort ? kernels.run() === 0 : await team.run();
    if (tokens < this.#took.length) this.#took[tokens] = performance.now() - started;
    return isDone;
  }
}
