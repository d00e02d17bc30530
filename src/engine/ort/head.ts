/**
 * The output head, in pieces of the vocabulary: neither its weights nor the logits need fit in memory.
 * @module
 */
import { toBinary } from "@bufbuild/protobuf";
import { float, GraphBuilder, modelOf } from "../../onnx/builder.ts";
import { capped } from "../../onnx/cap.ts";
import {
  ModelProtoSchema,
  TensorProto_DataType as DataType,
} from "../../onnx/generated/onnx_pb.ts";
import type { Head } from "../../onnx/sections.ts";
import type { Tensor } from "./backend.ts";
import type { StagedModel } from "./staged.ts";

/** Bytes that one piece's logits may take, and its weights. */
const PIECE_BYTES = 64 << 20;

/**
 * The negative log-likelihood of each target, in nats.
 *
 * log Σ exp is taken over pieces of the vocabulary: each gives its largest logit and the sum of
 * exp(logit − largest), and the pieces are joined in float64.
 *
 * @param model The model whose head to use.
 * @param targets For each batch, the id that follows each of its tokens.
 * @param hidden Gives the activations before the head of batch `i`, `[tokens, width]`; called once a
 *   batch and piece, so that not all of them need be in memory.
 * @param pieces Another head of that shape, in place of the model's.
 */
export async function negativeLogLikelihoods(
  model: StagedModel,
  targets: readonly Int32Array[],
  hidden: (i: number) => Promise<Float32Array>,
  pieces?: AsyncIterable<HeadPiece>,
): Promise<Float64Array[]> {
  const { head } = model.sections;
  const session = await model.session(scoringModel(head));
  const joined = targets.map(({ length }) => ({
    largest: new Float64Array(length).fill(-Infinity),
    sum: new Float64Array(length),
    picked: new Float64Array(length),
  }));
  const tokens = Math.max(...targets.map(({ length }) => length));
  for await (const piece of pieces ?? headPieces(model, tokens, PIECE_BYTES)) {
    const { first, size } = piece;
    for (let i = 0; i < targets.length; i++) {
      const wanted = targets[i];
      const outputs = await session.run({
        hidden: model.backend.floats(await hidden(i), [wanted.length, head.columns]),
        ...feedsOf(model, piece),
        targets: model.backend.int32(
          placesIn(wanted, first, size),
          [wanted.length, 1],
        ),
      });
      const largest = outputs.largest.data as Float32Array;
      const sum = outputs.sum.data as Float32Array;
      const picked = outputs.picked.data as Float32Array;
      const all = joined[i];
      for (let t = 0; t < wanted.length; t++) {
        joinSum(all, t, largest[t], sum[t]);
        if (wanted[t] >= first && wanted[t] < first + size) all.picked[t] = picked[t];
      }
    }
  }
  return joined.map(({ largest, sum, picked }) =>
    largest.map((top, t) => top + Math.log(sum[t]) - picked[t])
  );
}

/** Some rows of the head: those of the tokens from `first` on. */
export interface HeadPiece {
  readonly first: number;
  readonly size: number;
  /** `[size, width]`, overwritten by the next piece. */
  readonly weight: Float32Array;
}

/**
 * The head in pieces.
 *
 * @param tokens Most positions that logits are computed for at once.
 * @param bytes What their logits for one piece may take, and its weights: of few tokens these are more.
 */
export function* headPieces(
  { sections: { head }, weights }: StagedModel,
  tokens: number,
  bytes: number,
): Generator<HeadPiece> {
  const perRow = 4 * Math.max(tokens, head.columns);
  const rows = Math.max(1, Math.min(head.rows, Math.floor(bytes / perRow)));
  const buffer = new Float32Array(rows * head.columns);
  for (let first = 0; first < head.rows; first += rows) {
    const size = Math.min(rows, head.rows - first);
    const weight = buffer.subarray(0, size * head.columns);
    weights.readFloats(head.weight, weight, first * head.columns);
    yield { first, size, weight };
  }
}

/** What models whose logits are {@linkcode addLogits}' are fed of some rows of the head. */
export function feedsOf(
  { backend, sections: { head }, weights }: StagedModel,
  { first, size, weight }: HeadPiece,
): Record<string, Tensor> {
  const feeds = { weight: backend.floats(weight, [size, head.columns]) };
  if (head.bias === undefined) return feeds;
  const bias = new Float32Array(size);
  weights.readFloats(head.bias, bias, first);
  return { ...feeds, bias: backend.floats(bias, [size]) };
}

/** Tokens' places among those of a piece; what is not among them has some place. */
export function placesIn(tokens: Int32Array, first: number, size: number): Int32Array {
  return tokens.map((id) => Math.max(0, Math.min(size - 1, id - first)));
}

/** Adds a piece's Σ exp(logit − largest) at position `t` to what earlier pieces have. */
export function joinSum(
  all: { readonly largest: Float64Array; readonly sum: Float64Array },
  t: number,
  largest: number,
  sum: number,
): void {
  const top = Math.max(all.largest[t], largest);
  all.sum[t] = all.sum[t] * Math.exp(all.largest[t] - top) + sum * Math.exp(largest - top);
  all.largest[t] = top;
}

/** The logits of every position of one window, `[length, vocabulary]`. */
export async function windowLogits(
  model: StagedModel,
  window: Int32Array,
): Promise<Float32Array> {
  const activations = await model.embed({ tokens: window, windows: 1, length: window.length });
  for (const { index } of model.blocks) {
    const want = { squares: false, output: true };
    const result = await model.runBlock(index, model.readBlock(index), activations, want);
    activations.hidden = result.hidden!;
  }
  return await logits(model, await model.finish(activations));
}

/**
 * The logits of some positions.
 *
 * @param model The model whose head to use.
 * @param hidden `[positions, width]` activations before the head.
 * @returns `[positions, vocabulary]`.
 */
export async function logits(model: StagedModel, hidden: Float32Array): Promise<Float32Array> {
  const { head } = model.sections;
  const positions = hidden.length / head.columns;
  const weight = new Float32Array(head.rows * head.columns);
  model.weights.readFloats(head.weight, weight);
  const session = await model.session(logitsModel(head));
  const outputs = await session.run({
    hidden: model.backend.floats(hidden, [positions, head.columns]),
    ...feedsOf(model, { first: 0, size: head.rows, weight }),
  });
  return outputs.logits.data as Float32Array;
}

/** Declares some rows of a head, `[rows, width]`, and their bias where it has one, as inputs of a graph. */
export function declareRows(b: GraphBuilder, { bias, columns }: Head): void {
  b.input("weight", DataType.FLOAT, ["rows", columns]);
  if (bias !== undefined) b.input("bias", DataType.FLOAT, ["rows"]);
}

/**
 * Adds to a graph the logits `[tokens, rows]` of some rows of a head, which {@linkcode declareRows} declared.
 *
 * @param head The head.
 * @param from The activations before it, `[tokens, width]`.
 * @param output The name of the logits; made if not given.
 */
export function addLogits(
  b: GraphBuilder,
  { bias, cap }: Head,
  from: string,
  output?: string,
): string {
  const product = b.node("Gemm", [from, "weight", ...(bias === undefined ? [] : ["bias"])], {
    attributes: { transB: 1, alpha: float(1) },
    outputs: output && cap === undefined ? [output] : 1,
  });
  return capped(b, product, cap, output);
}

function headBuilder(head: Head): { b: GraphBuilder; logits: (output?: string) => string } {
  const b = new GraphBuilder("head");
  b.input("hidden", DataType.FLOAT, ["tokens", head.columns]);
  declareRows(b, head);
  return { b, logits: (output) => addLogits(b, head, "hidden", output) };
}

function logitsModel(head: Head): Uint8Array {
  const { b, logits } = headBuilder(head);
  logits("logits");
  b.output("logits", DataType.FLOAT, ["tokens", "rows"]);
  return toBinary(ModelProtoSchema, modelOf(b.graph));
}

function scoringModel(head: Head): Uint8Array {
  const { b, logits: addAll } = headBuilder(head);
  b.input("targets", DataType.INT32, ["tokens", 1]);
  const logits = addAll();
  const keep = { axes: [1], keepdims: 1 };
  b.node("ReduceMax", [logits], { attributes: keep, outputs: ["largest"] });
  const shifted = b.node("Exp", [b.node("Sub", [logits, "largest"])]);
  b.node("ReduceSum", [shifted, b.integers([1])], {
    attributes: { keepdims: 1 },
    outputs: ["sum"],
  });
  b.node("GatherElements", [logits, "targets"], { attributes: { axis: 1 }, outputs: ["picked"] });
  for (const name of ["largest", "sum", "picked"]) b.output(name, DataType.FLOAT, ["tokens", 1]);
  return toBinary(ModelProtoSchema, modelOf(b.graph));
}
