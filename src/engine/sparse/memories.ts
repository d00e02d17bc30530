/**
 * Which steps of a model go into which memory: most models go into one.
 * @module
 */
import { throwIfAborted } from "../../checks.ts";
import type { MatrixRef } from "./ir.ts";
import { bytesOfState, PAGE } from "./layout.ts";
import type { Loading } from "./load_shard.ts";
import type { FusedDecoder, FusedStep } from "./plan/fuse.ts";
import { layerBytes } from "./plan/pages.ts";
import { cutIntoShards } from "./plan/shards.ts";
import { tablesForFile } from "./weights/file_rows.ts";
import { aboutBytes, mostBytes } from "./weights/sizes.ts";

/**
 * Bytes of weights and cache that a memory is to have, of the 4.29 GB that it can: buffers need some, and the cache may
 * grow.
 */
const SHARD_BYTES = 3.2e9;
/** Tokens that a cache is counted for where no context is asked for. */
const COUNTED_CONTEXT = 2048;

/**
 * Shares a model's steps out among memories.
 *
 * @returns Shards, in the order of the model; the model itself where it surely fits into one memory.
 * @throws {FileReadError} When a file cannot be read: of a model that may not fit, a part of the indices is.
 * @throws {AbortError} When the signal says so.
 */
export async function shareOut(decoder: FusedDecoder, loading: Loading): Promise<FusedDecoder[]> {
  const { reader, options } = loading;
  const kept = bytesKept(decoder, loading);
  const cut = (weights: ReadonlyMap<FusedStep, number>) =>
    cutIntoShards(
      decoder,
      (step) => (weights.get(step) ?? 0) + kept(step),
      options.shardBytes ?? SHARD_BYTES,
    );
  const placed = matricesByStep(decoder, loading);
  const atMost = new Map([...placed].map(([step, ref]) => [step, mostBytes(reader, ref)]));
  if (cut(atMost).length === 1) return [decoder];
  const about = new Map<FusedStep, number>();
  for (const [step, ref] of placed) {
    throwIfAborted(options.signal);
    about.set(step, await aboutBytes(reader, ref));
  }
  return cut(about);
}

/** What a step keeps of the tokens of a sequence, in bytes. */
function bytesKept(
  { widths }: FusedDecoder,
  { options, context, precision }: Loading,
): (step: FusedStep) => number {
  const pages = Math.ceil((options.context ?? Math.min(context, COUNTED_CONTEXT)) / PAGE);
  return (step) => {
    if (step.op === "delta") return bytesOfState(step);
    const isKeeping = step.op === "convolve" ||
      (step.op === "attention" && step.keys !== undefined);
    return isKeeping ? pages * layerBytes(step, precision.kv, widths) : 0;
  };
}

/** Matrices that are in memory, each by the one step that it counts for. */
function matricesByStep(
  decoder: FusedDecoder,
  { reader, options }: Loading,
): Map<FusedStep, MatrixRef> {
  const inFile = new Set<MatrixRef>(tablesForFile(reader, decoder, options.embeddings));
  const keyOf = (ref: MatrixRef) => JSON.stringify(ref);
  const multiplied = new Set(
    decoder.steps.flatMap((step) => step.op === "linear" ? [keyOf(step.matrix)] : []),
  );
  const found = new Map<FusedStep, MatrixRef>();
  const known = new Set<string>();
  for (const step of decoder.steps) {
    if (step.op !== "linear" && step.op !== "embed") continue;
    const ref = step.op === "linear" ? step.matrix : step.table, key = keyOf(ref);
    // One that is multiplied with, too, may stay in the file where that is in another memory.
    const isElsewhere = step.op === "embed" && (inFile.has(ref) || multiplied.has(key));
    if (isElsewhere || known.has(key)) continue;
    known.add(key);
    found.set(step, ref);
  }
  return found;
}
