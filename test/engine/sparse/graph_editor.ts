/**
 * Changes to the graphs of compiled models, for tests of what is refused.
 * @module
 */
import { create } from "@bufbuild/protobuf";
import {
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
  type GraphProto,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
  type TypeProto_Tensor,
} from "../../../src/onnx/generated/onnx_pb.ts";
import { makerOf } from "./support.ts";

/** A graph that is changed, and how to find things in it. */
export class Editor {
  constructor(readonly graph: GraphProto) {}

  /** The nth node of a type. */
  node(opType: string, nth = 0): NodeProto {
    return this.graph.node.filter((node) => node.opType === opType)[nth];
  }

  /** The first node whose name contains something. */
  named(part: string): NodeProto {
    return this.graph.node.find(({ name }) => name.includes(part))!;
  }

  /** The node that makes the input of another. */
  before(node: NodeProto, place = 0): NodeProto {
    return makerOf(this.graph, node.input[place]);
  }

  /** The type of an input. */
  typeOf(name: string): TypeProto_Tensor {
    const type = this.graph.input.find((input) => input.name === name)!.type!.value;
    if (type.case !== "tensorType") throw new Error(name);
    return type.value;
  }

  tensor(name: string): TensorProto {
    return this.graph.initializer.find((tensor) => tensor.name === name)!;
  }

  /** Sets or adds an attribute. */
  set(node: NodeProto, name: string, value: bigint | number | bigint[]): void {
    node.attribute = node.attribute.filter((attribute) => attribute.name !== name);
    node.attribute.push(create(
      AttributeProtoSchema,
      typeof value === "bigint"
        ? { name, type: AttributeType.INT, i: value }
        : typeof value === "number"
        ? { name, type: AttributeType.FLOAT, f: value }
        : { name, type: AttributeType.INTS, ints: value },
    ));
  }

  /** Puts a node between a node and one of its inputs. */
  insert(
    node: NodeProto,
    place: number,
    opType: string,
    more: string[] = [],
    domain = "",
  ): NodeProto {
    const made = create(NodeProtoSchema, {
      name: `/inserted/${opType}`,
      opType,
      domain,
      input: [node.input[place], ...more],
      output: ["inserted"],
    });
    this.graph.node.splice(this.graph.node.indexOf(node), 0, made);
    node.input[place] = "inserted";
    return made;
  }

  /** A constant in the graph. */
  constant(values: bigint[] | number[]): string {
    const name = `constant.${this.graph.initializer.length}`;
    const isInteger = typeof values[0] === "bigint";
    this.graph.initializer.push(create(TensorProtoSchema, {
      name,
      dims: [BigInt(values.length)],
      dataType: isInteger ? DataType.INT64 : DataType.FLOAT,
      int64Data: isInteger ? values as bigint[] : [],
      floatData: isInteger ? [] : values as number[],
    }));
    return name;
  }

  /** Puts tensors in the place of rotary tables that are computed, as files of earlier versions have them. */
  storeTables(): void {
    for (const node of this.graph.node.filter(({ opType }) => opType === "RotaryTables")) {
      const { rawData } = this.tensor(node.input[0]);
      const frequencies = new Float32Array(rawData.slice().buffer);
      const attribute = (name: string) => node.attribute.find((a) => a.name === name)!;
      const [positions, factor] = [Number(attribute("positions").i), attribute("factor").f];
      for (const [part, f] of [Math.cos, Math.sin].entries()) {
        const table = Float32Array.from({ length: positions * frequencies.length }, (_, i) => {
          const position = Math.floor(i / frequencies.length);
          return factor * f(Math.fround(position * frequencies[i % frequencies.length]));
        });
        this.graph.initializer.push(create(TensorProtoSchema, {
          name: node.output[part],
          dims: [positions, frequencies.length].map(BigInt),
          dataType: DataType.FLOAT,
          rawData: new Uint8Array(table.buffer),
        }));
      }
      this.graph.node.splice(this.graph.node.indexOf(node), 1);
    }
  }

  /** Gives a tensor another shape or type, with bytes that fit it. */
  reshape(name: string, dims: number[], dataType = this.tensor(name).dataType): void {
    const bytes = { [DataType.FLOAT]: 4, [DataType.INT32]: 4, [DataType.FLOAT16]: 2 }[dataType] ??
      1;
    Object.assign(this.tensor(name), {
      dims: dims.map(BigInt),
      dataType,
      dataLocation: DataLocation.DEFAULT,
      externalData: [],
      rawData: new Uint8Array(bytes * dims.reduce((a, b) => a * b, 1)),
    });
  }
}
