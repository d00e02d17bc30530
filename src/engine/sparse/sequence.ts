/**
 * A sequence of the sparse engine: cuts runs into pieces, and stops between them.
 * @module
 */
import { AbortError, ModelClosedError, UsageError } from "../../errors.ts";
import { letEventsIn } from "../../platform/events.ts";
import { roomForLogits } from "../logits.ts";
import type { RunOptions, Sequence } from "../model.ts";
import { checkRun } from "../tokens.ts";
import { BATCH, BATCH_WITH_LOGITS, type Piece } from "./batches.ts";
import type { CachedTokens } from "./cache.ts";

/** What a sequence asks of its model. */
export interface Steps {
  /** Throws when tokens cannot be run. */
  check(tokens: readonly number[]): void;
  /** Computes a piece. */
  step(piece: Piece): Promise<void>;
  /** Takes the cache over. */
  keep(): void;
  readonly vocabulary: number;
  readonly background: boolean;
}

export class SparseSequence implements Sequence {
  readonly #cached: CachedTokens;
  readonly #steps: Steps;
  #isClosed = false;
  /** Whether a piece is computed, or waits for its turn: the cache is then in use. */
  #isInUse = false;
  /** Runs that have not ended. */
  #pending = 0;
  /** Settles when the runs before have ended. */
  #last: Promise<unknown> = Promise.resolve();
  /** The last token's logits: the engine's own may be overwritten at any time, by another sequence's. */
  #logits: Float32Array | undefined;
  /** The largest of them, and which that is, where no other was asked for. */
  #largest: Float32Array | undefined;
  #found = 0;
  #likeliest: number | undefined;

  constructor(cached: CachedTokens, steps: Steps) {
    this.#cached = cached;
    this.#steps = steps;
  }

  get length(): number {
    // Another sequence may go on with the cache of one that is closed.
    return this.#isClosed ? 0 : this.#cached.length;
  }

  get likeliest(): number | undefined {
    return this.#likeliest;
  }

  async run(tokens: ArrayLike<number>, options: RunOptions = {}): Promise<Float32Array> {
    checkRun(tokens, options);
    const ids = Array.from(tokens);
    this.#pending++;
    const result = this.#last.then(() => this.#run(ids, options));
    this.#last = result.catch(() => {});
    return await result;
  }

  async #run(ids: readonly number[], options: RunOptions): Promise<Float32Array> {
    try {
      this.#assertOpen();
      this.#steps.check(ids);
      return await this.#runPieces(ids, options);
    } catch (error) {
      if (!this.#isClosed) this.#cached.trim();
      throw error;
    } finally {
      this.#pending--;
    }
  }

  async #runPieces(
    ids: readonly number[],
    { signal, logits, within }: RunOptions,
  ): Promise<Float32Array> {
    const { vocabulary, background } = this.#steps;
    const all = logits === "all" ? roomForLogits(ids.length, vocabulary) : undefined;
    if (this.#cached.again.length > 0) await this.#computeAgain(ids.length, signal);
    const most = all ? BATCH_WITH_LOGITS : BATCH;
    let given: Float32Array = all ?? new Float32Array(0);
    const point = this.#cached.pointWithin(ids.length) ?? 0;
    for (let done = 0;;) {
      const tokens = ids.slice(done, Math.min(done + most, done < point ? point : Infinity));
      const isLast = done + tokens.length === ids.length;
      const assertGoingOn = () => {
        if (signal?.aborted) throw new AbortError(`stopped after ${done} of ${ids.length} tokens`);
        this.#assertOpen();
      };
      const take = (rows: Float32Array, likeliest: number | undefined) => {
        this.#likeliest = likeliest;
        if (all) copyRows(rows, tokens.length, all.subarray(done * vocabulary), vocabulary);
        else if (isLast) {
          given = within === 0 && likeliest !== undefined && Number.isFinite(rows[likeliest])
            ? this.#largestOf(rows, likeliest)
            : this.#lastOf(rows.subarray(0, vocabulary));
        }
      };
      assertGoingOn();
      await this.#step({
        tokens,
        rest: ids.length - done,
        logits: all ? "all" : isLast ? "last" : "none",
        within: all ? undefined : within,
        keepsPoint: done + tokens.length === point,
        assertGoingOn,
        take,
      });
      done += tokens.length;
      if (isLast) return given;
      if (!background) await letEventsIn();
    }
  }

  /** Computes tokens that the sequence went back behind: fewer than a page has, or all that there are. */
  async #computeAgain(more: number, signal: AbortSignal | undefined): Promise<void> {
    for (let { again } = this.#cached; again.length > 0; { again } = this.#cached) {
      await this.#step({
        tokens: again.slice(0, BATCH),
        rest: again.length + more,
        logits: "none",
        assertGoingOn: () => {
          if (signal?.aborted) throw new AbortError("stopped while tokens were computed again");
          this.#assertOpen();
        },
        take: () => {},
      });
      if (!this.#steps.background) await letEventsIn();
    }
  }

  async #step(piece: Piece): Promise<void> {
    this.#isInUse = true;
    try {
      await this.#steps.step(piece);
    } finally {
      this.#isInUse = false;
      if (this.#isClosed) this.#steps.keep();
    }
  }

  #lastOf(row: Float32Array): Float32Array {
    this.#logits ??= new Float32Array(row.length);
    this.#logits.set(row);
    return this.#logits;
  }

  /** The largest logit alone: to copy all of them takes a hundredth of a token. */
  #largestOf(row: Float32Array, likeliest: number): Float32Array {
    const given = this.#largest ??= new Float32Array(this.#steps.vocabulary).fill(-Infinity);
    given[this.#found] = -Infinity;
    this.#found = likeliest;
    given[likeliest] = row[likeliest];
    return given;
  }

  truncate(length: number): void {
    this.#assertOpen();
    if (this.#pending > 0) {
      throw new UsageError("a run of the sequence has not ended: wait for it, then cut");
    }
    if (!Number.isInteger(length) || length < 0 || length > this.length) {
      throw new UsageError(`a sequence of ${this.length} tokens cannot be cut to ${length}`);
    }
    this.#cached.truncate(length);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // What is written to now is handed over when that has ended.
    if (!this.#isInUse) this.#steps.keep();
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new ModelClosedError("the sequence has been closed");
  }
}

/** Copies rows without what lies behind each. */
function copyRows(from: Float32Array, rows: number, to: Float32Array, width: number): void {
  const stride = from.length / rows;
  for (let i = 0; i < rows; i++) to.set(from.subarray(i * stride, i * stride + width), i * width);
}
