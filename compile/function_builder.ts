/**
 * Nodes of a model-local function, as they come.
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { OPSET } from "../src/onnx/builder.ts";
import {
  type AttributeProto,
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
  type FunctionProto,
  FunctionProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as DataType,
} from "../src/onnx/generated/onnx_pb.ts";

/** Collects the nodes of a function's body. */
export class FunctionBuilder {
  readonly nodes: FunctionProto["node"] = [];
  #count = 0;

  node(
    opType: string,
    input: string[],
    attributes: Record<string, number | string> = {},
    output = `${opType}_${this.#count++}`,
  ): string {
    this.#add(
      opType,
      input,
      output,
      Object.entries(attributes).map(([name, value]) =>
        typeof value === "number"
          ? create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) })
          : create(AttributeProtoSchema, {
            name,
            type: AttributeType.STRING,
            s: new TextEncoder().encode(value),
          })
      ),
    );
    return output;
  }

  /**
   * The function of these nodes, as an operator of ours.
   *
   * @param attribute Names of its attributes.
   */
  finish(
    { name, domain, input, output, attribute }: {
      readonly name: string;
      readonly domain: string;
      readonly input: string[];
      readonly output: string[];
      readonly attribute: string[];
    },
  ): FunctionProto {
    return create(FunctionProtoSchema, {
      name,
      domain,
      input,
      output,
      attribute,
      node: this.nodes,
      opsetImport: [create(OperatorSetIdProtoSchema, { domain: "", version: BigInt(OPSET) })],
    });
  }

  /** The operator's attribute as an int64 scalar. */
  attribute(name: string): string {
    return this.#attribute(name, "value_int", AttributeType.INT);
  }

  /** The operator's attribute as a float32 scalar. */
  floatAttribute(name: string): string {
    return this.#attribute(name, "value_float", AttributeType.FLOAT);
  }

  #attribute(refAttrName: string, name: string, type: AttributeType): string {
    if (!this.nodes.some(({ output }) => output[0] === refAttrName)) {
      this.#add("Constant", [], refAttrName, [
        create(AttributeProtoSchema, { name, refAttrName, type }),
      ]);
    }
    return refAttrName;
  }

  /** An int64 scalar. */
  integer(value: number): string {
    const name = `int_${value}`.replace("-", "minus_");
    if (!this.nodes.some(({ output }) => output[0] === name)) {
      this.#add("Constant", [], name, [
        create(AttributeProtoSchema, {
          name: "value_int",
          type: AttributeType.INT,
          i: BigInt(value),
        }),
      ]);
    }
    return name;
  }

  /** An int64 vector. */
  vector(values: number[]): string {
    const name = `ints_${this.#count++}`;
    this.#add("Constant", [], name, [
      create(AttributeProtoSchema, {
        name: "value_ints",
        type: AttributeType.INTS,
        ints: values.map(BigInt),
      }),
    ]);
    return name;
  }

  /** A uint8 vector. */
  bytes(values: number[]): string {
    return this.byte(this.vector(values));
  }

  /** A vector of int64 scalars: a shape. */
  shape(...dims: string[]): string {
    const one = this.vector([1]);
    return this.node("Concat", dims.map((dim) => this.node("Reshape", [dim, one])), { axis: 0 });
  }

  cast(value: string, type: DataType): string {
    return this.node("Cast", [value], { to: type });
  }

  byte(value: string): string {
    return this.cast(value, DataType.UINT8);
  }

  shift(value: string, by: string, direction: "LEFT" | "RIGHT"): string {
    return this.node("BitShift", [value, by], { direction });
  }

  /** Zeros of another value's type. */
  zerosLike(value: string, shape: string): string {
    const zero = this.node("CastLike", [this.vector([0]), value]);
    return this.node("Expand", [zero, shape]);
  }

  /** A sixteenth of floats: exact. */
  sixteenth(value: string): string {
    const sixteen = this.node("CastLike", [this.vector([16]), value]);
    return this.node("Div", [value, sixteen]);
  }

  /** The bits of every byte that there is, first bit first, `[256, 8]`, and how many are 1, `[256]`. */
  bitsOfBytes(): { flags: string; counts: string } {
    const all = this.byte(
      this.node("Range", [this.integer(0), this.integer(256), this.integer(1)]),
    );
    const apart = this.node("Unsqueeze", [all, this.vector([-1])]);
    const lifted = this.shift(apart, this.bytes([7, 6, 5, 4, 3, 2, 1, 0]), "LEFT");
    const flags = this.cast(this.shift(lifted, this.bytes([7]), "RIGHT"), DataType.INT32);
    const counts = this.node("ReduceSum", [flags, this.vector([1])], { keepdims: 0 });
    return { flags, counts };
  }

  /** A matrix, transposed. */
  turned(value: string): string {
    return this.permuted(value, [1, 0]);
  }

  /** A tensor with its axes in another order. */
  permuted(value: string, axes: number[]): string {
    const name = `Transpose_${this.#count++}`;
    this.#add("Transpose", [value], name, [
      create(AttributeProtoSchema, {
        name: "perm",
        type: AttributeType.INTS,
        ints: axes.map(BigInt),
      }),
    ]);
    return name;
  }

  #add(opType: string, input: string[], output: string, attribute: AttributeProto[]): void {
    this.nodes.push(create(NodeProtoSchema, {
      name: output,
      opType,
      input,
      output: [output],
      attribute,
    }));
  }
}
