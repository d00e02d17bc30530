/**
 * What SparseGPT and the repair need to know of a linear: sums of products of its inputs, and of what it
 * should give with its inputs.
 * @module
 */
import type { BlockResult, BlockWeights } from "../engine/ort/staged.ts";
import { NotFiniteError } from "../errors.ts";
import type { Linear } from "../onnx/sections.ts";
import type { Residual } from "../onnx/residual.ts";
import type { Algebra, Matrix } from "../prune/matrix.ts";

/** A sum of products Aᵀ·B of many batches. */
export class Gram {
  readonly #algebra: Algebra;
  #sum: Matrix | undefined;
  /** Rows of all batches. */
  tokens = 0;

  constructor(algebra: Algebra) {
    this.#algebra = algebra;
  }

  /** Adds a batch: `a` is `[tokens, n]`, `b` `[tokens, m]`. */
  async add(a: Matrix, b: Matrix): Promise<void> {
    const product = await this.#algebra.product(a, b, { transposeA: true });
    this.tokens += a.rows;
    if (!this.#sum) {
      this.#sum = product;
      return;
    }
    const sum = this.#sum.data;
    for (let i = 0; i < sum.length; i++) sum[i] += product.data[i];
  }

  /**
   * The sum `[n, m]`.
   *
   * @param of What it is of, for the message.
   * @throws {NotFiniteError} When activations overflowed.
   */
  sum(of: string): Matrix {
    const sum = this.#sum!;
    if (!sum.data.every(Number.isFinite)) {
      throw new NotFiniteError(
        `activations become NaN or infinite (${of}): the weights before it are damaged`,
      );
    }
    return sum;
  }
}

/**
 * What a linear should give so that the stream goes on as in the dense model: the dense model's sum
 * less what the pruned model adds to it.
 *
 * @param dense A run of the dense block on the dense model's states, `sum` tapped.
 * @param pruned A run of the pruned block on the pruned model's states, `other` tapped.
 * @returns `[tokens, rows]`.
 */
export function residualTarget(
  { sum, other, bias }: Residual,
  dense: BlockResult,
  pruned: BlockResult,
  weights: BlockWeights,
): Matrix {
  const { data: wanted, rows, columns } = dense.taps.get(sum)!;
  const there = pruned.taps.get(other)!.data;
  const added = bias === undefined ? undefined : weights.get(bias);
  const data = new Float32Array(wanted.length);
  for (let t = 0, i = 0; t < rows; t++) {
    for (let c = 0; c < columns; c++, i++) data[i] = wanted[i] - there[i] - (added?.[c] ?? 0);
  }
  return { data, rows, columns };
}

/** Linears by what feeds them, in the order in which the block computes them. */
export function groupsOf<L extends Linear>(linears: readonly L[]): L[][] {
  const groups = new Map<string, L[]>();
  for (const linear of linears) {
    groups.set(linear.input, [...groups.get(linear.input) ?? [], linear]);
  }
  return [...groups.values()];
}
