/**
 * Masks: which weights of a matrix stay, given how much of it may.
 * @module
 */
import { PatternError } from "../errors.ts";
import { rowScores } from "./importance.ts";
import { selectRank, Threshold } from "./select.ts";
import type { Mask, MaskMethod, Weight } from "./types.ts";

/**
 * Prunes the ⌊columns · sparsity⌋ weights of each row with the lowest |W|·‖X‖₂ (Wanda, and
 * `prune_wanda` of the released code). Of equal scores the lower column goes first.
 *
 * @param weight The matrix; not changed.
 * @param sparsity Fraction of each row to prune.
 * @returns 1 for each weight that stays. Weights that are 0 may be among them: they are pruned already.
 */
export function wandaMask(weight: Weight, sparsity: number): Mask {
  const { rows, columns } = weight;
  const mask = new Uint8Array(rows * columns).fill(1);
  const pruned = countOf(columns, sparsity);
  if (pruned === 0) return mask;
  const scores = new Float32Array(columns);
  const lowest = new Threshold(columns);
  for (let row = 0; row < rows; row++) {
    rowScores(weight, row, scores);
    const threshold = lowest.find(scores, pruned - 1);
    let equals = pruned - lowest.below;
    const start = row * columns;
    for (let c = 0; c < columns; c++) {
      if (scores[c] < threshold || (scores[c] === threshold && equals-- > 0)) mask[start + c] = 0;
    }
  }
  return mask;
}

/**
 * Prunes the weights of a matrix whose |W| is at most the value of rank ⌊size · sparsity⌋
 * (`prune_magnitude` of the released code): at least one weight more than asked, and every tie. Where nothing
 * is to go, nothing does.
 *
 * @param weight The matrix; not changed.
 * @param sparsity Fraction of the matrix to prune.
 */
export function magnitudeMask(weight: Weight, sparsity: number): Mask {
  if (sparsity <= 0) return new Uint8Array(weight.values.length).fill(1);
  const magnitudes = weight.values.map(Math.abs);
  const rank = Math.min(countOf(magnitudes.length, sparsity), magnitudes.length - 1);
  const threshold = selectRank(magnitudes, rank);
  const { values } = weight;
  const mask = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) mask[i] = Math.abs(values[i]) > threshold ? 1 : 0;
  return mask;
}

/**
 * Keeps the N weights of the highest score of every M neighbours in a row; of equal scores the lower
 * column goes first.
 *
 * @param weight The matrix; not changed.
 * @param n Weights kept.
 * @param m Of how many; it must divide `columns`.
 * @param method |W|·‖X‖₂ or |W|.
 * @throws {PatternError} When M does not divide the columns, or N and M make no pattern.
 */
export function nmMask(weight: Weight, n: number, m: number, method: MaskMethod): Mask {
  const { rows, columns, values, name } = weight;
  if (!(Number.isInteger(n) && Number.isInteger(m) && 1 <= n && n <= m)) {
    throw new PatternError(`${n}:${m} is no pattern: it must keep 1 to M of every M weights`);
  }
  if (columns % m !== 0) {
    throw new PatternError(
      `${n}:${m} does not fit ${name}: its rows have ${columns} weights, which ${m} does not divide; ` +
        `choose another M, or leave it dense with --skip`,
    );
  }
  const mask = new Uint8Array(rows * columns).fill(1);
  const scores = new Float32Array(columns);
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    if (method === "wanda") rowScores(weight, row, scores);
    else for (let c = 0; c < columns; c++) scores[c] = Math.abs(values[start + c]);
    for (let group = 0; group < columns; group += m) {
      // M is at most 32: M − N passes over a group are cheaper than sorting it.
      for (let k = n; k < m; k++) {
        let least = -1;
        for (let c = group; c < group + m; c++) {
          if (mask[start + c] === 1 && (least < 0 || scores[c] < scores[least])) least = c;
        }
        mask[start + least] = 0;
      }
    }
  }
  return mask;
}

/**
 * Sets the pruned weights to 0.
 *
 * @param values Weights, changed in place.
 * @param mask Their mask.
 */
export function applyMask(values: Float32Array, mask: Mask): void {
  for (let i = 0; i < values.length; i++) if (mask[i] === 0) values[i] = 0;
}

/** How many weights are 0. */
export function countZeros(values: Float32Array | Mask): number {
  let count = 0;
  for (let i = 0; i < values.length; i++) if (values[i] === 0) count++;
  return count;
}

/**
 * Packs a mask to one bit a weight: eight weights a byte, the first in the lowest bit, no padding
 * between rows.
 */
export function packMask(mask: Mask): Uint8Array {
  const bits = new Uint8Array(Math.ceil(mask.length / 8));
  for (let i = 0; i < mask.length; i++) bits[i >> 3] |= mask[i] << (i & 7);
  return bits;
}

/**
 * Sets the weights to 0 that a packed mask prunes.
 *
 * @param values Weights, changed in place.
 * @param bits Their mask as {@linkcode packMask} packs it.
 */
export function applyPackedMask(values: Float32Array, bits: Uint8Array): void {
  const whole = values.length >> 3;
  for (let b = 0, i = 0; b < whole; b++, i += 8) {
    const eight = bits[b];
    if ((eight & 1) === 0) values[i] = 0;
    if ((eight & 2) === 0) values[i + 1] = 0;
    if ((eight & 4) === 0) values[i + 2] = 0;
    if ((eight & 8) === 0) values[i + 3] = 0;
    if ((eight & 16) === 0) values[i + 4] = 0;
    if ((eight & 32) === 0) values[i + 5] = 0;
    if ((eight & 64) === 0) values[i + 6] = 0;
    if ((eight & 128) === 0) values[i + 7] = 0;
  }
  for (let i = whole << 3; i < values.length; i++) {
    if ((bits[whole] >> (i & 7) & 1) === 0) values[i] = 0;
  }
}

/** ⌊size · sparsity⌋, safe against 1 − (1 − 0.1) being less than 0.1. */
function countOf(size: number, sparsity: number): number {
  return Math.floor(size * sparsity + 1e-7);
}
