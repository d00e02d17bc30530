/**
 * The sparse engine: a compiled model, computed on its packed weights.
 * @module
 */
import { z } from "zod";
import { UnsupportedOperatorError } from "../../errors.ts";
import type { EngineModel, ModelInfo } from "../model.ts";
import type { ModelSource } from "../source.ts";
import { contextWithin } from "../tokens.ts";
import { BATCH_OF_SEQUENCES } from "./batches.ts";
import type { Decoder } from "./ir.ts";
import { PAGE } from "./layout.ts";
import { type LoadedShard, loadShard } from "./load_shard.ts";
import { lower } from "./lower.ts";
import { shareOut } from "./memories.ts";
import { MemoryBudget } from "./memory.ts";
import { ModelReader } from "./model_reader.ts";
import { fuse, matricesOf } from "./plan/fuse.ts";
import { isInt8Cache } from "./plan/pages.ts";
import { checkOptions, type SparseOptions } from "./options.ts";
import { precisionOf } from "./precision.ts";
import { setUp } from "./setup.ts";
import { SparseModel } from "./sparse_model.ts";
import type { FileRows } from "./weights/file_rows.ts";

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
  const budget = new MemoryBudget(options.memory);
  // Kernels are compiled and threads start while the graph is read.
  const setups = [setUp(options, budget)];
  setups[0].catch(() => {});
  const shards: LoadedShard[] = [];
  let reader: ModelReader | undefined;
  try {
    reader = await ModelReader.open(source);
    const decoder = lower(reader.graph, reader.path);
    const context = await contextOf(decoder, options.context, source);
    await setups[0];
    const fused = fuse(decoder);
    const precision = precisionOf(reader, matricesOf(fused), options);
    const loading = { reader, options, context, precision };
    const parts = await shareOut(fused, loading);
    for (const [i, part] of parts.entries()) {
      if (i > 0) setups.push(setUp(options, budget));
      shards.push(await loadShard(part, await setups[i], parts.length === 1, loading));
    }
    const isInt8 = fused.steps.some((step) =>
      step.op === "attention" && isInt8Cache(step, precision.kv)
    );
    const model = new SparseModel({
      shards,
      info: infoOf(shards, {
        context,
        vocabulary: decoder.widths[decoder.logits],
        numbers: `${precision.activations} activations, ${isInt8 ? "int8" : "f32"} cache`,
      }),
      tokenIds: decoder.vocabulary,
      keptSequences: options.keptSequences,
    });
    if (options.context !== undefined) model.assertRoomFor(context);
    return model;
  } catch (error) {
    for (const { table } of shards.flatMap(({ plan }) => plan.rows)) table.close();
    for (const setup of setups) await setup.then(({ team }) => team.stop(), () => {});
    throw error;
  } finally {
    reader?.close();
  }
}

/** What a model is, of which all shards have been loaded. */
function infoOf(
  shards: readonly LoadedShard[],
  { context, vocabulary, numbers }: { context: number; vocabulary: number; numbers: string },
): ModelInfo {
  const [{ setup: { device, threads, background } }] = shards;
  const sum = (bytesOf: (shard: LoadedShard) => number) =>
    shards.reduce((sum, shard) => sum + bytesOf(shard), 0);
  const inFile = sumOf(new Set(shards.flatMap(({ plan }) => plan.rows.map(({ table }) => table))));
  const stateBytes = sum(({ plan }) => plan.pages.stateBytes ?? 0);
  const memories = shards.length > 1 ? `, ${shards.length} memories` : "";
  return {
    engine: "sparse",
    device: `${device}, ${numbers}${memories}`,
    threads,
    background,
    together: BATCH_OF_SEQUENCES,
    vocabulary,
    context,
    weightBytes: sum(({ weightBytes }) => weightBytes),
    tokenBytes: sum(({ plan }) => plan.tokenBytes),
    memoryBytes: sum(({ setup }) => setup.memory.used),
    ...(inFile > 0 ? { tableBytesInFile: inFile } : {}),
    cacheBytesPerToken: sum(({ plan }) => plan.pages.bytes) / PAGE,
    ...(stateBytes > 0 ? { stateBytes } : {}),
  };
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
