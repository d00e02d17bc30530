/**
 * What all products of a matrix with vectors share: their arguments, and what becomes of a sum.
 *
 * A matrix is in groups of 16 rows, so that threads and layouts agree on where to divide it; rows that
 * fill the last group are zeros. Vectors lie one after the other, `stride` bytes apart.
 */
import { activate, NONE } from "./math";

/** Words of a linear step, in bytes from its beginning. `plan/encode.ts` writes them. */
export const KIND: usize = 8;
export const WEIGHTS: usize = 12;
/** Rows, a multiple of 16. */
export const ROWS: usize = 16;
/** Windows of 16 inputs, an even number. */
export const WINDOWS: usize = 20;
/** Windows of a segment: inputs that share a scale. */
export const SEGMENT: usize = 24;
/** Quantised inputs, or float32 ones. */
export const X: usize = 28;
/** Bytes from one token's inputs to the next one's. */
export const X_STRIDE: usize = 32;
/** Scales of quantised inputs, `[token, segment]`. */
export const X_SCALES: usize = 36;
/** Bytes from the upper seven bits of inputs to the lower seven; 0 where there are only seven. */
export const X_LOW: usize = 40;
export const OUT: usize = 44;
export const OUT_STRIDE: usize = 48;
/** Scale of each row, or 0. */
export const ROW_SCALES: usize = 52;
/** Scales `[rows / 4, segment, 4]`, or 0. */
export const GROUP_SCALES: usize = 56;
/** Added to the sum, or 0. */
export const BIAS: usize = 60;
export const ACTIVATION: usize = 64;
/** Vectors that the result is multiplied with, laid out like the output, or 0. */
export const TIMES: usize = 68;
/** Vectors that are added last, laid out like the output, or 0. */
export const PLUS: usize = 72;
/** Where each four rows begin, for layouts in which they have no common size. */
export const TABLE: usize = 76;
/** Bytes from one thread's copy of the input to the next one's, when there is one token. */
export const X_COPY: usize = 80;
/** The same for its scales. */
export const X_SCALES_COPY: usize = 84;
/** Inputs; what lies between them and the last window's end may be anything. */
export const COLUMNS: usize = 88;

/** Numbers of the kinds. */
export const SLOTS_ONE = 0, SLOTS_TWO = 1, SLOTS_ANY = 2, DENSE_INT8 = 3;
export const LISTS_F32 = 4, LISTS_F16 = 5, DENSE_F32 = 6, DENSE_F16 = 7;

/** Writes four rows' results for one token. */
// @ts-ignore: decorator
@inline
export function finish(a: usize, row: i32, token: i32, sum: v128): void {
  const at = <usize> token * <usize> load<u32>(a, OUT_STRIDE) + (<usize> row << 2);
  let v = sum;
  const scales = load<usize>(a, ROW_SCALES);
  if (scales != 0) v = f32x4.mul(v, v128.load(scales + (<usize> row << 2)));
  const bias = load<usize>(a, BIAS);
  if (bias != 0) v = f32x4.add(v, v128.load(bias + (<usize> row << 2)));
  const kind = load<i32>(a, ACTIVATION);
  if (kind != NONE) v = activate(kind, v);
  const times = load<usize>(a, TIMES);
  if (times != 0) v = f32x4.mul(v, v128.load(times + at));
  const plus = load<usize>(a, PLUS);
  if (plus != 0) v = f32x4.add(v, v128.load(plus + at));
  v128.store(load<usize>(a, OUT) + at, v);
}
