/**
 * A compiled model on disk, read back: which linear is packed how, and its dense weights.
 * @module
 */
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { CheckpointNotFoundError, OnnxError, PackedFormatError } from "../src/errors.ts";
import { floatTypeOf, widen as widenFloats } from "../src/onnx/element_type.ts";
import {
  type NodeProto,
  type TensorProto,
  TensorProto_DataType as DataType,
} from "../src/onnx/generated/onnx_pb.ts";
import { ModelFile } from "../src/onnx/model_file.ts";
import { exists, readJson } from "../src/platform/files.ts";
import { DOMAIN, inputsOf, operatorOf } from "./functions.ts";
import { decodeBitmap } from "./packed/bitmap.ts";
import { decodeCsr } from "./packed/csr.ts";
import { decodeNm } from "./packed/nm.ts";
import type { Values } from "./packed/types.ts";

/** As much of a compiled model's `espalier.json` as is read back. */
const recordSchema = z.looseObject({
  kind: z.literal("compiled"),
  dtype: z.enum(["f32", "f16", "bf16"]).optional(),
});

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
    if (typeof config !== "object" || config === null) {
      throw new CheckpointNotFoundError(`${folder}: config.json is not a JSON object`);
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

  /** The packed linears, in the order of the graph. */
  linears(): PackedLinear[] {
    return [...this.#nodes].map(([name, node]) => {
      const { format } = operatorOf(node.opType)!;
      const tensors = this.#tensorsOf(node);
      const n = attribute(node, "n");
      const m = attribute(node, "m");
      return {
        name,
        format,
        rows: attribute(node, "rows")!,
        columns: attribute(node, "columns")!,
        pattern: format === "nm" ? `${n}:${m}` : undefined,
        values: valueTypeOf(tensors.values),
        bytes: Object.values(tensors).reduce((sum, t) => sum + this.#bytes(t.name).length, 0),
      };
    });
  }

  /**
   * The dense weights of a packed linear, `[rows, columns]`.
   *
   * @throws {PackedFormatError} When its tensors are damaged.
   */
  dense(name: string): Float32Array {
    const node = this.#nodes.get(name)!;
    const { format, scaling } = operatorOf(node.opType)!;
    const tensors = this.#tensorsOf(node);
    const rows = attribute(node, "rows") ?? 0;
    const columns = attribute(node, "columns") ?? 0;
    const group = scaling === "group" ? attribute(node, "group") ?? 0 : columns;
    const values = this.#values(tensors.values, tensors.scales, group);
    const common = { name, rows, columns, values };
    switch (format) {
      case "nm":
        return decodeNm({
          ...common,
          n: attribute(node, "n") ?? 0,
          m: attribute(node, "m") ?? 0,
          codes: this.#bytes(tensors.codes.name),
        });
      case "csr": {
        const pointers = this.#bytes(tensors.row_pointers.name);
        return decodeCsr({
          ...common,
          gaps: this.#bytes(tensors.gaps.name),
          rowPointers: new Int32Array(pointers.buffer, 0, pointers.length / 4),
        });
      }
      case "bitmap":
        return decodeBitmap({ ...common, bits: this.#bytes(tensors.bits.name) });
    }
  }

  /** A tensor that is stored dense, as float32: a norm, a bias, an embedding, a dense linear. */
  plain(name: string): Float32Array {
    const tensor = this.file.tensors.get(name)!;
    const bytes = this.#bytes(name);
    if (tensor.dataType !== DataType.INT8) {
      const type = floatTypeOf(tensor.dataType, name);
      const size = tensor.dims.reduce((product, dim) => product * Number(dim), 1);
      const values = new Float32Array(size);
      widenFloats(bytes, type, values);
      return values;
    }
    const scales = this.plain(name.replace(/\.weight$/, ".scales"));
    const rows = Number(tensor.dims[0]);
    const columns = Number(tensor.dims[1]);
    if (scales.length !== rows) {
      throw new OnnxError(`${name} has ${scales.length} scales for ${rows} rows`);
    }
    const elements = new Int8Array(bytes.buffer, 0, bytes.length);
    return Float32Array.from(elements, (q, i) => q * scales[Math.floor(i / columns)]);
  }

  /** Closes its data files. */
  close(): void {
    this.file.close();
  }

  #bytes(name: string): Uint8Array {
    return this.file.read(name);
  }

  #values(tensor: TensorProto, scales: TensorProto | undefined, group: number): Values {
    const bytes = this.#bytes(tensor.name);
    switch (valueTypeOf(tensor)) {
      case "f32":
        return { type: "f32", data: new Float32Array(bytes.buffer, 0, bytes.length / 4) };
      case "f16":
        return { type: "f16", data: new Uint16Array(bytes.buffer, 0, bytes.length / 2) };
      case "int8": {
        if (!scales) throw new PackedFormatError(`${tensor.name} has no scales`);
        const scaleBytes = this.#bytes(scales.name);
        return {
          type: "int8",
          data: new Int8Array(bytes.buffer, 0, bytes.length),
          scales: new Float32Array(scaleBytes.buffer, 0, scaleBytes.length / 4),
          group,
        };
      }
    }
  }

  /** A node's tensors by the names of the operator's inputs. */
  #tensorsOf(node: NodeProto): Record<string, TensorProto> {
    const operator = operatorOf(node.opType);
    if (!operator) {
      throw new OnnxError(
        `${
          dirname(this.file.path)
        }: operator ${node.opType} of ${DOMAIN} is not known: it was made by a newer version`,
      );
    }
    const parts = inputsOf(operator.format, operator.scaling).slice(1);
    return Object.fromEntries(parts.map((part, i) => {
      const tensor = this.file.tensors.get(node.input[i + 1]);
      if (!tensor) {
        throw new OnnxError(`${this.file.path}: node ${node.name} lacks its tensor ${part}`);
      }
      return [part, tensor];
    }));
  }
}

function stemOf(node: NodeProto): string {
  return (node.input[1] ?? node.name).replace(/\.values$/, "");
}

function attribute(node: NodeProto, name: string): number | undefined {
  const found = node.attribute.find((a) => a.name === name);
  return found && Number(found.i);
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
      throw new OnnxError(`${tensor.name} holds ${DataType[tensor.dataType]}, not weights`);
  }
}
