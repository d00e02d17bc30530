/**
 * The sparse engine: a compiled model, computed on its packed weights.
 * @module
 */
import {
  AbortError,
  ModelClosedError,
  throwIfAborted,
  UnsupportedOperatorError,
  UsageError,
} from "../../errors.ts";
import { letEventsIn } from "../../platform/events.ts";
import { mainMaySleep, processors } from "../../platform/machine.ts";
import type { EngineModel, ModelInfo, RunOptions, Sequence } from "../model.ts";
import type { ModelSource } from "../source.ts";
import { assertRunnable, contextWithin } from "../tokens.ts";
import { CachedTokens, PagePool, PrefixStore } from "./cache.ts";
import type { Decoder, MatrixRef } from "./ir.ts";
import { type Build, chooseBuild, configure, instantiate, type Kernels } from "./kernels.ts";
import { CONTROL, LOGITS, PAGE } from "./layout.ts";
import { lower } from "./lower.ts";
import { EngineMemory } from "./memory.ts";
import { ModelReader } from "./model_reader.ts";
import { fuse } from "./plan/fuse.ts";
import { makePlan, type Plan } from "./plan/plan.ts";
import { Team } from "./team.ts";
import { WeightLoader } from "./weights.ts";

/** Options of {@linkcode loadSparse}. */
export interface SparseOptions {
  /** Threads, the caller's among them (default: all processors). */
  readonly threads?: number;
  /** Most tokens of a sequence (default: what the model's tables hold). */
  readonly context?: number;
  /** How keys and values are kept; `auto` is float32 for small models and for those of floats. */
  readonly kv?: "auto" | "f32" | "int8";
  /** What int8 weights are multiplied with: 7 or 14 bits; `auto` is 14 for small models. */
  readonly activations?: "auto" | "int8" | "int16";
  /** Bytes that the model may take. */
  readonly memory?: number;
  readonly signal?: AbortSignal;
  /** A build of the kernels, for tests. */
  readonly build?: Build;
  /** Milliseconds without an answer after which a thread counts as lost. */
  readonly patience?: number;
}

/** Tokens that are computed in one call, and in one that gives all logits. */
const BATCH = 128;
const BATCH_WITH_LOGITS = 16;
/** Rounds that a thread spins at a barrier: some tens of microseconds. */
const SPINS = 20_000;
/** A thread that was taken off its processor, on a busy machine, comes back well before. */
const PATIENCE = 30_000;
/** Caches of closed sequences that are kept. */
const KEPT = 4;
/** Weights of a small model, in bytes: they stay in a processor's caches, so precision costs little. */
const SMALL = 24 << 20;

/**
 * Loads a compiled model.
 *
 * @param source Where it is.
 * @param options What may be chosen.
 * @throws {UnsupportedOperatorError} When its graph has an operator without a kernel.
 * @throws {OnnxError} When its graph is damaged.
 * @throws {PackedFormatError} When its weights are damaged.
 * @throws {MemoryBudgetError} When it does not fit into memory.
 * @throws {ContextOverflowError} When the context is more than the model's tables hold.
 * @throws {AbortError} When the signal says so.
 */
export async function loadSparse(
  source: ModelSource,
  options: SparseOptions = {},
): Promise<EngineModel> {
  const threads = options.threads ?? processors();
  const reader = await ModelReader.open(source);
  let team: Team | undefined;
  try {
    const decoder = lower(reader.graph, reader.path);
    const context = contextOf(decoder, options.context);
    const { build, module } = await chooseBuild(threads > 1, options.build);
    const memory = new EngineMemory(threads > 1, options.memory);
    const kernels = instantiate(module, memory);
    kernels.setUp();
    const fused = fuse(decoder);
    const matrices = fused.steps.flatMap((step): MatrixRef[] =>
      step.op === "linear" ? [step.matrix] : step.op === "embed" ? [step.table] : []
    );
    const precision = precisionOf(reader, matrices, options);
    const weights = new WeightLoader(reader, memory, kernels, matrices, options.signal);
    const plan = await makePlan(fused, weights, memory, {
      ...precision,
      threads,
      context,
      tokens: BATCH,
      tokensWithLogits: BATCH_WITH_LOGITS,
    });
    throwIfAborted(options.signal);
    configure(memory, {
      threads,
      spins: SPINS,
      patience: options.patience ?? PATIENCE,
      mainMaySleep: mainMaySleep(),
    });
    team = await Team.start(memory, module, threads - 1);
    return new SparseModel(memory, kernels, team, plan, {
      engine: "sparse",
      device: `WebAssembly (${build}), ${threads} thread${threads > 1 ? "s" : ""}, ` +
        `${precision.activations} activations, ${precision.kv} cache`,
      threads,
      vocabulary: decoder.widths[decoder.logits],
      context,
      weightBytes: weights.bytes,
      cacheBytesPerToken: plan.pageBytes / PAGE,
    }, decoder.vocabulary);
  } catch (error) {
    team?.stop();
    throw error;
  } finally {
    reader.close();
  }
}

/** @throws {ContextOverflowError} When more is wanted than the model's tables hold. */
function contextOf({ positions }: Decoder, wanted: number | undefined): number {
  if (positions !== undefined) return contextWithin(wanted, positions);
  if (wanted !== undefined) return wanted;
  throw new UnsupportedOperatorError(
    "the model does not say how long a sequence may be: give a context",
  );
}

/** What int8 weights are multiplied with, and how keys and values are kept. */
function precisionOf(
  reader: ModelReader,
  matrices: readonly MatrixRef[],
  { kv = "auto", activations = "auto" }: SparseOptions,
): { kv: "f32" | "int8"; activations: "int8" | "int16" } {
  const names = new Set(
    matrices.flatMap((ref) => ref.kind === "dense" ? [ref.values] : Object.values(ref.tensors)),
  );
  const bytes = [...names].reduce((sum, name) => sum + reader.tensor(name).byteLength, 0);
  const isQuantised = matrices.some(({ type }) => type === "int8");
  const isFast = isQuantised && bytes > SMALL;
  return {
    kv: kv === "auto" ? (isFast ? "int8" : "f32") : kv,
    activations: activations === "auto" ? (isFast ? "int8" : "int16") : activations,
  };
}

class SparseModel implements EngineModel {
  readonly info: ModelInfo;
  readonly #memory: EngineMemory;
  readonly #kernels: Kernels;
  readonly #team: Team;
  readonly #plan: Plan;
  readonly #pool: PagePool;
  readonly #prefixes = new PrefixStore(KEPT);
  /** Caches of open sequences. */
  readonly #running = new Set<CachedTokens>();
  readonly #tokenIds: number;
  /** Addresses of the token ids and of the page table of a run. */
  readonly #ids: number;
  readonly #pages: number;
  #state: "open" | "lost" | "closed" = "open";

  constructor(
    memory: EngineMemory,
    kernels: Kernels,
    team: Team,
    plan: Plan,
    info: ModelInfo,
    tokenIds: number,
  ) {
    this.#memory = memory;
    this.#kernels = kernels;
    this.#team = team;
    this.#plan = plan;
    this.info = info;
    this.#tokenIds = tokenIds;
    this.#ids = memory.reserve(BATCH * 4);
    this.#pages = memory.reserve(Math.ceil(info.context / PAGE) * 4);
    this.#pool = new PagePool(memory, plan.pageBytes, Math.ceil(info.context / PAGE));
    this.#pool.onShortage(() => this.#prefixes.drop());
    memory.set(CONTROL.PROGRAM, plan.program);
    memory.set(CONTROL.IDS, this.#ids);
    memory.set(CONTROL.PAGES, this.#pages);
  }

  open(prompt: ArrayLike<number> = []): Sequence {
    this.#assertOpen();
    // The last token has to be run, for its logits.
    const found = this.#prefixes.find(prompt, prompt.length - 1, this.#running);
    let cached = new CachedTokens(this.#pool);
    const isEnded = found && !this.#running.has(found.cached);
    if (isEnded && found.length === found.cached.tokens.length) {
      // It goes on where the former ended.
      cached = found.cached;
      this.#prefixes.remove(cached);
    } else if (found) cached.share(found.cached, found.length);
    this.#running.add(cached);
    return new SparseSequence(cached, {
      check: (tokens) => {
        this.#assertOpen();
        const { length } = cached.tokens;
        assertRunnable(tokens, length, this.#tokenIds, this.info.context);
      },
      step: (tokens, logits) => this.#step(cached, tokens, logits),
      keep: () => {
        this.#running.delete(cached);
        if (this.#state === "open") this.#prefixes.keep(cached);
      },
      vocabulary: this.info.vocabulary,
    });
  }

  close(): Promise<void> {
    this.#state = "closed";
    this.#team.stop();
    return Promise.resolve();
  }

  #assertOpen(): void {
    if (this.#state === "closed") throw new ModelClosedError("the model has been closed");
    if (this.#state === "lost") throw this.#team.lost();
  }

  /** Runs some tokens; returns the logits, in the engine's memory. */
  #step(cached: CachedTokens, tokens: readonly number[], logits: number): Float32Array {
    this.#assertOpen();
    cached.grow(tokens.length);
    const memory = this.#memory;
    memory.words(this.#ids, tokens.length).set(tokens);
    memory.words(this.#pages, cached.pages.length).set(cached.pages);
    memory.set(CONTROL.TOKENS, tokens.length);
    memory.set(CONTROL.POSITION, cached.tokens.length);
    memory.set(CONTROL.LOGITS, logits);
    if (this.#kernels.run() !== 0) {
      this.#state = "lost";
      throw this.#team.lost();
    }
    cached.tokens.push(...tokens);
    const { address, stride } = this.#plan.logits;
    const rows = logits === LOGITS.all ? tokens.length : logits === LOGITS.last ? 1 : 0;
    return memory.floats(address, rows * stride / 4);
  }
}

interface Steps {
  check(tokens: readonly number[]): void;
  step(tokens: readonly number[], logits: number): Float32Array;
  keep(): void;
  readonly vocabulary: number;
}

class SparseSequence implements Sequence {
  readonly #cached: CachedTokens;
  readonly #steps: Steps;
  #isClosed = false;
  /** Settles when the runs before have ended. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(cached: CachedTokens, steps: Steps) {
    this.#cached = cached;
    this.#steps = steps;
  }

  get length(): number {
    // Another sequence may go on with the cache of one that is closed.
    return this.#isClosed ? 0 : this.#cached.tokens.length;
  }

  run(tokens: ArrayLike<number>, options: RunOptions = {}): Promise<Float32Array> {
    const ids = Array.from(tokens);
    const result = this.#last.then(() => this.#run(ids, options));
    this.#last = result.catch(() => {});
    return result;
  }

  async #run(ids: readonly number[], { signal, logits }: RunOptions): Promise<Float32Array> {
    this.#assertOpen();
    this.#steps.check(ids);
    const { vocabulary } = this.#steps;
    const all = logits === "all" ? new Float32Array(ids.length * vocabulary) : undefined;
    const most = all ? BATCH_WITH_LOGITS : BATCH;
    for (let done = 0;;) {
      if (signal?.aborted) throw new AbortError(`stopped after ${done} of ${ids.length} tokens`);
      this.#assertOpen();
      const piece = ids.slice(done, done + most);
      const isLast = done + piece.length === ids.length;
      const rows = this.#steps.step(piece, all ? LOGITS.all : isLast ? LOGITS.last : LOGITS.none);
      if (all) copyRows(rows, piece.length, all.subarray(done * vocabulary), vocabulary);
      done += piece.length;
      if (isLast) return all ?? rows.subarray(0, vocabulary);
      await letEventsIn();
    }
  }

  truncate(length: number): void {
    this.#assertOpen();
    if (!Number.isInteger(length) || length < 0 || length > this.length) {
      throw new UsageError(`a sequence of ${this.length} tokens cannot be cut to ${length}`);
    }
    this.#cached.truncate(length);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#steps.keep();
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
