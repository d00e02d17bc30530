/** An engine whose model is a function in the test. @module */
import type { EngineModel, ModelInfo, RunOptions, Sequence } from "../../src/engine/model.ts";
import {
  AbortError,
  ContextOverflowError,
  ModelClosedError,
  TokenRangeError,
} from "../../src/errors.ts";

/** What a toy model is. */
export interface ToyOptions {
  readonly vocabulary: number;
  readonly context?: number;
  /** The logits after tokens; `[vocabulary]`. */
  readonly logits: (tokens: readonly number[]) => ArrayLike<number>;
  /** Called before each run, which waits for it. */
  readonly beforeRun?: (tokens: readonly number[], run: number) => unknown;
  /** Whether a sequence can begin with what the last one has left. */
  readonly reusesPrefix?: boolean;
  /** Sequences that run at once, each with logits of its own. */
  readonly together?: number;
  /** Whether it says that it computes elsewhere. */
  readonly background?: boolean;
}

/** A model that keeps its promises by the letter, and writes down what it is asked to do. */
export class ToyModel implements EngineModel {
  readonly info: ModelInfo;
  /** The tokens of each run. */
  readonly runs: number[][] = [];
  opened = 0;
  closed = 0;
  readonly #options: ToyOptions;
  #left: number[] = [];

  constructor(options: ToyOptions) {
    this.#options = options;
    this.info = {
      engine: "sparse",
      device: "a test",
      threads: 1,
      vocabulary: options.vocabulary,
      context: options.context ?? 1000,
      weightBytes: 0,
      cacheBytesPerToken: 0,
      together: options.together,
      background: options.background,
    };
  }

  open(prompt: ArrayLike<number> = []): Sequence {
    this.opened++;
    const tokens: number[] = [];
    while (
      this.#options.reusesPrefix && tokens.length < prompt.length - 1 &&
      this.#left[tokens.length] === prompt[tokens.length]
    ) {
      tokens.push(prompt[tokens.length]);
    }
    let open = true;
    const logits = new Float32Array(this.info.vocabulary);
    const run = async (more: ArrayLike<number>, options: RunOptions = {}) => {
      if (!open) throw new ModelClosedError("the sequence is closed");
      const { context, vocabulary } = this.info;
      const added = Array.from(more);
      if (added.length === 0) throw new Error("a run needs a token");
      if (tokens.length + added.length > context) throw new ContextOverflowError("no room");
      if (added.some((id) => !(id >= 0 && id < vocabulary))) throw new TokenRangeError("no token");
      this.runs.push(added);
      // What the run before gave holds no longer.
      logits.fill(NaN);
      await this.#options.beforeRun?.(added, this.runs.length);
      if (options.signal?.aborted) throw new AbortError("stopped by the engine");
      if (!open) throw new ModelClosedError("the sequence was closed while it ran");
      tokens.push(...added);
      logits.set(Array.from(this.#options.logits(tokens)));
      // Of those that do not matter no more is promised than that they are further below the largest.
      const floor = Math.max(...logits) - (options.within ?? Infinity);
      for (const [id, logit] of logits.entries()) if (logit < floor) logits[id] = -3e38;
      return logits;
    };
    return {
      // As a sequence of our engine: what it had belongs to others then.
      get length() {
        return open ? tokens.length : 0;
      },
      run,
      truncate: (length) => {
        if (!open) throw new ModelClosedError("the sequence is closed");
        tokens.length = Math.min(tokens.length, length);
      },
      close: () => {
        if (!open) throw new Error("closed twice");
        open = false;
        this.closed++;
        this.#left = [...tokens];
      },
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Logits that leave no doubt: 10 for one token, 0 for all others. */
export function certainly(token: number, vocabulary: number): Float32Array {
  const logits = new Float32Array(vocabulary);
  logits[token] = 10;
  return logits;
}
