/**
 * Cutting a decoder's graph into sections: what comes before the blocks, each block, what comes after.
 *
 * A block is found by the scope in its nodes' names (`/model/layers.3/…`, `/h.3/…`), which every
 * exporter keeps. One value goes from block to block, the hidden states; what else a block reads
 * (sequence lengths, say) comes from before the blocks and is the same for all of them.
 * @module
 */
import { GraphError } from "../errors.ts";
import { capEndingWith } from "./cap.ts";
import { isExternal } from "./external.ts";
import type { GraphProto, NodeProto, TensorProto } from "./generated/onnx_pb.ts";

/** A weight `[rows, columns]`, i.e. `[out, in]`, and the one activation that it multiplies. */
export interface Linear {
  /** Name inside its block, e.g. `self_attn.q_proj`. */
  readonly name: string;
  /** Name of the initializer that holds it. */
  readonly weight: string;
  /** Name of the value `[batch, sequence, columns]` that feeds it. */
  readonly input: string;
  /** Name of the value `[batch, sequence, rows]` that the product is. */
  readonly output: string;
  readonly rows: number;
  readonly columns: number;
}

/** What multiplies the last activations to logits. */
export interface Head extends Linear {
  /** Name of the initializer that is added to its products, if there is one. */
  readonly bias?: string;
  /** What its products are capped by: cap · tanh(product / cap) are the logits. */
  readonly cap?: number;
}

/** A vector that a norm multiplies what it normed by. */
export interface NormWeight {
  /** Name of the initializer that holds it. */
  readonly weight: string;
  readonly length: number;
}

/** A part of the graph that runs by itself. */
export interface Section {
  readonly nodes: readonly NodeProto[];
}

/** One transformer layer. */
export interface Block extends Section {
  readonly index: number;
  /** The last part of its scope, e.g. `layers.3`: what tells its names from its neighbours'. */
  readonly label: string;
  readonly linears: readonly Linear[];
  /** The hidden states that it reads. */
  readonly hiddenIn: string;
  /** The hidden states that it writes. */
  readonly hiddenOut: string;
}

/** A decoder's graph, cut. */
export interface Sections {
  readonly before: Section;
  readonly blocks: readonly Block[];
  /** From the last hidden states to the input of the output head. */
  readonly after: Section;
  /** The weights of the norm among it, where there is one. */
  readonly finalNorms: readonly NormWeight[];
  /** The output head: it is not pruned. */
  readonly head: Head;
  /** Values from before the blocks that blocks read beside the hidden states. */
  readonly shared: readonly string[];
}

const BLOCK_SCOPE = /^((?:\/[^/]+)*?\/((?:layers?|h|blocks?)\.(\d+)))\//;

/**
 * Cuts a decoder's graph into sections.
 *
 * @param graph A graph with an output `logits`, nodes in topological order.
 * @returns Its sections; they share the graph's nodes.
 * @throws {GraphError} When no blocks are found, or more than hidden states passes between them.
 */
export function cutIntoSections(graph: GraphProto): Sections {
  const initializers = new Map(graph.initializer.map((tensor) => [tensor.name, tensor]));
  const makerOf = makersOf(graph.node);

  const byBlock = new Map<number, { label: string; nodes: NodeProto[] }>();
  const blockOf = new Map<NodeProto, number>();
  for (const node of graph.node) {
    const match = BLOCK_SCOPE.exec(node.name);
    if (!match) continue;
    const index = Number(match[3]);
    blockOf.set(node, index);
    const found = byBlock.get(index) ?? { label: match[2], nodes: [] };
    found.nodes.push(node);
    byBlock.set(index, found);
  }
  if (byBlock.size === 0) {
    throw new GraphError(
      "no transformer blocks found: node names need a scope such as /model/layers.0/",
    );
  }

  /** Values that nodes read from outside, initializers not counted. */
  const inputsOf = (nodes: readonly NodeProto[]): string[] => {
    const made = new Set(nodes.flatMap((node) => node.output));
    const inputs = new Set<string>();
    for (const node of nodes) {
      for (const name of node.input) {
        if (name !== "" && !made.has(name) && !initializers.has(name)) inputs.add(name);
      }
    }
    return [...inputs];
  };

  const shared = new Set<string>();
  const blocks: Block[] = [];
  for (let index = 0; index < byBlock.size; index++) {
    const found = byBlock.get(index);
    if (!found) throw new GraphError(`block ${index} is missing: blocks must be numbered from 0`);
    const inputs = inputsOf(found.nodes);
    const fromBlocks = inputs.filter((name) => blockOf.has(makerOf.get(name)!));
    const fromBefore = inputs.filter((name) => !fromBlocks.includes(name));
    let hiddenIn: string;
    if (index === 0) {
      hiddenIn = fromBefore.find((name) => isHidden(graph, name)) ?? "";
    } else {
      hiddenIn = fromBlocks[0];
      if (fromBlocks.length !== 1 || blockOf.get(makerOf.get(hiddenIn)!) !== index - 1) {
        throw new GraphError(
          `block ${index} reads ${
            fromBlocks.join(", ") || "nothing"
          } of other blocks: exactly one value of block ${index - 1} was expected`,
        );
      }
      blocks[index - 1] = { ...blocks[index - 1], hiddenOut: hiddenIn };
    }
    if (!hiddenIn) throw new GraphError("block 0 reads no hidden states [batch, sequence, hidden]");
    for (const name of fromBefore) if (name !== hiddenIn) shared.add(name);
    const linears = findLinears(found.nodes, initializers, makerOf, found.label);
    blocks.push({
      index,
      label: found.label,
      nodes: found.nodes,
      linears,
      hiddenIn,
      hiddenOut: "",
    });
  }

  const last = blocks.length - 1;
  const { head, headNodes, after } = cutAfter(graph, makerOf, blockOf, initializers);
  // Where nothing lies between, no norm either, the head itself reads them.
  const hiddenOut = [head.input, ...inputsOf(after)].find((name) =>
    blockOf.get(makerOf.get(name)!) === last
  );
  if (!hiddenOut) throw new GraphError("the output head does not read the last block's output");
  blocks[last] = { ...blocks[last], hiddenOut };

  const afterNodes = new Set(after);
  const before = graph.node.filter((node) =>
    !blockOf.has(node) && !afterNodes.has(node) && !headNodes.includes(node)
  );
  return {
    before: { nodes: before },
    blocks,
    after: { nodes: after },
    finalNorms: findNorms(after, initializers, makerOf),
    head,
    shared: [...shared],
  };
}

/** The nodes between the last block and the head, and the head itself. */
function cutAfter(
  graph: GraphProto,
  makerOf: Map<string, NodeProto>,
  blockOf: Map<NodeProto, number>,
  initializers: Map<string, TensorProto>,
): { head: Head; headNodes: readonly NodeProto[]; after: NodeProto[] } {
  const last = makerOf.get("logits");
  const cap = last && capEndingWith(last, makerOf, initializers);
  const sum = cap ? makerOf.get(cap.of) : last;
  const bias = sum && biasAddedBy(sum, initializers, makerOf);
  const headNode = bias ? makerOf.get(bias.to) : sum;
  const traced = headNode && traceWeight(headNode, initializers, makerOf);
  if (!headNode || !traced) {
    throw new GraphError(
      "the output `logits` is not made by a MatMul with a constant weight, with a bias or without, capped or not",
    );
  }
  const [rows, columns] = traced.tensor.dims.map(Number);
  const head = {
    name: "lm_head",
    weight: traced.tensor.name,
    input: headNode.input[0],
    output: headNode.output[0],
    rows,
    columns,
    bias: bias?.name,
    cap: cap?.cap,
  };

  const outsideBlocks = graph.node.filter((node) => !blockOf.has(node));
  return {
    head,
    headNodes: [...cap?.nodes ?? [], ...bias?.nodes ?? [], ...traced.nodes],
    after: neededBy([head.input], outsideBlocks),
  };
}

/** The node that makes each value. */
function makersOf(nodes: readonly NodeProto[]): Map<string, NodeProto> {
  return new Map(nodes.flatMap((node) => node.output.map((output) => [output, node] as const)));
}

/** Those of `nodes` that the values `names` are computed from, in their order. */
export function neededBy(names: readonly string[], nodes: readonly NodeProto[]): NodeProto[] {
  const makerOf = makersOf(nodes);
  const needed = new Set<NodeProto>();
  const open = [...names];
  while (open.length > 0) {
    const node = makerOf.get(open.pop()!);
    if (!node || needed.has(node)) continue;
    needed.add(node);
    for (const name of node.input) open.push(name);
  }
  return nodes.filter((node) => needed.has(node));
}

/** Every MatMul of a block that multiplies an activation with a constant matrix. */
function findLinears(
  nodes: readonly NodeProto[],
  initializers: Map<string, TensorProto>,
  makerOf: Map<string, NodeProto>,
  label: string,
): Linear[] {
  const linears: Linear[] = [];
  for (const node of nodes) {
    const traced = traceWeight(node, initializers, makerOf);
    if (!traced) continue;
    const [rows, columns] = traced.tensor.dims.map(Number);
    const start = traced.tensor.name.indexOf(`${label}.`);
    const name = traced.tensor.name.slice(start < 0 ? 0 : start + label.length + 1);
    linears.push({
      name: name.replace(/\.weight$/, ""),
      weight: traced.tensor.name,
      input: node.input[0],
      output: node.output[0],
      rows,
      columns,
    });
  }
  return linears;
}

/** The vectors of norms: of layer norms, and of norms that are spelled out. */
function findNorms(
  nodes: readonly NodeProto[],
  initializers: Map<string, TensorProto>,
  makerOf: Map<string, NodeProto>,
): NormWeight[] {
  const norms: NormWeight[] = [];
  for (const { opType, input } of nodes) {
    if (opType !== "Mul" && opType !== "LayerNormalization") continue;
    let name = input[1];
    // Widened, and 1 added, where what is stored is what weights are above that.
    for (let maker = makerOf.get(name); maker; maker = makerOf.get(name)) {
      if (maker.opType !== "Cast" && maker.opType !== "Add") break;
      name = maker.input[0];
    }
    const tensor = initializers.get(name);
    if (tensor?.dims.length === 1 && isExternal(tensor)) {
      norms.push({ weight: name, length: Number(tensor.dims[0]) });
    }
  }
  return norms;
}

/**
 * The initializer `[out, in]` behind a MatMul's second input, through Cast and Transpose.
 *
 * @returns Nothing when the node is no such MatMul.
 */
function traceWeight(
  node: NodeProto,
  initializers: Map<string, TensorProto>,
  makerOf: Map<string, NodeProto>,
): { tensor: TensorProto; nodes: NodeProto[] } | undefined {
  if (node.opType !== "MatMul") return undefined;
  const nodes = [node];
  let transposed = false;
  let name = node.input[1];
  for (let maker = makerOf.get(name); maker; maker = makerOf.get(name)) {
    if (maker.opType === "Transpose") transposed = !transposed;
    else if (maker.opType !== "Cast") return undefined;
    nodes.push(maker);
    name = maker.input[0];
  }
  const tensor = initializers.get(name);
  return transposed && tensor?.dims.length === 2 ? { tensor, nodes } : undefined;
}

/** The vector of the checkpoint that a node adds to something, through a Cast or not. */
function biasAddedBy(
  node: NodeProto,
  initializers: Map<string, TensorProto>,
  makerOf: Map<string, NodeProto>,
): { name: string; to: string; nodes: NodeProto[] } | undefined {
  if (node.opType !== "Add") return undefined;
  for (const [to, added] of [node.input, node.input.toReversed()]) {
    const maker = makerOf.get(added);
    const name = maker?.opType === "Cast" ? maker.input[0] : added;
    const tensor = initializers.get(name);
    if (tensor?.dims.length !== 1 || !isExternal(tensor)) continue;
    return { name, to, nodes: maker ? [node, maker] : [node] };
  }
  return undefined;
}

/** Whether a value is described as float `[batch, sequence, width]`. */
function isHidden(graph: GraphProto, name: string): boolean {
  const type = graph.valueInfo.find((info) => info.name === name)?.type?.value;
  return type?.case === "tensorType" && type.value.shape?.dim.length === 3;
}
