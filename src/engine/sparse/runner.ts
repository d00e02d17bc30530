/**
 * Who computes a run: the caller's thread, or others while it does something else.
 * @module
 */
import { letEventsIn } from "../../platform/events.ts";
import { CONTROL } from "./layout.ts";
import type { Setup } from "./setup.ts";
import { Ways } from "./ways.ts";

/** Runs programs; short ones on the caller's thread, where `setup.ts` says that this is faster. */
export class Runner {
  readonly #setup: Setup;
  readonly #ways: Ways;
  /** Milliseconds that the last run of so many tokens took; a prompt's hundreds are none of them. */
  readonly #took = new Float64Array(32).fill(Infinity);

  constructor(setup: Setup) {
    this.#setup = setup;
    this.#ways = new Ways(setup.threads);
  }

  /**
   * Runs the program that is written down.
   *
   * @param tokens Tokens of the run.
   * @returns Whether it was done; false when a thread was lost.
   */
  async run(tokens: number): Promise<boolean> {
    const { background, memory, team, kernels, shortRun } = this.#setup;
    const isCallers = !background || this.#took[tokens] < shortRun;
    // The text of the token before is sent, and requests come in.
    if (background && isCallers) await letEventsIn();
    if (tokens === 1) {
      const { places, least, chunks } = this.#ways.next;
      memory.set(CONTROL.PLACES, places);
      memory.set(CONTROL.LEAST_PLACE, least);
      memory.set(CONTROL.CHUNKS_OF_ONE, chunks);
    }
    const started = performance.now();
    const isDone = isCallers ? kernels.run() === 0 : await team.run();
    const took = performance.now() - started;
    if (tokens < this.#took.length) this.#took[tokens] = took;
    if (tokens === 1 && isDone) this.#ways.took(took);
    return isDone;
  }
}
