/**
 * Loading a model where nobody may be relied upon: at the first request, which may be over before the model
 * is there.
 *
 * In edge runtimes what a request has begun ends with it. So a load that makes no progress is taken for
 * dead by those who wait, and one of them begins anew.
 * @module
 */
import type { Model } from "../generate/model.ts";

/** Milliseconds without progress after which a load is taken for dead. */
const PATIENCE = 10_000;
/** Milliseconds between two looks at it, and looks in time that must have seen none: who computes lets nobody look. */
const LOOK = 500, LOOKS = 4;

/** Keeps a request's work going when its client has gone. */
export interface Execution {
  waitUntil(promise: Promise<unknown>): void;
}

/** What a load gets. */
export interface LoadHooks {
  /** Stops it. */
  readonly signal: AbortSignal;
  /** Says that it goes on. */
  onProgress(): void;
}

interface Flight {
  readonly model: Promise<Model>;
  readonly abort: AbortController;
  progress: number;
}

/** A model that is loaded once for all who want it, and again after a load that failed. */
export class Loading {
  readonly #open: (hooks: LoadHooks) => Promise<Model>;
  readonly #patience: number;
  #flight: Flight | undefined;

  /**
   * @param open Loads the model.
   * @param patience Milliseconds without progress after which a load is taken for dead.
   */
  constructor(open: (hooks: LoadHooks) => Promise<Model>, patience = PATIENCE) {
    this.#open = open;
    this.#patience = patience;
  }

  /**
   * The model.
   *
   * @param execution Of the request that wants it, where there is such a thing.
   * @throws What the load threw; the next call loads again.
   */
  async get(execution?: Execution): Promise<Model> {
    for (;;) {
      const flight = this.#flight ??= this.#start(execution);
      const watch = this.#watch(flight);
      try {
        const model = await Promise.race([flight.model, watch.isDead]);
        if (model) return model;
      } finally {
        watch.stop();
      }
      if (this.#flight !== flight) continue;
      this.#flight = undefined;
      flight.abort.abort();
    }
  }

  /** Lets go of the model that is there: the next call loads it anew. */
  drop(): void {
    const flight = this.#flight;
    this.#flight = undefined;
    flight?.abort.abort();
    // Its threads end; what it says of that is nobody's.
    flight?.model.then((model) => model.close()).catch(() => {});
  }

  #start(execution: Execution | undefined): Flight {
    const abort = new AbortController();
    const hooks = { signal: abort.signal, onProgress: () => flight.progress = Date.now() };
    const flight: Flight = {
      // Later, so that what it throws at once finds the flight.
      model: Promise.resolve().then(() => this.#open(hooks)),
      abort,
      progress: Date.now(),
    };
    const over = flight.model.then(() => {}, () => {
      if (this.#flight === flight) this.#flight = undefined;
    });
    execution?.waitUntil(over);
    return flight;
  }

  /** Looks at a flight by a timer of one's own: those of a request that is over never come. */
  #watch(flight: Flight): { isDead: Promise<undefined>; stop(): void } {
    let timer: ReturnType<typeof setInterval>;
    const isDead = new Promise<undefined>((resolve) => {
      const every = Math.min(LOOK, this.#patience);
      let [last, looks] = [Date.now(), 0];
      timer = setInterval(() => {
        const now = Date.now();
        looks = now - last > 2 * every ? 0 : looks + 1;
        last = now;
        if (looks >= LOOKS && now - flight.progress > this.#patience) resolve(undefined);
      }, every);
    });
    return { isDead, stop: () => clearInterval(timer) };
  }
}
