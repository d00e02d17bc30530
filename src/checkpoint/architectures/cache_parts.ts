/**
 * What a compiled decoder keeps of tokens that it has run, in the names that transformers.js expects.
 * @module
 */
import type { DecoderSpec } from "./spec.ts";

/** An input of the graph, and the output that takes its place in the next run. */
export interface CachePart {
  readonly past: string;
  readonly present: string;
  /** Its dimensions behind the batch's; `length` stands for what grows with the tokens, where something does. */
  readonly dims: <T>(length: T) => (number | T)[];
}

/**
 * The parts of a decoder's cache, layer by layer: keys and values, `[heads, tokens, headDim]` each, or what a
 * convolution has read last, `[channels, length]`.
 */
export function cacheParts(
  { layers, keyValueHeads, headDim, hidden, convolutions }: DecoderSpec,
): CachePart[] {
  return Array.from({ length: layers }, (_, layer): CachePart[] => {
    if (convolutions?.isIn(layer)) {
      const dims = () => [hidden, convolutions.length];
      return [{ past: pastConvolution(layer), present: presentConvolution(layer), dims }];
    }
    return ["key", "value"].map((part) => ({
      past: `past_key_values.${layer}.${part}`,
      present: `present.${layer}.${part}`,
      dims: (length) => [keyValueHeads, length, headDim],
    }));
  }).flat();
}

/** The input with what a layer's convolution has read. */
export function pastConvolution(layer: number): string {
  return `past_conv.${layer}`;
}

/** The output with what it will have read. */
export function presentConvolution(layer: number): string {
  return `present_conv.${layer}`;
}
