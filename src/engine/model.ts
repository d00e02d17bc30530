/**
 * What every engine gives: a loaded model, and sequences of tokens that it steps through.
 * @module
 */

/** What a loaded model is, and what runs it. */
export interface ModelInfo {
  /** `sparse` is our own engine, `ort` ONNX Runtime. */
  readonly engine: "sparse" | "ort";
  /** What it runs on, for people: e.g. `WebAssembly (relaxed-fused), 2 threads, int8 activations, int8 cache`. */
  readonly device: string;
  readonly threads: number;
  /**
   * Whether it computes on threads of its own, so that the caller's event loop stays free during a run,
   * but for some that are short (`SparseOptions.shortRun`).
   * Runs of several sequences may then be asked for at once; what is not computed together takes turns.
   */
  readonly background?: boolean;
  /**
   * Sequences whose runs are computed at once where they are asked for at once, each with what it would
   * get alone (default: 1).
   */
  readonly together?: number;
  /** Logits of a token. */
  readonly vocabulary: number;
  /** Most tokens of a sequence. */
  readonly context: number;
  /** Bytes of the weights as they lie in memory. */
  readonly weightBytes: number;
  /** Bytes of tables that stay in their file, which is open as long as the model is (default: 0). */
  readonly tableBytesInFile?: number;
  /** Bytes of weights that are read for a token of which only the largest logit matters. Where the engine knows. */
  readonly tokenBytes?: number;
  /** Bytes of all that it holds without any cache: weights, buffers, tables. Where the engine knows. */
  readonly memoryBytes?: number;
  /** Bytes that the key/value cache takes for a token. */
  readonly cacheBytesPerToken: number;
  /** Bytes of what linear attention remembers of a sequence, however long it is (default: 0). */
  readonly stateBytes?: number;
}

/** What a caller may say of a run. */
export interface RunOptions {
  /** Stops between pieces of a long run; the sequence then holds the tokens that were run. */
  readonly signal?: AbortSignal;
  /** Which logits are given: the last token's (default), or all tokens', one row after the other. */
  readonly logits?: "last" | "all";
  /**
   * Of the last token's logits only those matter that are at most so much below the largest. Others may be
   * given as anything that is further below it, with 0 all but the largest, of equal ones the lowest; engines that
   * need not compute them are faster (default: all matter).
   */
  readonly within?: number;
}

/** One sequence of tokens, with its key/value cache. */
export interface Sequence {
  /** Tokens in the cache. */
  readonly length: number;
  /**
   * The id of the largest of the logits that the last run has given, of equal ones the lowest, where the engine has
   * found it on its way: nobody need look for it then.
   */
  readonly likeliest?: number | undefined;
  /**
   * Runs tokens after those in the cache.
   *
   * @param tokens At least one token id.
   * @returns Logits `[vocabulary]`, or `[tokens, vocabulary]`. They hold until the next run of the
   *   sequence, whatever others run meanwhile.
   * @throws {ContextOverflowError} When the tokens do not fit into the context; nothing has then run.
   * @throws {MemoryBudgetError} When there is no memory for their keys and values; nothing has then run,
   *   and the sequence is as it was.
   * @throws {TokenRangeError} When a token is not one of the vocabulary; nothing has then run.
   * @throws {AbortError} When the signal says so.
   */
  run(tokens: ArrayLike<number>, options?: RunOptions): Promise<Float32Array>;
  /**
   * Forgets all tokens but the first `length`.
   *
   * @throws {UsageError} When there are not as many, or a run has not ended.
   */
  truncate(length: number): void;
  /**
   * Gives its cache back, when what is being computed has ended. The sequence cannot be used afterwards;
   * a run that is not at its last piece fails with `ModelClosedError`.
   */
  close(): void;
}

/** What the key/value cache of a model holds at this moment. */
export interface CacheUse {
  /** Sequences that are open. */
  readonly sequences: number;
  /** Tokens of open sequences; a beginning that several share counts for each. */
  readonly tokens: number;
  /** Bytes that open sequences hold; what several share counts once. */
  readonly bytes: number;
  /** Bytes that are kept of closed sequences, for prompts that begin alike: they give way to open ones. */
  readonly keptBytes: number;
  /** Bytes that have been taken from the machine for the cache: those above, and room that is free. */
  readonly reservedBytes: number;
  /** Bytes that the cache may come to; undefined where the engine has no limit of its own. */
  readonly limitBytes?: number;
}

/** A loaded model. */
export interface EngineModel {
  readonly info: ModelInfo;
  /**
   * Opens a sequence.
   *
   * @param prompt Tokens that are going to be run. Where an engine still holds the cache of a common
   *   beginning, the sequence starts with it: its `length` says how many tokens need no run. It is
   *   always less than the prompt's length, so that logits of the last token can be had.
   */
  open(prompt?: ArrayLike<number>): Sequence;
  /** What its cache holds, for those who watch it. */
  cacheUse?(): CacheUse | undefined;
  /** Frees everything, when what is being computed has ended: that is one piece of a run at most. */
  close(): Promise<void>;
}
