/**
 * What a node with a packed matrix says, checked as far as that goes without its data.
 * @module
 */
import {
  attributesOf,
  inputsOf,
  operatorOf,
  type PackedFormat,
  type Scaling,
} from "../../../compile/functions.ts";
import { codeBits } from "../../../compile/packed/nm.ts";
import { quote } from "../../checks.ts";
import { OnnxError } from "../../errors.ts";
import {
  type NodeProto,
  type TensorProto,
  TensorProto_DataType as DataType,
} from "../../onnx/generated/onnx_pb.ts";
import { bytesOf } from "../../onnx/graph_check.ts";

/**
 * Most weights that a byte of a packed linear may stand for: a damaged file must not claim gigabytes.
 * Nothing takes fewer bytes than an empty row in CSR, 4; so rows of up to 65,536 weights pass whatever
 * is in them, and no model has longer ones.
 */
const MOST_WEIGHTS_A_BYTE = 1 << 14;

/** Types of the tensors that are not values. */
const PART_TYPES: Readonly<Record<string, DataType>> = {
  codes: DataType.UINT8,
  gaps: DataType.UINT8,
  row_pointers: DataType.INT32,
  bits: DataType.UINT8,
  counts: DataType.UINT8,
  masks: DataType.UINT8,
  scales: DataType.FLOAT,
  scale_table: DataType.FLOAT16,
};

/** A matrix of domain `ai.espalier`. */
export interface PackedNode {
  readonly format: PackedFormat;
  readonly scaling: Scaling;
  readonly rows: number;
  readonly columns: number;
  readonly values: "f32" | "f16" | "int8" | "int4";
  /** By name; NaN for one that the node lacks. */
  readonly attributes: Readonly<Record<string, number>>;
  /** By the names of the operator's inputs, without x. */
  readonly tensors: Readonly<Record<string, TensorProto>>;
  /** Bytes of all its tensors. */
  readonly bytes: number;
}

/**
 * Reads a node of domain `ai.espalier`.
 *
 * @param node The node.
 * @param tensors The graph's initializers by name.
 * @param path The model's file, for messages.
 * @throws {OnnxError} When its operator is none of ours, it lacks a tensor or has one of another type,
 *   or it claims more weights than its bytes can hold.
 */
export function readPackedNode(
  node: NodeProto,
  tensors: ReadonlyMap<string, TensorProto>,
  path: string,
): PackedNode {
  const fail = (what: string) => new OnnxError(`${path}: node ${quote(node.name)} ${what}`);
  const operator = operatorOf(node.opType);
  if (!operator) {
    throw fail(`is of the unknown operator ${quote(node.opType)}: it is from a newer version`);
  }
  const { format, scaling } = operator;
  const parts = inputsOf(format, scaling).slice(1);
  const found = Object.fromEntries(parts.map((part, i) => {
    const tensor = tensors.get(node.input[i + 1]);
    if (!tensor) throw fail(`lacks its tensor ${part}`);
    const type = part === "scales" && scaling === "int4" ? DataType.UINT8 : PART_TYPES[part];
    if (type !== undefined && tensor.dataType !== type) {
      throw fail(`has its tensor ${part} as ${DataType[tensor.dataType]}, not ${DataType[type]}`);
    }
    return [part, tensor];
  }));
  const values = valueTypeOf(found.values);
  if ((values === "int4") !== (scaling === "int4")) {
    throw fail(`has its values as ${DataType[found.values.dataType]}, which its operator has not`);
  }
  if (values !== "int4" && (values === "int8") !== (scaling !== "none")) {
    throw fail(
      `has ${values === "int8" ? "int8 values without" : "values that are not int8, and"} scales`,
    );
  }
  const attributes = Object.fromEntries(
    attributesOf(format, scaling).map((name) => [name, attributeOf(node, name)]),
  );
  if (format === "nm" && attributes.bits !== codeBits(attributes.m)) {
    throw fail(`has codes of ${attributes.bits} bits for M = ${attributes.m}`);
  }
  if (scaling === "int4" && ![32, 64, 128].includes(attributes.group)) {
    throw fail(`has int4 scales for groups of ${attributes.group}, not 32, 64 or 128`);
  }
  const bytes = Object.values(found).reduce((sum, tensor) => sum + bytesOf(path, tensor), 0);
  const { rows, columns } = attributes;
  // Written so that NaN fails it.
  if (!(rows >= 1 && columns >= 1 && rows * columns <= bytes * MOST_WEIGHTS_A_BYTE)) {
    throw fail(`has ${bytes} bytes, which cannot be ${rows} × ${columns} weights`);
  }
  return { format, scaling, rows, columns, values, attributes, tensors: found, bytes };
}

/**
 * How the values of a packed matrix are stored.
 *
 * @throws {OnnxError} When they are no weights.
 */
export function valueTypeOf(tensor: TensorProto): "f32" | "f16" | "int8" | "int4" {
  switch (tensor.dataType) {
    case DataType.FLOAT:
      return "f32";
    case DataType.FLOAT16:
      return "f16";
    case DataType.INT8:
      return "int8";
    case DataType.UINT8:
      return "int4";
    default:
      throw new OnnxError(
        `tensor ${quote(tensor.name)} holds ${DataType[tensor.dataType]}, not weights`,
      );
  }
}

/** An attribute of a node; NaN where it has none of that name. */
function attributeOf(node: NodeProto, name: string): number {
  return Number(node.attribute.find((attribute) => attribute.name === name)?.i ?? NaN);
}
