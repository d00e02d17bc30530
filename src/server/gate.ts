/**
 * Who may come in: so many generate at once, so many wait in line, and the rest is sent away.
 * @module
 */
import { AbortError } from "../errors.ts";
import { QueueFullError, QueueTimeoutError } from "./errors.ts";

/** How many, and for how long. */
export interface GateOptions {
  /** Sequences that generate at once. */
  readonly parallel: number;
  /** Requests that wait in line. */
  readonly queue: number;
  /** Milliseconds that one waits at most. */
  readonly patience: number;
}

/** One who waits. */
interface Waiting {
  readonly enter: () => void;
}

/** A place that was given; give it back once, when done. */
export type Leave = () => void;

/** First come, first served. */
export class Gate {
  readonly #options: GateOptions;
  readonly #line: Waiting[] = [];
  #inside = 0;
  /** Mean milliseconds that a place is held. */
  #held = 1000;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  get inside(): number {
    return this.#inside;
  }

  get waiting(): number {
    return this.#line.length;
  }

  /** Seconds after which a place may well be free for one who comes last. */
  get wait(): number {
    const { parallel } = this.#options;
    return Math.max(1, Math.ceil((this.#held * (this.#line.length + 1)) / parallel / 1000));
  }

  /**
   * Checks that there is room for so many more, at least in line.
   *
   * @throws {QueueFullError} When there is not.
   */
  assertRoom(count: number): void {
    const { parallel, queue } = this.#options;
    // What can never fit is the request's fault, and is told elsewhere.
    if (this.#inside + this.#line.length + count > parallel + queue && !this.#isEmpty()) {
      throw new QueueFullError(this.#line.length, this.wait);
    }
  }

  #isEmpty(): boolean {
    return this.#inside + this.#line.length === 0;
  }

  /**
   * Waits for a place.
   *
   * @param signal Leaves the line.
   * @param patience Milliseconds to wait at most; `Infinity` is for as long as it takes.
   * @throws {QueueTimeoutError} When it took too long.
   * @throws {AbortError} When the signal says so.
   */
  async enter(signal?: AbortSignal, patience = this.#options.patience): Promise<Leave> {
    if (signal?.aborted) throw new AbortError("the client has gone");
    if (this.#inside >= this.#options.parallel || this.#line.length > 0) {
      await this.#queue(signal, patience);
    } else this.#inside++;
    const since = performance.now();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#held += 0.1 * (performance.now() - since - this.#held);
      // The next one takes the place over, so that nobody comes in between.
      const next = this.#line.shift();
      if (next) next.enter();
      else this.#inside--;
    };
  }

  async #queue(signal: AbortSignal | undefined, patience: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let onAbort = () => {};
    try {
      await new Promise<void>((enter, reject) => {
        const waiting = { enter };
        const leave = (error: Error) => {
          const at = this.#line.indexOf(waiting);
          if (at < 0) return;
          this.#line.splice(at, 1);
          reject(error);
        };
        onAbort = () => leave(new AbortError("the client has gone"));
        if (patience < Infinity) {
          timer = setTimeout(() => leave(new QueueTimeoutError(patience, this.wait)), patience);
        }
        signal?.addEventListener("abort", onAbort);
        this.#line.push(waiting);
      });
    } finally {
      // Not where another gives the place: in edge runtimes nobody may touch another's timers and signals.
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    }
  }
}
