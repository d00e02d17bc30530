/**
 * A Hugging Face checkpoint on disk: one safetensors file or several with an index.
 * @module
 */
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { quote } from "../checks.ts";
import {
  CheckpointNotFoundError,
  ConfigError,
  NotFiniteError,
  ShardError,
  TensorTypeError,
} from "../errors.ts";
import { firstNotFinite, FLOAT_BYTES, type FloatType, widen } from "../onnx/element_type.ts";
import { readJson } from "../platform/files.ts";
import { listFolder } from "../platform/folders.ts";
import { exists, isFolder } from "../platform/paths.ts";
import { PositionedFile } from "../platform/positioned_file.ts";
import { folderName } from "./folder_name.ts";
import { INDEX, SINGLE } from "./file_names.ts";
import { isTurned } from "./turned.ts";
import { readSafetensorsHeader, type TensorEntry } from "./safetensors.ts";

/** Elements of a matrix that is stored turned, that are read at a time. */
const TURNED_AT_A_TIME = 1 << 20;

/** Bytes of the largest JSON file (config, index) that is read. */
const LARGEST_JSON = 64 << 20;

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

/** A tensor of a checkpoint, and the file that it lies in. */
export interface CheckpointTensor extends TensorEntry {
  /** Name of the safetensors file, without its folder. */
  readonly file: string;
  /** Whether it is a matrix that is stored turned: its shape is then not that of the file, which is the other way. */
  readonly isTurned?: true;
}

/** An open checkpoint. Weights are read when asked for; {@linkcode close} it when done. */
export class Checkpoint {
  readonly folder: string;
  /** The parsed `config.json`. */
  readonly config: Record<string, unknown>;
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** Names of its safetensors files, in order. */
  readonly shards: readonly string[];
  readonly #files: Map<string, PositionedFile>;
  #scratch = new Uint8Array(0);

  private constructor(
    folder: string,
    config: Record<string, unknown>,
    tensors: Map<string, CheckpointTensor>,
    files: Map<string, PositionedFile>,
  ) {
    this.folder = folder;
    this.config = config;
    this.tensors = tensors;
    this.shards = [...files.keys()];
    this.#files = files;
  }

  /**
   * Opens a checkpoint and checks every header.
   *
   * @param folder Path of the folder with `config.json`.
   * @throws {CheckpointNotFoundError} When the folder, its config or its weights are missing.
   * @throws {ConfigError} When `config.json` is not a JSON object.
   * @throws {ShardError} When the index and the shards disagree.
   * @throws {SafetensorsError} When a weight file is damaged.
   */
  static open(folder: string): Checkpoint {
    const path = resolve(folder);
    if (!isFolder(path)) {
      throw new CheckpointNotFoundError(
        exists(path)
          ? `${folder} is a file: name the folder that holds config.json and model.safetensors`
          : `${folder} does not exist: name the folder of a Hugging Face checkpoint`,
      );
    }
    if (!exists(join(path, "config.json"))) {
      throw new CheckpointNotFoundError(`${folder} holds no config.json: it is no checkpoint`);
    }
    const config = readConfig(join(path, "config.json"));
    // Of both the single file counts, as for transformers: an index is what is left of another saving.
    const isSingle = exists(join(path, SINGLE));
    const weightMap = !isSingle && exists(join(path, INDEX))
      ? readIndex(join(path, INDEX))
      : undefined;
    if (!isSingle && !weightMap) {
      const old = listFolder(path).some(({ name }) => /\.(bin|pt|pth|gguf|onnx)$/.test(name));
      throw new CheckpointNotFoundError(
        `${folder} holds neither ${SINGLE} nor ${INDEX}` +
          (old ? ": save the weights as safetensors first (save_pretrained does)" : ""),
      );
    }
    const shards = weightMap ? [...new Set(weightMap.values())].sort() : [SINGLE];
    const files = new Map<string, PositionedFile>();
    try {
      const tensors = new Map<string, CheckpointTensor>();
      for (const file of shards) {
        if (!exists(join(path, file))) {
          throw new ShardError(
            `${folder}: shard ${quote(file)} is missing: fetch it, the index names it`,
          );
        }
        const handle = PositionedFile.open(join(path, file), "read");
        files.set(file, handle);
        for (const entry of readSafetensorsHeader(handle)) {
          if (tensors.has(entry.name)) {
            throw new ShardError(
              `${folder}: tensor ${quote(entry.name)} is in more than one shard`,
            );
          }
          const isOther = isTurned(config, entry.name) && entry.shape.length === 2;
          tensors.set(
            entry.name,
            isOther
              ? { ...entry, shape: entry.shape.toReversed(), file, isTurned: true }
              : { ...entry, file },
          );
        }
      }
      for (const [name, file] of weightMap ?? []) {
        if (tensors.get(name)?.file !== file) {
          throw new ShardError(
            `${folder}: ${INDEX} puts tensor ${quote(name)} in ${quote(file)}; it is not there`,
          );
        }
      }
      return new Checkpoint(path, config, tensors, files);
    } catch (error) {
      for (const file of files.values()) file.close();
      throw error;
    }
  }

  /** Name of the folder: what people call the model by. */
  get name(): string {
    return folderName(this.folder);
  }

  /** The open weight file of that name. */
  file(name: string): PositionedFile {
    return this.#files.get(name)!;
  }

  /**
   * Reads a tensor, or some of its rows, as float32.
   *
   * @param name The tensor.
   * @param target Filled with row-major values; its length says how many are read.
   * @param first Index of the first element to read.
   * @throws {TensorTypeError} When it is not stored as float32, float16 or bfloat16.
   * @throws {NotFiniteError} When a value is NaN or infinite.
   */
  readFloats(name: string, target: Float32Array, first = 0): void {
    const tensor = this.tensors.get(name)!;
    if (!tensor.type) {
      throw new TensorTypeError(
        `${name} is stored as ${tensor.dtype}; weights must be F32, F16 or BF16`,
      );
    }
    if (tensor.isTurned) return this.#readTurned(tensor, tensor.type, target, first);
    const size = FLOAT_BYTES[tensor.type];
    // In pieces, so that the bytes of a large tensor are never in memory beside its values.
    const piece = (4 << 20) / size;
    if (this.#scratch.length === 0) this.#scratch = new Uint8Array(4 << 20);
    for (let done = 0; done < target.length; done += piece) {
      const count = Math.min(piece, target.length - done);
      const bytes = this.#scratch.subarray(0, count * size);
      this.file(tensor.file).read(bytes, tensor.offset + (first + done) * size);
      assertFinite(bytes, tensor, first + done);
      widen(bytes, tensor.type, target.subarray(done, done + count));
    }
  }

  /** Fills `target` with elements of a matrix that is stored turned, going through all of it. */
  #readTurned(
    tensor: CheckpointTensor,
    type: FloatType,
    target: Float32Array,
    first: number,
  ): void {
    const [rows, columns] = tensor.shape;
    const [begin, end] = [first, first + target.length];
    const [firstRow, behind] = [Math.floor(begin / columns), Math.ceil(end / columns)];
    const perPiece = Math.max(1, Math.floor(TURNED_AT_A_TIME / rows));
    const bytes = new Uint8Array(perPiece * rows * FLOAT_BYTES[type]);
    const values = new Float32Array(perPiece * rows);
    for (let column = 0; column < columns; column += perPiece) {
      const some = Math.min(perPiece, columns - column);
      const piece = bytes.subarray(0, some * rows * FLOAT_BYTES[type]);
      this.file(tensor.file).read(piece, tensor.offset + column * rows * FLOAT_BYTES[type]);
      assertFinite(piece, tensor, column * rows);
      widen(piece, type, values.subarray(0, some * rows));
      for (let r = firstRow; r < behind; r++) {
        const to = r * columns + column - begin;
        for (let c = 0; c < some; c++) {
          const at = to + c;
          if (at >= 0 && at < target.length) target[at] = values[c * rows + r];
        }
      }
    }
  }

  /** Closes its files. */
  close(): void {
    for (const file of this.#files.values()) file.close();
  }
}

/**
 * Checks stored weights for NaN and infinity.
 *
 * @param bytes Elements of the tensor.
 * @param tensor Where they are from.
 * @param first Index of the first of them in the tensor.
 * @throws {NotFiniteError} Naming tensor and position.
 */
export function assertFinite(bytes: Uint8Array, tensor: CheckpointTensor, first: number): void {
  if (!tensor.type) return;
  const at = firstNotFinite(bytes, tensor.type);
  if (at < 0) return;
  // As it is stored.
  const row = (tensor.isTurned ? tensor.shape[0] : tensor.shape.at(-1)) || 1;
  const index = first + at;
  throw new NotFiniteError(
    `${tensor.file}: tensor ${tensor.name} holds NaN or infinity at row ${
      Math.floor(index / row)
    }, column ${index % row}: the checkpoint is damaged, or its training diverged`,
  );
}

function readConfig(path: string): Record<string, unknown> {
  let config: unknown;
  try {
    config = readJson(path, LARGEST_JSON);
  } catch (cause) {
    throw new ConfigError((cause as Error).message, { cause });
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new ConfigError(`${path} is not a JSON object`);
  }
  return config as Record<string, unknown>;
}

function readIndex(path: string): Map<string, string> {
  let index: unknown;
  try {
    index = readJson(path, LARGEST_JSON);
  } catch (cause) {
    throw new ShardError((cause as Error).message, { cause });
  }
  const parsed = indexSchema.safeParse(index);
  if (!parsed.success) throw new ShardError(`${path}: no weight_map of tensor names to file names`);
  for (const file of Object.values(parsed.data.weight_map)) {
    // A shard lies beside the index: a path that climbs is an attack or a mistake.
    if (file !== basename(file) || !file.endsWith(".safetensors") || file.includes("\\")) {
      throw new ShardError(`${path}: ${JSON.stringify(file)} is no name of a safetensors file`);
    }
  }
  return new Map(Object.entries(parsed.data.weight_map));
}
