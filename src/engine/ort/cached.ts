/**
 * A compiled model on ONNX Runtime, token after token: whole matrices, any operator.
 * @module
 */
import { AbortError, BackendError, ModelClosedError, OnnxError, UsageError } from "../../errors.ts";
import type { CacheUse, EngineModel, ModelInfo, RunOptions, Sequence } from "../model.ts";
import {
  type Backend,
  type BackendName,
  openBackend,
  type Session,
  type Tensor,
} from "./backend.ts";
import { roomForLogits } from "../logits.ts";
import { assertRunnable, checkRun, commonLength, contextWithin } from "../tokens.ts";
import { Cache } from "./cache.ts";
import { elementsOf, elementsPerToken } from "./cache_inputs.ts";
import { type DecoderFile, readDecoderFile, refusalOfHeads, takesHeads } from "./decoder_file.ts";

/** Bytes that the logits of one run may take. */
const LOGIT_BYTES = 32 << 20;
/**
 * Tokens of one run at most: a run cannot be stopped. In WebAssembly attention takes more than its
 * share of a long run, so several short ones are faster.
 */
const LARGEST_PIECE: Record<BackendName, number> = { node: 128, wasm: 32, webgpu: 128 };

/** What ONNX Runtime can run on. */
export type OrtDevice = "wasm" | "webgpu" | "cpu";

/** How to load a model. */
export interface OrtOptions {
  /** `auto` takes the CPU where onnxruntime-node is installed, else WebAssembly. */
  readonly device?: OrtDevice | "auto";
  /** Threads; all processors when left out. The first model in WebAssembly decides for all others. */
  readonly threads?: number;
  /** Most tokens of a sequence; as many as the model allows when left out. */
  readonly context?: number;
}

/**
 * Loads a compiled model.
 *
 * @param folder Its folder, with `onnx/model.onnx` in it.
 * @throws {BackendError} When the device is not there, or the runtime refuses the model or its heads.
 * @throws {ContextOverflowError} When the context asked for is more than the model has.
 * @throws {OnnxError} When the file is damaged, or is no decoder with a cache.
 */
export async function loadOrt(folder: string, options: OrtOptions = {}): Promise<EngineModel> {
  return await loadOrtFile(readDecoderFile(folder), options);
}

/** The same for a file that has been read. */
export async function loadOrtFile(file: DecoderFile, options: OrtOptions): Promise<EngineModel> {
  const { device = "auto", threads } = options;
  for (const { headDim } of file.cache) {
    if (takesHeads(headDim)) continue;
    throw new BackendError(
      `${file.path}: ${refusalOfHeads(headDim)}; the sparse engine runs this model`,
    );
  }
  if (device === "webgpu" && file.capsScores) {
    // It passes over the attribute `softcap`, and writes something else without a word.
    throw new BackendError(
      `${file.path}: attention caps its scores, which ONNX Runtime does not do on WebGPU: take the sparse ` +
        `engine, or --device wasm or cpu`,
    );
  }
  const context = contextWithin(options.context, file.context);
  const backend = await openBackend(device === "cpu" ? "node" : device, threads);
  const presents = partsOf(file).map(({ present }) => present);
  const session = await backend.loadFile(file.path, presents);
  return new OrtModel(file, backend, session, context);
}

/** A part of the cache: an input, the output that takes its place, and what it is before any token, by its dimensions. */
interface Part {
  readonly past: string;
  readonly present: string;
  readonly empty: readonly number[];
}

function partsOf({ cache, states }: DecoderFile): Part[] {
  return [
    ...cache.map(({ past, present, heads, headDim }) => ({
      ...{ past, present },
      empty: [1, heads, 0, headDim],
    })),
    ...states.map(({ past, present, dims }) => ({ past, present, empty: dims })),
  ];
}

const DEVICES: Record<BackendName, string> = {
  node: "CPU",
  wasm: "WebAssembly",
  webgpu: "WebGPU",
};

class OrtModel implements EngineModel {
  readonly info: ModelInfo;
  readonly file: DecoderFile;
  readonly backend: Backend;
  readonly #session: Session;
  readonly #parts: readonly Part[];
  /** Bytes of a sequence's states, however many tokens it has. */
  readonly #stateBytes: number;
  readonly #open = new Set<OrtSequence>();
  /** The cache of the sequence that was closed last. */
  #kept: Cache | undefined;
  #closed = false;
  /** Settles when the runs before have ended: the runtime takes one at a time. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(file: DecoderFile, backend: Backend, session: Session, context: number) {
    this.file = file;
    this.backend = backend;
    this.#session = session;
    this.#parts = partsOf(file);
    this.#stateBytes = file.states.reduce((sum, { dims }) => sum + 4 * elementsOf(dims), 0);
    this.info = {
      engine: "ort",
      device: `${DEVICES[backend.name]}, ${backend.label}`,
      threads: backend.threads,
      vocabulary: file.vocabulary,
      context,
      weightBytes: file.weightBytes,
      cacheBytesPerToken: 4 * elementsPerToken(file),
      ...(this.#stateBytes > 0 ? { stateBytes: this.#stateBytes } : {}),
    };
  }

  open(prompt?: ArrayLike<number>): Sequence {
    this.assertOpen();
    const sequence = new OrtSequence(this, ...this.#beginningOf(prompt));
    this.#open.add(sequence);
    return sequence;
  }

  cacheUse(): CacheUse {
    const { cacheBytesPerToken } = this.info;
    const open = [...this.#open];
    const bytesOf = (caches: Iterable<Cache | undefined>) =>
      [...caches].reduce(
        (sum, cache) =>
          sum + (cache ? cache.tokens.length * cacheBytesPerToken + this.#stateBytes : 0),
        0,
      );
    const held = new Set(open.map(({ cache }) => cache));
    const bytes = bytesOf(held);
    const keptBytes = held.has(this.#kept) ? 0 : bytesOf([this.#kept]);
    return {
      sequences: open.length,
      tokens: open.reduce((sum, { length }) => sum + length, 0),
      bytes,
      keptBytes,
      reservedBytes: bytes + keptBytes,
    };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#last.catch(() => {});
    for (const sequence of [...this.#open]) sequence.close();
    this.#kept?.giveBack();
    this.#kept = undefined;
    await this.#session.release();
  }

  assertOpen(): void {
    if (this.#closed) throw new ModelClosedError("the model has been closed");
  }

  /** Does work when the work before has ended. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work, work);
    this.#last = result;
    return result;
  }

  /** Takes over the cache of a sequence that has been closed. */
  forget(sequence: OrtSequence, cache: Cache | undefined): void {
    this.#open.delete(sequence);
    if (!cache) return;
    this.#kept?.giveBack();
    this.#kept = cache;
  }

  /**
   * Runs one piece of a sequence.
   *
   * @param past What has been run before; stays with the caller.
   * @returns Logits as the model gives them, and the cache with the piece in it.
   */
  async runPiece(
    past: Cache | undefined,
    piece: Int32Array,
  ): Promise<{ logits: Float32Array; cache: Cache }> {
    const { backend, file } = this;
    const before = past?.tokens.length ?? 0;
    const total = before + piece.length;
    const feeds: Record<string, Tensor> = {};
    const feed = (name: string, values: BigInt64Array) => {
      if (file.inputs.has(name)) feeds[name] = backend.int64(values, [1, values.length]);
    };
    feed("input_ids", BigInt64Array.from(piece, BigInt));
    feed("attention_mask", new BigInt64Array(total).fill(1n));
    feed("position_ids", BigInt64Array.from(piece, (_, i) => BigInt(before + i)));
    for (const { past: name, empty } of this.#parts) {
      feeds[name] = past?.tensors.get(name) ??
        backend.floats(new Float32Array(elementsOf(empty)), empty);
    }
    const outputs = await this.#session.run(feeds);
    const logits = outputs.logits.data as Float32Array;
    if (logits.length !== (file.lastOnly ? 1 : piece.length) * file.vocabulary) {
      throw new OnnxError(
        `${file.path}: it gives ${logits.length} logits for ${piece.length} tokens, ` +
          `which is not what it declares`,
      );
    }
    const tokens = new Int32Array(total);
    tokens.set(past?.tokens ?? []);
    tokens.set(piece, before);
    const tensors = new Map(this.#parts.map((part) => [part.past, outputs[part.present]]));
    return { logits, cache: new Cache(tokens, tensors) };
  }

  /** Whether a cache serves a sequence of its first tokens: states are those behind the last, and no other. */
  canEnd({ tokens }: Cache, length: number): boolean {
    return length === tokens.length || this.file.states.length === 0;
  }

  /** The longest beginning of a prompt that some cache holds, and that cache. */
  #beginningOf(prompt: ArrayLike<number> | undefined): [Cache | undefined, number] {
    if (!prompt || prompt.length < 2) return [undefined, 0];
    const caches = [this.#kept, ...[...this.#open].map(({ cache }) => cache)];
    let best: Cache | undefined;
    let longest = 0;
    for (const cache of caches) {
      if (!cache) continue;
      // The last token is run whatever there is: its logits are wanted.
      const length = Math.min(commonLength(prompt, cache.tokens), prompt.length - 1);
      if (length > longest && this.canEnd(cache, length)) [best, longest] = [cache, length];
    }
    if (best === this.#kept && best) {
      this.#kept = undefined;
      return [best, longest];
    }
    return [best?.take(), longest];
  }
}

class OrtSequence implements Sequence {
  readonly #model: OrtModel;
  /** Holds the sequence's tokens, and maybe others after them that have been cut off since. */
  #cache: Cache | undefined;
  #length: number;
  #running = false;
  /** Runs that have not ended. */
  #pending = 0;
  #closed = false;

  constructor(model: OrtModel, cache: Cache | undefined, length: number) {
    this.#model = model;
    this.#cache = cache;
    this.#length = length;
  }

  get length(): number {
    return this.#length;
  }

  /** What another sequence may begin with. */
  get cache(): Cache | undefined {
    return this.#cache;
  }

  async run(tokens: ArrayLike<number>, options: RunOptions = {}): Promise<Float32Array> {
    checkRun(tokens, options);
    const given = Array.from(tokens);
    this.#pending++;
    return await this.#model.inTurn(async () => {
      try {
        this.#assertOpen();
        const { vocabulary, context } = this.#model.info;
        assertRunnable(given, this.#length, vocabulary, context);
        this.#running = true;
        return await this.#run(Int32Array.from(given), options);
      } finally {
        this.#pending--;
        const wasRunning = this.#running;
        this.#running = false;
        if (this.#closed && wasRunning) this.#letGo();
      }
    });
  }

  truncate(length: number): void {
    this.#assertOpen();
    if (this.#pending > 0) {
      throw new UsageError("a run of the sequence has not ended: wait for it, then cut");
    }
    if (!Number.isInteger(length) || length < 0 || length > this.#length) {
      throw new UsageError(`a sequence of ${this.#length} tokens cannot be cut to ${length}`);
    }
    this.#length = length;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // What a run reads now is let go when it has ended.
    if (!this.#running) this.#letGo();
  }

  #letGo(): void {
    this.#model.forget(this, this.#cache);
    this.#cache = undefined;
    this.#length = 0;
  }

  #assertOpen(): void {
    this.#model.assertOpen();
    if (this.#closed) throw new ModelClosedError("the sequence has been closed");
  }

  async #run(tokens: Int32Array, { signal, logits = "last" }: RunOptions): Promise<Float32Array> {
    const { vocabulary } = this.#model.info;
    const { backend, file } = this.#model;
    const fitting = Math.max(1, Math.floor(LOGIT_BYTES / (4 * vocabulary)));
    const largest = logits === "all" && file.lastOnly
      ? 1
      : Math.min(LARGEST_PIECE[backend.name], fitting);
    const all = logits === "all" ? roomForLogits(tokens.length, vocabulary) : undefined;
    await this.#computeAgain(largest, signal);
    let given: Float32Array = new Float32Array(0);
    for (let first = 0; first < tokens.length; first += largest) {
      if (signal?.aborted) {
        throw new AbortError(`stopped after ${first} of ${tokens.length} tokens`);
      }
      this.#assertOpen();
      given = await this.#runPiece(tokens.subarray(first, first + largest));
      all?.set(given, first * vocabulary);
    }
    return all ?? given.subarray(given.length - vocabulary);
  }

  /** Runs all tokens once more where the sequence was cut and its cache cannot be. */
  async #computeAgain(largest: number, signal: AbortSignal | undefined): Promise<void> {
    const cut = this.#cache;
    if (!cut || this.#length === 0 || this.#model.canEnd(cut, this.#length)) return;
    const tokens = cut.tokens.subarray(0, this.#length);
    let made: Cache | undefined;
    try {
      for (let first = 0; first < tokens.length; first += largest) {
        if (signal?.aborted) throw new AbortError("stopped while tokens were computed again");
        this.#assertOpen();
        const { cache } = await this.#model.runPiece(made, tokens.subarray(first, first + largest));
        made?.giveBack();
        made = cache;
      }
    } catch (error) {
      made?.giveBack();
      throw error;
    }
    cut.giveBack();
    this.#cache = made;
  }

  /** Runs a piece, and takes the longer cache in place of the one before. */
  async #runPiece(piece: Int32Array): Promise<Float32Array> {
    const past = this.#length === 0
      ? undefined
      : await this.#cache!.first(this.#length, this.#model.backend);
    try {
      const { logits, cache } = await this.#model.runPiece(past, piece);
      this.#cache?.giveBack();
      this.#cache = cache;
      this.#length = cache.tokens.length;
      return logits;
    } finally {
      past?.giveBack();
    }
  }
}
