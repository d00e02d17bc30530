/**
 * Building ONNX graphs: nodes by name and scope, weights by where they lie on disk.
 * @module
 */
import { create } from "@bufbuild/protobuf";
import type { ExternalRange } from "./external.ts";
import {
  type AttributeProto,
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "./generated/onnx_pb.ts";

/** The value of a node's attribute. A plain number that is an integer becomes INT: see {@linkcode float}. */
export type AttributeValue = number | string | number[] | { float: number };

/** Marks an attribute that is a FLOAT even where its value is a whole number. */
export function float(value: number): { float: number } {
  return { float: value };
}

/** Elements of a constant. */
export type ConstantData = Float32Array | BigInt64Array | Int32Array;

/** ONNX operator set that our graphs need: the first with LayerNormalization. */
export const OPSET = 17;
/** The file format that goes with it. */
const IR_VERSION = 8n;
/** Domain of ONNX Runtime's own operators. */
export const MICROSOFT = "com.microsoft";

/** Collects the nodes, inputs, outputs and initializers of one graph. */
export class GraphBuilder {
  readonly graph: GraphProto;
  #scope = "";
  #names = new Set<string>();

  /** @param graph The name of a new graph, or one to add to. */
  constructor(graph: string | GraphProto) {
    if (typeof graph === "string") {
      this.graph = create(GraphProtoSchema, { name: graph });
      return;
    }
    this.graph = graph;
    for (const { name } of [...graph.node, ...graph.initializer]) this.#names.add(name);
  }

  /** Runs `build` with `scope` added to the names of the nodes that it makes. */
  within<T>(scope: string, build: () => T): T {
    const outer = this.#scope;
    this.#scope = `${outer}/${scope}`;
    try {
      return build();
    } finally {
      this.#scope = outer;
    }
  }

  /** Runs `build` with the scope of the whole graph. */
  outside<T>(build: () => T): T {
    const scope = this.#scope;
    this.#scope = "";
    try {
      return build();
    } finally {
      this.#scope = scope;
    }
  }

  /** Declares a graph input. Dimensions are numbers, or names of what varies. */
  input(name: string, type: DataType, dims: (number | string)[]): string {
    this.graph.input.push(valueInfo(name, type, dims));
    return name;
  }

  /** Declares a value of the graph as its output. */
  output(name: string, type: DataType, dims: (number | string)[]): void {
    this.graph.output.push(valueInfo(name, type, dims));
  }

  /** Notes a value's type and shape, which cutting the graph into sections needs to know. */
  describe(name: string, type: DataType, dims: (number | string)[]): void {
    this.graph.valueInfo.push(valueInfo(name, type, dims));
  }

  /** Whether there is a weight or constant of that name. */
  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** A weight whose bytes stay on disk. */
  external(name: string, type: DataType, dims: readonly number[], range: ExternalRange): string {
    if (this.#names.has(name)) return name;
    this.#names.add(name);
    this.graph.initializer.push(create(TensorProtoSchema, {
      name,
      dataType: type,
      dims: dims.map(BigInt),
      dataLocation: DataLocation.EXTERNAL,
      externalData: [
        create(StringStringEntryProtoSchema, { key: "location", value: range.location }),
        create(StringStringEntryProtoSchema, { key: "offset", value: String(range.offset) }),
        create(StringStringEntryProtoSchema, { key: "length", value: String(range.length) }),
      ],
    }));
    return name;
  }

  /** A small constant, kept in the graph itself. Constants of equal name are one, made once. */
  constant(name: string, make: ConstantData | (() => ConstantData), dims: number[]): string {
    if (this.#names.has(name)) return name;
    this.#names.add(name);
    const data = typeof make === "function" ? make() : make;
    this.graph.initializer.push(create(TensorProtoSchema, {
      name,
      dataType: data instanceof Float32Array
        ? DataType.FLOAT
        : data instanceof Int32Array
        ? DataType.INT32
        : DataType.INT64,
      dims: dims.map(BigInt),
      rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    }));
    return name;
  }

  /** A vector of 64-bit integers, as shapes and axes are. */
  integers(values: number[]): string {
    return this.constant(`ints_${values.join("_")}`, BigInt64Array.from(values.map(BigInt)), [
      values.length,
    ]);
  }

  /** A float32 scalar. */
  scalar(value: number): string {
    return this.constant(`f32_${value}`, Float32Array.of(value), []);
  }

  /**
   * Adds a node.
   *
   * @param opType Its operator.
   * @param inputs Names of values; an empty string leaves an optional input out.
   * @param options `name`: last part of the node's name; `outputs`: names to use instead of made ones,
   *   or how many to make.
   * @returns The names of its outputs.
   */
  nodes(
    opType: string,
    inputs: string[],
    options: {
      name?: string;
      domain?: string;
      attributes?: Record<string, AttributeValue>;
      outputs?: number | string[];
    } = {},
  ): string[] {
    const name = this.#unique(`${this.#scope}/${options.name ?? opType}`);
    const wanted = options.outputs ?? 1;
    const outputs = typeof wanted === "number"
      ? Array.from({ length: wanted }, (_, i) => `${name}_output_${i}`)
      : wanted;
    this.graph.node.push(create(NodeProtoSchema, {
      name,
      opType,
      domain: options.domain ?? "",
      input: inputs,
      output: outputs,
      attribute: Object.entries(options.attributes ?? {}).map(([k, v]) => attribute(k, v)),
    }));
    return outputs;
  }

  /** Adds a node with one output, and returns the output's name; see {@linkcode nodes}. */
  node(
    opType: string,
    inputs: string[],
    options: Parameters<GraphBuilder["nodes"]>[2] = {},
  ): string {
    return this.nodes(opType, inputs, options)[0];
  }

  #unique(name: string): string {
    let unique = name;
    for (let i = 1; this.#names.has(unique); i++) unique = `${name}_${i}`;
    this.#names.add(unique);
    return unique;
  }
}

/** Wraps a graph into a model. */
export function modelOf(graph: GraphProto): ModelProto {
  return create(ModelProtoSchema, {
    irVersion: IR_VERSION,
    producerName: "espalier",
    graph,
    opsetImport: [
      create(OperatorSetIdProtoSchema, { domain: "", version: BigInt(OPSET) }),
      create(OperatorSetIdProtoSchema, { domain: MICROSOFT, version: 1n }),
    ],
  });
}

/** Describes a value of a graph. */
export function valueInfo(
  name: string,
  type: DataType,
  dims: readonly (number | string)[],
): ValueInfoProto {
  return create(ValueInfoProtoSchema, {
    name,
    type: create(TypeProtoSchema, {
      value: {
        case: "tensorType",
        value: create(TypeProto_TensorSchema, {
          elemType: type,
          shape: create(TensorShapeProtoSchema, {
            dim: dims.map((dim) =>
              create(TensorShapeProto_DimensionSchema, {
                value: typeof dim === "number"
                  ? { case: "dimValue", value: BigInt(dim) }
                  : { case: "dimParam", value: dim },
              })
            ),
          }),
        }),
      },
    }),
  });
}

function attribute(name: string, value: AttributeValue): AttributeProto {
  if (typeof value === "number") {
    return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) });
  }
  if (typeof value === "string") {
    return create(AttributeProtoSchema, {
      name,
      type: AttributeType.STRING,
      s: new TextEncoder().encode(value),
    });
  }
  if (Array.isArray(value)) {
    return create(AttributeProtoSchema, {
      name,
      type: AttributeType.INTS,
      ints: value.map(BigInt),
    });
  }
  return create(AttributeProtoSchema, { name, type: AttributeType.FLOAT, f: value.float });
}
