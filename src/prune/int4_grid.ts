/**
 * The grid of int4 weights: in a row, G neighbouring columns share a scale s, and a kept weight is q·s
 * with a whole number q from -8 to 7.
 *
 * The scale may be negative: then -8 stands for the greatest weight of the group. With the sign chosen
 * so that the weight of greatest magnitude lies on the side of -8, the squared error of SmolLM2's
 * weights is 22 % less than with the levels -7 … 7. Scales are float16, which costs nothing that can be
 * measured beside the rounding of weights.
 *
 * Whoever rounds weights while pruning and whoever stores them use these functions: weights that lie on
 * a grid already, rounded to bfloat16 or float16 since, are found to lie on it.
 * @module
 */

/** The least level. */
export const LEAST_LEVEL = -8;
/** The greatest level. */
export const GREATEST_LEVEL = 7;

/** Columns that share a scale: what kernels are aligned to. */
export type GroupColumns = 32 | 64 | 128;

/** A group may have so much less than the kept weights that were asked for: zeros are in any matrix. */
const ENOUGH = 7 / 8;

/**
 * The search tries scales that put the weight of greatest magnitude at these levels on the side of -8:
 * on three matrices of SmolLM2-135M, within 0.15 % of the least squared error that any scale gives …
 */
const NEGATIVE_LEVELS = [8, 8.5, 9, 7.5, 9.5, 10];
/** … and at these on the other side. */
const POSITIVE_LEVELS = [7, 7.5, 8];
/** Times that the best scale of the search is refined, at most. */
const REFINEMENTS = 2;

/**
 * Squared error, as a part of the weights' squares, at which weights are taken to lie on a grid. Each
 * weight may be off by 2^-7 of itself: 2^-8 by being rounded to bfloat16, and as much by the scale,
 * which is found from one such weight. Rounding to a grid of int4 leaves some 2^-7, many times as much.
 */
const ON_GRID = 2 ** -13;

/** Least and greatest magnitude of a scale: the least float16 above 0, the greatest that is finite. */
const LEAST_SCALE = 2 ** -24;
const GREATEST_SCALE = 65504;

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
 * finds.
 *
 * For given levels q the best scale is Σ wq / Σ q², and the error Σ w² − (Σ wq)² / Σ q². The search
 * rounds with scales that put the weight of greatest magnitude near -8 or 7, judges each by the best
 * scale for the levels it gives, takes that scale, and repeats rounding and fitting while the error
 * falls. A grid on which the weights lie already is found whatever its greatest level is: then that
 * weight is at a level 1 … 7, and all others are near a level too.
 *
 * @param values Kept weights of one row and group, finite; zeros among them change nothing.
 * @param count How many they are, if not all of `values`.
 * @returns A float16 number other than 0, maybe negative; 1 when all weights are 0.
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
  let scale = extreme / GREATEST_LEVEL;
  let gain = -1;
  const attempt = (candidate: number) => {
    fit(values, count, candidate);
    if (!(fitted.gain > gain)) return false;
    gain = fitted.gain;
    scale = fitted.scale;
    return true;
  };
  for (const level of NEGATIVE_LEVELS) attempt(extreme / -level);
  for (const level of POSITIVE_LEVELS) attempt(extreme / level);
  for (let level = 1; level < GREATEST_LEVEL; level++) {
    if (isOnGrid(values, count, extreme / level, squares)) attempt(extreme / level);
  }
  for (let i = 0; i < REFINEMENTS; i++) if (!attempt(scale)) break;
  return toScale(scale);
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
  return q > GREATEST_LEVEL ? GREATEST_LEVEL : q < LEAST_LEVEL ? LEAST_LEVEL : q;
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

/** What {@linkcode fit} found: kept here, since an object a call would be garbage a call. */
const fitted = { gain: 0, scale: 0 };

/** Rounds weights with one scale, and finds the best scale for what they were rounded to. */
function fit(values: Float32Array, count: number, scale: number): void {
  const inverse = 1 / scale;
  let products = 0;
  let squares = 0;
  for (let i = 0; i < count; i++) {
    const w = values[i];
    let q = w * inverse + ROUNDER - ROUNDER;
    q = q > GREATEST_LEVEL ? GREATEST_LEVEL : q < LEAST_LEVEL ? LEAST_LEVEL : q;
    products += w * q;
    squares += q * q;
  }
  // Denormal weights: their inverse may be infinite, their products 0.
  const found = products / squares;
  fitted.gain = found === 0 || !Number.isFinite(found) ? -1 : products * found;
  fitted.scale = found;
}

/** Stops at the first weights that are far from any level: mostly at the second or third. */
function isOnGrid(values: Float32Array, count: number, scale: number, squares: number): boolean {
  const inverse = 1 / scale;
  let left = ON_GRID * squares;
  for (let i = 0; i < count; i++) {
    const w = values[i];
    let q = w * inverse + ROUNDER - ROUNDER;
    q = q > GREATEST_LEVEL ? GREATEST_LEVEL : q < LEAST_LEVEL ? LEAST_LEVEL : q;
    const difference = w - q * scale;
    left -= difference * difference;
    if (!(left >= 0)) return false;
  }
  return true;
}

/** The nearest float16 (ties to even) that may be a scale. */
function toScale(value: number): number {
  const magnitude = Math.abs(value);
  if (!(magnitude > LEAST_SCALE)) return value < 0 ? -LEAST_SCALE : LEAST_SCALE;
  // The distance of neighbouring float16 numbers: 2^-10 of the power of two below, from 2^-14 upward.
  const exponent = Math.max(exponentOf(magnitude), -14);
  const step = 2 ** (exponent - 10);
  const rounded = Math.min(GREATEST_SCALE, (magnitude / step + ROUNDER - ROUNDER) * step);
  return value < 0 ? -rounded : rounded;
}

const number = new Float64Array(1);
const words = new Uint32Array(number.buffer);
/** Which word of a double has its exponent. */
const HIGH_WORD = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? 1 : 0;

/** ⌊log₂⌋ of a normal double, exactly. */
function exponentOf(magnitude: number): number {
  number[0] = magnitude;
  return (words[HIGH_WORD] >>> 20 & 2047) - 1023;
}
