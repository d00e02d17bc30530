/**
 * Who computes a run: the caller's thread, or others while it does something else.
 * @module
 */
import { letEventsIn } from "../../platform/events.ts";
import { Alone } from "./alone.ts";
import { CONTROL } from "./layout.ts";
import type { Setup } from "./setup.ts";
import { Ways } from "./ways.ts";

/** Runs programs; short ones on the caller's thread, where `setup.ts` says that this is faster. */
export class Runner {
  readonly #setup: Setup;
  readonly #ways: Ways;
  readonly #alone = new Alone();
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
    const { background, memory, team, kernels, shortRun, threads } = this.#setup;
    // One that computes alone would not notice.
    if (memory.get(CONTROL.FAILED) !== 0) return false;
    const isCallers = !background || this.#took[tokens] < shortRun;
    // The text of the token before is sent, and requests come in.
    if (background && isCallers) await letEventsIn();
    const way = this.#ways.next;
    const isAlone = tokens === 1 ? way.isAlone : this.#alone.choose(tokens, this.#ways.cost);
    memory.set(CONTROL.PLACES, way.places);
    memory.set(CONTROL.LEAST_PLACE, way.least);
    memory.set(CONTROL.CHUNKS_OF_ONE, way.chunks);
    memory.set(CONTROL.THREADS, isAlone ? 1 : threads);
    const started = performance.now();
    const isDone = isCallers ? kernels.run() === 0 : await team.run(isAlone);
    const took = performance.now() - started;
    if (tokens < this.#took.length) this.#took[tokens] = took;
    if (tokens > 1) this.#alone.took(tokens, isAlone, took);
    else if (isDone) this.#ways.took(took);
    return isDone;
  }
}
