/**
 * Soft caps: x becomes cap · tanh(x / cap), which is near to x where that is small, and never beyond the cap.
 * @module
 */
import type { GraphBuilder } from "./builder.ts";
import { numbersOf } from "./constants.ts";
import type { NodeProto, TensorProto } from "./generated/onnx_pb.ts";

/**
 * Caps a value, as exporters spell it out.
 *
 * @param cap The cap; the value stays as it is without one.
 * @param output The name of what is capped; made if not given.
 */
export function capped(
  b: GraphBuilder,
  value: string,
  cap: number | undefined,
  output?: string,
): string {
  if (cap === undefined) return value;
  return b.within("cap", () => {
    const bounded = b.node("Tanh", [b.node("Div", [value, b.scalar(cap)])]);
    return b.node("Mul", [bounded, b.scalar(cap)], { outputs: output ? [output] : 1 });
  });
}

/** A soft cap that was found in a graph. */
export interface FoundCap {
  readonly cap: number;
  /** What is capped. */
  readonly of: string;
  readonly nodes: readonly NodeProto[];
}

/**
 * The soft cap whose last node this is.
 *
 * @param last Its last node.
 * @param makerOf The node that makes each value.
 * @param initializers By name.
 * @returns Nothing where it is none.
 */
export function capEndingWith(
  last: NodeProto,
  makerOf: ReadonlyMap<string, NodeProto>,
  initializers: ReadonlyMap<string, TensorProto>,
): FoundCap | undefined {
  const numberOf = (name: string) => {
    const tensor = initializers.get(name);
    const numbers = tensor && numbersOf(tensor, "floats");
    return numbers?.length === 1 ? numbers[0] : undefined;
  };
  if (last.opType !== "Mul") return undefined;
  for (const [bounded, factor] of [last.input, last.input.toReversed()]) {
    const tanh = makerOf.get(bounded), cap = numberOf(factor);
    if (tanh?.opType !== "Tanh" || cap === undefined) continue;
    const divided = makerOf.get(tanh.input[0]);
    if (divided?.opType !== "Div" || numberOf(divided.input[1]) !== cap || !(cap > 0)) continue;
    return { cap, of: divided.input[0], nodes: [last, tanh, divided] };
  }
  return undefined;
}
