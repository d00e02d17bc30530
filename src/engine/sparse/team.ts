/**
 * The threads that run a program together: with the caller's among them, or by themselves.
 * @module
 */
import { BackendError, WorkerLostError } from "../../errors.ts";
import { startThread, type Thread, type ThreadListener } from "../../platform/threads.ts";
import { CONTROL } from "./layout.ts";
import type { EngineMemory } from "./memory.ts";

/** Milliseconds in which a thread has to start. */
const START = 20_000;
/** Times that one looks, within the patience, whether the leader still makes progress. */
const LOOKS = 10;

/**
 * A thread's whole script: it goes into the kernels, packs weights as long as there are any, and stays there
 * until it is told to quit. The first thread leads: it comes back after each run, to tell.
 */
const SCRIPT = `
self.onmessage = ({ data: { module, memory, thread } }) => {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  self.postMessage("ready");
  try {
    exports.helpToEnd();
    if (thread > 0) exports.work(thread);
    else for (let ended; (ended = exports.lead()) >= 0;) self.postMessage(ended);
  } catch (error) {
    // Others may be waiting for it, and see no event before they stop.
    Atomics.store(new Int32Array(memory.buffer, ${CONTROL.FAILED}, 1), 0, 1);
    throw error;
  }
  self.postMessage("done");
};
`;

/** How a team runs. */
export interface TeamOptions {
  /** Threads that compute, the caller's included where it does. */
  readonly threads: number;
  /** Whether the caller computes nothing: all threads are then started, and one of them leads. */
  readonly background: boolean;
  /** Milliseconds without progress after which a leader counts as lost. */
  readonly patience: number;
}

/** What threads go into. */
export interface Workplace {
  readonly memory: EngineMemory;
  readonly module: WebAssembly.Module;
}

/** A thread that has been started, and what hears of it. */
interface Recruit {
  readonly number: number;
  readonly thread: Thread;
  readonly listener: ThreadListener & { failure?: string };
}

/** @throws {BackendError} When it does not start. */
async function recruit(number: number): Promise<Recruit> {
  const listener: Recruit["listener"] = {
    onMessage: () => {},
    onError: (reason) => void (listener.failure = reason),
  };
  try {
    return { number, thread: await startThread(SCRIPT, listener), listener };
  } catch (error) {
    throw notStarted(number, error instanceof Error ? error.message : String(error));
  }
}

function notStarted(thread: number, reason: string): BackendError {
  return new BackendError(`thread ${thread} of the engine did not start: ${reason}`);
}

/** All threads that are not the caller's. */
export class Team {
  readonly #memory: EngineMemory;
  /** Milliseconds. */
  readonly patience: number;
  readonly #threads: Thread[] = [];
  /** Ends the run that is waited for: whether it was done. */
  #end: (isDone: boolean) => void = () => {};

  private constructor(memory: EngineMemory, patience: number) {
    this.#memory = memory;
    this.patience = patience;
  }

  /**
   * Starts threads, which pack what is posted until {@linkcode Team.begin}. They start while the kernels are still
   * being compiled.
   *
   * @param entering What they go into.
   * @throws {BackendError} When one does not start.
   */
  static async start(
    entering: Promise<Workplace> | Workplace,
    { threads, background, patience }: TeamOptions,
  ): Promise<Team> {
    const first = background ? 0 : 1;
    const recruits = Array.from({ length: threads - first }, (_, i) => recruit(first + i));
    for (const recruit of recruits) recruit.catch(() => {});
    let team: Team | undefined;
    try {
      const { memory, module } = await entering;
      const made = team = new Team(memory, patience);
      await Promise.all(recruits.map(async (recruit) => made.#enter(await recruit, module)));
      return made;
    } catch (error) {
      // Not all runtimes end a thread that is in WebAssembly.
      team?.stop();
      for (const recruit of recruits) recruit.then(({ thread }) => thread.terminate(), () => {});
      throw error;
    }
  }

  /** Sends a thread into the kernels, and waits until it is there. */
  async #enter({ number, thread, listener }: Recruit, module: WebAssembly.Module): Promise<void> {
    let settle: (failure?: string) => void = () => {};
    const ready = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => settle(`it did not answer in ${START / 1000} s`), START);
      settle = (failure) => {
        clearTimeout(timer);
        if (failure === undefined) return resolve();
        reject(notStarted(number, failure));
      };
    });
    if (listener.failure !== undefined) settle(listener.failure);
    listener.onMessage = (message) => {
      if (typeof message === "number") this.#end(message === 0);
      else settle();
    };
    // After the start as well: then the run that waits for it is told.
    listener.onError = (reason) => {
      this.#memory.set(CONTROL.FAILED, 1);
      settle(reason);
      this.#end(false);
    };
    this.#threads.push(thread);
    try {
      thread.post({ module, memory: this.#memory.memory, thread: number });
    } catch (cause) {
      // A page that is not isolated shares no memory.
      settle(String(cause));
    }
    await ready;
  }

  /** Threads that have been started. */
  get threads(): number {
    return this.#threads.length;
  }

  /** Ends packing: threads wait for the first run. */
  begin(): void {
    this.#memory.set(CONTROL.ENDED, 1);
    this.#bump([CONTROL.SIGNAL]);
  }

  /**
   * Has the threads of a background team do a run; one at a time.
   *
   * It is started through shared memory, where the threads spin for a while and then sleep, and its end
   * comes as a message. What start and end take together, in µs (medians of 300 that took turns, after
   * 1 and 6 ms of computing; 99th percentiles were 1 to 6 ms throughout, on a machine in use by others):
   *
   * | start, end        | Deno 2.9 | Bun 1.4 | Node 20 |
   * | ----------------- | -------- | ------- | ------- |
   * | memory, waitAsync | 19, 28   | 18, 24  | 25, 50  |
   * | memory, message   | 29, 56   | 21, 20  | 28, 53  |
   * | message, message  | 49, 104  | 55, 23  | 34, 65  |
   *
   * `waitAsync` would gain half a percent of a token of 6 ms in one runtime; it is not everywhere.
   *
   * Beside a caller that sleeps in between and then chooses tokens for 150 µs, a token of SmolLM2-135M
   * (6 ms with one thread, 4 with two) took 2 to 4 % longer than in the foreground in Bun, 4 to 7 % in
   * Deno: threads that sleep wake up late. With two sequences it took no longer, since one computes while
   * the other's token is chosen.
   *
   * @param isAlone Whether the first of them does it alone: the others are then left to sleep.
   * @returns Whether it was done; false when a thread was lost.
   */
  run(isAlone: boolean): Promise<boolean> {
    if (this.#memory.get(CONTROL.FAILED) !== 0) return Promise.resolve(false);
    return new Promise((resolve) => {
      // A leader that was ended from outside says nothing. The timer also keeps the process.
      let progress = this.#memory.get(CONTROL.PROGRESS);
      let still = 0;
      const look = () => {
        const now = this.#memory.get(CONTROL.PROGRESS);
        still = now === progress ? still + 1 : 0;
        progress = now;
        if (still < LOOKS) return;
        this.#memory.set(CONTROL.FAILED, 1);
        this.#end(false);
      };
      const timer = setInterval(look, Math.ceil(this.patience / LOOKS));
      this.#end = (isDone) => {
        clearInterval(timer);
        this.#end = () => {};
        resolve(isDone);
      };
      this.#bump(isAlone ? [CONTROL.LEAD] : [CONTROL.EPOCH, CONTROL.LEAD]);
    });
  }

  /** What to say when a thread is lost. */
  readonly lost = (): WorkerLostError => {
    return new WorkerLostError(
      "a thread of the engine died or does not answer: close the model and load it again",
    );
  };

  /** Ends the threads. */
  stop(): void {
    if (this.#threads.length > 0) {
      this.#memory.set(CONTROL.QUIT, 1);
      this.#bump([CONTROL.SIGNAL, CONTROL.EPOCH, CONTROL.LEAD]);
    }
    for (const thread of this.#threads.splice(0)) thread.terminate();
  }

  /** Changes words that threads wait for. */
  #bump(addresses: readonly number[]): void {
    const words = this.#memory.words(0, CONTROL.ENDED / 4);
    for (const address of addresses) {
      Atomics.add(words, address / 4, 1);
      Atomics.notify(words, address / 4);
    }
  }
}
