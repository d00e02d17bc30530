/**
 * What each layer is given of a token beside the hidden states (Gemma 4's per-layer embeddings;
 * `get_per_layer_inputs` and `project_per_layer_inputs` of transformers): with e what the embedding gives, r the layer's
 * part of the token's row in a table of its own and W its rows of a projection,
 *
 *     input = (norm(W·e / √hidden) + scale · r) / √2
 *
 * and behind its MLP a layer adds norm(back · (act(gate · x) · input)) to its hidden states x.
 * @module
 */
import type { GraphBuilder } from "../../onnx/builder.ts";
import { activate } from "./activations.ts";
import { cut, type Lent } from "./parts.ts";
import { below, type DecoderSpec, type PerLayerInputs } from "./spec.ts";
import type { DecoderWeights } from "./weights.ts";

/** What a decoder lends to those who build inputs of its layers. */
export interface LentForInputs {
  readonly b: GraphBuilder;
  readonly weights: DecoderWeights;
  readonly spec: DecoderSpec;
  readonly of: PerLayerInputs;
  /** What the embedding gives of the ids, `[batch, sequence, hidden]`. */
  embed(): string;
  /** `x / √(mean x² + ε) · weight`, of the last axis. */
  norm(value: string, name: string, width: number): string;
}

/** The inputs of all layers, one behind the other: `[batch, sequence, layers · width]`. */
export function inputsOfAll(lent: LentForInputs, ids: string): string {
  const { b, weights, spec: { root, layers, hidden }, of } = lent;
  const projected = weights.product(
    b,
    lent.embed(),
    below(root, of.projection),
    layers * of.width,
    hidden,
  );
  return combine(lent, projected, rowsOf(lent, ids), layers);
}

/** The input of one layer, of what belongs to it alone. */
export function inputOfOne(lent: LentForInputs, ids: string, layer: number): string {
  const { b, weights, spec: { root, layers, hidden }, of: { width, projection } } = lent;
  const all = weights.small(b, below(root, projection), "weight", [layers * width, hidden]);
  const bounds = [layer * width, (layer + 1) * width, 0].map((n) => b.integers([n]));
  const own = b.node("Transpose", [b.node("Slice", [all, ...bounds])], {
    attributes: { perm: [1, 0] },
  });
  const projected = b.node("MatMul", [lent.embed(), own]);
  return combine(lent, projected, partOfLayer(b, rowsOf(lent, ids), width, layers, layer), 1);
}

/** A layer's part of the inputs of all. */
export function partOfLayer(
  b: GraphBuilder,
  inputs: string,
  width: number,
  layers: number,
  layer: number,
): string {
  const [, part] = cut(b, inputs, [layer, 1, layers - layer - 1].map((n) => n * width));
  return part;
}

/** The hidden states of a layer with what it makes of its input. */
export function addInput(
  { b, linear }: Pick<Lent, "b" | "linear">,
  norm: (value: string) => string,
  hidden: string,
  input: string,
  path: string,
  { hidden: width, mlp: { activation } }: DecoderSpec,
  of: PerLayerInputs,
): string {
  const gate = linear(hidden, `${path}.${of.gate}`, of.width, width, false);
  const gated = b.node("Mul", [activate(b, activation, gate), input], { name: "per_layer/Mul" });
  const back = linear(gated, `${path}.${of.back}`, width, of.width, false);
  return b.node("Add", [hidden, norm(back)], { name: "per_layer/residual" });
}

/** The rows of the table, for all layers. */
function rowsOf({ b, weights, spec: { root, layers }, of }: LentForInputs, ids: string): string {
  return weights.rows(b, below(root, of.table), of.vocabulary, layers * of.width, ids);
}

function combine(
  { b, norm, spec: { root, hidden }, of }: LentForInputs,
  projected: string,
  rows: string,
  layers: number,
): string {
  const scaled = b.node("Mul", [projected, b.scalar(hidden ** -0.5)]);
  const shape = (x: string, dims: number[]) => b.node("Reshape", [x, b.integers(dims)]);
  const apart = shape(scaled, [0, 0, layers, of.width]);
  const normed = shape(norm(apart, below(root, of.norm), of.width), [0, 0, layers * of.width]);
  const sum = b.node("Add", [normed, b.node("Mul", [rows, b.scalar(of.scale)])]);
  return b.node("Mul", [sum, b.scalar(2 ** -0.5)]);
}
