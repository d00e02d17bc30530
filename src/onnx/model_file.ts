/**
 * ONNX models on disk: a small file with the graph, and a data file beside it with the weights.
 *
 * Weights never pass through protobuf: they are ranges of the data file, read and written as bytes.
 * A model is hostile until it has passed {@linkcode readModel}.
 * @module
 */
import { toBinary } from "@bufbuild/protobuf";
import { dirname, join } from "node:path";
import { quote } from "../checks.ts";
import { OnnxError } from "../errors.ts";
import { fileSize } from "../platform/paths.ts";
import { PositionedFile } from "../platform/positioned_file.ts";
import {
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type TensorProto,
  TensorProto_DataLocation as DataLocation,
} from "./generated/onnx_pb.ts";
import {
  bytesOf,
  checkApart,
  checkedRange,
  checkEnd,
  checkGraphSize,
  parseModel,
} from "./graph_check.ts";

export { parseModel };

/** An ONNX model that has been checked, and its open data files. */
export class ModelFile {
  readonly #files: ReadonlyMap<string, PositionedFile>;
  readonly tensors: ReadonlyMap<string, TensorProto>;

  private constructor(
    readonly path: string,
    readonly model: ModelProto,
    files: Map<string, PositionedFile>,
  ) {
    this.#files = files;
    this.tensors = new Map(model.graph!.initializer.map((tensor) => [tensor.name, tensor]));
  }

  /**
   * Opens and checks a model. No two tensors share bytes, so all of them together are never more than their files.
   *
   * @param path The `.onnx` file; data files are looked for beside it only.
   * @throws {OnnxError} When the graph does not hang together, or a tensor does not fit its data.
   * @throws {FileReadError} When a file cannot be read.
   */
  static open(path: string): ModelFile {
    const model = readModel(path);
    const ranges = new Map(
      model.graph!.initializer
        .filter((tensor) => tensor.dataLocation === DataLocation.EXTERNAL)
        .map((tensor) => [tensor, checkedRange(path, tensor)]),
    );
    const files = new Map<string, PositionedFile>();
    try {
      for (const [tensor, range] of ranges) {
        let file = files.get(range.location);
        if (!file) {
          const data = join(dirname(path), range.location);
          if (fileSize(data) === undefined) {
            throw new OnnxError(
              `${path}: data file ${quote(range.location)} is missing: it belongs beside it`,
            );
          }
          files.set(range.location, file = PositionedFile.open(data, "read"));
        }
        checkEnd(path, tensor, range, file.size);
      }
      checkApart(path, ranges);
      return new ModelFile(path, model, files);
    } catch (error) {
      for (const file of files.values()) file.close();
      throw error;
    }
  }

  get graph(): GraphProto {
    return this.model.graph!;
  }

  /** Bytes of a tensor. */
  bytesOf(tensor: TensorProto): number {
    return bytesOf(this.path, tensor);
  }

  /** Reads a tensor's bytes, little-endian, wherever they lie. */
  read(name: string): Uint8Array {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new OnnxError(`${this.path}: there is no initializer ${quote(name)}`);
    if (tensor.dataLocation !== DataLocation.EXTERNAL) {
      // Graphs may hold small constants in fields by type; weights are bytes, here or in a file.
      const wanted = bytesOf(this.path, tensor);
      if (tensor.rawData.length !== wanted) {
        throw new OnnxError(
          `${this.path}: tensor ${quote(name)} has ${tensor.rawData.length} of its ${wanted} bytes`,
        );
      }
      return new Uint8Array(tensor.rawData);
    }
    const range = checkedRange(this.path, tensor);
    const bytes = new Uint8Array(range.length);
    this.#files.get(range.location)!.read(bytes, range.offset);
    return bytes;
  }

  /** Closes the data files. */
  close(): void {
    for (const file of this.#files.values()) file.close();
  }
}

/**
 * Reads a model's graph and checks that it hangs together.
 *
 * @param path The `.onnx` file.
 * @throws {OnnxError} When it is no model, is nested too deep, reads a value before it is made, makes
 *   one twice, or declares a tensor that cannot be.
 */
export function readModel(path: string): ModelProto {
  const size = fileSize(path);
  if (size === undefined) throw new OnnxError(`${path} is not a file: name an ONNX model`);
  checkGraphSize(size, path);
  const file = PositionedFile.open(path, "read");
  const bytes = new Uint8Array(size);
  try {
    file.read(bytes, 0);
  } finally {
    file.close();
  }
  return parseModel(bytes, path);
}

/** Serialises a model. */
export function modelBytes(model: ModelProto): Uint8Array {
  return toBinary(ModelProtoSchema, model);
}
