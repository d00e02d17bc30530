/**
 * Rounding the output head to int4, by what comes into it.
 * @module
 */
import type { StagedModel } from "../engine/ort/staged.ts";
import { NotFiniteError, throwIfAborted } from "../errors.ts";
import { letEventsIn } from "../platform/events.ts";
import { inverseFactor } from "../prune/cholesky.ts";
import { pullOf } from "../prune/espalier.ts";
import { descendOnGrid } from "../prune/grid_descent.ts";
import type { Algebra, Matrix } from "../prune/matrix.ts";
import { penalised, penaltyOf } from "../prune/repair.ts";
import { int4Rounding, sparseGpt } from "../prune/sparsegpt.ts";
import { Gram } from "./grams.ts";
import type { PassHooks } from "./passes.ts";
import type { WindowStates } from "./states.ts";

/** Bytes of weights that are rounded at a time. */
const PIECE_BYTES = 16 << 20;
/** Damping of a Hessian that holds its penalty already, as a fraction of its mean diagonal. */
const NEXT_TO_NOTHING = 1e-6;

/** What is rounded, and who takes it. */
export interface HeadRounding {
  /** Weights of a row that share a scale. */
  readonly group: number;
  /** Takes rounded rows from `first` on, `[rows, columns]`. */
  readonly put: (weight: string, first: number, values: Float32Array) => void;
}

/**
 * Rounds the head as `sparseGpt` rounds what stays, and then to better levels one by one. Where the
 * embedding is the same matrix, it is rounded with it: by far the most is lost in the logits.
 *
 * @param model The model.
 * @param states Windows behind the last block of the pruned model.
 * @param algebra Where products are made.
 * @throws {NotFiniteError} When activations overflow.
 */
export async function roundHead(
  model: StagedModel,
  states: WindowStates,
  { group, put }: HeadRounding,
  algebra: Algebra,
  { signal }: PassHooks = {},
): Promise<void> {
  const { weight, rows, columns } = model.sections.head;
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
  const most = Math.max(1, Math.floor(PIECE_BYTES / (4 * columns)));
  for (let first = 0; first < rows; first += most) {
    const count = Math.min(most, rows - first);
    const weights: Matrix = {
      data: new Float32Array(count * columns),
      rows: count,
      columns,
    };
    model.weights.readFloats(weight, weights.data, first * columns);
    const mask = new Uint8Array(count * columns).fill(1);
    const request = { ...all, weights, upper: factor.upper, mask, rounding };
    const values = { ...weights, data: (await sparseGpt(request, algebra)).values };
    descendOnGrid(values, mask, await pullOf(weights, values, hessian, algebra), hessian, rounding);
    put(weight, first, values.data);
    await letEventsIn();
    throwIfAborted(signal);
  }
}
