/**
 * A checkpoint's weights on their way into a compiled model: packed, written to the data file, and
 * put into the graph.
 * @module
 */
import type { Checkpoint } from "../src/checkpoint/checkpoint.ts";
import {
  type DecoderWeights,
  requireTensor,
  smallTensor,
} from "../src/checkpoint/architectures/weights.ts";
import { toHalves } from "../src/onnx/half.ts";
import type { GraphBuilder } from "../src/onnx/builder.ts";
import { TensorProto_DataType as DataType } from "../src/onnx/generated/onnx_pb.ts";
import type { Steps } from "../src/platform/steps.ts";
import type { TensorSink } from "./data_file.ts";
import { emit, type StoredSparse, type StoredTensor, valueTypeOf } from "./emit.ts";
import { DOMAIN, GATHER_INT4, operatorName } from "./functions.ts";
import {
  boundScales,
  indexScales,
  int4Columns,
  levelsOf,
  packNibbleRows,
  scalesOf,
} from "./packed/int4.ts";
import { narrow, VALUE_BYTES } from "./packed/quantize.ts";
import type { Matrix, ValueType } from "./packed/types.ts";

/** A dense matrix `[rows, columns]` that has been written. */
export interface StoredDense {
  readonly format: "dense";
  readonly rows: number;
  readonly columns: number;
  readonly values: StoredTensor;
  /** `[rows]` for int8, `[rows, ⌈columns / group⌉]` for int4. */
  readonly scales?: StoredTensor;
  /** For int4: what the scales' indices stand for. */
  readonly table?: StoredTensor;
  /** For int4: columns that share a scale. */
  readonly group?: number;
}

/** A matrix that has been written. */
export type Stored = StoredSparse | StoredDense;

/** Elements of a matrix that are converted at a time. */
const PIECE = 4 << 20;

/**
 * Writes a matrix dense, a piece of its rows at a time.
 *
 * @param name Its tensor in the checkpoint.
 * @param type How it is stored; int8 has a scale for each row.
 * @param kept For int4: kept weights that share a scale, unless the matrix lies on a grid already.
 */
export function* storeDense(
  checkpoint: Checkpoint,
  name: string,
  type: ValueType,
  data: TensorSink,
  kept?: number,
): Steps<StoredDense> {
  if (type === "int4") return yield* storeDenseInt4(checkpoint, name, data, kept);
  const [rows, columns] = checkpoint.tensors.get(name)!.shape;
  const writer = data.begin(rows * columns * VALUE_BYTES[type]);
  const int8Scales = new Float32Array(type === "int8" ? rows : 0);
  for (const { first, ...piece } of piecesOf(checkpoint, name)) {
    const stored = narrow(piece, { type });
    writer.write(stored.data);
    if (stored.type === "int8") int8Scales.set(stored.scales, first);
    yield;
  }
  const { range } = writer;
  const values = { type: valueTypeOf(type), dims: [rows, columns], range };
  const common = { format: "dense", rows, columns, values } as const;
  if (type !== "int8") return common;
  const scales = { type: DataType.FLOAT, dims: [rows], range: data.append(int8Scales) };
  return { ...common, scales };
}

/** The same as int4. All scales are found before the first weight is written: they share a table. */
function* storeDenseInt4(
  checkpoint: Checkpoint,
  name: string,
  data: TensorSink,
  kept: number | undefined,
): Steps<StoredDense> {
  const [rows, columns] = checkpoint.tensors.get(name)!.shape;
  let group = 0;
  let perRow = 0;
  let scales = new Float32Array(0);
  for (const { first, ...piece } of piecesOf(checkpoint, name)) {
    if (first === 0) {
      // The first rows speak for all.
      group = int4Columns(piece, kept);
      perRow = Math.ceil(columns / group);
      scales = new Float32Array(rows * perRow);
    }
    scales.set(scalesOf(piece, group), first * perRow);
    yield;
  }
  boundScales(scales);
  const rowBytes = Math.ceil(columns / 2);
  const writer = data.begin(rows * rowBytes);
  for (const { first, ...piece } of piecesOf(checkpoint, name)) {
    const ofPiece = scales.subarray(first * perRow, (first + piece.rows) * perRow);
    writer.write(packNibbleRows(levelsOf(piece, ofPiece, group), piece));
    yield;
  }
  const halves = new Uint16Array(scales.length);
  toHalves(scales, halves);
  const { indices, table } = indexScales(halves);
  return {
    format: "dense",
    rows,
    columns,
    group,
    values: { type: valueTypeOf("int4"), dims: [rows, rowBytes], range: writer.range },
    scales: { type: DataType.UINT8, dims: [rows, perRow], range: data.append(indices) },
    table: { type: DataType.FLOAT16, dims: [table.length], range: data.append(table) },
  };
}

/** A matrix of a checkpoint a piece of its rows at a time; a piece holds until the next one. */
function* piecesOf(checkpoint: Checkpoint, name: string): Generator<Matrix & { first: number }> {
  const [rows, columns] = checkpoint.tensors.get(name)!.shape;
  const perPiece = Math.max(1, Math.floor(PIECE / columns));
  const buffer = new Float32Array(Math.min(rows, perPiece) * columns);
  for (let first = 0; first < rows; first += perPiece) {
    const count = Math.min(perPiece, rows - first);
    const values = buffer.subarray(0, count * columns);
    checkpoint.readFloats(name, values, first * columns);
    yield { first, name, values, rows: count, columns };
  }
}

/** Reads a matrix of a checkpoint. */
export function readMatrix(checkpoint: Checkpoint, name: string, buffer: Float32Array): Matrix {
  const [rows, columns] = checkpoint.tensors.get(name)!.shape;
  const values = buffer.subarray(0, rows * columns);
  checkpoint.readFloats(name, values);
  return { name, values, rows, columns };
}

/** Weights that have been written to a data file. */
export class CompiledWeights implements DecoderWeights {
  readonly #checkpoint: Checkpoint;
  readonly #data: TensorSink;
  readonly #matrices: ReadonlyMap<string, Stored>;
  readonly #small = new Map<string, StoredTensor>();

  /** @param matrices By the name of the tensor in the checkpoint. */
  constructor(
    checkpoint: Checkpoint,
    data: TensorSink,
    matrices: ReadonlyMap<string, Stored>,
  ) {
    this.#checkpoint = checkpoint;
    this.#data = data;
    this.#matrices = matrices;
  }

  product(
    b: GraphBuilder,
    x: string,
    name: string,
    _rows: number,
    _columns: number,
    output?: string,
  ): string {
    const stored = this.#matrices.get(`${name}.weight`)!;
    if (stored.format !== "dense") return emit(b, x, name, stored, output);
    if (stored.group) {
      return this.#int4(b, operatorName("dense", "int4"), x, name, stored, output);
    }
    const weight = b.external(
      `${name}.weight`,
      stored.values.type,
      stored.values.dims,
      stored.values.range,
    );
    const turned = b.node("Transpose", [weight], { attributes: { perm: [1, 0] } });
    const wide = b.node("Cast", [turned], { attributes: { to: DataType.FLOAT } });
    const outputs = output ? [output] : 1;
    if (!stored.scales) return b.node("MatMul", [x, wide], { outputs });
    return b.node("Mul", [b.node("MatMul", [x, wide]), this.#scales(b, name, stored)], { outputs });
  }

  rows(b: GraphBuilder, name: string, _rows: number, _width: number, ids: string): string {
    const stored = this.#matrices.get(`${name}.weight`) as StoredDense;
    if (stored.group) return this.#int4(b, GATHER_INT4, ids, name, stored);
    const { type, dims, range } = stored.values;
    const table = b.external(`${name}.weight`, type, dims, range);
    const rows = b.node("Cast", [b.node("Gather", [table, ids])], {
      attributes: { to: DataType.FLOAT },
    });
    if (!stored.scales) return rows;
    const scales = b.node("Gather", [this.#scales(b, name, stored), ids]);
    return b.node("Mul", [rows, b.node("Unsqueeze", [scales, b.integers([-1])])]);
  }

  small(
    b: GraphBuilder,
    name: string,
    part: "weight" | "bias" | undefined,
    dims: readonly number[],
  ): string {
    const full = smallTensor(name, part);
    requireTensor(this.#checkpoint.tensors, full, dims);
    let stored = this.#small.get(full);
    if (!stored) {
      const values = new Float32Array(dims.reduce((product, dim) => product * dim, 1));
      this.#checkpoint.readFloats(full, values);
      stored = { type: DataType.FLOAT, dims, range: this.#data.append(values) };
      this.#small.set(full, stored);
    }
    return b.external(full, stored.type, stored.dims, stored.range);
  }

  /** A node that reads a dense int4 matrix. */
  #int4(
    b: GraphBuilder,
    operator: string,
    input: string,
    name: string,
    { rows, columns, group, values, scales, table }: StoredDense,
    output?: string,
  ): string {
    const parts = { values, scales: scales!, scale_table: table! };
    const stored = Object.entries(parts).map(([part, { type, dims, range }]) =>
      b.external(`${name}.${part}`, type, dims, range)
    );
    return b.node(operator, [input, ...stored], {
      domain: DOMAIN,
      attributes: { rows, columns, group: group! },
      outputs: output ? [output] : 1,
    });
  }

  #scales(b: GraphBuilder, name: string, { scales }: StoredDense): string {
    return b.external(`${name}.scales`, scales!.type, scales!.dims, scales!.range);
  }
}
