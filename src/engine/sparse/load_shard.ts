/**
 * Models into memory, a shard at a time.
 * @module
 */
import { throwIfAborted } from "../../checks.ts";
import { BATCH, BATCH_WITH_LOGITS } from "./batches.ts";
import type { ModelReader } from "./model_reader.ts";
import type { SparseOptions } from "./options.ts";
import { type FusedDecoder, matricesOf } from "./plan/fuse.ts";
import { makePlan, type PlanOptions } from "./plan/plan.ts";
import type { Setup } from "./setup.ts";
import type { PlacedShard } from "./shard.ts";
import { FileRows, type TableRef, tablesForFile } from "./weights/file_rows.ts";
import { WeightLoader } from "./weights/loader.ts";

/** What all shards of a model are loaded with. */
export interface Loading {
  readonly reader: ModelReader;
  readonly options: SparseOptions;
  readonly context: number;
  readonly precision: Pick<PlanOptions, "kv" | "activations">;
}

/** A shard that has been loaded. */
export interface LoadedShard extends PlacedShard {
  /** Bytes of its weights. */
  readonly weightBytes: number;
}

/**
 * Loads a shard.
 *
 * @param decoder Its steps.
 * @param setup What it runs on; its team begins when all is in its place.
 * @param isWhole Whether the model has no other.
 * @throws {PackedFormatError} When its weights are damaged.
 * @throws {MemoryBudgetError} When it does not fit into memory.
 * @throws {AbortError} When the signal says so.
 */
export async function loadShard(
  decoder: FusedDecoder,
  setup: Setup,
  isWhole: boolean,
  { reader, options, context, precision }: Loading,
): Promise<LoadedShard> {
  const { memory, kernels, team, threads } = setup;
  const inFile = new Map<TableRef, FileRows>();
  try {
    for (const table of tablesForFile(reader, decoder, options.embeddings)) {
      const rows = await FileRows.open(reader, table, options.signal);
      if (rows) inFile.set(table, rows);
    }
    const placed = matricesOf(decoder)
      .filter((ref) => !(ref.kind === "dense" && inFile.has(ref)));
    const weights = new WeightLoader(reader, memory, kernels, placed, team, options.signal);
    const plan = await makePlan(decoder, weights, memory, {
      ...precision,
      threads,
      context,
      tokens: BATCH,
      tokensWithLogits: BATCH_WITH_LOGITS,
      // Plain SIMD multiplies four bits no faster than eight.
      sketch: options.sketch ?? (setup.build === "simd" ? false : undefined),
      inFile,
      pagesTogether: isWhole ? undefined : 1,
    });
    throwIfAborted(options.signal);
    team.begin();
    return { setup, plan, weightBytes: weights.bytes };
  } catch (error) {
    for (const rows of inFile.values()) rows.close();
    throw error;
  }
}
