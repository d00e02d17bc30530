/**
 * The graph of an ONNX model, checked without its data: what every reader of a file does first.
 *
 * It touches no file, so that browsers can use it.
 * @module
 */
import { fromBinary } from "@bufbuild/protobuf";
import { quote } from "../checks.ts";
import { OnnxError } from "../errors.ts";
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
export const LARGEST_GRAPH = 256 << 20;
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

/**
 * Checks that a file is not larger than a graph can be, before it is read.
 *
 * @throws {OnnxError} When it is.
 */
export function checkGraphSize(size: number, path: string): void {
  if (size <= LARGEST_GRAPH) return;
  throw new OnnxError(
    `${path} has ${size} bytes: graphs of up to ${LARGEST_GRAPH} are read; save its weights as external data`,
  );
}

/**
 * Parses a model and checks that its graph hangs together.
 *
 * @param bytes The `.onnx` file.
 * @param path Where they are from, for messages.
 * @throws {OnnxError} When it is no model, is nested too deep, reads a value before it is made, makes
 *   one twice, or declares a tensor that cannot be.
 */
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

/**
 * Bytes that a tensor's type and shape ask for.
 *
 * @param path The model's file, for messages.
 * @throws {OnnxError} When the type is unknown, or the shape cannot be.
 */
export function bytesOf(path: string, tensor: TensorProto): number {
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

/**
 * The range of a tensor's data in a file beside the model, checked against its shape.
 *
 * @param path The model's file, for messages.
 * @throws {OnnxError} When it names no such range.
 */
export function checkedRange(path: string, tensor: TensorProto): ExternalRange {
  const range = externalRange(tensor);
  if (!range) {
    throw new OnnxError(`${path}: tensor ${quote(tensor.name)} does not say where its data are`);
  }
  const { location, offset, length } = range;
  // Data lie beside the model: a name that climbs is an attack or a mistake.
  if (
    location === "" || location === ".." || /[/\\:]/.test(location)
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

/**
 * Checks that a tensor's data end before their file does.
 *
 * @param path The model's file, for messages.
 * @param tensor A tensor with external data.
 * @param range Its {@linkcode checkedRange}.
 * @param size Bytes of the data file.
 * @throws {OnnxError} When they do not.
 */
export function checkEnd(
  path: string,
  tensor: TensorProto,
  range: ExternalRange,
  size: number,
): void {
  if (range.offset + range.length <= size) return;
  throw new OnnxError(
    `${path}: tensor ${quote(tensor.name)} reaches to byte ${range.offset + range.length} of ${
      quote(range.location)
    }, which has ${size}: the file was truncated`,
  );
}

/**
 * Checks that no two tensors share bytes: a small file could stand for any amount of memory.
 *
 * @throws {OnnxError} When two do.
 */
export function checkApart(path: string, ranges: ReadonlyMap<TensorProto, ExternalRange>): void {
  const sorted = [...ranges].filter(([, { length }]) => length > 0).sort(([, a], [, b]) =>
    a.location < b.location ? -1 : a.location > b.location ? 1 : a.offset - b.offset
  );
  for (let i = 1; i < sorted.length; i++) {
    const [[before, first], [tensor, second]] = [sorted[i - 1], sorted[i]];
    if (first.location === second.location && second.offset < first.offset + first.length) {
      throw new OnnxError(
        `${path}: tensors ${quote(before.name)} and ${quote(tensor.name)} share bytes of ` +
          quote(second.location),
      );
    }
  }
}
