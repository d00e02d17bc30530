/**
 * What the parts of a block are built from: its linears and small weights, and nodes that several of them need.
 * @module
 */
import type { GraphBuilder } from "../../onnx/builder.ts";
import type { Attention } from "./attention.ts";

/** What a decoder lends to those who build a part of its blocks. */
export interface Lent {
  readonly b: GraphBuilder;
  readonly attention: Attention;
  /** `x · Wᵀ (+ b)` with W `[rows, columns]` as checkpoints store it. */
  linear(value: string, name: string, rows: number, columns: number, bias: boolean): string;
  /** What is no matrix; see `DecoderWeights.small`. */
  small(name: string, part: "weight" | "bias" | undefined, dims: readonly number[]): string;
}

/** Cuts vectors into parts that follow one another. */
export function cut(b: GraphBuilder, value: string, widths: readonly number[]): string[] {
  return b.within("cut", () =>
    widths.map((width, i) => {
      const start = widths.slice(0, i).reduce((sum, before) => sum + before, 0);
      return slice(b, value, start, start + width, 2);
    }));
}

/**
 * Cuts the vectors of heads, each into `parts` of `width` elements: `[batch, sequence, heads · parts · width]` to so
 * many of `[batch, sequence, heads · width]`.
 */
export function cutHeads(
  b: GraphBuilder,
  value: string,
  heads: number,
  parts: number,
  width: number,
): string[] {
  return b.within("cut", () => {
    const apart = b.node("Reshape", [value, b.integers([0, 0, heads, parts * width])]);
    return Array.from({ length: parts }, (_, part) => {
      const ofHeads = slice(b, apart, part * width, (part + 1) * width, 3);
      return b.node("Reshape", [ofHeads, b.integers([0, 0, heads * width])]);
    });
  });
}

function slice(b: GraphBuilder, value: string, from: number, to: number, axis: number): string {
  return b.node("Slice", [value, ...[from, to, axis].map((n) => b.integers([n]))]);
}

/**
 * Divides vectors, those of the last axis, by √(Σ x² + ε), or by √(mean x² + ε).
 *
 * Spelled out, so that any ONNX tool understands it; ONNX Runtime fuses the nodes of a mean, and a multiplication by
 * weights, into one.
 */
export function divideBySize(
  b: GraphBuilder,
  value: string,
  of: "ReduceSum" | "ReduceMean",
  epsilon: number,
): string {
  const square = b.node("Pow", [value, b.scalar(2)]);
  // Axes are an input of sums since operator set 13, and of means since 18.
  const size = of === "ReduceSum"
    ? b.node(of, [square, b.integers([-1])], { attributes: { keepdims: 1 } })
    : b.node(of, [square], { attributes: { axes: [-1], keepdims: 1 } });
  const root = b.node("Sqrt", [b.node("Add", [size, b.scalar(epsilon)])]);
  return b.node("Div", [value, root]);
}
