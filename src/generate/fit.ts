/**
 * Whether a model in a folder fits into memory, asked before any of its weights are read.
 * @module
 */
import type { OrtDevice } from "../engine/ort/cached.ts";
import { elementsPerToken } from "../engine/ort/cache_inputs.ts";
import { type DecoderFile, readDecoderFile } from "../engine/ort/decoder_file.ts";
import { SMALL } from "../engine/sparse/precision.ts";
import { bytesLeftInFile } from "../engine/sparse/weights/file_rows.ts";
import { MemoryBudgetError } from "../errors.ts";
import { freeBytes } from "../platform/memory.ts";
import type { LoadSettings } from "./load_options.ts";

/** Tokens that a cache is counted for where no context is asked for: it grows as it is filled. */
const COUNTED_CONTEXT = 2048;
/** WebAssembly has no more in one memory; our own engine takes several. */
const WASM_BYTES = 2 ** 32;

/**
 * Checks that ONNX Runtime can load a model: it unpacks all weights.
 *
 * @param name What to call the model.
 * @throws {MemoryBudgetError} With the figures, when it does not fit.
 */
export function assertFitsOrt(
  name: string,
  file: DecoderFile,
  device: OrtDevice,
  settings: LoadSettings,
): void {
  const cachePerToken = 4 * elementsPerToken(file);
  const context = countedContext(file, settings);
  // Keys and values pass through JavaScript between runs: in WebAssembly they are not all at once.
  if (device === "wasm") {
    assertFits(name, file.loadBytes, 0, 0, WASM_BYTES, "WebAssembly has at most");
  }
  assertFits(name, file.loadBytes, cachePerToken, context, ...budgetOf(settings));
}

/**
 * Checks that the sparse engine can load a model. What it makes of packed weights it knows when it has
 * read them, and then checks again: it takes at least what is stored.
 *
 * @param name What to call the model.
 * @returns Bytes that it may take.
 * @throws {MemoryBudgetError} With the figures, when it does not fit.
 */
export function assertFitsSparse(name: string, folder: string, settings: LoadSettings): number {
  const file = readDecoderFile(folder);
  const isFloat = settings.kv === "f32" ||
    (settings.kv === "auto" && (file.fileBytes <= SMALL || !file.isQuantised));
  const cachePerToken = (isFloat ? 4 : 1) * elementsPerToken(file);
  const context = countedContext(file, settings);
  const budget = budgetOf(settings);
  const weights = file.fileBytes - bytesLeftInFile(file.tableBytes, settings.embeddings);
  assertFits(name, weights, cachePerToken, context, ...budget);
  return budget[0];
}

function countedContext(file: DecoderFile, { context }: LoadSettings): number {
  return context ?? Math.min(file.context, COUNTED_CONTEXT);
}

/** Bytes that there are, and whose word that is. */
function budgetOf({ memory }: LoadSettings): [number, string] {
  return memory === undefined
    ? [freeBytes(), "this machine has free"]
    : [memory, "--memory allows"];
}

function assertFits(
  name: string,
  weights: number,
  cachePerToken: number,
  context: number,
  bytes: number,
  says: string,
): void {
  const cache = cachePerToken * context;
  const all = weights + cache;
  if (all <= bytes) return;
  throw new MemoryBudgetError(
    `${name} needs about ${megabytes(all)} (to load its weights ${megabytes(weights)}, ` +
      `a cache of ${context} tokens ${megabytes(cache)}), ${says} ${
        megabytes(bytes, Math.floor)
      }: ` +
      `take a smaller --context or a smaller model`,
  );
}

/** @param round What is needed is rounded up, what there is down: of two that are nearly equal the message says which is more. */
function megabytes(bytes: number, round = Math.ceil): string {
  const parts = bytes < 1e8 ? 10 : 1;
  return `${round(bytes / 1e6 * parts) / parts} MB`;
}
