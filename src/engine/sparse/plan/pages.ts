/**
 * How pages of the cache lie in memory.
 * @module
 */
import type { PageLayout } from "../cache.ts";
import { bytesOfInputs, bytesOfState, PAGE, pageBytes } from "../layout.ts";
import type { EngineMemory } from "../memory.ts";
import type { AttentionStep, ConvolutionStep, FusedDecoder } from "./fuse.ts";

/** Pages that are made at once, but for shorter contexts. */
const TOGETHER = 8;
/** Part of the memory that is left which they may take: the last of them may never be needed. */
const PART = 1 / 16;

/** Whether a layer's keys and values are kept as int8. */
export function isInt8Cache({ headDim }: AttentionStep, kv: "f32" | "int8"): boolean {
  return kv === "int8" && headDim % 4 === 0;
}

/**
 * Bytes of a layer's part of a page: keys and values of all its tokens, or the last inputs of a convolution, as many as
 * are read before a token's own.
 */
export function layerBytes(
  step: AttentionStep | ConvolutionStep,
  kv: "f32" | "int8",
  widths: readonly number[],
): number {
  return step.op === "attention"
    ? step.keyValueHeads * pageBytes(step.headDim, isInt8Cache(step, kv))
    : (step.length - 1) * bytesOfInputs(widths[step.output]);
}

/** The layout of the pages of a program. */
export function layoutOfPages(
  { steps, widths }: FusedDecoder,
  { kv, context, pagesTogether = TOGETHER }: {
    readonly kv: "f32" | "int8";
    readonly context: number;
    readonly pagesTogether?: number;
  },
  memory: EngineMemory,
): PageLayout {
  const caching = steps.filter((step) =>
    step.op === "convolve" || step.op === "attention" && step.keys !== undefined
  ) as (AttentionStep | ConvolutionStep)[];
  const layers = caching.map((step) => layerBytes(step, kv, widths));
  const keepsLast = caching.some(({ op }) => op === "convolve");
  const stateBytes = steps.reduce(
    (sum, step) => step.op === "delta" ? sum + bytesOfState(step) : sum,
    0,
  );
  const bytes = layers.reduce((sum, layer) => sum + layer, 0);
  // A program without a cache has pages of nothing.
  const [first = 0] = layers;
  const areAlike = layers.every((layer) => layer === first);
  const together = Math.min(pagesTogether, Math.ceil(context / PAGE));
  return areAlike && together * bytes <= memory.left * PART
    ? { bytes, layerBytes: first, together, keepsLast, stateBytes }
    : { bytes, layerBytes: bytes, together: 1, keepsLast, stateBytes };
}
