/**
 * How a decoder's weights enter its graph: as the checkpoint stores them, or in another form.
 * @module
 */
import { TensorMissingError, TensorShapeError, TensorTypeError } from "../../errors.ts";
import type { GraphBuilder } from "../../onnx/builder.ts";
import { onnxTypeOf } from "../../onnx/element_type.ts";
import { TensorProto_DataType as DataType } from "../../onnx/generated/onnx_pb.ts";
import type { CheckpointTensor } from "../checkpoint.ts";

/** Puts weights into a graph. Names are without the `.weight` at their end. */
export interface DecoderWeights {
  /** `x · Wᵀ` with W `[rows, columns]`; `output` is the name of the result, where it matters. */
  product(
    b: GraphBuilder,
    x: string,
    name: string,
    rows: number,
    columns: number,
    output?: string,
  ): string;
  /** The rows of a table `[rows, width]` that `ids` name. */
  rows(b: GraphBuilder, name: string, rows: number, width: number, ids: string): string;
  /**
   * What is no matrix, as float32: a bias, or the weight of a norm, `[width]` or of each head; kernels. Without a part
   * the tensor is called as the name says.
   */
  small(
    b: GraphBuilder,
    name: string,
    part: "weight" | "bias" | undefined,
    dims: readonly number[],
  ): string;
}

/**
 * The tensor with the shape that a config asks for.
 *
 * @throws {TensorMissingError} When the checkpoint lacks it.
 * @throws {TensorShapeError} When its shape is another.
 * @throws {TensorTypeError} When it is not stored as float32, float16 or bfloat16.
 */
export function requireTensor(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  name: string,
  dims: readonly number[],
): CheckpointTensor & { type: NonNullable<CheckpointTensor["type"]> } {
  const tensor = tensors.get(name);
  if (!tensor) {
    throw new TensorMissingError(
      `the checkpoint has no tensor ${name}: its config.json and its weights do not belong together`,
    );
  }
  const { type, file, shape, dtype } = tensor;
  if (shape.length !== dims.length || shape.some((dim, i) => dim !== dims[i])) {
    throw new TensorShapeError(
      `${file}: tensor ${name} has shape [${shape}], config.json asks for [${dims}]`,
    );
  }
  if (!type) {
    throw new TensorTypeError(
      `${file}: tensor ${name} is stored as ${dtype}; F32, F16 and BF16 can be pruned`,
    );
  }
  return { ...tensor, type };
}

/** The tensor of what is no matrix. */
export function smallTensor(name: string, part: "weight" | "bias" | undefined): string {
  return part === undefined ? name : `${name}.${part}`;
}

/** Weights that stay in the checkpoint's files; the graph's initializers point to them. */
export class CheckpointWeights implements DecoderWeights {
  readonly #tensors: ReadonlyMap<string, CheckpointTensor>;

  constructor(tensors: ReadonlyMap<string, CheckpointTensor>) {
    this.#tensors = tensors;
  }

  product(
    b: GraphBuilder,
    x: string,
    name: string,
    rows: number,
    columns: number,
    output?: string,
  ): string {
    const weight = this.#weight(b, `${name}.weight`, [rows, columns]);
    const turned = b.node("Transpose", [weight], { attributes: { perm: [1, 0] } });
    return b.node("MatMul", [x, turned], { outputs: output ? [output] : 1 });
  }

  rows(b: GraphBuilder, name: string, rows: number, width: number, ids: string): string {
    return b.node("Gather", [this.#weight(b, `${name}.weight`, [rows, width]), ids]);
  }

  small(
    b: GraphBuilder,
    name: string,
    part: "weight" | "bias" | undefined,
    dims: readonly number[],
  ): string {
    return this.#weight(b, smallTensor(name, part), dims);
  }

  /** A tensor of the checkpoint as a float32 value. */
  #weight(b: GraphBuilder, name: string, dims: readonly number[]): string {
    const { type, file, offset, length } = requireTensor(this.#tensors, name, dims);
    const range = { location: file, offset, length };
    const value = b.external(name, onnxTypeOf(type), dims, range);
    return b.node("Cast", [value], { attributes: { to: DataType.FLOAT } });
  }
}
