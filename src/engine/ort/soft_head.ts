/**
 * How far a model's predictions are from those of another one and from what came, at every position.
 * @module
 */
import { toBinary } from "@bufbuild/protobuf";
import { GraphBuilder, modelOf } from "../../onnx/builder.ts";
import {
  ModelProtoSchema,
  TensorProto_DataType as DataType,
} from "../../onnx/generated/onnx_pb.ts";
import type { Head } from "../../onnx/sections.ts";
import { addLogits, declareRows, feedsOf, headPieces, joinSum, placesIn } from "./head.ts";
import type { StagedModel } from "./staged.ts";

/** Bytes that one piece's logits may take. */
export const PIECE_BYTES = 32 << 20;

/** What a teacher foresees. */
export interface Teacher {
  /** Its activations before the head for each batch, `[tokens, width]`. */
  readonly hidden: readonly Float32Array[];
  /** log Σ exp of its logits at each batch's positions. */
  readonly logSums: readonly Float64Array[];
}

/**
 * What a model foresees, for others to be compared with.
 *
 * @param model The teacher.
 * @param hidden Its activations before the head for each batch, `[tokens, width]`; kept.
 */
export async function teacherOf(
  model: StagedModel,
  hidden: readonly Float32Array[],
): Promise<Teacher> {
  return { hidden, logSums: await logSumsOf(model, hidden) };
}

/**
 * log Σ exp of a model's logits at each batch's positions.
 *
 * @param hidden Its activations before the head for each batch, `[tokens, width]`.
 */
export async function logSumsOf(
  model: StagedModel,
  hidden: readonly Float32Array[],
): Promise<Float64Array[]> {
  const joined = await overPieces(model, hidden, undefined);
  return joined.map(({ largest, sum }) => largest.map((top, t) => top + Math.log(sum[t])));
}

/** Losses of a model at the positions of one batch, in nats. */
export interface Losses {
  /** Cross entropy −Σ p·log q of its predictions q under the teacher's p. */
  readonly soft: Float64Array;
  /** −log q of the target. */
  readonly hard: Float64Array;
}

/**
 * Losses of a model against a teacher's predictions, and against what came, at every position.
 *
 * log Σ exp is taken over pieces of the vocabulary, as in `head.ts`.
 *
 * @param model The model whose head both use.
 * @param hidden The model's activations before the head for each batch, `[tokens, width]`.
 * @param teacher What the teacher foresees at the same positions.
 * @param targets For each batch, the id that follows each of its tokens.
 */
export async function lossesUnder(
  model: StagedModel,
  hidden: readonly Float32Array[],
  teacher: Teacher,
  targets: readonly Int32Array[],
): Promise<Losses[]> {
  const joined = await overPieces(model, hidden, { ...teacher, targets });
  return joined.map(({ largest, sum, expected, picked }) => {
    const logSums = largest.map((top, t) => top + Math.log(sum[t]));
    return {
      soft: logSums.map((logSum, t) => logSum - expected[t]),
      hard: logSums.map((logSum, t) => logSum - picked[t]),
    };
  });
}

/** What is joined over the pieces of the vocabulary, for each position. */
interface Joined {
  readonly largest: Float64Array;
  /** Σ exp(logit − largest). */
  readonly sum: Float64Array;
  /** Σ p·logit under the teacher's p. */
  readonly expected: Float64Array;
  /** The target's logit. */
  readonly picked: Float64Array;
}

async function overPieces(
  model: StagedModel,
  hidden: readonly Float32Array[],
  teacher: Teacher & { readonly targets: readonly Int32Array[] } | undefined,
): Promise<Joined[]> {
  const { head } = model.sections;
  const counts = hidden.map((values) => values.length / head.columns);
  const session = await model.session(softModel(head, teacher !== undefined));
  const joined = counts.map((count) => ({
    largest: new Float64Array(count).fill(-Infinity),
    sum: new Float64Array(count),
    expected: new Float64Array(count),
    picked: new Float64Array(count),
  }));
  for (const piece of headPieces(model, Math.max(...counts), PIECE_BYTES)) {
    const { first, size } = piece;
    for (let i = 0; i < counts.length; i++) {
      const outputs = await session.run({
        hidden: model.backend.floats(hidden[i], [counts[i], head.columns]),
        ...feedsOf(model, piece),
        ...(teacher && {
          teacher: model.backend.floats(teacher.hidden[i], [counts[i], head.columns]),
          logsum: model.backend.floats(Float32Array.from(teacher.logSums[i]), [counts[i], 1]),
          targets: model.backend.int32(
            placesIn(teacher.targets[i], first, size),
            [counts[i], 1],
          ),
        }),
      });
      const largest = outputs.largest.data as Float32Array;
      const sum = outputs.sum.data as Float32Array;
      const expected = outputs.expected?.data as Float32Array | undefined;
      const picked = outputs.picked?.data as Float32Array | undefined;
      const wanted = teacher?.targets[i];
      const all = joined[i];
      for (let t = 0; t < counts[i]; t++) {
        joinSum(all, t, largest[t], sum[t]);
        if (expected) all.expected[t] += expected[t];
        if (picked && wanted && wanted[t] >= first && wanted[t] < first + size) {
          all.picked[t] = picked[t];
        }
      }
    }
  }
  return joined;
}

function softModel(head: Head, taught: boolean): Uint8Array {
  const b = new GraphBuilder("soft head");
  b.input("hidden", DataType.FLOAT, ["tokens", head.columns]);
  declareRows(b, head);
  const logits = addLogits(b, head, "hidden");
  b.node("ReduceMax", [logits], { attributes: { axes: [1], keepdims: 1 }, outputs: ["largest"] });
  const shifted = b.node("Exp", [b.node("Sub", [logits, "largest"])]);
  const keep = { attributes: { keepdims: 1 } };
  b.node("ReduceSum", [shifted, b.integers([1])], { ...keep, outputs: ["sum"] });
  const outputs = ["largest", "sum"];
  if (taught) {
    b.input("teacher", DataType.FLOAT, ["tokens", head.columns]);
    b.input("logsum", DataType.FLOAT, ["tokens", 1]);
    const foreseen = addLogits(b, head, "teacher");
    const chance = b.node("Exp", [b.node("Sub", [foreseen, "logsum"])]);
    b.node("ReduceSum", [b.node("Mul", [chance, logits]), b.integers([1])], {
      ...keep,
      outputs: ["expected"],
    });
    b.input("targets", DataType.INT32, ["tokens", 1]);
    b.node("GatherElements", [logits, "targets"], {
      attributes: { axis: 1 },
      outputs: ["picked"],
    });
    outputs.push("expected", "picked");
  }
  for (const name of outputs) b.output(name, DataType.FLOAT, ["tokens", 1]);
  return toBinary(ModelProtoSchema, modelOf(b.graph));
}
