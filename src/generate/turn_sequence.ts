/**
 * A sequence that waits for its turns, and one run of it.
 * @module
 */
import type { EngineModel, RunOptions, Sequence } from "../engine/model.ts";
import { ModelClosedError } from "../errors.ts";

/** Runs of at most so many tokens count as generation. */
const SHORT = 2;

/** What gives turns. */
interface Host {
  run(
    sequence: TurnSequence,
    tokens: ArrayLike<number>,
    options: RunOptions,
  ): Promise<Float32Array>;
  leave(sequence: TurnSequence): void;
}

/** A run that waits for its turn, or for the rest of its tokens to be run. */
export class Waiting {
  /** Tokens that have been run. */
  done = 0;
  /** Whether it says who has the next turn. */
  chooses = false;
  /** Whether it may compute now. */
  hasTurn = false;
  /** Others for whom it then computes as well. */
  others: readonly Waiting[] = [];
  /** Whether it waits for memory, and is to look itself whether it is stopped meanwhile. */
  isParked = false;
  /** Whether there is a result. */
  isOver = false;
  readonly result: Promise<Float32Array>;
  #settle!: (result: Float32Array) => void;
  #fail!: (error: unknown) => void;
  #wake: (() => void) | undefined;

  constructor(
    readonly sequence: TurnSequence,
    readonly tokens: ArrayLike<number>,
    readonly options: RunOptions,
  ) {
    this.result = new Promise((settle, fail) => {
      this.#settle = settle;
      this.#fail = fail;
    });
    // It may fail while its owner is busy choosing who is next.
    this.result.catch(() => {});
  }

  /** Whether it counts as generation. */
  get isShort(): boolean {
    return this.tokens.length <= SHORT && !this.sequence.isReleased;
  }

  settle(result: Float32Array): void {
    this.isOver = true;
    this.#settle(result);
    this.call();
  }

  fail(error: unknown): void {
    this.isOver = true;
    this.#fail(error);
    this.call();
  }

  /** Wakes who waits: for its turn, to choose, or for a result. */
  call(): void {
    this.#wake?.();
  }

  /** Waits for the next call. */
  called(): Promise<void> {
    return new Promise((wake) => this.#wake = wake);
  }
}

/** A sequence that waits for its turn, and that may have to give its cache up and compute it again. */
export class TurnSequence implements Sequence {
  /** Whose it is. */
  readonly engine: EngineModel;
  readonly #host: Host;
  #inner: Sequence;
  /** What has been run: more than the engine's sequence holds once that was given up. */
  readonly #tokens: number[];
  /** Whether its cache was given up, and there is no sequence of the engine. */
  #isGone = false;
  #isReleased = false;
  #isClosed = false;

  /** @param prompt What it is going to begin with: the engine may have a part of it already. */
  constructor(engine: EngineModel, host: Host, prompt?: ArrayLike<number>) {
    this.engine = engine;
    this.#host = host;
    this.#inner = engine.open(prompt);
    this.#tokens = Array.prototype.slice.call(prompt ?? [], 0, this.#inner.length);
  }

  get length(): number {
    return this.#isReleased ? this.#tokens.length : this.#inner.length;
  }

  get likeliest(): number | undefined {
    return this.#inner.likeliest;
  }

  /** Whether its cache was given up, or is not whole again. */
  get isReleased(): boolean {
    return this.#isReleased;
  }

  /** Whether there is memory to be had by giving its cache up. */
  get holdsCache(): boolean {
    return !this.#isGone && this.#inner.length > 0;
  }

  run(tokens: ArrayLike<number>, options: RunOptions = {}): Promise<Float32Array> {
    if (this.#isClosed) {
      return Promise.reject(new ModelClosedError("the sequence has been closed"));
    }
    return this.#host.run(this, tokens, options);
  }

  /** Gives its cache up, while none of its runs is computed. */
  release(): void {
    this.#isReleased = true;
    this.#isGone = true;
    this.#inner.close();
  }

  /** Tokens that are to be computed again before others, where its cache was given up. */
  missing(): number[] {
    if (!this.#isReleased) return [];
    if (this.#isGone) {
      // The engine may have kept a part of what was given up.
      this.#inner = this.engine.open(this.#tokens);
      this.#isGone = false;
    }
    const missing = this.#tokens.slice(this.#inner.length);
    if (missing.length === 0) this.#isReleased = false;
    return missing;
  }

  /** Runs tokens in the engine, now: missing ones, or others when none is missing. */
  async compute(tokens: ArrayLike<number>, options: RunOptions): Promise<Float32Array> {
    const logits = await this.#inner.run(tokens, options);
    if (!this.#isReleased) { for (let i = 0; i < tokens.length; i++) this.#tokens.push(tokens[i]); }
    return logits;
  }

  truncate(length: number): void {
    // A sequence of the engine that was given up is closed; one that is not whole again may be shorter.
    const isCut = !this.#isReleased || length < this.#inner.length;
    if (isCut && !this.#isGone) this.#inner.truncate(length);
    this.#tokens.length = Math.min(this.#tokens.length, length);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (!this.#isGone) this.#inner.close();
    this.#host.leave(this);
  }
}
