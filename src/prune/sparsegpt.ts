/**
 * SparseGPT (arXiv 2301.00774): weights are pruned column by column, and those that are still to come
 * make up for what was cut.
 * @module
 */
import type { LinearShare } from "./block.ts";
import { gridScale, groupColumns, roundToGrid } from "./int4_grid.ts";
import { type Algebra, type Matrix, part, putAt, subtractAt } from "./matrix.ts";
import { selectRank } from "./select.ts";
import { SLOT_COLUMNS, slotsMask, slotsOf } from "./slots.ts";
import { groupOf } from "./standing.ts";
import type { Mask, Pattern } from "./types.ts";

/** Columns after which the others are told of the errors (`blocksize` of the released code). */
export const BLOCK_COLUMNS = 128;
/** Damping as a fraction of the Hessian's mean diagonal (`percdamp` of the released code). */
export const DAMPING = 0.01;

/** Rounds the weights that stay while those that are still to come can make up for it (GPTQ, arXiv 2210.17323). */
export interface Rounding {
  /** Columns that share a scale, a divisor of 128. */
  readonly columns: number;
  /** The scale of the weights of one row and group that stay. */
  scale(values: Float32Array, count: number): number;
  /** The nearest value on the grid of a scale. */
  round(value: number, scale: number): number;
}

/**
 * Rounding to the grid of int4 that `compile --values int4` finds again.
 *
 * @param share How much of the matrix stays: it decides how many columns share a scale.
 * @param group Weights that share a scale, of those that stay.
 */
export function int4Rounding(share: LinearShare, group: number): Rounding {
  const columns = groupColumns(share.density, group);
  return { columns, scale: gridScale, round: roundToGrid };
}

/** A pruned matrix. */
export interface Reconstructed {
  /** 1 where a weight is kept. */
  readonly mask: Mask;
  /** `[rows, columns]`: 0 where pruned, mended elsewhere. */
  readonly values: Float32Array;
}

/** What is pruned, and how. */
export interface SparseGptRequest {
  /** The weights `[rows, columns]`; not changed. */
  readonly weights: Matrix;
  /** U `[columns, columns]` with H⁻¹ = UᵀU; see `inverseFactor`. */
  readonly upper: Matrix;
  readonly pattern: Pattern;
  readonly share: LinearShare;
  /** Weights that stay, where that is decided already: then only the values are mended. */
  readonly mask?: Mask;
  readonly rounding?: Rounding;
}

/**
 * Prunes a matrix and updates what stays (`fasterprune` of the released code's `lib/sparsegpt.py`).
 *
 * A weight's score is w² / U[c, c]², in blocks of 128 columns. Unstructured: a block's weights whose
 * score is at most that of rank ⌊size · sparsity⌋ go, over all its rows at once. Slots: those of a block
 * are shared out when it begins. N:M: the N best of every M, chosen when their turn comes. The error (w − q) / U[c, c] of each column then changes the
 * columns behind it by −error · U[c, behind]: within the block at once, beyond it by one product.
 *
 * @param request What and how.
 * @param algebra Where products are made.
 */
export async function sparseGpt(
  request: SparseGptRequest,
  algebra: Algebra,
): Promise<Reconstructed> {
  const { weights, upper } = request;
  const { rows, columns } = weights;
  const work: Matrix = { data: weights.data.slice(), rows, columns };
  const mask = new Uint8Array(rows * columns);
  const step = blockColumns(request);
  for (let first = 0; first < columns; first += step) {
    const width = Math.min(step, columns - first);
    const block = part(work, 0, first, rows, width);
    const factor = part(upper, first, first, width, width);
    const kept = blockMask(request, block, factor, first);
    const errors = pruneBlock(request, block, factor, kept);
    putAt(work, block, 0, first);
    for (let r = 0; r < rows; r++) {
      mask.set(kept.subarray(r * width, (r + 1) * width), r * columns + first);
    }
    const behind = first + width;
    if (behind < columns) {
      const ahead = part(upper, first, behind, width, columns - behind);
      subtractAt(work, await algebra.product(errors, ahead), 0, behind);
    }
  }
  return { mask, values: work.data };
}

/**
 * Columns of a block: whole groups of M, whole windows, and whole groups that share a scale, or else the
 * weights would lie on other grids than compile looks for. More than 128 where less does not hold both.
 */
function blockColumns({ pattern, rounding }: SparseGptRequest): number {
  const m = columnsTogether(pattern);
  const scaled = rounding?.columns ?? 1;
  let together = m;
  while (together % scaled !== 0) together += m;
  return Math.max(1, Math.floor(BLOCK_COLUMNS / together)) * together;
}

/** Columns that a pattern decides about together. */
function columnsTogether(pattern: Pattern): number {
  if (pattern.kind === "unstructured") return 1;
  return pattern.kind === "slots" ? SLOT_COLUMNS : pattern.m;
}

/** Weights of a block that stay; for N:M that is decided row by row in {@linkcode pruneBlock}. */
function blockMask(
  { mask, pattern, share, weights }: SparseGptRequest,
  block: Matrix,
  factor: Matrix,
  first: number,
): Mask {
  const { rows, columns } = block;
  const kept = new Uint8Array(rows * columns).fill(1);
  if (mask) {
    for (let r = 0; r < rows; r++) {
      const from = r * weights.columns + first;
      kept.set(mask.subarray(from, from + columns), r * columns);
    }
    return kept;
  }
  if (pattern.kind === "slots") {
    // Rounded so that the slots of all blocks are as many as the density says.
    const until = (end: number) => Math.round(share.density * slotsOf({ rows, columns: end }));
    const slots = until(first + columns) - until(first);
    return slotsMask(scoresOf(block, factor), rows, columns, slots);
  }
  if (pattern.kind !== "unstructured" || share.density >= 1) return kept;
  const scores = scoresOf(block, factor);
  const rank = Math.floor(scores.length * (1 - share.density) + 1e-7);
  const threshold = selectRank(scores.slice(), Math.min(rank, scores.length - 1));
  for (let i = 0; i < scores.length; i++) kept[i] = scores[i] <= threshold ? 0 : 1;
  return kept;
}

/** w² / U[c, c]² of a block's weights. */
function scoresOf({ data, rows, columns }: Matrix, factor: Matrix): Float32Array {
  const scores = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      scores[r * columns + c] = scoreOf(data[r * columns + c], factor, c);
    }
  }
  return scores;
}

function scoreOf(weight: number, factor: Matrix, column: number): number {
  const diagonal = factor.data[column * factor.columns + column];
  return (weight * weight) / (diagonal * diagonal);
}

/** Prunes a block row by row, in place; returns each weight's error over U[c, c]. */
function pruneBlock(
  { pattern, share, rounding, mask }: SparseGptRequest,
  block: Matrix,
  factor: Matrix,
  kept: Mask,
): Matrix {
  const { rows, columns } = block;
  const errors = new Float32Array(rows * columns);
  const group = mask ? undefined : groupOf(pattern, share);
  const scale = new Float64Array(columns);
  for (let r = 0; r < rows; r++) {
    const row = block.data.subarray(r * columns, (r + 1) * columns);
    const stays = kept.subarray(r * columns, (r + 1) * columns);
    if (rounding) {
      if (group) {
        for (let c = 0; c < columns; c += group.m) keepBest(row, factor, c, group, stays);
      }
      scalesOf(row, stays, rounding, scale);
    }
    for (let c = 0; c < columns; c++) {
      if (group && c % group.m === 0) keepBest(row, factor, c, group, stays);
      let value = 0;
      if (stays[c] !== 0) value = rounding ? rounding.round(row[c], scale[c]) : row[c];
      const difference = row[c] - value;
      if (difference === 0) continue;
      const at = c * columns;
      const error = difference / factor.data[at + c];
      errors[r * columns + c] = error;
      for (let k = c + 1; k < columns; k++) row[k] -= error * factor.data[at + k];
      row[c] = value;
    }
  }
  return { data: errors, rows, columns };
}

/** Keeps the N best of the M weights from `start` on; of equals the lower column goes first. */
function keepBest(
  row: Float32Array,
  factor: Matrix,
  start: number,
  { n, m }: { n: number; m: number },
  stays: Mask,
): void {
  stays.fill(1, start, start + m);
  for (let k = n; k < m; k++) {
    let least = -1;
    let lowest = Infinity;
    for (let c = start; c < start + m; c++) {
      if (stays[c] === 0) continue;
      const score = scoreOf(row[c], factor, c);
      if (score < lowest || least < 0) {
        lowest = score;
        least = c;
      }
    }
    stays[least] = 0;
  }
}

/** The scale of each column of a row, from the weights that stay as they are before the block. */
function scalesOf(row: Float32Array, stays: Mask, rounding: Rounding, target: Float64Array): void {
  const values = new Float32Array(rounding.columns);
  for (let start = 0; start < row.length; start += rounding.columns) {
    const end = Math.min(start + rounding.columns, row.length);
    let count = 0;
    for (let c = start; c < end; c++) if (stays[c] !== 0) values[count++] = row[c];
    target.fill(rounding.scale(values, count), start, end);
  }
}
