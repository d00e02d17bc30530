/**
 * Convolutions over the tokens: each channel by its own kernel, over the token and those just before it.
 * @module
 */
import type { GraphBuilder } from "../../onnx/builder.ts";
import { pastConvolution, presentConvolution } from "./cache_parts.ts";
import { cut, type Lent } from "./parts.ts";
import type { Convolutions } from "./spec.ts";

/** What one layer convolves. */
export interface Convolved {
  /** `[batch, sequence, channels]`. */
  readonly input: string;
  /** `[channels, 1, length]`; the last of a kernel's weights is the token's own. */
  readonly kernels: string;
  /** `[channels]`, where there is one. */
  readonly bias?: string;
  readonly channels: number;
  readonly length: number;
}

/**
 * A convolution in place of attention, with a gate before it and one behind.
 *
 * @param value What is convolved, `[batch, sequence, hidden]`.
 * @param module The name of its tensors.
 */
export function convolution(
  { b, attention, linear, small }: Lent,
  value: string,
  module: string,
  layer: number,
  { length, bias }: Convolutions,
  hidden: number,
): string {
  const three = linear(value, `${module}.in_proj`, 3 * hidden, hidden, bias);
  const [before, behind, own] = cut(b, three, [hidden, hidden, hidden]);
  const convolved = attention.convolve(b, layer, {
    input: b.node("Mul", [before, own], { name: "gate" }),
    kernels: small(`${module}.conv`, "weight", [hidden, 1, length]),
    bias: bias ? small(`${module}.conv`, "bias", [hidden]) : undefined,
    ...{ channels: hidden, length },
  });
  const gated = b.node("Mul", [behind, convolved], { name: "gate" });
  return linear(gated, `${module}.out_proj`, hidden, hidden, bias);
}

/** Whole windows, before which there is nothing. */
export function convolveWindow(b: GraphBuilder, convolved: Convolved): string {
  const { input, length } = convolved;
  return turn(b, convolve(b, turn(b, input), convolved, [length - 1, 0]));
}

/**
 * Tokens after others, of whose inputs the cache has the last ones. As many as a kernel spans, which transformers.js
 * and transformers keep, though the first is never read.
 */
export function convolveAfter(b: GraphBuilder, layer: number, convolved: Convolved): string {
  const { input, length } = convolved;
  const along = { attributes: { axis: 2 } };
  const all = b.node("Concat", [pastConvolution(layer), turn(b, input)], along);
  from(b, all, -length, [presentConvolution(layer)]);
  return turn(b, from(b, convolve(b, all, convolved), 1));
}

/** Channels before tokens, or tokens before channels again. */
function turn(b: GraphBuilder, value: string): string {
  return b.node("Transpose", [value], { attributes: { perm: [0, 2, 1] } });
}

/** @param pads How many zeros there are before the tokens and behind them; without, each output has all its inputs. */
function convolve(
  b: GraphBuilder,
  value: string,
  { kernels, bias, channels, length }: Convolved,
  pads?: [number, number],
): string {
  const attributes = { group: channels, kernel_shape: [length], ...(pads ? { pads } : {}) };
  return b.node("Conv", bias === undefined ? [value, kernels] : [value, kernels, bias], {
    attributes,
  });
}

/** Columns from one on; from behind, where that is negative. */
function from(b: GraphBuilder, value: string, first: number, outputs?: string[]): string {
  const bounds = [[first], [Number.MAX_SAFE_INTEGER], [2]].map((numbers) => b.integers(numbers));
  return b.node("Slice", [value, ...bounds], { outputs: outputs ?? 1 });
}
