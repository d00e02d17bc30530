/**
 * What every engine gives: a loaded model, and sequences of tokens that it steps through.
 * @module
 */

/** What a loaded model is, and what runs it. */
export interface ModelInfo {
  /** `sparse` is our own engine, `ort` ONNX Runtime. */
  readonly engine: "sparse" | "ort";
  /** What it runs on, for people: e.g. `WebAssembly, relaxed SIMD, 2 threads`. */
  readonly device: string;
  readonly threads: number;
  /** Logits of a token. */
  readonly vocabulary: number;
  /** Most tokens of a sequence. */
  readonly context: number;
  /** Bytes of the weights as they lie in memory. */
  readonly weightBytes: number;
  /** Bytes that the key/value cache takes for a token. */
  readonly cacheBytesPerToken: number;
}

/** What a caller may say of a run. */
export interface RunOptions {
  /** Stops between pieces of a long run; the sequence then holds the tokens that were run. */
  readonly signal?: AbortSignal;
  /** Which logits are given: the last token's (default), or all tokens', one row after the other. */
  readonly logits?: "last" | "all";
}

/** One sequence of tokens, with its key/value cache. */
export interface Sequence {
  /** Tokens in the cache. */
  readonly length: number;
  /**
   * Runs tokens after those in the cache.
   *
   * @param tokens At least one token id.
   * @returns Logits `[vocabulary]`, or `[tokens, vocabulary]`. The array is the engine's own: it holds
   *   until the next run of the model.
   * @throws {ContextOverflowError} When the tokens do not fit into the context; nothing has then run.
   * @throws {TokenRangeError} When a token is not one of the vocabulary; nothing has then run.
   * @throws {AbortError} When the signal says so.
   */
  run(tokens: ArrayLike<number>, options?: RunOptions): Promise<Float32Array>;
  /** Forgets all tokens but the first `length`. */
  truncate(length: number): void;
  /** Gives its cache back. The sequence cannot be used afterwards. */
  close(): void;
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
  /** Frees everything. */
  close(): Promise<void>;
}
