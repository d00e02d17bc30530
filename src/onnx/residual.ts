/**
 * Where a linear's result joins the residual stream.
 * @module
 */
import type { GraphProto, NodeProto } from "./generated/onnx_pb.ts";
import { type Block, type Linear, neededBy } from "./sections.ts";

/** `sum = linear + bias + other`. */
export interface Residual {
  /** Name of the value with the linear's result in it. */
  readonly sum: string;
  /** Name of the value that it was added to. */
  readonly other: string;
  /** Name of the initializer that is added to the product before, if there is one. */
  readonly bias?: string;
}

/**
 * Finds the sum that a linear's result goes into unchanged, but for a bias: in most decoders
 * attention's and the MLP's last linear add to the residual stream so.
 *
 * @param graph The whole graph.
 * @param block The linear's block.
 * @param linear One of its linears.
 * @param before Linears whose results `other` may depend on; where it depends on more, it is not yet
 *   what it will be.
 * @returns Nothing where the result goes elsewhere: through a norm, say, or into attention.
 */
export function residualOf(
  graph: GraphProto,
  block: Block,
  linear: Linear,
  before: readonly Linear[],
): Residual | undefined {
  const initializers = new Set(graph.initializer.map(({ name }) => name));
  let value = linear.output;
  let bias: string | undefined;
  for (;;) {
    const users = block.nodes.filter((node) => node.input.includes(value));
    if (users.length !== 1 || users[0].opType !== "Add") return undefined;
    const [node] = users;
    const other = node.input[0] === value ? node.input[1] : node.input[0];
    const constant = initializerOf(other, initializers, block.nodes);
    if (constant === undefined) {
      const needed = new Set(neededBy([other], block.nodes).flatMap(({ output }) => output));
      const early = new Set(before.map(({ output }) => output));
      const late = block.linears.some(({ output }) => needed.has(output) && !early.has(output));
      return late || other === value ? undefined : { sum: node.output[0], other, bias };
    }
    if (bias !== undefined) return undefined;
    bias = constant;
    value = node.output[0];
  }
}

/** The initializer behind a value, perhaps through a Cast. */
function initializerOf(
  name: string,
  initializers: ReadonlySet<string>,
  nodes: readonly NodeProto[],
): string | undefined {
  if (initializers.has(name)) return name;
  const maker = nodes.find((node) => node.output.includes(name));
  return maker?.opType === "Cast" && initializers.has(maker.input[0]) ? maker.input[0] : undefined;
}
