/**
 * Linear attention by the gated delta rule, as Qwen 3.5 has it in three of four layers.
 *
 * With S the matrix `[keyDim, valueDim]` of a head, α how much of it a token leaves and β how far it corrects it
 * (arXiv 2412.06464, equation 10; `torch_recurrent_gated_delta_rule` of transformers):
 *
 *     S ← αS + k ⊗ β(v − (αS)ᵀk),   out = Sᵀq / √keyDim
 *
 * @module
 */
import { float, type GraphBuilder, MICROSOFT } from "../../onnx/builder.ts";
import { activate } from "./activations.ts";
import { deltaNetChannels } from "./cache_parts.ts";
import { cut, divideBySize, type Lent } from "./parts.ts";
import type { DecoderSpec, DeltaNets } from "./spec.ts";

/** Of what queries and keys are divided by (`l2norm` of transformers). */
const UNIT_EPSILON = 1e-6;

/** What one layer's linear attention reads, each of `[batch, sequence, …]`. */
export interface DeltaRule {
  /** Of `keyHeads · keyDim` elements, each head's of length 1. */
  readonly queries: string;
  readonly keys: string;
  /** Of `valueHeads · valueDim` elements. */
  readonly values: string;
  /** ln α of each head of values. */
  readonly decays: string;
  /** β of each head of values. */
  readonly strengths: string;
  readonly net: DeltaNets;
}

/**
 * A layer's linear attention: a convolution over queries, keys and values, the rule, and a norm with a gate.
 *
 * @param value What it reads, `[batch, sequence, hidden]`.
 * @param module The name of its tensors.
 */
export function deltaNet(
  { b, attention, linear, small }: Lent,
  value: string,
  module: string,
  layer: number,
  net: DeltaNets,
  { hidden, norm: { epsilon } }: DecoderSpec,
): string {
  const { keyHeads, valueHeads, keyDim, valueDim, length } = net;
  const channels = deltaNetChannels(net);
  const project = (name: string, rows: number) =>
    linear(value, `${module}.${name}`, rows, hidden, false);
  const convolved = b.within("conv1d", () =>
    activate(
      b,
      "silu",
      attention.convolve(b, layer, {
        input: project("in_proj_qkv", channels),
        kernels: small(`${module}.conv1d`, "weight", [channels, 1, length]),
        ...{ channels, length },
      }),
    ));
  const widths = [keyHeads * keyDim, keyHeads * keyDim, valueHeads * valueDim];
  const [queries, keys, values] = cut(b, convolved, widths);
  const remembered = attention.remember(b, layer, {
    queries: ofLengthOne(b, queries, keyHeads, keyDim),
    keys: ofLengthOne(b, keys, keyHeads, keyDim),
    values,
    decays: b.within("decay", () => {
      const ofHeads = (name: string) => small(`${module}.${name}`, undefined, [valueHeads]);
      const shifted = b.node("Add", [project("in_proj_a", valueHeads), ofHeads("dt_bias")]);
      const speeds = b.node("Neg", [b.node("Exp", [ofHeads("A_log")])]);
      return b.node("Mul", [b.node("Softplus", [shifted]), speeds]);
    }),
    strengths: b.node("Sigmoid", [project("in_proj_b", valueHeads)]),
    net,
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

/**
 * The rule, token by token.
 *
 * @param past The state before the first token, `[batch, valueHeads, keyDim, valueDim]`; empty for zeros.
 * @param outputs Names of what it gives, `[batch, sequence, valueHeads · valueDim]`, and of the state after the last.
 */
export function deltaRule(
  b: GraphBuilder,
  { queries, keys, values, decays, strengths, net }: DeltaRule,
  past: string,
  outputs: number | string[],
): string {
  return b.node("LinearAttention", [queries, keys, values, past, decays, strengths], {
    domain: MICROSOFT,
    attributes: {
      update_rule: "gated_delta",
      q_num_heads: net.keyHeads,
      kv_num_heads: net.valueHeads,
      scale: float(1 / Math.sqrt(net.keyDim)),
    },
    outputs,
  });
}
