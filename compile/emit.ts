/**
 * Packed weights, and rotary tables, as nodes of a graph.
 * @module
 */
import type { Rotary } from "../src/checkpoint/architectures/spec.ts";
import { float, type GraphBuilder } from "../src/onnx/builder.ts";
import type { ExternalRange } from "../src/onnx/external.ts";
import { TensorProto_DataType as DataType } from "../src/onnx/generated/onnx_pb.ts";
import {
  attributesOf,
  DOMAIN,
  operatorName,
  type Scaling,
  type SparseFormat,
} from "./functions.ts";
import { indexScales, packNibbles } from "./packed/int4.ts";
import { codeBits } from "./packed/nm.ts";
import type { PackedSlots } from "./packed/slots.ts";
import type { PackedBitmap, PackedCsr, PackedNm, ValueOptions, ValueType } from "./packed/types.ts";
import { ROTARY_TABLES } from "./rotary_tables.ts";

/** A tensor on disk, with what a graph says of it. */
export interface StoredTensor {
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly range: ExternalRange;
}

/** A packed linear whose tensors have been written. */
export interface StoredSparse {
  readonly format: SparseFormat;
  readonly scaling: Scaling;
  readonly rows: number;
  readonly columns: number;
  /** By the operator's attribute names. */
  readonly attributes: Readonly<Record<string, number>>;
  /** By the operator's input names, without x. */
  readonly tensors: Readonly<Record<string, StoredTensor>>;
}

/** A packed matrix of any format. */
export type Packed =
  | { readonly format: "nm"; readonly matrix: PackedNm }
  | { readonly format: "csr"; readonly matrix: PackedCsr }
  | { readonly format: "bitmap"; readonly matrix: PackedBitmap }
  | { readonly format: "slots"; readonly matrix: PackedSlots };

const TYPES: Record<ValueType, DataType> = {
  f32: DataType.FLOAT,
  f16: DataType.FLOAT16,
  int8: DataType.INT8,
  // Two a byte.
  int4: DataType.UINT8,
};

/** The ONNX type of stored values. */
export function valueTypeOf(type: ValueType): DataType {
  return TYPES[type];
}

/** How values are scaled. */
export function scalingOf({ type, group = Infinity }: ValueOptions, columns: number): Scaling {
  if (type === "int4") return "int4";
  if (type !== "int8") return "none";
  return group >= columns ? "row" : "group";
}

/**
 * Writes a packed matrix.
 *
 * @param packed The matrix.
 * @param write Stores elements and tells where.
 */
export function store(
  packed: Packed,
  write: (elements: ArrayBufferView) => ExternalRange,
): StoredSparse {
  const { format, matrix } = packed;
  const { rows, columns, values } = matrix;
  const scaling = scalingOf(values, columns);
  const tensor = (type: DataType, dims: number[], elements: ArrayBufferView): StoredTensor => ({
    type,
    dims,
    range: write(elements),
  });
  const tensors: Record<string, StoredTensor> = {};
  const attributes: Record<string, number> = { rows, columns };
  const valueType = valueTypeOf(values.type);
  const storeValues = (dims: number[]): StoredTensor => {
    if (values.type !== "int4") return tensor(valueType, dims, values.data);
    const bytes = packNibbles(values.data);
    return tensor(valueType, [bytes.length], bytes);
  };
  if (format === "nm") {
    const { n, m, codes } = matrix;
    const groups = columns / m;
    const bits = codeBits(m);
    Object.assign(attributes, { n, m, bits });
    tensors.values = storeValues([groups, n, rows]);
    tensors.codes = tensor(DataType.UINT8, [groups, n, Math.ceil(rows * bits / 8)], codes);
  } else if (format === "csr") {
    tensors.values = storeValues([values.data.length]);
    tensors.gaps = tensor(DataType.UINT8, [matrix.gaps.length], matrix.gaps);
    tensors.row_pointers = tensor(DataType.INT32, [rows + 1], matrix.rowPointers);
  } else if (format === "slots") {
    const { counts, masks } = matrix;
    tensors.values = storeValues([values.data.length / 16, 4, 4]);
    tensors.counts = tensor(DataType.UINT8, [rows / 4, counts.length / (rows / 4)], counts);
    tensors.masks = tensor(DataType.UINT8, [masks.length / 8, 4, 2], masks);
  } else {
    tensors.values = storeValues([values.data.length]);
    tensors.bits = tensor(DataType.UINT8, [rows, Math.ceil(columns / 8)], matrix.bits);
  }
  if (values.type === "int8") {
    if (scaling === "group") attributes.group = values.group;
    const dims = scaling === "row" ? [rows] : [rows, Math.ceil(columns / values.group)];
    tensors.scales = tensor(DataType.FLOAT, dims, values.scales);
  }
  if (values.type === "int4") {
    attributes.group = values.group;
    const dims = [rows, Math.ceil(columns / values.group)];
    const { indices, table } = indexScales(values.scales);
    tensors.scales = tensor(DataType.UINT8, dims, indices);
    tensors.scale_table = tensor(DataType.FLOAT16, [table.length], table);
  }
  return { format, scaling, rows, columns, attributes, tensors };
}

/**
 * Adds the node that multiplies with a stored matrix.
 *
 * @param name The weight's name in the checkpoint, the stem of its tensors' names.
 * @param output Name of the result, where it matters.
 */
export function emit(
  b: GraphBuilder,
  x: string,
  name: string,
  stored: StoredSparse,
  output?: string,
): string {
  const { format, scaling, attributes, tensors } = stored;
  const inputs = Object.entries(tensors).map(([part, { type, dims, range }]) =>
    b.external(`${name}.${part}`, type, dims, range)
  );
  return b.node(operatorName(format, scaling), [x, ...inputs], {
    domain: DOMAIN,
    attributes: Object.fromEntries(
      attributesOf(format, scaling).map((attribute) => [attribute, attributes[attribute]]),
    ),
    outputs: output ? [output] : 1,
  });
}

/**
 * Adds a node that makes rotary tables.
 *
 * @param positions Rows of the tables.
 * @param suffix What names of its values end with.
 * @returns The names of cosines and sines.
 */
export function emitTables(
  b: GraphBuilder,
  { frequencies, factor }: Rotary,
  positions: number,
  suffix: string,
): [string, string] {
  const constant = b.constant(`rotary_frequencies${suffix}`, frequencies, [frequencies.length]);
  const [cosines, sines] = b.nodes(ROTARY_TABLES, [constant], {
    domain: DOMAIN,
    attributes: { positions, factor: float(factor) },
    outputs: [`cos_cache${suffix}`, `sin_cache${suffix}`],
  });
  return [cosines, sines];
}
