/**
 * The sparse engine: a compiled model, computed on its packed weights.
 * @module
 */
import { throwIfAborted, UnsupportedOperatorError } from "../../errors.ts";
import type { EngineModel } from "../model.ts";
import type { ModelSource } from "../source.ts";
import { contextWithin } from "../tokens.ts";
import { BATCH, BATCH_OF_SEQUENCES, BATCH_WITH_LOGITS } from "./batches.ts";
import type { Decoder, MatrixRef } from "./ir.ts";
import { PAGE } from "./layout.ts";
import { lower } from "./lower.ts";
import { ModelReader } from "./model_reader.ts";
import { fuse } from "./plan/fuse.ts";
import { makePlan } from "./plan/plan.ts";
import { setUp, type SetupOptions } from "./setup.ts";
import { SparseModel } from "./sparse_model.ts";
import { WeightLoader } from "./weights/loader.ts";

/** Options of {@linkcode loadSparse}. */
export interface SparseOptions extends SetupOptions {
  /** Most tokens of a sequence (default: what the model's tables hold). */
  readonly context?: number;
  /** How keys and values are kept; `auto` is float32 for small models and for those of floats. */
  readonly kv?: "auto" | "f32" | "int8";
  /** What int8 weights are multiplied with: 7 or 14 bits; `auto` is 14 for small models. */
  readonly activations?: "auto" | "int8" | "int16";
  /**
   * Closed sequences whose cache is kept for prompts that begin alike, as far as memory goes (default: 4,
   * and no more than fit into the pages of one context).
   */
  readonly keptSequences?: number;
  /**
   * Whether the head has a sketch in 4 bits beside it, by which the likeliest tokens are found without
   * reading all of it (default: where that saves time, and its memory is small beside what is left).
   */
  readonly sketch?: boolean;
  readonly signal?: AbortSignal;
}

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
  // Kernels are compiled and threads start while the graph is read.
  const settingUp = setUp(options);
  settingUp.catch(() => {});
  let reader: ModelReader | undefined;
  try {
    reader = await ModelReader.open(source);
    const decoder = lower(reader.graph, reader.path);
    const context = contextOf(decoder, options.context);
    const setup = await settingUp;
    const { memory, kernels, team, threads, background, device } = setup;
    const fused = fuse(decoder);
    const matrices = fused.steps.flatMap((step): MatrixRef[] =>
      step.op === "linear" ? [step.matrix] : step.op === "embed" ? [step.table] : []
    );
    const precision = precisionOf(reader, matrices, options);
    const weights = new WeightLoader(reader, memory, kernels, matrices, team, options.signal);
    const plan = await makePlan(fused, weights, memory, {
      ...precision,
      threads,
      context,
      tokens: BATCH,
      tokensWithLogits: BATCH_WITH_LOGITS,
      // Plain SIMD multiplies four bits no faster than eight.
      sketch: options.sketch ?? (setup.build === "simd" ? false : undefined),
    });
    throwIfAborted(options.signal);
    team.begin();
    return new SparseModel({
      setup,
      plan,
      info: {
        engine: "sparse",
        device: `${device}, ${precision.activations} activations, ${precision.kv} cache`,
        threads,
        background,
        together: BATCH_OF_SEQUENCES,
        vocabulary: decoder.widths[decoder.logits],
        context,
        weightBytes: weights.bytes,
        tokenBytes: plan.tokenBytes,
        memoryBytes: memory.used,
        cacheBytesPerToken: plan.pages.bytes / PAGE,
      },
      tokenIds: decoder.vocabulary,
      keptSequences: options.keptSequences,
    });
  } catch (error) {
    await settingUp.then(({ team }) => team.stop(), () => {});
    throw error;
  } finally {
    reader?.close();
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
  const isQuantised = matrices.some(({ type }) => type === "int8" || type === "int4");
  const isFast = isQuantised && bytes > SMALL;
  return {
    kv: kv === "auto" ? (isFast ? "int8" : "f32") : kv,
    activations: activations === "auto" ? (isFast ? "int8" : "int16") : activations,
  };
}
