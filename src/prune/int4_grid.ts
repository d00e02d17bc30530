/**
 * The grid of int4 weights: in a row, G neighbouring columns share a scale s, and a kept weight is q·s
 * with a whole number q from -8 to 7.
 *
 * The scale may be negative: then -8 stands for the greatest weight of the group. With the sign chosen
 * so that the weight of greatest magnitude lies on the side of -8, the squared error of SmolLM2's
 * weights is 22 % less than with the levels -7 … 7.
 *
 * Scales are ±2^(k/16), rounded to float16, with a whole k: so near to each other that weights lose
 * nothing that can be measured, and so few that a matrix's scales take a byte each. For the byte saved
 * twice as many groups have a scale of their own, which is worth much more.
 *
 * Whoever rounds weights while pruning and whoever stores them use these functions: weights that lie on
 * a grid already, rounded to bfloat16 or float16 since, are found to lie on it.
 * @module
 */

// What loops compare with: V8 looks up what is exported anew each time.
const LEAST = -8;
const GREATEST = 7;
/** The greatest level. */
export const GREATEST_LEVEL = GREATEST;

/** Kept weights that share a scale, unless a caller says otherwise. */
export const INT4_GROUP = 32;

/** Columns that share a scale: what kernels are aligned to. */
export type GroupColumns = 32 | 64 | 128;

/** A group may have so much less than the kept weights that were asked for: zeros are in any matrix. */
const ENOUGH = 7 / 8;

/** Scales from one power of two to the next, and what they are beside it, in units of 2^-10. */
const STEPS = 16;
const FRACTIONS = [
  1024,
  1069,
  1117,
  1166,
  1218,
  1272,
  1328,
  1387,
  1448,
  1512,
  1579,
  1649,
  1722,
  1798,
  1878,
  1961,
];

/**
 * The search tries all scales that put the weight of greatest magnitude between these levels on the side
 * of -8: on three matrices of SmolLM2-135M, others hardly ever give the least squared error …
 */
const NEGATIVE_LEVELS = { least: 7.3, greatest: 10.3 };
/** … and between these on the other side. */
const POSITIVE_LEVELS = { least: 6.8, greatest: 8.2 };

/**
 * Squared error, as a part of the weights' squares, at which weights are taken to lie on a grid. Each
 * weight may be off by 2^-8 of itself, having been rounded to bfloat16. Rounding to a grid of int4
 * leaves some 2^-7, many times as much.
 */
const ON_GRID = 2 ** -13;

/** Least and greatest k of a scale: the least float16 that there is, and the greatest. */
const LEAST_STEP = -24 * STEPS;
const GREATEST_STEP = 16 * STEPS - 1;
/** The least k of a float16 that is not denormal. Those below it are whole numbers of the least one. */
const LEAST_NORMAL_STEP = -14 * STEPS;

/** All magnitudes of scales, that of {@linkcode LEAST_STEP} first: powers take long to compute. */
const SCALES = Float64Array.from({ length: GREATEST_STEP - LEAST_STEP + 1 }, (_, i) => {
  const step = LEAST_STEP + i;
  if (step < LEAST_NORMAL_STEP) return Math.round(2 ** (step / STEPS + 24)) * 2 ** -24;
  return FRACTIONS[step & (STEPS - 1)] * 2 ** ((step >> 4) - 10);
});

/** Adding and taking away 1.5 · 2^52 rounds a double below 2^51 to the nearest integer, ties to even. */
const ROUNDER = 1.5 * 2 ** 52;

/**
 * How many neighbouring columns of a matrix share a scale: the fewest of 32, 64 and 128 that have as
 * many kept weights as asked for (give or take an eighth), 128 if none has.
 *
 * @param density Part of the matrix's weights that are kept, from 0 to 1.
 * @param group Kept weights that are to share a scale.
 */
export function groupColumns(density: number, group: number): GroupColumns {
  if (density * 32 >= group * ENOUGH) return 32;
  if (density * 64 >= group * ENOUGH) return 64;
  return 128;
}

/**
 * The scale with which weights are rounded to the grid with the least squared error that a search
 * finds: Σ (w − q·s)², with each q the nearest level, for all scales that put the weight of greatest
 * magnitude near -8 or 7.
 *
 * A grid on which the weights lie already is found whatever its greatest level is: then that weight is
 * at a level 1 … 7, and all others are near a level too.
 *
 * @param values Kept weights of one row and group, finite; zeros among them change nothing.
 * @param count How many they are, if not all of `values`.
 * @returns One of the numbers that {@linkcode scaleAt} gives, maybe negative; 1 when all weights are 0.
 */
export function gridScale(values: Float32Array, count = values.length): number {
  let extreme = 0;
  let greatest = 0;
  let squares = 0;
  for (let i = 0; i < count; i++) {
    const w = values[i];
    const magnitude = Math.abs(w);
    if (magnitude > greatest) {
      greatest = magnitude;
      extreme = w;
    }
    squares += w * w;
  }
  if (greatest === 0) return 1;
  const sign = Math.sign(extreme);
  found.error = Infinity;
  for (const [side, levels] of [[-sign, NEGATIVE_LEVELS], [sign, POSITIVE_LEVELS]] as const) {
    const first = stepOf(greatest / levels.greatest);
    search(values, count, side, first, stepOf(greatest / levels.least));
  }
  for (let level = 1; level <= GREATEST_LEVEL; level++) {
    const step = stepOf(greatest / level);
    for (const side of [sign, -sign]) {
      if (isOnGrid(values, count, side * scaleAt(step), squares)) {
        search(values, count, side, step, step);
      }
    }
  }
  return found.scale;
}

/** The best of the scales that {@linkcode search} tried: here, since an object a call would be garbage a call. */
const found = { scale: 0, error: Infinity };

/**
 * Tries the scales from one step to another. In a function of its own, with all scales in one loop, since
 * engines make code of half the speed of it where a scale is a call.
 *
 * @param values Weights, of which the first `count` count.
 * @param side 1 or -1, the sign of the scales.
 */
function search(
  values: Float32Array,
  count: number,
  side: number,
  first: number,
  last: number,
): void {
  for (let step = first; step <= last; step++) {
    const scale = side * scaleAt(step);
    const inverse = 1 / scale;
    let error = 0;
    const least = found.error;
    for (let i = 0; i < count; i++) {
      const w = values[i];
      const q = w * inverse + ROUNDER - ROUNDER;
      const level = q > GREATEST ? GREATEST : q < LEAST ? LEAST : q;
      const difference = w - level * scale;
      error += difference * difference;
    }
    if (!(error < least)) continue;
    found.error = error;
    found.scale = scale;
  }
}

/**
 * The magnitude of a scale: 2^(k/16) as a float16 number.
 *
 * @param step k, from -384 to 255.
 */
export function scaleAt(step: number): number {
  return SCALES[step - LEAST_STEP];
}

/** The k of the scale that is nearest to a magnitude, of those there are. */
export function stepOf(magnitude: number): number {
  // No -0 of what is just below 1.
  const step = Math.round(Math.log2(magnitude) * STEPS) + 0;
  return Math.max(LEAST_STEP, Math.min(GREATEST_STEP, step));
}

/**
 * The level of a weight: the nearest one, of two that are equally near the even one.
 *
 * @param value The weight.
 * @param scale Its group's scale, not 0.
 * @returns A whole number from -8 to 7.
 */
export function gridLevel(value: number, scale: number): number {
  const q = value / scale + ROUNDER - ROUNDER;
  return q > GREATEST ? GREATEST : q < LEAST ? LEAST : q;
}

/**
 * A weight rounded to the grid.
 *
 * @param value The weight.
 * @param scale Its group's scale, as {@linkcode gridScale} gives it.
 * @returns The product of a level and the scale: exactly a float32, never -0.
 */
export function roundToGrid(value: number, scale: number): number {
  return gridLevel(value, scale) * scale + 0;
}

/** The scales of a matrix's grid. */
export interface MatrixGrid {
  /** Columns of the matrix. */
  readonly columns: number;
  /** Neighbouring columns that share a scale. */
  readonly group: GroupColumns;
  /** One for each group of each row. */
  readonly scales: Float32Array;
}

/**
 * The grid of each row and group of a matrix; see {@linkcode gridScale}.
 *
 * @param values Weights `[rows, columns]`, 0 where pruned.
 * @param columns Columns.
 * @param group Neighbouring columns that share a scale.
 */
export function matrixGrid(
  values: Float32Array,
  columns: number,
  group: GroupColumns,
): MatrixGrid {
  const scales: number[] = [];
  for (let row = 0; row < values.length; row += columns) {
    for (let c = 0; c < columns; c += group) {
      scales.push(gridScale(values.subarray(row + c, row + Math.min(c + group, columns))));
    }
  }
  return { columns, group, scales: Float32Array.from(scales) };
}

/** Rounds a matrix to its grid, in place. */
export function roundMatrix(values: Float32Array, { columns, group, scales }: MatrixGrid): void {
  let next = 0;
  for (let row = 0; row < values.length; row += columns) {
    for (let c = 0; c < columns; c += group) {
      const scale = scales[next++];
      const end = row + Math.min(c + group, columns);
      for (let i = row + c; i < end; i++) {
        if (values[i] !== 0) values[i] = roundToGrid(values[i], scale);
      }
    }
  }
}

/**
 * Whether weights lie on the grid of a scale, but for having been rounded to bfloat16 or float16.
 *
 * @param values Weights that share the scale; zeros among them change nothing.
 * @param scale The scale.
 */
export function liesOnGrid(values: Float32Array, scale: number): boolean {
  let squares = 0;
  for (const w of values) squares += w * w;
  return isOnGrid(values, values.length, scale, squares);
}

/** Stops at the first weights that are far from any level: mostly at the second or third. */
function isOnGrid(values: Float32Array, count: number, scale: number, squares: number): boolean {
  const inverse = 1 / scale;
  let left = ON_GRID * squares;
  for (let i = 0; i < count; i++) {
    const w = values[i];
    let q = w * inverse + ROUNDER - ROUNDER;
    q = q > GREATEST ? GREATEST : q < LEAST ? LEAST : q;
    const difference = w - q * scale;
    left -= difference * difference;
    if (!(left >= 0)) return false;
  }
  return true;
}
