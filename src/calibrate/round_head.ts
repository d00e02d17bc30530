/**
 * Rounding the output head to int4, by what comes into it, and the embedding, which nothing comes into.
 * @module
 */
import { OrtAlgebra } from "../engine/ort/algebra.ts";
import type { HeadPiece } from "../engine/ort/head.ts";
import type { RowsChange, StagedModel } from "../engine/ort/staged.ts";
import { throwIfAborted } from "../checks.ts";
import { NotFiniteError } from "../errors.ts";
import { letEventsIn } from "../platform/events.ts";
import { inverseFactor } from "../prune/cholesky.ts";
import { roundOnMask } from "../prune/espalier.ts";
import { groupColumns, matrixGrid, roundMatrix } from "../prune/int4_grid.ts";
import type { Algebra, Matrix } from "../prune/matrix.ts";
import { NEXT_TO_NOTHING, penalised, penaltyOf } from "../prune/repair.ts";
import { int4Rounding } from "../prune/sparsegpt.ts";
import { Gram } from "./grams.ts";
import type { WindowStates } from "./states.ts";

/** Bytes of weights that are rounded at a time. */
const PIECE_BYTES = 16 << 20;

/**
 * The head, rounded as `sparseGpt` rounds what stays, and then to better levels one by one; a piece of its
 * rows at a time, since it need not fit in memory.
 *
 * @param model The model.
 * @param states Windows behind the last block of the pruned model.
 * @param group Weights of a row that share a scale.
 * @returns Pieces of the head, from its first row to its last.
 * @throws {NotFiniteError} When activations overflow.
 */
export async function* roundedHead(
  model: StagedModel,
  states: WindowStates,
  group: number,
  signal?: AbortSignal,
): AsyncGenerator<HeadPiece> {
  const algebra = new OrtAlgebra(model.backend, signal);
  try {
    yield* rounded(model, states, group, algebra, signal);
  } finally {
    await algebra.close();
  }
}

/**
 * An embedding that is not the head, each weight rounded to the nearest of its group's levels, as who stores it
 * would round it: then what is measured before that holds afterwards.
 *
 * @param model The model.
 * @param name The embedding's tensor.
 * @param group Weights of a row that share a scale.
 * @returns Pieces of it, from its first row to its last.
 */
export async function* roundedEmbedding(
  model: StagedModel,
  name: string,
  [rows, columns]: readonly [number, number],
  group: number,
  signal?: AbortSignal,
): AsyncGenerator<HeadPiece> {
  const most = rowsOfPiece(columns);
  for (let first = 0; first < rows; first += most) {
    const size = Math.min(most, rows - first);
    const weight = new Float32Array(size * columns);
    model.weights.readFloats(name, weight, first * columns);
    roundToNearest(weight, columns, group);
    yield { first, size, weight };
    await letEventsIn();
    throwIfAborted(signal);
  }
}

/**
 * The same of the rows that some tokens name.
 *
 * @param head The head's tensor: where the embedding is that, its rows stay as they are.
 * @param group Weights of a row that share a scale; undefined where nothing is rounded.
 */
export function roundedRows(head: string, group: number | undefined): RowsChange | undefined {
  if (group === undefined) return undefined;
  return (table, rows, width) => {
    if (table !== head) roundToNearest(rows, width, group);
  };
}

function roundToNearest(rows: Float32Array, width: number, group: number): void {
  roundMatrix(rows, matrixGrid(rows, width, groupColumns(1, group)));
}

function rowsOfPiece(columns: number): number {
  return Math.max(1, Math.floor(PIECE_BYTES / (4 * columns)));
}

async function* rounded(
  model: StagedModel,
  states: WindowStates,
  group: number,
  algebra: Algebra,
  signal: AbortSignal | undefined,
): AsyncGenerator<HeadPiece> {
  const { weight: name, rows, columns } = model.sections.head;
  const gram = new Gram(algebra);
  for (let i = 0; i < states.batches.length; i++) {
    throwIfAborted(signal);
    const data = await model.finish(states.load(i));
    const x: Matrix = { data, rows: data.length / columns, columns };
    await gram.add(x, x);
  }
  const sum = gram.sum("the head's input");
  const hessian = penalised(sum, penaltyOf(sum, gram.tokens));
  const factor = await inverseFactor(hessian, NEXT_TO_NOTHING, algebra);
  if (!factor) {
    throw new NotFiniteError(
      "the head's Hessian is not positive definite: activations are damaged",
    );
  }
  const all = { pattern: { kind: "unstructured" }, share: { density: 1 } } as const;
  const rounding = int4Rounding(all.share, group);
  const most = rowsOfPiece(columns);
  for (let first = 0; first < rows; first += most) {
    const count = Math.min(most, rows - first);
    const weights: Matrix = { data: new Float32Array(count * columns), rows: count, columns };
    model.weights.readFloats(name, weights.data, first * columns);
    const mask = new Uint8Array(count * columns).fill(1);
    const request = { ...all, target: weights, hessian, upper: factor.upper, rounding };
    const values = await roundOnMask(weights, mask, request, algebra);
    yield { first, size: count, weight: values.data };
    await letEventsIn();
    throwIfAborted(signal);
  }
}
