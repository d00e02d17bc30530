/**
 * Value types: float32 weights as float16 bits or as int8 with scales, and back. int4 is in `int4.ts`.
 * @module
 */
import { quote } from "../../src/checks.ts";
import { FormatUnfitError } from "../../src/errors.ts";
import { halves, toHalves } from "../../src/onnx/half.ts";
import { bytesOfInt4, int4Columns, toInt4 } from "./int4.ts";
import {
  checkMatrix,
  GREATEST_SCALE,
  type Matrix,
  placeOf,
  type Shape,
  type ValueOptions,
  type Values,
  type ValueType,
} from "./types.ts";

/** Bytes of one stored element. */
export const VALUE_BYTES: Record<ValueType, number> = { f32: 4, f16: 2, int8: 1, int4: 0.5 };

/** Greatest finite float16. */
const GREATEST_HALF = 65504;

/** The greatest element of int8; -128 is not used, so that negation never overflows. */
const GREATEST_STEP = 127;

/** Adding and taking away 1.5 · 2^52 rounds a double below 2^51 to the nearest integer, ties to even. */
const ROUNDER = 1.5 * 2 ** 52;

/** The least float32 above 0. */
const LEAST_SCALE = 2 ** -149;

/**
 * The search for a scale goes from this part of max |w| / 127 … More than 1 clips nothing and only
 * makes steps wider, but of many roundings of a few weights one is lucky: with 32 weights a scale it
 * saves a fifth of the squared error of SmolLM2's weights, with 576 a fortieth.
 */
const GREATEST_FACTOR = 1.125;
/** … down to this one … */
const LEAST_FACTOR = 0.5;
/** … in steps of this … */
const FACTOR_STEP = 1 / 64;
/** … and stops below 1 when the error is so many times the best: clipping only grows from there. */
const HOPELESS = 1.5;
/** Times that the best scale of the search is refined, at most. */
const REFINEMENTS = 2;

/**
 * Stores every weight of a matrix, zeros too, in a value type. A weight of 0 becomes 0.
 *
 * @param matrix The matrix; not changed, but f32 values share its memory.
 * @param options The type.
 * @returns Elements in the order of the weights, `[rows, columns]`.
 * @throws {FormatUnfitError} When a weight is too great for float16, or the group no positive integer.
 * @throws {NotFiniteError} When a weight is NaN or infinite.
 */
export function narrow(matrix: Matrix, options: ValueOptions): Values {
  checkMatrix(matrix);
  switch (options.type) {
    case "f32":
      return { type: "f32", data: matrix.values };
    case "f16":
      return { type: "f16", data: narrowToHalves(matrix) };
    case "int8":
      return toInt8(matrix, groupOf(matrix, options));
    case "int4":
      return toInt4(matrix, options.group ?? int4Columns(matrix));
  }
}

/**
 * The weights of a dense matrix from its stored elements: the reverse of {@linkcode narrow}.
 *
 * @param values Elements, `[rows, columns]`; their number and scales have been checked.
 * @param shape The matrix's shape.
 */
export function widen(values: Values, shape: Shape): Float32Array<ArrayBuffer> {
  const elements = elementsOf(values);
  // Those of other types are new already: of an embedding they take a gigabyte and more.
  const dense = values.type === "f32" ? elements.slice() : elements as Float32Array<ArrayBuffer>;
  applyScales(dense, values, shape);
  return dense;
}

/** Stored elements as numbers, not yet multiplied by scales; those of f32 are not copied. */
export function elementsOf(values: Values): Float32Array {
  if (values.type === "f32") return values.data;
  if (values.type === "int8" || values.type === "int4") return Float32Array.from(values.data);
  const table = halves();
  const { data } = values;
  const elements = new Float32Array(data.length);
  for (let i = 0; i < data.length; i++) elements[i] = table[data[i]];
  return elements;
}

/**
 * Multiplies the elements of a dense matrix by their scales, if the type has scales.
 *
 * @param dense Elements, `[rows, columns]`, changed in place.
 * @param values Where the scales are; they have been checked.
 * @param shape The matrix's shape.
 */
export function applyScales(dense: Float32Array, values: Values, shape: Shape): void {
  if (values.type !== "int8" && values.type !== "int4") return;
  const { group } = values;
  const table = values.type === "int4" ? halves() : undefined;
  const { rows, columns } = shape;
  let next = 0;
  for (let row = 0; row < rows; row++) {
    const rowEnd = (row + 1) * columns;
    for (let start = row * columns; start < rowEnd; start += group) {
      const stored = values.scales[next++];
      const scale = table ? table[stored] : stored;
      const end = Math.min(start + group, rowEnd);
      // A negative scale makes -0 of a 0, which adding 0 makes a 0 again.
      for (let i = start; i < end; i++) dense[i] = dense[i] * scale + 0;
    }
  }
}

/**
 * Room for stored elements of the type, and with the scales, of others.
 *
 * @param values The others.
 * @param length Elements, all 0.
 */
export function roomLike(values: Values, length: number): Values {
  switch (values.type) {
    case "f32":
      return { type: "f32", data: new Float32Array(length) };
    case "f16":
      return { type: "f16", data: new Uint16Array(length) };
    case "int8":
    case "int4":
      return { ...values, data: new Int8Array(length) };
  }
}

/** The first elements of stored values, in memory of their own. */
export function firstOf(values: Values, length: number): Values {
  switch (values.type) {
    case "f32":
      return { type: "f32", data: values.data.slice(0, length) };
    case "f16":
      return { type: "f16", data: values.data.slice(0, length) };
    case "int8":
    case "int4":
      return { ...values, data: values.data.slice(0, length) };
  }
}

/**
 * Bytes of stored values with their scales.
 *
 * @param shape The matrix's shape.
 * @param options Their type.
 * @param count Elements.
 */
export function bytesOfValues(shape: Shape, options: ValueOptions, count: number): number {
  if (options.type === "int4") return bytesOfInt4(shape, options.group, count);
  const scales = options.type === "int8"
    ? shape.rows * Math.ceil(shape.columns / Math.min(options.group ?? Infinity, shape.columns))
    : 0;
  return count * VALUE_BYTES[options.type] + 4 * scales;
}

/** How many weights are not 0. */
export function countNonzeros(values: Float32Array): number {
  const bits = bitsOf(values);
  let count = 0;
  for (let i = 0; i < bits.length; i++) count += nonzero(bits[i]);
  return count;
}

/** The bits of float32 numbers, in the same memory. */
export function bitsOf(values: Float32Array): Int32Array {
  return new Int32Array(values.buffer, values.byteOffset, values.length);
}

/**
 * Whether a float32 is neither 0 nor -0, without a branch: where zeros are at random, a branch on
 * them is mispredicted so often that it takes longer than all the rest.
 *
 * @param bits The float32's bits.
 * @returns 1 or 0.
 */
export function nonzero(bits: number): number {
  const magnitude = bits << 1;
  return (magnitude | -magnitude) >>> 31;
}

/**
 * The float16 nearest to a weight; of two that are equally near, the one whose last bit is 0.
 *
 * @returns Its bits; those of an infinity when the weight is 65520 or more.
 */
export function halfOf(weight: number): number {
  const target = new Uint16Array(1);
  toHalves(Float32Array.of(weight), target);
  return target[0];
}

/**
 * The scale with which a group of weights is stored as int8 with the least squared error that a
 * search finds; never a greater error than with max |w| / 127.
 *
 * With a scale s, a weight is stored as q = w / s rounded to the nearest integer in -127 … 127. For
 * given q the best scale is Σ wq / Σ q², and the error Σ w² − (Σ wq)² / Σ q². The search tries
 * f · max |w| / 127 for f from 1.125 down to 0.5, each judged by the best scale for the q it gives,
 * takes that scale, and repeats rounding and fitting while the error falls.
 *
 * @param weights The group's nonzero weights, as magnitudes, and after them anything.
 * @param count How many they are.
 * @returns A float32; 1 when there are none.
 */
export function scaleOf(weights: Float64Array, count = weights.length): number {
  let greatest = 0;
  let squares = 0;
  for (let i = 0; i < count; i++) {
    const w = weights[i];
    if (w > greatest) greatest = w;
    squares += w * w;
  }
  if (greatest === 0) return 1;
  const first = toScale(greatest / GREATEST_STEP);
  let gain = 0;
  let scale = first;
  for (let factor = GREATEST_FACTOR; factor >= LEAST_FACTOR; factor -= FACTOR_STEP) {
    fit(weights, count, first * factor);
    const found = fitted.gain;
    if (found > gain) {
      gain = found;
      scale = fitted.scale;
    } else if (factor < 1 && squares - found > HOPELESS * (squares - gain)) break;
  }
  for (let i = 0; i < REFINEMENTS; i++) {
    fit(weights, count, scale);
    if (fitted.gain <= gain) break;
    gain = fitted.gain;
    scale = fitted.scale;
  }
  scale = toScale(scale);
  // Scales and products are rounded to float32, which the search leaves out of account.
  return errorOf(weights, count, scale) < errorOf(weights, count, first) ? scale : first;
}

/** What {@linkcode fit} found: kept here, since an object a call would be garbage a call. */
const fitted = { gain: 0, scale: 0 };

/** Rounds weights with one scale, and finds the best scale for what they were rounded to. */
function fit(weights: Float64Array, count: number, scale: number): void {
  const inverse = 1 / scale;
  let products = 0;
  let squares = 0;
  for (let i = 0; i < count; i++) {
    const w = weights[i];
    const rounded = w * inverse + ROUNDER - ROUNDER;
    const q = rounded > GREATEST_STEP ? GREATEST_STEP : rounded;
    products += w * q;
    squares += q * q;
  }
  fitted.gain = products * products / squares;
  fitted.scale = products / squares;
}

/** Sum of squared differences between weights and what a reader makes of them. */
function errorOf(weights: Float64Array, count: number, scale: number): number {
  const inverse = 1 / scale;
  let error = 0;
  for (let i = 0; i < count; i++) {
    const w = weights[i];
    const rounded = w * inverse + ROUNDER - ROUNDER;
    const q = rounded > GREATEST_STEP ? GREATEST_STEP : rounded;
    const difference = w - Math.fround(q * scale);
    error += difference * difference;
  }
  return error;
}

/** A number as a scale: float32, and within the bounds of one. */
function toScale(value: number): number {
  return Math.min(GREATEST_SCALE, Math.max(LEAST_SCALE, Math.fround(value)));
}

function toInt8(matrix: Matrix, group: number): Values {
  const { values, rows, columns } = matrix;
  const data = new Int8Array(values.length);
  const scales = new Float32Array(rows * Math.ceil(columns / group));
  const magnitudes = new Float64Array(group);
  const bits = bitsOf(values);
  let next = 0;
  for (let row = 0; row < rows; row++) {
    const rowEnd = (row + 1) * columns;
    for (let start = row * columns; start < rowEnd; start += group) {
      const end = Math.min(start + group, rowEnd);
      let count = 0;
      for (let i = start; i < end; i++) {
        magnitudes[count] = Math.abs(values[i]);
        count += nonzero(bits[i]);
      }
      const scale = scaleOf(magnitudes, count);
      scales[next++] = scale;
      const inverse = 1 / scale;
      for (let i = start; i < end; i++) {
        const q = values[i] * inverse + ROUNDER - ROUNDER;
        data[i] = q > GREATEST_STEP ? GREATEST_STEP : q < -GREATEST_STEP ? -GREATEST_STEP : q;
      }
    }
  }
  return { type: "int8", data, scales, group };
}

function groupOf({ name, columns }: Matrix, { group = columns }: ValueOptions): number {
  if (Number.isInteger(group) && group >= 1) return Math.min(group, columns);
  throw new FormatUnfitError(
    `${quote(name)} cannot have a scale for each ${group} weights of a row: ` +
      `take a whole number from 1, or none for one scale a row`,
  );
}

function narrowToHalves(matrix: Matrix): Uint16Array {
  const { name, values, columns } = matrix;
  const data = new Uint16Array(values.length);
  if (toHalves(values, data)) return data;
  const at = data.findIndex((half) => (half & 0x7c00) === 0x7c00);
  throw new FormatUnfitError(
    `${quote(name)} has ${values[at]} at ${placeOf(at, columns)}, more than float16 can hold ` +
      `(${GREATEST_HALF}): store it as f32 or int8`,
  );
}
