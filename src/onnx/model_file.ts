/**
 * ONNX models on disk: a small file with the graph, and a data file beside it with the weights.
 *
 * Weights never pass through protobuf: they are ranges of the data file, read and written as bytes.
 * A model is hostile until it has passed {@linkcode readModel}.
 * @module
 */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { basename, dirname, join } from "node:path";
import { OnnxError, quote } from "../errors.ts";
import { fileSize, PositionedFile } from "../platform/files.ts";
import { type ExternalRange, externalRange } from "./external.ts";
import {
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type TensorProto,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
} from "./generated/onnx_pb.ts";

/** Bytes of the largest graph file that is read; graphs without weights have a few hundred kB. */
const LARGEST_GRAPH = 256 << 20;
/** Dimensions of a tensor. */
const MOST_DIMENSIONS = 8;
/** Elements of a tensor, and of each of its dimensions. */
const MOST_ELEMENTS = 2n ** 40n;

/** Bits of an element, for the types that weights are stored in. */
const BITS: Partial<Record<DataType, number>> = {
  [DataType.FLOAT]: 32,
  [DataType.UINT8]: 8,
  [DataType.INT8]: 8,
  [DataType.UINT16]: 16,
  [DataType.INT16]: 16,
  [DataType.INT32]: 32,
  [DataType.INT64]: 64,
  [DataType.BOOL]: 8,
  [DataType.FLOAT16]: 16,
  [DataType.DOUBLE]: 64,
  [DataType.UINT32]: 32,
  [DataType.UINT64]: 64,
  [DataType.BFLOAT16]: 16,
  [DataType.UINT4]: 4,
  [DataType.INT4]: 4,
};

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
   * Opens and checks a model.
   *
   * @param path The `.onnx` file; data files are looked for beside it only.
   * @throws {OnnxError} When the graph does not hang together, or a tensor does not fit its data.
   * @throws {FileReadError} When a file cannot be read.
   */
  static open(path: string): ModelFile {
    const model = readModel(path);
    const files = new Map<string, PositionedFile>();
    try {
      for (const tensor of model.graph!.initializer) {
        if (tensor.dataLocation !== DataLocation.EXTERNAL) continue;
        const range = checkedRange(path, tensor);
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
        if (range.offset + range.length > file.size) {
          throw new OnnxError(
            `${path}: tensor ${quote(tensor.name)} reaches to byte ${
              range.offset + range.length
            } of ${quote(range.location)}, which has ${file.size}: the file was truncated`,
          );
        }
      }
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
  if (size > LARGEST_GRAPH) {
    throw new OnnxError(
      `${path} has ${size} bytes: graphs of up to ${LARGEST_GRAPH} are read; save its weights as external data`,
    );
  }
  const file = PositionedFile.open(path, "read");
  const bytes = new Uint8Array(size);
  try {
    file.read(bytes, 0);
  } finally {
    file.close();
  }
  return parseModel(bytes, path);
}

/** {@linkcode readModel} of bytes in memory. */
export function parseModel(bytes: Uint8Array, path: string): ModelProto {
  let model: ModelProto;
  try {
    // The decoder refuses more than 100 levels of nesting.
    model = fromBinary(ModelProtoSchema, bytes);
  } catch (cause) {
    throw new OnnxError(`${path} is not an ONNX model: ${(cause as Error).message}`, { cause });
  }
  if (!model.graph) throw new OnnxError(`${path} holds no graph`);
  checkGraph(model.graph, path);
  return model;
}

/** Checks names, order and tensors of a graph. */
function checkGraph(graph: GraphProto, path: string): void {
  const known = new Set<string>();
  for (const tensor of graph.initializer) {
    if (tensor.name === "") throw new OnnxError(`${path}: an initializer has no name`);
    if (known.has(tensor.name)) {
      throw new OnnxError(`${path}: initializer ${quote(tensor.name)} is there twice`);
    }
    known.add(tensor.name);
    const bytes = bytesOf(path, tensor);
    if (tensor.dataLocation === DataLocation.EXTERNAL) checkedRange(path, tensor);
    else if (tensor.rawData.length > 0 && tensor.rawData.length !== bytes) {
      throw new OnnxError(
        `${path}: tensor ${
          quote(tensor.name)
        } should have ${bytes} bytes and has ${tensor.rawData.length}`,
      );
    }
  }
  for (const { name } of graph.input) known.add(name);
  for (const node of graph.node) {
    for (const name of node.input) {
      // Nodes must be in topological order, so a cycle shows as a value used before it is made.
      if (name !== "" && !known.has(name)) {
        throw new OnnxError(
          `${path}: node ${quote(node.name || node.opType)} reads ${
            quote(name)
          }, which nothing before it makes`,
        );
      }
    }
    for (const name of node.output) {
      if (name === "") continue;
      if (known.has(name)) {
        throw new OnnxError(
          `${path}: node ${quote(node.name || node.opType)} makes ${
            quote(name)
          }, which is there already`,
        );
      }
      known.add(name);
    }
  }
  for (const { name } of graph.output) {
    if (!known.has(name)) throw new OnnxError(`${path}: output ${quote(name)} is made by nothing`);
  }
}

/** Bytes that a tensor's type and shape ask for. */
function bytesOf(path: string, tensor: TensorProto): number {
  const bits = BITS[tensor.dataType as DataType];
  if (bits === undefined) {
    throw new OnnxError(
      `${path}: tensor ${quote(tensor.name)} has the unknown type ${tensor.dataType}`,
    );
  }
  const { dims } = tensor;
  // Their number first: the product of a million dimensions would take hours.
  if (dims.length > MOST_DIMENSIONS) {
    throw new OnnxError(
      `${path}: tensor ${
        quote(tensor.name)
      } has ${dims.length} dimensions; at most ${MOST_DIMENSIONS} are read`,
    );
  }
  const elements = dims.reduce((product, dim) => product * dim, 1n);
  if (dims.some((dim) => dim < 0n || dim > MOST_ELEMENTS) || elements > MOST_ELEMENTS) {
    throw new OnnxError(`${path}: tensor ${quote(tensor.name)} has the impossible shape [${dims}]`);
  }
  return Math.ceil(Number(elements) * bits / 8);
}

/** The range of a tensor's data, checked against its shape; the file's end is checked by the caller. */
function checkedRange(path: string, tensor: TensorProto): ExternalRange {
  const range = externalRange(tensor);
  if (!range) {
    throw new OnnxError(`${path}: tensor ${quote(tensor.name)} does not say where its data are`);
  }
  const { location, offset, length } = range;
  // Data lie beside the model: a name that climbs is an attack or a mistake.
  if (
    location === "" || location !== basename(location) || location.includes("\\") ||
    location === ".."
  ) {
    throw new OnnxError(
      `${path}: tensor ${quote(tensor.name)} has its data in ${
        quote(location)
      }; only a file beside the model is read`,
    );
  }
  const wanted = bytesOf(path, tensor);
  if (!Number.isSafeInteger(offset) || offset < 0 || length !== wanted) {
    throw new OnnxError(
      `${path}: tensor ${quote(tensor.name)} of ${wanted} bytes cannot be bytes ${offset} to ${
        offset + length
      } of ${quote(location)}`,
    );
  }
  return range;
}

/** Serialises a model. */
export function modelBytes(model: ModelProto): Uint8Array {
  return toBinary(ModelProtoSchema, model);
}
