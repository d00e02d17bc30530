/**
 * Writing a pruned checkpoint: a copy of the dense one in which weights are changed in place.
 *
 * So sharding, dtypes, header bytes and every other file stay what they were.
 * @module
 */
import { basename, join } from "node:path";
import { throwIfAborted } from "../checks.ts";
import { FLOAT_BYTES, narrowTo } from "../onnx/element_type.ts";
import { letEventsIn } from "../platform/events.ts";
import { copyFile } from "../platform/files.ts";
import { makeFolder } from "../platform/folders.ts";
import { isHidden } from "../platform/paths.ts";
import { ownFiles } from "./own_files.ts";
import { PositionedFile } from "../platform/positioned_file.ts";
import type { Mask } from "../prune/types.ts";
import { isBuffer } from "./buffers.ts";
import { assertFinite, type Checkpoint } from "./checkpoint.ts";
import { INDEX, SINGLE } from "./file_names.ts";
import { turned } from "./turned.ts";

/** Bytes that are copied or masked at a time; a multiple of every element's size. */
const PIECE = 4 << 20;

/** Weights in other forms, and their indices, as PyTorch, Flax and TensorFlow look for them. */
const OTHER_SAVING = /^(pytorch_model|flax_model|tf_model).*\.(bin|msgpack|h5)(\.index\.json)?$/;
/**
 * Files of weights that are those of a whole model in whatever folder they lie: Meta's (mostly in
 * `original`), llama.cpp's, and those of ONNX with their data.
 */
const OTHER_MODEL = /^consolidated.*\.pth$|\.(gguf|onnx|onnx[._]data(_\d+)?)$/;
/** Where transformers.js looks for a model. */
const OTHER_MODELS = "onnx";

/** A checkpoint in the making. */
export class CheckpointWriter {
  readonly #source: Checkpoint;
  readonly #folder: string;
  readonly #files = new Map<string, PositionedFile>();
  readonly #piece = new Uint8Array(PIECE);
  readonly #leftOut: string[] = [];
  #strays: readonly string[] = [];

  /**
   * @param source The dense checkpoint.
   * @param folder An empty folder.
   */
  constructor(source: Checkpoint, folder: string) {
    this.#source = source;
    this.#folder = folder;
  }

  /**
   * Copies everything, checking each weight on its way.
   *
   * @param onBytes Called with the bytes of weights copied so far and in all.
   * @throws {NotFiniteError} When a weight is NaN or infinite.
   * @throws {DiskFullError} When there is no room.
   */
  async copy(onBytes: (done: number, total: number) => void, signal?: AbortSignal): Promise<void> {
    const source = this.#source;
    this.#copyOthers();
    const total = source.shards.reduce((sum, file) => sum + source.file(file).size, 0);
    let done = 0;
    for (const file of source.shards) {
      const from = source.file(file);
      const to = PositionedFile.open(join(this.#folder, file), "create");
      this.#files.set(file, to);
      const tensors = [...source.tensors.values()].filter((tensor) => tensor.file === file);
      const headerEnd = tensors.length > 0
        ? Math.min(...tensors.map(({ offset }) => offset))
        : from.size;
      const ranges = [
        { offset: 0, length: headerEnd, tensor: undefined },
        ...tensors.map((t) => ({
          offset: t.offset,
          length: t.length,
          tensor: t,
        })),
      ];
      for (const { offset, length, tensor } of ranges) {
        for (let at = 0; at < length; at += PIECE) {
          const bytes = this.#piece.subarray(0, Math.min(PIECE, length - at));
          from.read(bytes, offset + at);
          if (tensor?.type && !isBuffer(tensor.name)) {
            assertFinite(bytes, tensor, at / FLOAT_BYTES[tensor.type]);
          }
          to.write(bytes, offset + at);
          done += bytes.length;
        }
        onBytes(done, total);
        await letEventsIn();
        throwIfAborted(signal);
      }
    }
  }

  /**
   * Sets the pruned weights of a tensor to 0; the bytes of the others stay as they are.
   *
   * @param name The tensor.
   * @param mask Its mask.
   */
  prune(name: string, mask: Mask): void {
    const tensor = this.#source.tensors.get(name)!;
    const size = FLOAT_BYTES[tensor.type!];
    const from = this.#source.file(tensor.file);
    const to = this.#files.get(tensor.file)!;
    for (let at = 0; at < tensor.length; at += PIECE) {
      const bytes = this.#piece.subarray(0, Math.min(PIECE, tensor.length - at));
      from.read(bytes, tensor.offset + at);
      const count = bytes.length / size;
      const values = size === 2
        ? new Uint16Array(bytes.buffer, 0, count)
        : new Uint32Array(bytes.buffer, 0, count);
      const first = at / size;
      if (tensor.isTurned) {
        const [rows, columns] = tensor.shape;
        for (let i = 0; i < count; i++) {
          const column = Math.floor((first + i) / rows);
          const row = first + i - column * rows;
          if (mask[row * columns + column] === 0) values[i] = 0;
        }
      } else {
        for (let i = 0; i < count; i++) if (mask[first + i] === 0) values[i] = 0;
      }
      to.write(bytes, tensor.offset + at);
    }
  }

  /**
   * Puts other values in the place of a tensor's.
   *
   * @param name The tensor.
   * @param values As many as it has, or, but of one that is stored turned, those from `begin` on; those its type can
   *   hold are written exactly.
   * @throws {NotFiniteError} When one is too great for the tensor's type.
   */
  replace(name: string, values: Float32Array, begin = 0): void {
    const tensor = this.#source.tensors.get(name)!;
    const type = tensor.type!;
    const to = this.#files.get(tensor.file)!;
    const count = PIECE / FLOAT_BYTES[type];
    const stored = tensor.isTurned ? turned(values, tensor.shape[0]) : values;
    for (let first = 0; first < stored.length; first += count) {
      const bytes = narrowTo(stored.subarray(first, first + count), type);
      assertFinite(bytes, tensor, begin + first);
      to.write(bytes, tensor.offset + (begin + first) * FLOAT_BYTES[type]);
    }
  }

  /** Whether there is a tensor of floats of that name and shape, which can be replaced. */
  takes(name: string, [rows, columns]: readonly [number, number]): boolean {
    const tensor = this.#source.tensors.get(name);
    if (!tensor?.type || tensor.shape.length !== 2) return false;
    return tensor.shape[0] === rows && tensor.shape[1] === columns;
  }

  /** Files and folders of the source that the copy has not: they hold the dense weights in another form. */
  get leftOut(): readonly string[] {
    return this.#leftOut;
  }

  /** Links that the copy lacks: they lead to what is none of the model's. */
  get strays(): readonly string[] {
    return this.#strays;
  }

  /** Closes its files. */
  close(): void {
    for (const file of this.#files.values()) file.close();
  }

  /**
   * Whether a file beside the config holds weights, or says where they lie. Those that the checkpoint does
   * not use are of another saving: whoever loads the copy may take them for its own, and they are dense.
   */
  #isWeights(name: string): boolean {
    if (name === INDEX) return this.#source.shards.includes(SINGLE);
    return name.endsWith(".safetensors") || OTHER_SAVING.test(name);
  }

  /** Copies what is not weights; hidden entries (.git, .cache) belong to the folder, not the model. */
  #copyOthers(): void {
    const { folder, shards } = this.#source;
    const isDense = (path: string) =>
      path === OTHER_MODELS || OTHER_MODEL.test(basename(path)) ||
      (!path.includes("/") && this.#isWeights(path));
    const isLeftOut = (path: string) => {
      if (isHidden(path)) return true;
      if (!isDense(path)) return false;
      if (!shards.includes(path)) this.#leftOut.push(path);
      return true;
    };
    const { paths, strays } = ownFiles(folder, isLeftOut);
    this.#strays = strays;
    for (const path of paths) {
      makeFolder(join(this.#folder, path, ".."));
      copyFile(join(folder, path), join(this.#folder, path));
    }
  }
}
