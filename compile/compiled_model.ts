/**
 * A compiled model on disk, read back: which linear is packed how, and its dense weights.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import { folderName } from "../src/checkpoint/folder_name.ts";
import { type PackedNode, readPackedNode, valueTypeOf } from "../src/engine/sparse/packed_node.ts";
import { quote } from "../src/checks.ts";
import { CheckpointNotFoundError, ConfigError, NotFiniteError, OnnxError } from "../src/errors.ts";
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
import type { FloatType } from "../src/onnx/element_type.ts";
import { ModelFile } from "../src/onnx/model_file.ts";
import { readJson } from "../src/platform/files.ts";
import { exists } from "../src/platform/paths.ts";
import { DOMAIN, type PackedFormat } from "./functions.ts";
import { ROTARY_TABLES } from "./rotary_tables.ts";
import { decodeBitmap } from "./packed/bitmap.ts";
import { decodeCsr } from "./packed/csr.ts";
import { lookUpScales, unpackNibbleRows, unpackNibbles } from "./packed/int4.ts";
import { decodeNm } from "./packed/nm.ts";
import { decodeSlots } from "./packed/slots.ts";
import { widen as widenValues } from "./packed/quantize.ts";
import { checkShape, checkValues, type Values } from "./packed/types.ts";

const floatType = z.enum(["f32", "f16", "bf16"]);
/** As much of a compiled model's `espalier.json` as is read back. */
const recordSchema = z.looseObject({
  kind: z.literal("compiled"),
  dtype: floatType.optional(),
  otherDtypes: z.record(z.string(), floatType).optional(),
  addedToConfig: z.array(z.string()).optional(),
  options: z.looseObject({ context: z.int().min(1).optional() }).optional(),
});

/** A packed matrix of a compiled model: a linear, or a table in int4. */
export interface PackedLinear {
  /** Name of its weight in the checkpoint, without `.weight`. */
  readonly name: string;
  /** `dense` for int4 alone: other dense matrices are tensors of the graph. */
  readonly format: PackedFormat;
  readonly rows: number;
  readonly columns: number;
  /** `N:M`, for that format. */
  readonly pattern?: string;
  readonly values: "f32" | "f16" | "int8" | "int4";
  /** Bytes of all its tensors. */
  readonly bytes: number;
}

/** An open compiled model; {@linkcode close} it when done. */
export class CompiledModel {
  readonly file: ModelFile;
  /** The parsed `config.json`. */
  readonly config: Record<string, unknown>;
  /** Type of the weights that it was compiled from. */
  readonly dtype: FloatType;
  /** The same of tensors, by name, that had another one. */
  readonly otherDtypes: Readonly<Record<string, FloatType>>;
  /** Members of its config that the one of what it was compiled from had not. */
  readonly addedToConfig: readonly string[];
  /** The longest sequence that it was compiled for; infinite where the record does not say. */
  readonly context: number;
  readonly #nodes = new Map<string, NodeProto>();

  private constructor(
    readonly folder: string,
    file: ModelFile,
    config: Record<string, unknown>,
    { dtype, otherDtypes, addedToConfig, options }: z.output<typeof recordSchema>,
  ) {
    this.file = file;
    this.config = config;
    this.dtype = dtype ?? "f32";
    this.otherDtypes = otherDtypes ?? {};
    this.addedToConfig = addedToConfig ?? [];
    this.context = options?.context ?? Infinity;
    for (const node of file.graph.node) {
      const hasMatrix = node.domain === DOMAIN && node.opType !== ROTARY_TABLES;
      if (hasMatrix) this.#nodes.set(stemOf(node), node);
    }
  }

  /**
   * Whether a folder holds a compiled model. One with safetensors is a checkpoint, to which somebody
   * added an ONNX file, as many repositories of the Hub have it.
   */
  static isAt(folder: string): boolean {
    const weights = ["model.safetensors", "model.safetensors.index.json"];
    return exists(join(folder, "onnx", "model.onnx")) &&
      !weights.some((name) => exists(join(folder, name)));
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
      record.data,
    );
  }

  get name(): string {
    return folderName(this.folder);
  }

  /**
   * The packed linears, and tables in int4, in the order of the graph.
   *
   * @throws {OnnxError} When a node is none of ours, or lacks something.
   */
  linears(): PackedLinear[] {
    return [...this.#nodes].map(([name, node]) => {
      const { format, rows, columns, attributes, values, bytes } = this.#read(node);
      return {
        name,
        format,
        rows,
        columns,
        pattern: format === "nm" ? `${attributes.n}:${attributes.m}` : undefined,
        values,
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
    const packed = this.#read(this.#nodes.get(name)!);
    const { format, scaling, rows, columns, attributes, tensors } = packed;
    const values = scaling === "int4"
      ? this.#int4(name, packed)
      : this.#values(tensors, scaling === "group" ? attributes.group : columns);
    const common = { name, rows, columns, values };
    switch (format) {
      case "dense":
        checkShape(common);
        checkValues(common, rows * columns);
        return widenValues(values, common);
      case "nm":
        return decodeNm({
          ...common,
          n: attributes.n,
          m: attributes.m,
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
      case "slots":
        return decodeSlots({
          ...common,
          counts: this.#bytes(tensors.counts),
          masks: this.#bytes(tensors.masks),
        });
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
    const count = bytes.length / FLOAT_BYTES[type];
    // Read for this call alone, they need no copy.
    if (type === "f32") return new Float32Array(bytes.buffer, bytes.byteOffset, count);
    const values = new Float32Array(count);
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
      case "int4":
        throw new OnnxError(
          `${this.file.path}: tensor ${quote(values.name)} is not of its operator`,
        );
    }
  }

  /** Levels and scales of int4. How many values a matrix has, its indices tell. */
  #int4(name: string, { format, rows, columns, attributes, tensors }: PackedNode): Values {
    const { n, m, group } = attributes;
    const bytes = this.#bytes(tensors.values);
    const count = () => {
      switch (format) {
        case "nm":
          return columns / m * n * rows;
        case "csr":
          return this.#bytes(tensors.gaps).length;
        case "slots":
          return 2 * bytes.length;
        default:
          return 1 + onesOf(this.#bytes(tensors.bits));
      }
    };
    const data = format === "dense"
      ? unpackNibbleRows(bytes, { name, rows, columns })
      : unpackNibbles(bytes, count(), { name });
    const indices = this.#bytes(tensors.scales);
    const table = this.#bytes(tensors.scale_table);
    const scales = { indices, table: new Uint16Array(table.buffer, 0, table.length / 2) };
    return { type: "int4", data, scales: lookUpScales(scales, { name }), group };
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

  #read(node: NodeProto): PackedNode {
    return readPackedNode(node, this.file.tensors, this.file.path);
  }
}

/** How many bits are 1. */
function onesOf(bytes: Uint8Array): number {
  let ones = 0;
  for (let byte of bytes) for (; byte !== 0; byte &= byte - 1) ones++;
  return ones;
}

function stemOf(node: NodeProto): string {
  return (node.input[1] ?? node.name).replace(/\.values$/, "");
}
