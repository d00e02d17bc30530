/**
 * What layers that remember do with their states, token by token.
 *
 * With S the matrix `[keyDim, valueDim]` of a head and α how much of it a token leaves, a state space (Mamba 2,
 * arXiv 2405.21060) takes each token in and is asked:
 *
 *     S ← αS + k ⊗ v,   out = scale · Sᵀq
 *
 * The gated delta rule (arXiv 2412.06464, equation 10; `torch_recurrent_gated_delta_rule` of transformers) takes in what
 * it did not know, by a strength β:
 *
 *     S ← αS + k ⊗ β(v − (αS)ᵀk),   out = scale · Sᵀq
 *
 * @module
 */
import { float, type GraphBuilder, MICROSOFT } from "../../onnx/builder.ts";
import { activate } from "./activations.ts";
import { convolvedChannels } from "./cache_parts.ts";
import type { Lent } from "./parts.ts";
import type { Recurrent } from "./spec.ts";

/** What one layer's states take in and are asked, each of `[batch, sequence, …]`. */
export interface Recurrence {
  /** Of `keyHeads · keyDim` elements. */
  readonly queries: string;
  readonly keys: string;
  /** Of `valueHeads · valueDim` elements. */
  readonly values: string;
  /** ln α of each head of values. */
  readonly decays: string;
  /** β of each head of values, by the gated delta rule. */
  readonly strengths?: string;
  readonly scale: number;
  readonly of: Recurrent;
}

/**
 * The recurrence as a node.
 *
 * @param past The states before the first token, `[batch, valueHeads, keyDim, valueDim]`; empty for zeros.
 * @param outputs Names of what it gives, `[batch, sequence, valueHeads · valueDim]`, and of the states after the last.
 */
export function recur(
  b: GraphBuilder,
  { queries, keys, values, decays, strengths, scale, of }: Recurrence,
  past: string,
  outputs: number | string[],
): string {
  const inputs = [queries, keys, values, past, decays];
  return b.node("LinearAttention", strengths === undefined ? inputs : [...inputs, strengths], {
    domain: MICROSOFT,
    attributes: {
      update_rule: strengths === undefined ? "gated" : "gated_delta",
      q_num_heads: of.keyHeads,
      kv_num_heads: of.valueHeads,
      scale: float(scale),
    },
    outputs,
  });
}

/**
 * The convolution before a recurrence, activated.
 *
 * @param input Queries, keys and values in the order that the layer has, `[batch, sequence, channels]`.
 * @param module The name of the layer's tensors.
 */
export function convolveActivated(
  { b, attention, small }: Lent,
  input: string,
  module: string,
  layer: number,
  of: Recurrent,
): string {
  const { length, kernelBias } = of, channels = convolvedChannels(of);
  return b.within("conv1d", () => {
    const convolved = attention.convolve(b, layer, {
      input,
      kernels: small(`${module}.conv1d`, "weight", [channels, 1, length]),
      bias: kernelBias ? small(`${module}.conv1d`, "bias", [channels]) : undefined,
      ...{ channels, length },
    });
    return activate(b, "silu", convolved);
  });
}

/**
 * ln α of each head: softplus(step + bias) · −e^A, of the steps that tokens have.
 *
 * @param steps `[batch, sequence, heads]`; comes back with its bias and softplus, too.
 * @param small Tensors `[heads]` by the last part of their names.
 */
export function decaysOf(
  b: GraphBuilder,
  steps: string,
  small: (name: "dt_bias" | "A_log") => string,
): { readonly steps: string; readonly decays: string } {
  return b.within("decay", () => {
    const positive = b.node("Softplus", [b.node("Add", [steps, small("dt_bias")])]);
    const speeds = b.node("Neg", [b.node("Exp", [small("A_log")])]);
    return { steps: positive, decays: b.node("Mul", [positive, speeds]) };
  });
}
