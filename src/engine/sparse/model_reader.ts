/**
 * A compiled model, read from wherever it is: its graph at once, its tensors when they are asked for.
 * @module
 */
import { quote, throwIfAborted } from "../../checks.ts";
import { FileReadError, OnnxError } from "../../errors.ts";
import { isExternal } from "../../onnx/external.ts";
import type {
  GraphProto,
  ModelProto,
  TensorProto_DataType as DataType,
} from "../../onnx/generated/onnx_pb.ts";
import {
  bytesOf,
  checkApart,
  checkedRange,
  checkEnd,
  LARGEST_GRAPH,
  parseModel,
} from "../../onnx/graph_check.ts";
import { letEventsIn } from "../../platform/events.ts";
import { isBroken } from "../again.ts";
import type { ModelSource, SourceFile } from "../source.ts";

/** Where a compiled model has its graph. */
const GRAPH = "onnx/model.onnx";
/** What tells a checkpoint from other folders. */
const WEIGHTS = ["model.safetensors", "model.safetensors.index.json"];
/** Bytes that are read at a time to be checked. */
const PIECE = 1 << 20;
/** Data files of one model: each is a connection or a descriptor. */
const MOST_DATA_FILES = 64;

/** What a tensor is. */
export interface TensorInfo {
  readonly name: string;
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly byteLength: number;
}

interface Entry extends TensorInfo {
  /** Its bytes in the graph, or where they lie. */
  readonly data: Uint8Array | { readonly file: SourceFile; readonly offset: number };
}

/** A tensor whose bytes are read now and then, while the model runs; {@linkcode DirectTensor.close} it when done. */
export interface DirectTensor {
  /** Fills `target` with the tensor's bytes from `offset` on. */
  read(offset: number, target: Uint8Array): Promise<void>;
  close(): void;
}

/** Reads the graph; where a server has none, its error says what lies there, and what to name. */
async function readGraph(source: ModelSource, graph: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await source.read(graph, LARGEST_GRAPH);
  } catch (error) {
    if (!source.isFar || !(error instanceof FileReadError) || isBroken(error)) {
      throw error;
    }
    const has = (path: string) => source.has(path).catch(() => undefined);
    if (await has(graph) !== false) throw error;
    const found = await Promise.all(WEIGHTS.map(has));
    const advice = found.includes(true)
      ? "a checkpoint lies there, not what compile makes of one: fetch it into a folder, and name that"
      : "name the URL of a folder that compile wrote";
    throw new FileReadError(`${error.message}: ${advice}`);
  }
}

/** An open model; {@linkcode ModelReader.close} it when done. */
export class ModelReader {
  readonly #tensors: ReadonlyMap<string, Entry>;
  readonly #files: readonly SourceFile[];

  private constructor(
    /** The graph's file, for messages. */
    readonly path: string,
    readonly model: ModelProto,
    tensors: ReadonlyMap<string, Entry>,
    files: readonly SourceFile[],
  ) {
    this.#tensors = tensors;
    this.#files = files;
  }

  /**
   * Opens and checks a model.
   *
   * No two tensors share bytes, so all of them together are never more than their files.
   *
   * @param source Where it is.
   * @param graph Path of the `.onnx` file in it; data files are looked for beside that only.
   * @throws {OnnxError} When the graph does not hang together, or a tensor does not fit its data.
   * @throws {FileReadError} When a file is not there or cannot be read.
   */
  static async open(source: ModelSource, graph = GRAPH): Promise<ModelReader> {
    const path = `${source.name}/${graph}`;
    const model = parseModel(await readGraph(source, graph), path);
    const tensors = model.graph!.initializer;
    const ranges = new Map(
      tensors.filter(isExternal).map((tensor) => [tensor, checkedRange(path, tensor)]),
    );
    checkApart(path, ranges);
    const locations = new Set([...ranges.values()].map(({ location }) => location));
    if (locations.size > MOST_DATA_FILES) {
      throw new OnnxError(
        `${path} names ${locations.size} data files; at most ${MOST_DATA_FILES} are read`,
      );
    }
    const folder = graph.slice(0, graph.lastIndexOf("/") + 1);
    const files = new Map<string, SourceFile>();
    try {
      for (const location of locations) {
        files.set(location, await source.open(folder + location));
      }
      for (const [tensor, range] of ranges) {
        checkEnd(path, tensor, range, files.get(range.location)!.size);
      }
    } catch (error) {
      for (const file of files.values()) file.close();
      throw error;
    }
    const entries = tensors.map((tensor): [string, Entry] => {
      const { name, dataType: type } = tensor;
      const range = ranges.get(tensor);
      return [name, {
        name,
        type,
        dims: tensor.dims.map(Number),
        byteLength: bytesOf(path, tensor),
        data: range ? { file: files.get(range.location)!, offset: range.offset } : tensor.rawData,
      }];
    });
    return new ModelReader(path, model, new Map(entries), [...files.values()]);
  }

  get graph(): GraphProto {
    return this.model.graph!;
  }

  /**
   * What a tensor is.
   *
   * @throws {OnnxError} When there is none of that name.
   */
  tensor(name: string): TensorInfo {
    return this.#entry(name);
  }

  /**
   * Reads a tensor's bytes, little-endian.
   *
   * @param target Where to; it has as many bytes as the tensor.
   * @returns The target, or a new array.
   * @throws {OnnxError} When there is none of that name, or it has another length than the target.
   * @throws {FileReadError} When its file cannot be read.
   */
  async readTensor<T extends Uint8Array = Uint8Array<ArrayBuffer>>(
    name: string,
    target?: T,
  ): Promise<T | Uint8Array<ArrayBuffer>> {
    const entry = this.#entry(name);
    const { byteLength } = entry;
    if (target && target.length !== byteLength) {
      throw new OnnxError(
        `${this.path}: tensor ${quote(name)} has ${byteLength} bytes, not ${target.length}`,
      );
    }
    this.#checkData(entry);
    const bytes = target ?? new Uint8Array(byteLength);
    await this.readRange(name, 0, bytes);
    return bytes;
  }

  /**
   * Reads a part of a tensor, e.g. some rows of a matrix.
   *
   * @param offset First byte of the tensor that is read.
   * @param target Filled with the bytes from there on.
   * @throws {OnnxError} When there is no tensor of that name, or it ends before `target` is full.
   * @throws {FileReadError} When its file cannot be read.
   */
  async readRange(name: string, offset: number, target: Uint8Array): Promise<void> {
    const entry = this.#entry(name);
    const { byteLength, data } = entry;
    const end = offset + target.length;
    if (!Number.isSafeInteger(offset) || offset < 0 || end > byteLength) {
      throw new OnnxError(
        `${this.path}: tensor ${
          quote(name)
        } has ${byteLength} bytes, and bytes ${offset} to ${end} ` +
          `were asked for`,
      );
    }
    this.#checkData(entry);
    if (data instanceof Uint8Array) target.set(data.subarray(offset, end));
    else await data.file.read(data.offset + offset, target);
  }

  /**
   * A tensor of which a few bytes are to be read now and then, also when the reader has been closed.
   *
   * @returns Nothing where that would take more than its bytes: where it is in the graph, or comes over a network.
   * @throws {OnnxError} When there is none of that name.
   */
  direct(name: string): DirectTensor | undefined {
    const { data } = this.#entry(name);
    if (data instanceof Uint8Array) return undefined;
    const file = data.file.direct?.();
    return file && {
      read: (offset, target) => file.read(data.offset + offset, target),
      close: () => file.close(),
    };
  }

  /**
   * Reads a tensor for nothing but its hashes, where its file has some.
   *
   * @throws {IntegrityError} When it differs from them.
   * @throws {AbortError} When the signal says so.
   */
  async check(name: string, signal?: AbortSignal): Promise<void> {
    const { byteLength, data } = this.#entry(name);
    if (data instanceof Uint8Array || !data.file.isChecked) return;
    const piece = new Uint8Array(Math.min(byteLength, PIECE));
    for (let done = 0; done < byteLength; done += piece.length) {
      if (signal) await letEventsIn();
      throwIfAborted(signal);
      await this.readRange(name, done, piece.subarray(0, byteLength - done));
    }
  }

  /** Closes the data files. */
  close(): void {
    for (const file of this.#files) file.close();
  }

  #entry(name: string): Entry {
    const entry = this.#tensors.get(name);
    if (entry) return entry;
    throw new OnnxError(`${this.path}: there is no initializer ${quote(name)}`);
  }

  /** A tensor in the graph may claim bytes that are not there. */
  #checkData({ name, data, byteLength }: Entry): void {
    // Graphs may hold small constants in fields by type; weights are bytes, here or in a file.
    if (!(data instanceof Uint8Array) || data.length === byteLength) return;
    throw new OnnxError(
      `${this.path}: tensor ${quote(name)} has ${data.length} of its ${byteLength} bytes`,
    );
  }
}
