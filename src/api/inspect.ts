/**
 * `inspect`: what a checkpoint holds, and how sparse it is.
 * @module
 */
import { headDimsOf } from "../checkpoint/architectures/spec.ts";
import { isBuffer } from "../checkpoint/buffers.ts";
import { cutIntoSections } from "../onnx/sections.ts";
import { atOnce, type Steps } from "../platform/steps.ts";
import { type InspectOptions, inspectSchema, parseOptions } from "./options.ts";
import { OpenModel } from "./shared.ts";
import { zerosOf } from "./zeros.ts";

/** One linear of a checkpoint. */
export interface LinearReport {
  readonly name: string;
  /** `[out, in]`. */
  readonly shape: [number, number];
  readonly dtype: string;
  readonly bytes: number;
  readonly zeros: number;
  /** Fraction of weights that are 0. */
  readonly sparsity: number;
}

/** What `inspect` found. */
export interface InspectReport {
  readonly model: string;
  readonly architecture: string;
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  /** Elements of a head; where layers have heads of several sizes, {@linkcode headDims} has all. */
  readonly headDim: number;
  readonly headDims: readonly number[];
  readonly vocabulary: number;
  readonly context: number;
  readonly parameters: number;
  /** Bytes of all tensors. */
  readonly bytes: number;
  readonly files: string[];
  /** Of all linears in blocks: the embedding and the head are not pruned, and not counted. */
  readonly linears: { readonly weights: number; readonly zeros: number; readonly sparsity: number };
  readonly blocks: {
    readonly index: number;
    readonly sparsity: number;
    readonly linears: LinearReport[];
  }[];
}

/**
 * Looks into a checkpoint: every weight of every linear is read.
 *
 * @param options The folder.
 * @throws {EspalierError} Of the class that says what is wrong.
 */
export function inspect(options: InspectOptions): InspectReport {
  return atOnce(inspectInSteps(options));
}

/** The same, with a step for each part of a linear. */
export function* inspectInSteps(options: InspectOptions): Steps<InspectReport> {
  const settings = parseOptions(inspectSchema, options);
  const { checkpoint, spec, graph } = new OpenModel(settings.model);
  try {
    const sections = cutIntoSections(graph);
    const blocks: InspectReport["blocks"] = [];
    for (const block of sections.blocks) {
      const linears: LinearReport[] = [];
      for (const { name, weight, rows, columns } of block.linears) {
        const size = rows * columns;
        const zeros = yield* zerosOf(checkpoint, { weight, rows, columns });
        const { dtype, length } = checkpoint.tensors.get(weight)!;
        linears.push({
          name,
          shape: [rows, columns],
          dtype,
          bytes: length,
          zeros,
          sparsity: zeros / size,
        });
      }
      blocks.push({ index: block.index, sparsity: sparsityOf(linears), linears });
    }
    const all = blocks.flatMap(({ linears }) => linears);
    const tensors = [...checkpoint.tensors.values()];
    return {
      model: checkpoint.name,
      architecture: String(checkpoint.config.model_type),
      layers: spec.layers,
      hidden: spec.hidden,
      intermediate: spec.intermediate,
      heads: spec.heads,
      keyValueHeads: spec.keyValueHeads,
      headDim: spec.headDim,
      headDims: headDimsOf(spec),
      vocabulary: spec.vocabulary,
      context: spec.context,
      parameters: tensors.filter(({ name }) => !isBuffer(name))
        .reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
      bytes: tensors.reduce((sum, { length }) => sum + length, 0),
      files: [...checkpoint.shards],
      linears: {
        weights: all.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0),
        zeros: all.reduce((sum, { zeros }) => sum + zeros, 0),
        sparsity: sparsityOf(all),
      },
      blocks,
    };
  } finally {
    checkpoint.close();
  }
}

/** Fraction of zeros over several linears. */
export function sparsityOf(
  linears: readonly { readonly shape: readonly [number, number]; readonly zeros: number }[],
): number {
  const weights = linears.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
  return weights === 0 ? 0 : linears.reduce((sum, { zeros }) => sum + zeros, 0) / weights;
}
