/**
 * Matrices in numbers, and files of them, for the tests of kernels.
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { indexScales } from "../../../compile/packed/int4.ts";
import { codeBits } from "../../../compile/packed/nm.ts";
import type { PackedSlots } from "../../../compile/packed/slots.ts";
import type { PackedBitmap, PackedCsr, PackedNm } from "../../../compile/packed/types.ts";
import { filesSource } from "../../../src/engine/source.ts";
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import { ModelReader } from "../../../src/engine/sparse/model_reader.ts";
import { modelOf } from "../../../src/onnx/builder.ts";
import {
  GraphProtoSchema,
  type TensorProto,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
} from "../../../src/onnx/generated/onnx_pb.ts";
import { toHalves } from "../../../src/onnx/half.ts";
import { modelBytes } from "../../../src/onnx/model_file.ts";

/** A matrix in numbers. */
export interface Numbers {
  readonly rows: number;
  readonly columns: number;
  readonly type: "f32" | "f16" | "int8" | "int4";
  /** Row-major; of int8 and int4 without their scales, of f16 float16 numbers. */
  readonly elements: Float64Array;
  /** `[rows, ⌈columns / group⌉]`; of int4 float16 numbers. */
  readonly scales?: Float32Array;
  readonly group?: number;
}

/** The weights, row-major. */
export function weightsOf(matrix: Numbers): Float64Array {
  const { columns, elements, scales, group = columns } = matrix;
  if (!scales) return elements;
  const perRow = Math.ceil(columns / group);
  return elements.map((element, i) =>
    element * scales[Math.floor(i / columns) * perRow + Math.floor(i % columns / group)]
  );
}

/** Elements as a file holds them. */
function bytesOf(type: Numbers["type"], elements: ArrayLike<number>): Uint8Array {
  switch (type) {
    case "f32":
      return new Uint8Array(Float32Array.from(elements).buffer);
    case "f16":
      return new Uint8Array(Uint16Array.from(elements, halfBits).buffer);
    case "int8":
      return new Uint8Array(Int8Array.from(elements).buffer);
    case "int4": {
      const bytes = new Uint8Array(Math.ceil(elements.length / 2));
      for (let i = 0; i < elements.length; i++) {
        bytes[i >> 1] += (elements[i] < 0 ? elements[i] + 16 : elements[i]) * (i % 2 ? 16 : 1);
      }
      return bytes;
    }
  }
}

/** Elements of rows that begin at bytes of their own. */
function bytesOfRows(type: Numbers["type"], elements: Float64Array, columns: number): Uint8Array {
  if (type !== "int4" || columns % 2 === 0) return bytesOf(type, elements);
  const rows = Array.from(
    { length: elements.length / columns },
    (_, row) => [...elements.subarray(row * columns, (row + 1) * columns), 0],
  );
  return bytesOf(type, rows.flat());
}

/** The bits of a number that is a float16. */
function halfBits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (size < 2 ** -14) return sign | size * 2 ** 24;
  const exponent = Math.floor(Math.log2(size));
  return sign | (exponent + 15) << 10 | (size / 2 ** exponent - 1) * 1024;
}

/** The float16 number nearest to one, as long as it is neither large nor tiny. */
export function toHalf(value: number): number {
  if (value === 0) return 0;
  const unit = 2 ** Math.max(-24, Math.floor(Math.log2(Math.abs(value))) - 10);
  return Math.round(value / unit) * unit;
}

function bytesOfView({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength).slice();
}

/** A packed matrix in a file. */
export type SparseRef = MatrixRef & { readonly kind: "sparse" };

const TYPES = {
  f32: DataType.FLOAT,
  f16: DataType.FLOAT16,
  int8: DataType.INT8,
  int4: DataType.UINT8,
};

/** A file of tensors. */
export class Tensors {
  readonly #tensors: TensorProto[] = [];

  /** Adds a matrix, as it is or as a bitmap of what is not 0. */
  matrix(numbers: Numbers, packed: boolean): MatrixRef {
    const name = `matrix${this.#tensors.length}`;
    const { rows, columns, type, elements, scales, group } = numbers;
    const dims = [rows, columns];
    const isInt4 = type === "int4";
    const scaleDims = group && (packed || isInt4) ? [rows, Math.ceil(columns / group)] : [rows];
    const add = (part: string, type: DataType, dims: number[], bytes: Uint8Array) =>
      this.#add(`${name}.${part}`, type, dims, bytes);
    let scaleTensor: string | undefined;
    let table: string | undefined;
    if (scales && isInt4) {
      const bits = new Uint16Array(scales.length);
      toHalves(scales, bits);
      const indexed = indexScales(bits);
      scaleTensor = add("scales", DataType.UINT8, scaleDims, indexed.indices);
      table = add("scale_table", DataType.FLOAT16, [256], bytesOfView(indexed.table));
    } else if (scales) {
      scaleTensor = add("scales", DataType.FLOAT, scaleDims, bytesOf("f32", scales));
    }
    if (!packed) {
      const bytes = bytesOfRows(type, elements, columns);
      const shape = isInt4 ? [rows, Math.ceil(columns / 2)] : dims;
      const values = this.#add(`${name}.weight`, TYPES[type], shape, bytes);
      const common = { kind: "dense", name, rows, columns, type, values } as const;
      return { ...common, scales: scaleTensor, ...isInt4 ? { table, group } : {} };
    }
    const kept = [0, ...elements.filter((element) => element !== 0)];
    const perRow = Math.ceil(columns / 8);
    const bits = new Uint8Array(rows * perRow);
    elements.forEach((element, i) => {
      const column = i % columns;
      if (element !== 0) {
        bits[Math.floor(i / columns) * perRow + (column >> 3)] |= 1 << (column & 7);
      }
    });
    return {
      kind: "sparse",
      name,
      rows,
      columns,
      type,
      format: "bitmap",
      scaling: isInt4 ? "int4" : scales ? (group ? "group" : "row") : "none",
      attributes: { rows, columns, ...group ? { group } : {} },
      tensors: {
        bits: this.#add(`${name}.bits`, DataType.UINT8, [rows, perRow], bits),
        values: this.#add(
          `${name}.values`,
          TYPES[type],
          [isInt4 ? Math.ceil(kept.length / 2) : kept.length],
          bytesOf(type, kept),
        ),
        ...scaleTensor ? { scales: scaleTensor } : {},
        ...table ? { scale_table: table } : {},
      },
    };
  }

  /** Adds a matrix that is packed already. */
  packed(packed: PackedNm | PackedCsr | PackedBitmap | PackedSlots): SparseRef {
    const name = `packed${this.#tensors.length}`;
    const { rows, columns, values } = packed;
    const add = (part: string, type: DataType, data: ArrayBufferView & { length: number }) =>
      this.#add(`${name}.${part}`, type, [data.length], bytesOfView(data));
    const isGrouped = values.type === "int8" && values.group < columns;
    const tensors: Record<string, string> = {
      values: add(
        "values",
        TYPES[values.type],
        values.type === "int4" ? bytesOf("int4", values.data) : values.data,
      ),
    };
    const attributes: Record<string, number> = { rows, columns };
    if (values.type === "int8") {
      tensors.scales = add("scales", DataType.FLOAT, values.scales);
      if (isGrouped) attributes.group = values.group;
    }
    if (values.type === "int4") {
      const { indices, table } = indexScales(values.scales);
      tensors.scales = add("scales", DataType.UINT8, indices);
      tensors.scale_table = add("scale_table", DataType.FLOAT16, table);
      attributes.group = values.group;
    }
    if ("codes" in packed) {
      tensors.codes = add("codes", DataType.UINT8, packed.codes);
      Object.assign(attributes, { n: packed.n, m: packed.m, bits: codeBits(packed.m) });
    } else if ("gaps" in packed) {
      tensors.gaps = add("gaps", DataType.UINT8, packed.gaps);
      tensors.row_pointers = add("row_pointers", DataType.INT32, packed.rowPointers);
    } else if ("masks" in packed) {
      tensors.counts = add("counts", DataType.UINT8, packed.counts);
      tensors.masks = add("masks", DataType.UINT8, packed.masks);
    } else tensors.bits = add("bits", DataType.UINT8, packed.bits);
    return {
      kind: "sparse",
      name,
      rows,
      columns,
      type: values.type,
      format: "codes" in packed
        ? "nm"
        : "gaps" in packed
        ? "csr"
        : "masks" in packed
        ? "slots"
        : "bitmap",
      scaling: values.type === "int4"
        ? "int4"
        : values.type !== "int8"
        ? "none"
        : isGrouped
        ? "group"
        : "row",
      attributes,
      tensors,
    };
  }

  /** Changes a tensor's bytes. */
  change(name: string, change: (bytes: Uint8Array) => void): void {
    change(this.#tensors.find((tensor) => tensor.name === name)!.rawData);
  }

  /** Adds a vector of float32; returns its name. */
  vector(values: ArrayLike<number>): string {
    const name = `vector${this.#tensors.length}`;
    return this.#add(name, DataType.FLOAT, [values.length], bytesOf("f32", values));
  }

  /** The file, open. */
  open(): Promise<ModelReader> {
    const graph = create(GraphProtoSchema, { name: "tensors", initializer: this.#tensors });
    return ModelReader.open(filesSource({ "onnx/model.onnx": modelBytes(modelOf(graph)) }));
  }

  #add(name: string, dataType: DataType, dims: readonly number[], rawData: Uint8Array): string {
    this.#tensors.push(create(TensorProtoSchema, {
      name,
      dataType,
      dims: dims.map(BigInt),
      rawData,
    }));
    return name;
  }
}
