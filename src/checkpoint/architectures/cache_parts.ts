/**
 * What a compiled decoder keeps of tokens that it has run, in the names that transformers.js expects.
 * @module
 */
import { type DecoderSpec, headsOf, type Recurrent } from "./spec.ts";

/** An input of the graph, and the output that takes its place in the next run. */
export interface CachePart {
  readonly past: string;
  readonly present: string;
  /** Its dimensions behind the batch's; `length` stands for what grows with the tokens, where something does. */
  readonly dims: <T>(length: T) => (number | T)[];
}

/**
 * The parts of a decoder's cache, layer by layer where layers have their own: keys and values, `[heads, tokens, headDim]` each, or what a
 * convolution has read last, `[channels, length]`, and of layers that remember their states besides,
 * `[heads, keyDim, valueDim]`.
 */
export function cacheParts(
  spec: DecoderSpec,
): CachePart[] {
  const { layers, hidden, convolutions, recurrent, attention } = spec;
  return Array.from({ length: layers }, (_, layer): CachePart[] => {
    if (convolutions?.isIn(layer)) return [ofConvolution(layer, [hidden, convolutions.length])];
    if (recurrent?.isIn(layer)) {
      const { valueHeads, keyDim, valueDim, length } = recurrent;
      return [
        ofConvolution(layer, [convolvedChannels(recurrent), length]),
        { ...stateNames(layer, recurrent), dims: () => [valueHeads, keyDim, valueDim] },
      ];
    }
    if (attention.keysOf?.(layer) !== undefined) return [];
    const { keyValueHeads, headDim } = headsOf(spec, layer);
    return ["key", "value"].map((part) => ({
      past: `past_key_values.${layer}.${part}`,
      present: `present.${layer}.${part}`,
      dims: (length) => [keyValueHeads, length, headDim],
    }));
  }).flat();
}

function ofConvolution(layer: number, dims: number[]): CachePart {
  return { past: pastConvolution(layer), present: presentConvolution(layer), dims: () => dims };
}

/** Channels that are convolved before a recurrence: queries, keys and values. */
export function convolvedChannels(
  { keyHeads, valueHeads, keyDim, valueDim }: Recurrent,
): number {
  return 2 * keyHeads * keyDim + valueHeads * valueDim;
}

/** The input with what a layer's convolution has read. */
export function pastConvolution(layer: number): string {
  return `past_conv.${layer}`;
}

/** The output with what it will have read. */
export function presentConvolution(layer: number): string {
  return `present_conv.${layer}`;
}

/** The input with the states of a layer that remembers, and the output with what they will be. */
export function stateNames(
  layer: number,
  { kind }: Recurrent,
): { readonly past: string; readonly present: string } {
  const name = kind === "state space" ? "ssm" : "recurrent";
  return { past: `past_${name}.${layer}`, present: `present_${name}.${layer}` };
}
