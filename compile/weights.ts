/**
 * A checkpoint's weights on their way into a compiled model: packed, written to the data file, and
 * put into the graph.
 * @module
 */
import type { Checkpoint } from "../src/checkpoint/checkpoint.ts";
import { type DecoderWeights, requireTensor } from "../src/checkpoint/architectures/weights.ts";
import type { GraphBuilder } from "../src/onnx/builder.ts";
import { TensorProto_DataType as DataType } from "../src/onnx/generated/onnx_pb.ts";
import type { TensorSink } from "./data_file.ts";
import { emit, type StoredSparse, type StoredTensor, valueTypeOf } from "./emit.ts";
import { narrow, VALUE_BYTES } from "./packed/quantize.ts";
import type { Matrix, ValueType } from "./packed/types.ts";

/** A dense matrix `[rows, columns]` that has been written. */
export interface StoredDense {
  readonly format: "dense";
  readonly rows: number;
  readonly columns: number;
  readonly values: StoredTensor;
  /** `[rows]`, for int8. */
  readonly scales?: StoredTensor;
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
 */
export function storeDense(
  checkpoint: Checkpoint,
  name: string,
  type: ValueType,
  data: TensorSink,
): StoredDense {
  const [rows, columns] = checkpoint.tensors.get(name)!.shape;
  const perPiece = Math.max(1, Math.floor(PIECE / columns));
  const scales = new Float32Array(type === "int8" ? rows : 0);
  const buffer = new Float32Array(Math.min(rows, perPiece) * columns);
  const writer = data.begin(rows * columns * VALUE_BYTES[type]);
  for (let first = 0; first < rows; first += perPiece) {
    const count = Math.min(perPiece, rows - first);
    const values = buffer.subarray(0, count * columns);
    checkpoint.readFloats(name, values, first * columns);
    const stored = narrow({ name, values, rows: count, columns }, { type });
    writer.write(stored.data);
    if (stored.type === "int8") scales.set(stored.scales, first);
  }
  const dims = [rows, columns];
  return {
    format: "dense",
    rows,
    columns,
    values: { type: valueTypeOf(type), dims, range: writer.range },
    scales: type === "int8"
      ? { type: DataType.FLOAT, dims: [rows], range: data.append(scales) }
      : undefined,
  };
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
  readonly #vectors = new Map<string, StoredTensor>();

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
    const { type, dims, range } = stored.values;
    const table = b.external(`${name}.weight`, type, dims, range);
    const rows = b.node("Cast", [b.node("Gather", [table, ids])], {
      attributes: { to: DataType.FLOAT },
    });
    if (!stored.scales) return rows;
    const scales = b.node("Gather", [this.#scales(b, name, stored), ids]);
    return b.node("Mul", [rows, b.node("Unsqueeze", [scales, b.integers([-1])])]);
  }

  vector(b: GraphBuilder, name: string, part: "weight" | "bias", length: number): string {
    const full = `${name}.${part}`;
    requireTensor(this.#checkpoint.tensors, full, [length]);
    let stored = this.#vectors.get(full);
    if (!stored) {
      const values = new Float32Array(length);
      this.#checkpoint.readFloats(full, values);
      stored = { type: DataType.FLOAT, dims: [length], range: this.#data.append(values) };
      this.#vectors.set(full, stored);
    }
    return b.external(full, stored.type, stored.dims, stored.range);
  }

  #scales(b: GraphBuilder, name: string, { scales }: StoredDense): string {
    return b.external(`${name}.scales`, scales!.type, scales!.dims, scales!.range);
  }
}
