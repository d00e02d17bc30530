/**
 * A section of a graph as a model of its own, with its weights as inputs.
 *
 * With weights as inputs, one session serves every block of the same form: nothing is compiled again,
 * and the runtime keeps no copy of a weight between runs. Names are made equal from block to block,
 * so that equal form shows as equal bytes.
 * @module
 */
import { clone, create, toBinary } from "@bufbuild/protobuf";
import { modelOf, valueInfo } from "./builder.ts";
import {
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
  type GraphProto,
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  TensorProto_DataType as DataType,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "./generated/onnx_pb.ts";
import { isExternal } from "./external.ts";
import { addGradients } from "./gradient.ts";
import { neededBy, type Section } from "./sections.ts";

/** A section that a runtime can load. */
export interface ExtractedModel {
  /** The serialised ModelProto. */
  readonly bytes: Uint8Array;
  /** Input name → name of the initializer that it stands for. Fed as float32. */
  readonly weights: ReadonlyMap<string, string>;
  /** Names of all its inputs. */
  readonly inputs: ReadonlySet<string>;
  /** Tables of which only some rows are fed, by the graph input that picks the rows. */
  readonly gathered: ReadonlyMap<string, readonly string[]>;
  /** Name of a value in the whole graph → its name here. */
  readonly rename: (name: string) => string;
}

/** What to make of a section. */
export interface ExtractOptions {
  /** Values of the whole graph to give out. */
  outputs: readonly string[];
  /** Values `[batch, sequence, width]` whose squares to give out, summed over the sequence. */
  squaresOf?: readonly string[];
  /** Gradients to give out of a loss whose gradient by `of` is put in; see {@linkcode addGradients}. */
  gradients?: {
    readonly of: string;
    /** The section's own input of hidden states, or weights of the whole graph. */
    readonly by: readonly string[];
  };
  /** Names to change, beside the block's label. */
  names?: ReadonlyMap<string, string>;
  /** The block's label, e.g. `layers.3`, which becomes `layers.N` in every name. */
  label?: string;
}

/** The output with the summed squares of the value `name`. */
export function squaresOf(name: string): string {
  return `squares:${name}`;
}

/**
 * Makes a model of a section.
 *
 * Weights that lie on disk become float32 inputs (their Cast nodes go), and nodes that no output
 * needs are left out.
 *
 * @param graph The whole graph.
 * @param section The nodes to take.
 * @param options What to give out, and which names to change.
 */
export function extract(
  graph: GraphProto,
  section: Section,
  options: ExtractOptions,
): ExtractedModel {
  const external = new Map(graph.initializer.filter(isExternal).map((t) => [t.name, t]));
  const inline = new Map(
    graph.initializer.filter((t) => !isExternal(t)).map((t) => [t.name, t]),
  );
  const rename = renamer(options);

  // A Cast of a weight on disk is done by whoever reads it.
  const cast = new Map<string, string>();
  const kept: NodeProto[] = [];
  const { gradients } = options;
  const wanted = [
    ...options.outputs,
    ...options.squaresOf ?? [],
    ...(gradients ? [gradients.of] : []),
  ];
  for (const node of neededBy(wanted, section.nodes)) {
    if (node.opType === "Cast" && external.has(node.input[0])) {
      cast.set(node.output[0], node.input[0]);
    } else {
      kept.push(node);
    }
  }
  const source = (name: string) => cast.get(name) ?? name;

  const weights = new Map<string, string>();
  const result = create(GraphProtoSchema, { name: "section" });
  const outside = new Set<string>();
  const made = new Set(kept.flatMap((node) => node.output));
  const graphInputs = new Set(graph.input.map((input) => input.name));
  const gathered = gatheredBy(kept, source, external, graphInputs);
  for (const node of kept) {
    for (const name of node.input.map(source)) {
      if (name === "" || made.has(name)) continue;
      const tensor = external.get(name);
      if (tensor) weights.set(rename(name), name);
      else if (!inline.has(name)) outside.add(name);
    }
    const copy = clone(NodeProtoSchema, node);
    copy.name = rename(node.name);
    copy.input = node.input.map((name) => rename(source(name)));
    copy.output = node.output.map(rename);
    result.node.push(copy);
  }
  const used = new Set(kept.flatMap((node) => node.input));
  for (const [name, tensor] of inline) if (used.has(name)) result.initializer.push(tensor);
  for (const name of outside) {
    const info = [...graph.input, ...graph.valueInfo].find((info) => info.name === name);
    if (info) result.input.push(renamed(info, rename));
  }
  const partial = new Set([...gathered.values()].flat());
  for (const [input, name] of weights) {
    const dims = external.get(name)!.dims.map(Number);
    result.input.push(
      valueInfo(input, DataType.FLOAT, partial.has(name) ? ["rows", ...dims.slice(1)] : dims),
    );
  }
  for (const name of options.outputs) {
    const info = [...graph.output, ...graph.valueInfo].find((info) => info.name === name);
    result.output.push(renamed(info ?? create(ValueInfoProtoSchema, { name }), rename));
  }
  for (const name of options.squaresOf ?? []) {
    const output = squaresOf(rename(name));
    // ONNX Runtime sums along a middle axis one by one, in order: the same float32 sum in all its
    // CPU builds, and in PyTorch's norm.
    result.node.push(create(NodeProtoSchema, {
      name: output,
      opType: "ReduceSumSquare",
      input: [rename(name)],
      output: [output],
      attribute: [
        create(AttributeProtoSchema, { name: "axes", type: AttributeType.INTS, ints: [1n] }),
        create(AttributeProtoSchema, { name: "keepdims", type: AttributeType.INT, i: 0n }),
      ],
    }));
    result.output.push(valueInfo(output, DataType.FLOAT, ["batch", "width"]));
  }
  if (gradients) addGradients(result, rename(gradients.of), gradients.by.map(rename));
  const bytes = toBinary(ModelProtoSchema, modelOf(result));
  const inputs = new Set(result.input.map(({ name }) => name));
  return { bytes, weights, inputs, gathered, rename };
}

/**
 * Tables that are read by `Gather(table, ids)` alone need only the rows that the ids name, where these are an input that
 * nothing else reads.
 */
function gatheredBy(
  nodes: readonly NodeProto[],
  source: (name: string) => string,
  external: ReadonlyMap<string, unknown>,
  graphInputs: ReadonlySet<string>,
): Map<string, string[]> {
  const gathered = new Map<string, string[]>();
  const readers = new Map<string, NodeProto[]>();
  for (const node of nodes) {
    for (const name of node.input.map(source)) {
      // Ids that are counted anew are as many: their shape does not tell which they are.
      if (node.opType === "Shape" && graphInputs.has(name)) continue;
      readers.set(name, [...readers.get(name) ?? [], node]);
    }
  }
  for (const [ids, nodes] of readers) {
    if (!graphInputs.has(ids)) continue;
    const tables = nodes.map((node) => {
      const [table, by] = node.input.map(source);
      const isOnlyUse = node.opType === "Gather" && by === ids && readers.get(table)!.length === 1;
      return isOnlyUse && external.has(table) ? table : undefined;
    });
    if (tables.every((table) => table !== undefined)) gathered.set(ids, tables);
  }
  return gathered;
}

function renamed(info: ValueInfoProto, rename: (name: string) => string): ValueInfoProto {
  const copy = clone(ValueInfoProtoSchema, info);
  copy.name = rename(info.name);
  return copy;
}

function renamer(options: ExtractOptions): (name: string) => string {
  const { names, label } = options;
  if (!label) return (name) => names?.get(name) ?? name;
  const [kind] = label.split(".");
  const pattern = new RegExp(`(^|[/.])${label.replace(".", "\\.")}(?=[/.])`, "g");
  return (name) => names?.get(name) ?? name.replace(pattern, `$1${kind}.N`);
}
