/**
 * The sparse engine: a compiled model, computed on its packed weights.
 * @module
 */
import { z } from "zod";
import { throwIfAborted } from "../../checks.ts";
import { UnsupportedOperatorError } from "../../errors.ts";
import type { EngineModel } from "../model.ts";
import type { ModelSource } from "../source.ts";
import { contextWithin } from "../tokens.ts";
import { BATCH, BATCH_OF_SEQUENCES, BATCH_WITH_LOGITS } from "./batches.ts";
import type { Decoder, MatrixRef } from "./ir.ts";
import { PAGE } from "./layout.ts";
import { lower } from "./lower.ts";
import { ModelReader } from "./model_reader.ts";
import { fuse } from "./plan/fuse.ts";
import { isInt8Cache } from "./plan/pages.ts";
import { makePlan } from "./plan/plan.ts";
import { checkOptions, type SparseOptions } from "./options.ts";
import { precisionOf } from "./precision.ts";
import { setUp } from "./setup.ts";
import { SparseModel } from "./sparse_model.ts";
import { FileRows, type TableRef, tablesForFile } from "./weights/file_rows.ts";
import { WeightLoader } from "./weights/loader.ts";

const CONFIG = "config.json";
const configSchema = z.looseObject({ max_position_embeddings: z.int().positive() });

/**
 * Loads a compiled model.
 *
 * @param source Where it is.
 * @param options What may be chosen.
 * @throws {UsageError} When an option is out of its range.
 * @throws {UnsupportedOperatorError} When its graph has an operator without a kernel.
 * @throws {OnnxError} When its graph is damaged.
 * @throws {PackedFormatError} When its weights are damaged.
 * @throws {MemoryBudgetError} When it does not fit into memory, with a cache of the context that was asked for.
 * @throws {ContextOverflowError} When the context is more than the model's tables hold.
 * @throws {AbortError} When the signal says so.
 */
export async function loadSparse(
  source: ModelSource,
  options: SparseOptions = {},
): Promise<EngineModel> {
  checkOptions(options);
  // Kernels are compiled and threads start while the graph is read.
  const settingUp = setUp(options);
  settingUp.catch(() => {});
  let reader: ModelReader | undefined;
  const inFile = new Map<TableRef, FileRows>();
  try {
    reader = await ModelReader.open(source);
    const decoder = lower(reader.graph, reader.path);
    const context = await contextOf(decoder, options.context, source);
    const setup = await settingUp;
    const { memory, kernels, team, threads, background, device } = setup;
    const fused = fuse(decoder);
    const matrices = fused.steps.flatMap((step): MatrixRef[] =>
      step.op === "linear" ? [step.matrix] : step.op === "embed" ? [step.table] : []
    );
    const precision = precisionOf(reader, matrices, options);
    for (const table of tablesForFile(reader, fused, options.embeddings)) {
      const rows = await FileRows.open(reader, table, options.signal);
      if (rows) inFile.set(table, rows);
    }
    const placed = matrices.filter((ref) => !(ref.kind === "dense" && inFile.has(ref)));
    const weights = new WeightLoader(reader, memory, kernels, placed, team, options.signal);
    const plan = await makePlan(fused, weights, memory, {
      ...precision,
      threads,
      context,
      tokens: BATCH,
      tokensWithLogits: BATCH_WITH_LOGITS,
      // Plain SIMD multiplies four bits no faster than eight.
      sketch: options.sketch ?? (setup.build === "simd" ? false : undefined),
      inFile,
    });
    throwIfAborted(options.signal);
    const isInt8 = fused.steps.some((step) =>
      step.op === "attention" && isInt8Cache(step, precision.kv)
    );
    team.begin();
    const model = new SparseModel({
      setup,
      plan,
      info: {
        engine: "sparse",
        device: `${device}, ${precision.activations} activations, ${isInt8 ? "int8" : "f32"} cache`,
        threads,
        background,
        together: BATCH_OF_SEQUENCES,
        vocabulary: decoder.widths[decoder.logits],
        context,
        weightBytes: weights.bytes,
        tokenBytes: plan.tokenBytes,
        memoryBytes: memory.used,
        ...(inFile.size > 0 ? { tableBytesInFile: sumOf(inFile.values()) } : {}),
        cacheBytesPerToken: plan.pages.bytes / PAGE,
        ...(plan.pages.stateBytes ? { stateBytes: plan.pages.stateBytes } : {}),
      },
      tokenIds: decoder.vocabulary,
      keptSequences: options.keptSequences,
    });
    if (options.context !== undefined) model.assertRoomFor(context);
    return model;
  } catch (error) {
    for (const rows of inFile.values()) rows.close();
    await settingUp.then(({ team }) => team.stop(), () => {});
    throw error;
  } finally {
    reader?.close();
  }
}

function sumOf(tables: Iterable<FileRows>): number {
  return [...tables].reduce((sum, { bytes }) => sum + bytes, 0);
}

/**
 * How many positions there are: as many as are wanted, of those that the graph has; where it has no tables of them, of
 * those that the model was made for.
 */
async function contextOf(
  { positions }: Decoder,
  wanted: number | undefined,
  source: ModelSource,
): Promise<number> {
  if (positions !== undefined) return contextWithin(wanted, positions);
  const context = wanted ?? await contextSaid(source);
  if (context !== undefined) return context;
  throw new UnsupportedOperatorError(
    "the model does not say how long a sequence may be: give a context",
  );
}

/** The context that a model's `config.json` names, if there is one that does. */
async function contextSaid(source: ModelSource): Promise<number | undefined> {
  if (!await source.has(CONFIG)) return undefined;
  const text = new TextDecoder().decode(await source.read(CONFIG));
  try {
    return configSchema.safeParse(JSON.parse(text)).data?.max_position_embeddings;
  } catch {
    // It is no JSON.
    return undefined;
  }
}
