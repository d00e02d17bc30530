/**
 * State spaces, as Granite 4 H has them in most layers (Mamba 2).
 * @module
 */
import { activate } from "./activations.ts";
import { convolvedChannels } from "./cache_parts.ts";
import { cut, divideBySize, type Lent } from "./parts.ts";
import { convolveActivated, decaysOf } from "./recurrence.ts";
import type { DecoderSpec, Recurrent } from "./spec.ts";

/**
 * A layer's state space: a convolution over what it takes in, the keys by which it does (B) and the queries that ask it
 * (C); the recurrence; and a norm behind a gate.
 *
 * @param value What it reads, `[batch, sequence, hidden]`.
 * @param module The name of its tensors.
 */
export function stateSpace(
  lent: Lent,
  value: string,
  module: string,
  layer: number,
  space: Recurrent,
  { hidden, norm: { epsilon } }: DecoderSpec,
): string {
  const { b, attention, linear, small } = lent;
  const { keyHeads, valueHeads, keyDim, valueDim, bias } = space;
  const channels = convolvedChannels(space), width = valueHeads * valueDim;
  const projected = linear(value, `${module}.in_proj`, width + channels + valueHeads, hidden, bias);
  const [gate, mixed, ownSteps] = cut(b, projected, [width, channels, valueHeads]);
  const convolved = convolveActivated(lent, mixed, module, layer, space);
  const [taken, keys, queries] = cut(b, convolved, [width, keyHeads * keyDim, keyHeads * keyDim]);
  const ofHeads = (name: string) => small(`${module}.${name}`, undefined, [valueHeads]);
  const { steps, decays } = decaysOf(b, ownSteps, ofHeads);
  const byHead = (x: string, dim: number) =>
    b.node("Reshape", [x, b.integers([0, 0, valueHeads, dim])]);
  const joined = (x: string) => b.node("Reshape", [x, b.integers([0, 0, width])]);
  const heads = byHead(taken, valueDim);
  const remembered = attention.recur(b, layer, {
    ...{ queries, keys, decays },
    values: joined(b.node("Mul", [heads, byHead(steps, 1)])),
    scale: 1,
    of: space,
  });
  const asIs = b.within("skip", () => {
    const factors = b.node("Reshape", [ofHeads("D"), b.integers([valueHeads, 1])]);
    return joined(b.node("Mul", [heads, factors]));
  });
  const found = b.node("Add", [remembered, asIs]);
  const gated = b.node("Mul", [found, activate(b, "silu", gate)], { name: "gate" });
  const normed = b.within("norm", () =>
    b.node("Mul", [
      divideBySize(b, gated, "ReduceMean", epsilon),
      small(`${module}.norm`, "weight", [width]),
    ]));
  return linear(normed, `${module}.out_proj`, hidden, width, bias);
}
