/**
 * Allocations: how much of its weights each block keeps (its density), given what all keep together.
 * @module
 */
import { AllocationError } from "../errors.ts";

/** A block is never left denser than this by an allocation: something must be pruned (released code). */
export const MOST_DENSE = 0.99;

/**
 * Every block keeps the same.
 *
 * @param blocks Number of blocks.
 * @param sparsity Fraction of weights to prune, in (0, 1).
 * @returns Density of each block.
 */
export function uniform(blocks: number, sparsity: number): Float64Array {
  return new Float64Array(blocks).fill(1 - sparsity);
}

/**
 * DLP (arXiv 2505.23807, section 3.2): a block whose weights score high relative to the others' is
 * redundant and keeps less.
 *
 * With I = 1 − S/ΣS, density = (I − min I)/(max I − min I)·2α, shifted so that the mean over blocks is
 * 1 − sparsity.
 *
 * @param scores S of each block; see `blockScore`.
 * @param sparsity Mean sparsity asked for, in (0, 1).
 * @param alpha Half the distance between the densest and the sparsest block; the paper takes 0.15.
 * @param blocks Numbers that messages call the blocks by; from 0 on when left out.
 * @returns Density of each block.
 * @throws {AllocationError} When alpha would leave nothing of a block, or all scores are 0.
 */
export function dlp(
  scores: ArrayLike<number>,
  sparsity: number,
  alpha: number,
  blocks?: ArrayLike<number>,
): Float64Array {
  const total = sum(scores);
  // Where more than half of each block's weights are 0 already, so is every median.
  if (!(total > 0)) {
    throw new AllocationError(
      `dlp cannot tell the blocks apart: each has a score of ${total}, as where more than half of the ` +
        `weights are 0 already: take --reducer mean, or another allocation`,
    );
  }
  const importance = Float64Array.from(scores, (score) => 1 - score / total);
  return bounded(spread(importance, sparsity, alpha), "alpha", alpha, blocks);
}

/**
 * OWL (arXiv 2310.05175): a block with more outliers keeps more.
 *
 * @param outliers Outlier percent of each block; see `outlierPercent`.
 * @param sparsity Mean sparsity asked for, in (0, 1).
 * @param lambda Half the distance between the densest and the sparsest block; the paper takes 0.08.
 * @param blocks Numbers that messages call the blocks by; from 0 on when left out.
 * @returns Density of each block.
 * @throws {AllocationError} When lambda would leave nothing of a block.
 */
export function owl(
  outliers: ArrayLike<number>,
  sparsity: number,
  lambda: number,
  blocks?: ArrayLike<number>,
): Float64Array {
  return bounded(spread(Float64Array.from(outliers), sparsity, lambda), "lambda", lambda, blocks);
}

/**
 * ATP (arXiv 2502.14770): sparsity grows by the same step from block to block, since errors of the
 * first blocks are carried through all others.
 *
 * @param blocks Number of blocks.
 * @param sparsity Mean sparsity asked for, in (0, 1).
 * @param beta The step from one block to the next.
 * @param names Numbers that messages call the blocks by; from 0 on when left out.
 * @returns Density of each block.
 * @throws {AllocationError} When beta would leave nothing of a block.
 */
export function atp(
  blocks: number,
  sparsity: number,
  beta: number,
  names?: ArrayLike<number>,
): Float64Array {
  const middle = (blocks - 1) / 2;
  const densities = Float64Array.from(
    { length: blocks },
    (_, i) => 1 - sparsity - beta * (i - middle),
  );
  return bounded(densities, "beta", beta, names);
}

/**
 * The densities of an allocation as whole numbers kept of M neighbours, the mean kept.
 *
 * Each block gets the whole part of density · M; the blocks with the largest rests get one more, until
 * the sum is that of the densities to the nearest whole. A block that keeps all does so whatever others do.
 *
 * @param densities Density of each block.
 * @param m Neighbours that are counted together.
 * @returns N of each block, from 1 to M.
 */
export function wholeNumbersOf(densities: ArrayLike<number>, m: number): number[] {
  const exact = Array.from(densities, (density) => density * m);
  const counts = exact.map((value) => Math.min(m, Math.max(1, Math.floor(value + 1e-9))));
  const wanted = Math.round(sum(exact));
  let missing = wanted - sum(counts);
  const byRest = exact.map((_, i) => i).sort((a, b) =>
    (exact[b] - counts[b]) - (exact[a] - counts[a]) || a - b
  );
  // One pass is enough for rests; more are needed only where bounds of 1 and M took part.
  while (missing !== 0) {
    const step = Math.sign(missing);
    const order = step > 0 ? byRest : byRest.toReversed();
    let moved = false;
    for (const i of order) {
      if (missing === 0) break;
      if (exact[i] === m || counts[i] + step < 1 || counts[i] + step > m) continue;
      counts[i] += step;
      missing -= step;
      moved = true;
    }
    if (!moved) break;
  }
  return counts;
}

/** Maps values linearly to densities with the given mean and a distance of 2·half between extremes. */
function spread(values: Float64Array, sparsity: number, half: number): Float64Array {
  const least = values.reduce((a, b) => Math.min(a, b));
  const most = values.reduce((a, b) => Math.max(a, b));
  // Blocks that are all alike get equal shares; 0/0 would give none.
  const scale = most > least ? 2 * half / (most - least) : 0;
  const raw = values.map((value) => (value - least) * scale);
  const mean = sum(raw) / raw.length;
  return raw.map((value) => value - mean + (1 - sparsity));
}

/**
 * Bounds densities as the released code does above, and as it fails to do below: there a density
 * under 0 empties a block silently. So does one that is no number.
 */
function bounded(
  densities: Float64Array,
  option: string,
  value: number,
  blocks?: ArrayLike<number>,
): Float64Array {
  const lost = densities.findIndex((density) => !(density > 0 && density < Infinity));
  if (lost >= 0) {
    const block = blocks?.[lost] ?? lost;
    const density = densities[lost];
    throw new AllocationError(
      Number.isFinite(density)
        ? `${option} ${value} would give block ${block} a sparsity of ${
          (1 - density).toFixed(3)
        }, which leaves nothing of it: take a smaller ${option} or a lower sparsity`
        : `${option} ${value} would give block ${block} a density of ${density}: ` +
          `what it is judged by is no number either; take another allocation`,
    );
  }
  return densities.map((density) => Math.min(density, MOST_DENSE));
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}
