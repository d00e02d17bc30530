/**
 * Linear attention by the gated delta rule, as Qwen 3.5 has it in three of four layers.
 * @module
 */
import type { GraphBuilder } from "../../onnx/builder.ts";
import { activate } from "./activations.ts";
import { convolvedChannels } from "./cache_parts.ts";
import { cut, divideBySize, type Lent } from "./parts.ts";
import { convolveActivated, decaysOf } from "./recurrence.ts";
import type { DecoderSpec, Recurrent } from "./spec.ts";

/** Of what queries and keys are divided by (`l2norm` of transformers). */
const UNIT_EPSILON = 1e-6;

/**
 * A layer's linear attention: a convolution over queries, keys and values, the rule, and a norm with a gate.
 *
 * @param value What it reads, `[batch, sequence, hidden]`.
 * @param module The name of its tensors.
 */
export function deltaNet(
  lent: Lent,
  value: string,
  module: string,
  layer: number,
  net: Recurrent,
  { hidden, norm: { epsilon } }: DecoderSpec,
): string {
  const { b, attention, linear, small } = lent;
  const { keyHeads, valueHeads, keyDim, valueDim } = net;
  const project = (name: string, rows: number) =>
    linear(value, `${module}.${name}`, rows, hidden, false);
  const mixed = project("in_proj_qkv", convolvedChannels(net));
  const convolved = convolveActivated(lent, mixed, module, layer, net);
  const widths = [keyHeads * keyDim, keyHeads * keyDim, valueHeads * valueDim];
  const [queries, keys, values] = cut(b, convolved, widths);
  const { decays } = decaysOf(
    b,
    project("in_proj_a", valueHeads),
    (name) => small(`${module}.${name}`, undefined, [valueHeads]),
  );
  const remembered = attention.recur(b, layer, {
    queries: ofLengthOne(b, queries, keyHeads, keyDim),
    keys: ofLengthOne(b, keys, keyHeads, keyDim),
    ...{ values, decays },
    strengths: b.node("Sigmoid", [project("in_proj_b", valueHeads)]),
    scale: 1 / Math.sqrt(keyDim),
    of: net,
  });
  const gate = activate(b, "silu", project("in_proj_z", valueHeads * valueDim));
  const gated = b.within("norm", () => {
    const heads = b.node("Reshape", [remembered, b.integers([0, 0, valueHeads, valueDim])]);
    const weight = small(`${module}.norm`, "weight", [valueDim]);
    const normed = b.node("Mul", [divideBySize(b, heads, "ReduceMean", epsilon), weight]);
    const whole = b.node("Reshape", [normed, b.integers([0, 0, valueHeads * valueDim])]);
    return b.node("Mul", [whole, gate], { name: "gate" });
  });
  return linear(gated, `${module}.out_proj`, hidden, valueHeads * valueDim, false);
}

/** Heads of queries or keys, each divided by its length. */
function ofLengthOne(b: GraphBuilder, value: string, heads: number, dim: number): string {
  return b.within("unit", () => {
    const apart = b.node("Reshape", [value, b.integers([0, 0, heads, dim])]);
    const unit = divideBySize(b, apart, "ReduceSum", UNIT_EPSILON);
    return b.node("Reshape", [unit, b.integers([0, 0, heads * dim])]);
  });
}
