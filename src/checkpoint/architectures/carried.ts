/**
 * Keys and values that layers attend to which have none of their own (Gemma 4), and how they come to them where blocks
 * are run one by one: behind the hidden states, in the one value that goes from block to block.
 * @module
 */
import type { GraphBuilder } from "../../onnx/builder.ts";
import { cut } from "./parts.ts";
import { type DecoderSpec, headsOf } from "./spec.ts";

/** Keys, turned, and values of one layer, each `[batch, sequence, keyValueHeads · headDim]`. */
export interface KeysAndValues {
  readonly keys: string;
  readonly values: string;
}

/** The layers before one whose keys and values it reads, or a later one does. */
export function layersCarriedTo({ layers, attention }: DecoderSpec, layer: number): number[] {
  const { keysOf } = attention;
  if (!keysOf) return [];
  const later = Array.from({ length: layers - layer }, (_, i) => keysOf(layer + i));
  const carried = later.filter((from) => from !== undefined && from < layer) as number[];
  return [...new Set(carried)].sort((a, b) => a - b);
}

/** Elements of a token's keys, or values, in a layer. */
export function keysWidth(spec: DecoderSpec, layer: number): number {
  const { keyValueHeads, headDim } = headsOf(spec, layer);
  return keyValueHeads * headDim;
}

/** Elements of what comes to a block of each token. */
export function widthInto(spec: DecoderSpec, layer: number): number {
  return layersCarriedTo(spec, layer)
    .reduce((sum, from) => sum + 2 * keysWidth(spec, from), spec.hidden);
}

/** Elements of the widest of what goes from block to block. */
export function widthBetween(spec: DecoderSpec): number {
  return Array.from({ length: spec.layers }, (_, layer) => widthInto(spec, layer))
    .reduce((a, b) => Math.max(a, b), spec.hidden);
}

/**
 * Cuts what comes to a block.
 *
 * @returns The hidden states, and keys and values by their layers.
 */
export function takeApart(
  b: GraphBuilder,
  spec: DecoderSpec,
  value: string,
  layer: number,
): { hidden: string; carried: Map<number, KeysAndValues> } {
  const layers = layersCarriedTo(spec, layer);
  if (layers.length === 0) return { hidden: value, carried: new Map() };
  const widths = layers.flatMap((from) => [keysWidth(spec, from), keysWidth(spec, from)]);
  const [hidden, ...parts] = b.within("carried", () => cut(b, value, [spec.hidden, ...widths]));
  return {
    hidden,
    carried: new Map(
      layers.map((from, i) => [from, { keys: parts[2 * i], values: parts[2 * i + 1] }]),
    ),
  };
}

/** Puts together what goes to the block behind a layer. */
export function putTogether(
  b: GraphBuilder,
  spec: DecoderSpec,
  hidden: string,
  carried: ReadonlyMap<number, KeysAndValues>,
  layer: number,
): string {
  const parts = layersCarriedTo(spec, layer + 1).flatMap((from) => {
    const { keys, values } = carried.get(from)!;
    return [keys, values];
  });
  if (parts.length === 0) return hidden;
  return b.within(
    "carried",
    () => b.node("Concat", [hidden, ...parts], { attributes: { axis: 2 } }),
  );
}
