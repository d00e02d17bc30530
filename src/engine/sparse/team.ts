/**
 * The threads that run a program together.
 * @module
 */
import { BackendError, WorkerLostError } from "../../errors.ts";
import { startThread, type Thread } from "../../platform/threads.ts";
import { CONTROL } from "./layout.ts";
import type { EngineMemory } from "./memory.ts";

/** Milliseconds in which a thread has to start. */
const START = 20_000;

/** A thread's whole script: it goes into the kernels and stays there until it is told to quit. */
const SCRIPT = `
self.onmessage = ({ data: { module, memory, thread } }) => {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  self.postMessage("ready");
  try {
    exports.work(thread);
  } catch (error) {
    // Others may be waiting for it, and see no event before they stop.
    Atomics.store(new Int32Array(memory.buffer, ${CONTROL.FAILED}, 1), 0, 1);
    throw error;
  }
  self.postMessage("done");
};
`;

/** All threads but the one that calls. */
export class Team {
  readonly #memory: EngineMemory;
  readonly #threads: Thread[] = [];

  private constructor(memory: EngineMemory) {
    this.#memory = memory;
  }

  /**
   * Starts threads; they wait for the first run.
   *
   * @param count Threads beside the caller's.
   * @throws {BackendError} When one does not start.
   */
  static async start(
    memory: EngineMemory,
    module: WebAssembly.Module,
    count: number,
  ): Promise<Team> {
    const team = new Team(memory);
    try {
      await Promise.all(Array.from({ length: count }, (_, i) => team.#start(module, i + 1)));
    } catch (error) {
      team.stop();
      throw error;
    }
    return team;
  }

  async #start(module: WebAssembly.Module, thread: number): Promise<void> {
    let settle: (failure?: string) => void = () => {};
    const ready = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => settle(`it did not answer in ${START / 1000} s`), START);
      settle = (failure) => {
        clearTimeout(timer);
        if (failure === undefined) return resolve();
        reject(new BackendError(`thread ${thread} of the engine did not start: ${failure}`));
      };
    });
    try {
      const started = await startThread(SCRIPT, {
        onMessage: () => settle(),
        // After the start as well: then the run that waits for it is told.
        onError: (reason) => {
          this.#memory.set(CONTROL.FAILED, 1);
          settle(reason);
        },
      });
      this.#threads.push(started);
      started.post({ module, memory: this.#memory.memory, thread });
    } catch (error) {
      settle(error instanceof Error ? error.message : String(error));
    }
    await ready;
  }

  /** What to say when a run found that a thread is lost. */
  lost(): WorkerLostError {
    return new WorkerLostError(
      "a thread of the engine died or does not answer: close the model and load it again",
    );
  }

  /** Ends the threads. */
  stop(): void {
    const words = this.#memory.words(0, 64);
    if (this.#threads.length > 0) {
      Atomics.store(words, CONTROL.QUIT / 4, 1);
      Atomics.add(words, CONTROL.EPOCH / 4, 1);
      Atomics.notify(words, CONTROL.EPOCH / 4);
    }
    for (const thread of this.#threads.splice(0)) thread.terminate();
  }
}
