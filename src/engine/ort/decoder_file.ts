/**
 * What an ONNX file says of the decoder in it, read without its weights.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import {
  DOMAIN,
  GATHER_INT4,
  type PackedFormat,
  type Scaling,
} from "../../../compile/functions.ts";
import { ROTARY_TABLES } from "../../../compile/rotary_tables.ts";
import { CheckpointNotFoundError, ConfigError, OnnxError } from "../../errors.ts";
import { MICROSOFT } from "../../onnx/builder.ts";
import {
  type GraphProto,
  type NodeProto,
  TensorProto_DataType as DataType,
} from "../../onnx/generated/onnx_pb.ts";
import { ModelFile } from "../../onnx/model_file.ts";
import { readJson } from "../../platform/files.ts";
import { exists } from "../../platform/paths.ts";
import { readRotaryTables } from "../sparse/lowering/rotary.ts";
import { readPackedNode } from "../sparse/packed_node.ts";
import { type CacheInputs, cacheInputsOf, dimsOf, sizeOf } from "./cache_inputs.ts";

/** A decoder with a cache, in the names that transformers.js expects. */
export interface DecoderFile extends CacheInputs {
  /** The `.onnx` file. */
  readonly path: string;
  /** Names of the graph's inputs. */
  readonly inputs: ReadonlySet<string>;
  readonly vocabulary: number;
  /** Most tokens of a sequence: what its config says, or fewer where its rotary tables end before. */
  readonly context: number;
  /** Whether attention caps its scores. */
  readonly capsScores: boolean;
  /** Whether it gives logits for the last token alone. */
  readonly lastOnly: boolean;
  /** Bytes of the weights as they are stored. */
  readonly fileBytes: number;
  /** The same of each table of which rows are taken, and that nothing multiplies with. */
  readonly tableBytes: readonly number[];
  /** Whether there are weights in int8 or int4: then our engine may keep its cache in int8. */
  readonly isQuantised: boolean;
  /** Bytes of the weights as ONNX Runtime holds them: what is multiplied by is dense float32 there. */
  readonly weightBytes: number;
  /** Bytes that ONNX Runtime needs to load it, as far as that can be foretold. */
  readonly loadBytes: number;
}

/** Elements of a head that ONNX Runtime's GroupQueryAttention takes, or a multiple of them. */
const HEAD_MULTIPLE = 8;

/** Whether ONNX Runtime runs a compiled model with heads of so many elements: it finds out with the first token. */
export function takesHeads(headDim: number): boolean {
  return headDim % HEAD_MULTIPLE === 0;
}

/** Why it does not. */
export function refusalOfHeads(headDim: number): string {
  return `heads of ${headDim} elements: ONNX Runtime takes multiples of ${HEAD_MULTIPLE} only`;
}

/** What ONNX Runtime takes to load a model of dense weights, over those in float32. */
const LOAD_FACTOR = 1.6;
/** What it takes beyond that to unpack a weight, by format: it keeps what it unpacks from to the end. */
const UNPACK_BYTES: Record<PackedFormat, number> = {
  nm: 5,
  csr: 3.5,
  bitmap: 14,
  slots: 14,
  dense: 6,
};
/** The same for scales of groups: they are spread to a matrix, and multiplied to make another. */
const SCALING_BYTES: Record<Scaling, number> = { none: 0, row: 0, group: 9, int4: 10 };
/** The same for an element of both rotary tables that are computed: an angle, and what factors have not yet multiplied. */
const ANGLE_BYTES = 12;
/** Bytes of the largest `config.json` that is read. */
const LARGEST_CONFIG = 64 << 20;

const configSchema = z.looseObject({ max_position_embeddings: z.int().positive().optional() });

/**
 * Reads and checks the graph of a compiled model.
 *
 * @param folder The model's folder, with `onnx/model.onnx` in it.
 * @throws {CheckpointNotFoundError} When it is not there.
 * @throws {ConfigError} When its config cannot be used.
 * @throws {OnnxError} When it is damaged, its data are truncated, or it is no decoder with a cache.
 */
export function readDecoderFile(folder: string): DecoderFile {
  const path = join(folder, "onnx", "model.onnx");
  if (!exists(path)) {
    throw new CheckpointNotFoundError(
      `${folder} holds no onnx/model.onnx: name a folder that compile wrote`,
    );
  }
  const file = ModelFile.open(path);
  try {
    const { graph } = file;
    const logits = dimsOf(graph.output.find(({ name }) => name === "logits"));
    if (logits?.length !== 3) throw new OnnxError(`${path}: it has no logits of three dimensions`);
    const fileBytes = [...file.tensors.values()].reduce((sum, t) => sum + file.bytesOf(t), 0);
    return {
      path,
      inputs: new Set(graph.input.map(({ name }) => name)),
      ...cacheInputsOf(graph, path, fileBytes),
      vocabulary: sizeOf(path, logits[2]),
      context: Math.min(positionsOf(file), positionsIn(folder)),
      capsScores: graph.node.some(capsScores),
      lastOnly: logits[1] === 1,
      fileBytes,
      tableBytes: tablesOf(file),
      ...needsOf(file),
    };
  } finally {
    file.close();
  }
}

/** Positions that rotary tables hold, or are computed for. */
function positionsOf({ graph, tensors, path }: ModelFile): number {
  let positions = Infinity;
  for (const node of graph.node) {
    if (isRotaryTables(node)) {
      positions = Math.min(positions, readRotaryTables(node, tensors, path).positions);
    } else if (node.opType === "RotaryEmbedding" && node.domain === MICROSOFT) {
      const table = tensors.get(node.input[2]);
      positions = Math.min(positions, Number(table?.dims[0] ?? Infinity));
    }
  }
  return positions;
}

function capsScores({ opType, attribute }: NodeProto): boolean {
  return opType === "GroupQueryAttention" &&
    attribute.some(({ name, f }) => name === "softcap" && f !== 0);
}

function isRotaryTables({ opType, domain }: NodeProto): boolean {
  return opType === ROTARY_TABLES && domain === DOMAIN;
}

/** Positions that the config names. */
function positionsIn(folder: string): number {
  const path = join(folder, "config.json");
  const config = configSchema.safeParse(exists(path) ? readJson(path, LARGEST_CONFIG) : {});
  if (!config.success) {
    throw new ConfigError(`${path}: max_position_embeddings is not a whole number above 0`);
  }
  return config.data.max_position_embeddings ?? Infinity;
}

/** What the weights take in ONNX Runtime: for good, and while it loads them; and whether they are whole numbers. */
function needsOf(file: ModelFile): Pick<DecoderFile, "isQuantised" | "weightBytes" | "loadBytes"> {
  const { graph, tensors } = file;
  const readers = readersOf(graph);
  let kept = 0;
  for (const tensor of tensors.values()) {
    const nodes = readers.get(tensor.name) ?? [];
    const elements = Number(tensor.dims.reduce((product, dim) => product * dim, 1n));
    // Turned and widened once, when the model is loaded.
    if (tensor.dims.length === 2 && nodes.some(({ opType }) => opType === "Transpose")) {
      kept += 4 * elements;
    }
    // A table that rows are taken from stays as it is stored, even where the head is tied to it.
    if (nodes.some(({ opType, domain }) => opType !== "Transpose" && domain !== DOMAIN)) {
      kept += file.bytesOf(tensor);
    }
  }
  let unpacking = 0;
  let isQuantised = [...tensors.values()].some(({ dataType }) => dataType === DataType.INT8);
  for (const node of graph.node) {
    if (node.domain !== DOMAIN) continue;
    if (isRotaryTables(node)) {
      const { positions, pairs } = readRotaryTables(node, tensors, file.path);
      kept += 8 * positions * pairs;
      unpacking += ANGLE_BYTES * positions * pairs;
      continue;
    }
    const { format, scaling, rows, columns, bytes } = readPackedNode(node, tensors, file.path);
    isQuantised ||= scaling === "int4";
    if (node.opType === GATHER_INT4) {
      kept += bytes;
      continue;
    }
    kept += 4 * rows * columns;
    unpacking += (UNPACK_BYTES[format] + SCALING_BYTES[scaling]) * rows * columns;
  }
  return { isQuantised, weightBytes: kept, loadBytes: LOAD_FACTOR * kept + unpacking };
}

/** Bytes of tables that only nodes read which take rows. */
function tablesOf(file: ModelFile): number[] {
  const { graph, tensors } = file;
  const readers = readersOf(graph);
  return [...tensors.values()].flatMap((tensor) => {
    const nodes = readers.get(tensor.name) ?? [];
    const isTable = tensor.dims.length === 2 && nodes.length > 0 && nodes.every(takesRows);
    return isTable ? [file.bytesOf(tensor)] : [];
  });
}

function takesRows({ opType, domain }: NodeProto): boolean {
  return domain === DOMAIN ? opType === GATHER_INT4 : opType === "Gather";
}

function readersOf(graph: GraphProto): Map<string, NodeProto[]> {
  const readers = new Map<string, NodeProto[]>();
  for (const node of graph.node) {
    for (const name of node.input) readers.set(name, [...readers.get(name) ?? [], node]);
  }
  return readers;
}
