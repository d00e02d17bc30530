/**
 * A compiled model on disk, read back: which linear is packed how, and its dense weights.
 * @module
 */
import { basename, join } from "node:path";
import { z } from "zod";
import {
  CheckpointNotFoundError,
  ConfigError,
  NotFiniteError,
  OnnxError,
  quote,
} from "../src/errors.ts";
import {
  firstNotFinite,
  FLOAT_BYTES,
  floatTypeOf,
  widen as widenFloats,
} from "../src/onnx/element_type.ts";
import {
  type NodeProto,
  type TensorProto,
  TensorProto_DataType as DataType,
} from "../src/onnx/generated/onnx_pb.ts";
import { ModelFile } from "../src/onnx/model_file.ts";
import { exists, readJson } from "../src/platform/files.ts";
import { DOMAIN, inputsOf, operatorOf, type Scaling, type SparseFormat } from "./functions.ts";
import { decodeBitmap } from "./packed/bitmap.ts";
import { decodeCsr } from "./packed/csr.ts";
import { codeBits, decodeNm } from "./packed/nm.ts";
import { widen as widenValues } from "./packed/quantize.ts";
import { checkValues, type Values } from "./packed/types.ts";

/** As much of a compiled model's `espalier.json` as is read back. */
const recordSchema = z.looseObject({
  kind: z.literal("compiled"),
  dtype: z.enum(["f32", "f16", "bf16"]).optional(),
});

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
  scales: DataType.FLOAT,
};

/** A packed linear of a compiled model. */
export interface PackedLinear {
  /** Name of its weight in the checkpoint, without `.weight`. */
  readonly name: string;
  readonly format: "nm" | "csr" | "bitmap";
  readonly rows: number;
  readonly columns: number;
  /** `N:M`, for that format. */
  readonly pattern?: string;
  readonly values: "f32" | "f16" | "int8";
  /** Bytes of all its tensors. */
  readonly bytes: number;
}

/** An open compiled model; {@linkcode close} it when done. */
export class CompiledModel {
  readonly file: ModelFile;
  /** The parsed `config.json`. */
  readonly config: Record<string, unknown>;
  /** Type of the weights that it was compiled from. */
  readonly dtype: "f32" | "f16" | "bf16";
  readonly #nodes = new Map<string, NodeProto>();

  private constructor(
    readonly folder: string,
    file: ModelFile,
    config: Record<string, unknown>,
    dtype: "f32" | "f16" | "bf16",
  ) {
    this.file = file;
    this.config = config;
    this.dtype = dtype;
    for (const node of file.graph.node) {
      if (node.domain === DOMAIN) this.#nodes.set(stemOf(node), node);
    }
  }

  /** Whether a folder holds a compiled model. */
  static isAt(folder: string): boolean {
    return exists(join(folder, "onnx", "model.onnx"));
  }

  /**
   * Opens a compiled model.
   *
   * @throws {CheckpointNotFoundError} When the folder holds none.
   * @throws {ConfigError} When `config.json` is not a JSON object.
   * @throws {OnnxError} When its graph or its data are damaged.
   */
  static open(folder: string): CompiledModel {
    const path = join(folder, "onnx", "model.onnx");
    if (!exists(path)) {
      throw new CheckpointNotFoundError(
        `${folder} holds no onnx/model.onnx: name a folder that compile wrote`,
      );
    }
    const recordPath = join(folder, "espalier.json");
    const record = recordSchema.safeParse(
      exists(recordPath) ? readJson(recordPath, 64 << 20) : undefined,
    );
    if (!record.success) {
      throw new CheckpointNotFoundError(
        `${folder} has no espalier.json of a compiled model: name a folder that compile wrote`,
      );
    }
    const config = readJson(join(folder, "config.json"), 64 << 20);
    if (typeof config !== "object" || config === null || Array.isArray(config)) {
      throw new ConfigError(`${join(folder, "config.json")} is not a JSON object`);
    }
    return new CompiledModel(
      folder,
      ModelFile.open(path),
      config as Record<string, unknown>,
      record.data.dtype ?? "f32",
    );
  }

  get name(): string {
    return basename(this.folder);
  }

  /**
   * The packed linears, in the order of the graph.
   *
   * @throws {OnnxError} When a node is none of ours, or lacks something.
   */
  linears(): PackedLinear[] {
    return [...this.#nodes].map(([name, node]) => {
      const { format, rows, columns, tensors, bytes } = this.#read(node);
      return {
        name,
        format,
        rows,
        columns,
        pattern: format === "nm" ? `${attribute(node, "n")}:${attribute(node, "m")}` : undefined,
        values: valueTypeOf(tensors.values),
        bytes,
      };
    });
  }

  /**
   * The dense weights of a packed linear, `[rows, columns]`.
   *
   * @throws {OnnxError} When its node is none of ours, or lacks something.
   * @throws {PackedFormatError} When its tensors are damaged.
   */
  dense(name: string): Float32Array {
    const node = this.#nodes.get(name)!;
    const { format, scaling, rows, columns, tensors } = this.#read(node);
    const group = scaling === "group" ? attribute(node, "group") : columns;
    const common = { name, rows, columns, values: this.#values(tensors, group) };
    switch (format) {
      case "nm":
        return decodeNm({
          ...common,
          n: attribute(node, "n"),
          m: attribute(node, "m"),
          codes: this.#bytes(tensors.codes),
        });
      case "csr": {
        const pointers = this.#bytes(tensors.row_pointers);
        return decodeCsr({
          ...common,
          gaps: this.#bytes(tensors.gaps),
          rowPointers: new Int32Array(pointers.buffer, 0, pointers.length / 4),
        });
      }
      case "bitmap":
        return decodeBitmap({ ...common, bits: this.#bytes(tensors.bits) });
    }
  }

  /**
   * A tensor that is stored dense, as float32: a norm, a bias, an embedding, a dense linear.
   *
   * @throws {OnnxError} When it is not there, or int8 without scales.
   * @throws {PackedFormatError} When its int8 values or their scales are damaged.
   * @throws {TensorTypeError} When it is not stored as int8, float32, float16 or bfloat16.
   * @throws {NotFiniteError} When a value is NaN or infinite.
   */
  plain(name: string): Float32Array {
    const tensor = this.file.tensors.get(name);
    if (!tensor) throw new OnnxError(`${this.file.path}: there is no tensor ${quote(name)}`);
    if (tensor.dataType === DataType.INT8) return this.#plainInt8(tensor);
    const type = floatTypeOf(tensor.dataType, quote(name));
    const bytes = this.#bytes(tensor);
    const at = firstNotFinite(bytes, type);
    if (at >= 0) {
      throw new NotFiniteError(
        `${this.file.path}: tensor ${quote(name)} holds NaN or infinity at element ${at}`,
      );
    }
    const values = new Float32Array(bytes.length / FLOAT_BYTES[type]);
    widenFloats(bytes, type, values);
    return values;
  }

  /** Closes its data files. */
  close(): void {
    this.file.close();
  }

  #bytes(tensor: TensorProto): Uint8Array {
    return this.file.read(tensor.name);
  }

  /** Rows of int8 with a scale each. */
  #plainInt8({ name, dims }: TensorProto): Float32Array {
    const scales = this.file.tensors.get(name.replace(/\.weight$/, ".scales"));
    if (dims.length !== 2 || scales?.dataType !== DataType.FLOAT) {
      throw new OnnxError(`${this.file.path}: tensor ${quote(name)} is int8 without scales`);
    }
    const values = this.#int8(this.file.read(name), scales, Number(dims[1]));
    const shape = { name, rows: Number(dims[0]), columns: Number(dims[1]) };
    checkValues({ ...shape, values }, shape.rows * shape.columns);
    return widenValues(values, shape);
  }

  /** The stored elements of a packed linear; `group` is for int8. */
  #values({ values, scales }: Record<string, TensorProto>, group: number): Values {
    const bytes = this.#bytes(values);
    switch (valueTypeOf(values)) {
      case "f32":
        return { type: "f32", data: new Float32Array(bytes.buffer, 0, bytes.length / 4) };
      case "f16":
        return { type: "f16", data: new Uint16Array(bytes.buffer, 0, bytes.length / 2) };
      case "int8":
        return this.#int8(bytes, scales, group);
    }
  }

  #int8(bytes: Uint8Array, scales: TensorProto, group: number): Values {
    const scaleBytes = this.#bytes(scales);
    return {
      type: "int8",
      data: new Int8Array(bytes.buffer, 0, bytes.length),
      scales: new Float32Array(scaleBytes.buffer, 0, scaleBytes.length / 4),
      group,
    };
  }

  /** What a node says, checked as far as that goes without its data. */
  #read(node: NodeProto): {
    format: SparseFormat;
    scaling: Scaling;
    rows: number;
    columns: number;
    /** By the names of the operator's inputs. */
    tensors: Record<string, TensorProto>;
    bytes: number;
  } {
    const fail = (what: string) =>
      new OnnxError(`${this.file.path}: node ${quote(node.name)} ${what}`);
    const operator = operatorOf(node.opType);
    if (!operator) {
      throw fail(`is of the unknown operator ${quote(node.opType)}: it is from a newer version`);
    }
    const { format, scaling } = operator;
    const parts = inputsOf(format, scaling).slice(1);
    const tensors = Object.fromEntries(parts.map((part, i) => {
      const tensor = this.file.tensors.get(node.input[i + 1]);
      if (!tensor) throw fail(`lacks its tensor ${part}`);
      const type = PART_TYPES[part];
      if (type !== undefined && tensor.dataType !== type) {
        throw fail(`has its tensor ${part} as ${DataType[tensor.dataType]}, not ${DataType[type]}`);
      }
      return [part, tensor];
    }));
    const isScaled = valueTypeOf(tensors.values) === "int8";
    if (isScaled !== (scaling !== "none")) {
      throw fail(
        `has ${isScaled ? "int8 values without" : "values that are not int8, and"} scales`,
      );
    }
    if (format === "nm" && attribute(node, "bits") !== codeBits(attribute(node, "m"))) {
      throw fail(`has codes of ${attribute(node, "bits")} bits for M = ${attribute(node, "m")}`);
    }
    const bytes = Object.values(tensors).reduce((sum, t) => sum + this.file.bytesOf(t), 0);
    const rows = attribute(node, "rows");
    const columns = attribute(node, "columns");
    // Written so that NaN fails it.
    if (!(rows >= 1 && columns >= 1 && rows * columns <= bytes * MOST_WEIGHTS_A_BYTE)) {
      throw fail(`has ${bytes} bytes, which cannot be ${rows} × ${columns} weights`);
    }
    return { format, scaling, rows, columns, tensors, bytes };
  }
}

function stemOf(node: NodeProto): string {
  return (node.input[1] ?? node.name).replace(/\.values$/, "");
}

/** An attribute of a node; NaN where it has none of that name. */
function attribute(node: NodeProto, name: string): number {
  return Number(node.attribute.find((a) => a.name === name)?.i ?? NaN);
}

function valueTypeOf(tensor: TensorProto): "f32" | "f16" | "int8" {
  switch (tensor.dataType) {
    case DataType.FLOAT:
      return "f32";
    case DataType.FLOAT16:
      return "f16";
    case DataType.INT8:
      return "int8";
    default:
      throw new OnnxError(
        `tensor ${quote(tensor.name)} holds ${DataType[tensor.dataType]}, not weights`,
      );
  }
}
