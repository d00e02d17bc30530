/**
 * Slots: a pattern made for the kernels of the sparse engine.
 *
 * Rows are taken in fours, inputs in windows of 16. A window of 4 rows × 16 inputs keeps 0 to 4 slots, and
 * a slot is 4 weights of each of the rows: which ones, each row chooses for itself. Where weights matter
 * more there are more slots; what all windows cost is their number.
 * @module
 */
import { PatternError } from "../errors.ts";
import { rowScores } from "./importance.ts";
import { selectRank } from "./select.ts";
import type { Mask, MaskMethod, Weight } from "./types.ts";

/** Rows that share the slots of a window. */
export const SLOT_ROWS = 4;
/** Inputs of a window. */
export const SLOT_COLUMNS = 16;
/** Weights of each row in a slot. */
const SLOT_DEPTH = 4;
/** Slots of a window that keeps all. */
const MOST_SLOTS = SLOT_COLUMNS / SLOT_DEPTH;

/** A matrix, for what it can be cut into. */
interface Shape {
  /** Its name, for messages. */
  readonly name?: string;
  readonly rows: number;
  readonly columns: number;
}

/**
 * Checks that a matrix can be cut into windows.
 *
 * @throws {PatternError} When 4 does not divide its rows, or 16 its columns.
 */
export function checkSlots({ name = "a matrix", rows, columns }: Shape): void {
  if (rows % SLOT_ROWS === 0 && columns % SLOT_COLUMNS === 0) return;
  throw new PatternError(
    `slots do not fit ${name}: they are for rows in fours and inputs in sixteens, and it has ${rows} rows of ` +
      `${columns}; leave it dense with --skip, or choose another pattern`,
  );
}

/** Slots of a matrix of which nothing is pruned. */
export function slotsOf({ rows, columns }: Shape): number {
  return rows / SLOT_ROWS * (columns / SLOT_COLUMNS) * MOST_SLOTS;
}

/**
 * What each slot keeps: slot k of a window takes the scores of the ranks 4k … 4k + 3 of each row, and its
 * gain is their sum over the four rows. Gains of a window fall with k.
 *
 * @param scores `[rows, columns]`: what keeping a weight is worth, not negative.
 * @returns `[rows / 4, columns / 16, 4]`.
 * @throws {PatternError} As {@linkcode checkSlots}.
 */
export function slotGains(scores: Float32Array, rows: number, columns: number): Float32Array {
  checkSlots({ rows, columns });
  const windows = columns / SLOT_COLUMNS;
  const gains = new Float32Array(rows / SLOT_ROWS * windows * MOST_SLOTS);
  const sorted = new Float32Array(SLOT_COLUMNS);
  for (let row = 0; row < rows; row++) {
    for (let window = 0; window < windows; window++) {
      const start = row * columns + window * SLOT_COLUMNS;
      // Ascending: the last four are slot 0. Insertion is the quickest for sixteen.
      for (let i = 0; i < SLOT_COLUMNS; i++) {
        const score = scores[start + i];
        let at = i;
        for (; at > 0 && sorted[at - 1] > score; at--) sorted[at] = sorted[at - 1];
        sorted[at] = score;
      }
      const first = (Math.floor(row / SLOT_ROWS) * windows + window) * MOST_SLOTS;
      for (let i = 0; i < SLOT_COLUMNS; i++) {
        gains[first + MOST_SLOTS - 1 - (i >> 2)] += sorted[i];
      }
    }
  }
  return gains;
}

/**
 * Keeps so many slots of a matrix, in each four rows those with the greatest gains.
 *
 * Of equal gains the earlier slot stays; of equal scores in a row the lower column goes first.
 *
 * @param scores `[rows, columns]`: what keeping a weight is worth, not negative. |W|·‖X‖ (Wanda), |W|, or
 * w²/d² (SparseGPT): any part of a matrix whose columns are a multiple of 16 may be masked alone.
 * @param slots Slots to keep: of each four rows, `[rows / 4]` (see {@linkcode slotShares}), or of all, from
 * 0 to {@linkcode slotsOf} the matrix. Those are shared out evenly; where that leaves a rest, the rows
 * whose next slot has the greatest gain get one more.
 * @returns 1 for each weight that stays: exactly 16 a slot.
 * @throws {PatternError} As {@linkcode checkSlots}.
 */
export function slotsMask(
  scores: Float32Array,
  rows: number,
  columns: number,
  slots: number | ArrayLike<number>,
): Mask {
  const gains = slotGains(scores, rows, columns);
  const kept = typeof slots === "number" ? shareEvenly(gains, rows, slots) : slots;
  return maskOfCounts(scores, rows, columns, countsOf(gains, rows, kept));
}

/**
 * Shares the slots of a block out among the rows of all its linears.
 *
 * The scores of different linears, and of different rows, have no common measure: a row's outputs may
 * all be small, and matter as much. So the gains of four rows count relative to their mean, and the slots
 * with the greatest of them stay, wherever in the block they are: rows whose weights matter alike get
 * more, rows with a few that matter much get less. `docs/pruning.md` has what other measures gave.
 *
 * @param weights The block's linears.
 * @param method |W|·‖X‖₂ or |W|.
 * @param density Fraction of the slots of them all to keep; their number is rounded to the nearest.
 * @returns For each linear, slots of each four rows.
 * @throws {PatternError} As {@linkcode checkSlots}.
 */
export function slotShares(
  weights: readonly Weight[],
  method: MaskMethod,
  density: number,
): Uint32Array[] {
  for (const weight of weights) checkSlots(weight);
  const relative = weights.map((weight) => {
    const gains = slotGains(scoresOf(weight, method), weight.rows, weight.columns);
    const perGroup = gains.length / (weight.rows / SLOT_ROWS);
    for (let start = 0; start < gains.length; start += perGroup) {
      const own = gains.subarray(start, start + perGroup);
      const mean = own.reduce((sum, gain) => sum + gain, 0) / perGroup;
      if (mean > 0) own.forEach((gain, i) => own[i] = gain / mean);
    }
    return gains;
  });
  const all = new Float32Array(relative.reduce((sum, { length }) => sum + length, 0));
  const starts = relative.map((_, i) =>
    relative.slice(0, i).reduce((sum, { length }) => sum + length, 0)
  );
  relative.forEach((gains, i) => all.set(gains, starts[i]));
  const kept = weights.map(({ rows }) => new Uint32Array(rows / SLOT_ROWS));
  let linear = 0;
  keepGreatest(all, Math.round(density * all.length), new Float32Array(all.length), (place) => {
    while (place >= starts[linear] + relative[linear].length) linear++;
    const { columns } = weights[linear];
    kept[linear][Math.floor((place - starts[linear]) / (columns / SLOT_DEPTH))]++;
  });
  return kept;
}

/** Slots of each four rows when all have as many: see {@linkcode slotsMask}. */
function shareEvenly(gains: Float32Array, rows: number, slots: number): Uint32Array {
  const groups = rows / SLOT_ROWS;
  const perGroup = gains.length / groups;
  const even = Math.floor(slots / groups);
  const kept = new Uint32Array(groups).fill(even);
  const more = slots - even * groups;
  if (more === 0) return kept;
  const sorted = new Float32Array(perGroup);
  const next = Float32Array.from({ length: groups }, (_, group) => {
    sorted.set(gains.subarray(group * perGroup, (group + 1) * perGroup));
    return selectRank(sorted, perGroup - 1 - even);
  });
  keepGreatest(next, more, new Float32Array(groups), (group) => kept[group]++);
  return kept;
}

/**
 * Shares the slots of each four rows out among their windows.
 *
 * @param gains From {@linkcode slotGains}.
 * @returns `[rows / 4, columns / 16]`: slots of each window.
 */
function countsOf(gains: Float32Array, rows: number, kept: ArrayLike<number>): Uint8Array {
  const groups = rows / SLOT_ROWS;
  const perGroup = gains.length / groups;
  const scratch = new Float32Array(perGroup);
  const counts = new Uint8Array(gains.length / MOST_SLOTS);
  for (let group = 0; group < groups; group++) {
    const start = group * perGroup;
    keepGreatest(gains.subarray(start, start + perGroup), kept[group], scratch, (place) => {
      counts[Math.floor((start + place) / MOST_SLOTS)]++;
    });
  }
  return counts;
}

/** Visits the places of the greatest values, of equals the first. */
function keepGreatest(
  values: Float32Array,
  count: number,
  scratch: Float32Array,
  visit: (place: number) => void,
): void {
  if (count === 0) return;
  scratch.set(values);
  const threshold = selectRank(scratch, values.length - count);
  let equals = count;
  for (let i = 0; i < values.length; i++) if (values[i] > threshold) equals--;
  for (let i = 0; i < values.length; i++) {
    if (values[i] > threshold || (values[i] === threshold && equals-- > 0)) visit(i);
  }
}

/** Keeps four times as many weights of each row as its window has slots. */
function maskOfCounts(
  scores: Float32Array,
  rows: number,
  columns: number,
  counts: Uint8Array,
): Mask {
  const windows = columns / SLOT_COLUMNS;
  const mask = new Uint8Array(rows * columns);
  const order = new Uint8Array(SLOT_COLUMNS);
  for (let row = 0; row < rows; row++) {
    for (let window = 0; window < windows; window++) {
      const kept = SLOT_DEPTH * counts[Math.floor(row / SLOT_ROWS) * windows + window];
      if (kept === 0) continue;
      const start = row * columns + window * SLOT_COLUMNS;
      for (let i = 0; i < SLOT_COLUMNS; i++) {
        const score = scores[start + i];
        let at = i;
        for (; at > 0 && scores[start + order[at - 1]] > score; at--) order[at] = order[at - 1];
        order[at] = i;
      }
      for (let i = SLOT_COLUMNS - kept; i < SLOT_COLUMNS; i++) mask[start + order[i]] = 1;
    }
  }
  return mask;
}

/**
 * Keeps the slots of a matrix whose weights matter most by a method.
 *
 * @param weight The matrix; not changed.
 * @param method |W|·‖X‖₂ or |W|.
 * @param slots As {@linkcode slotsMask} takes them.
 * @throws {PatternError} As {@linkcode checkSlots}.
 */
export function slotsMaskOf(
  weight: Weight,
  method: MaskMethod,
  slots: number | ArrayLike<number>,
): Mask {
  checkSlots(weight);
  return slotsMask(scoresOf(weight, method), weight.rows, weight.columns, slots);
}

/** |W|·‖X‖₂ or |W| of all weights. */
function scoresOf(weight: Weight, method: MaskMethod): Float32Array {
  const { rows, columns, values } = weight;
  if (method === "magnitude") return values.map(Math.abs);
  const scores = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    rowScores(weight, row, scores.subarray(row * columns, (row + 1) * columns));
  }
  return scores;
}
