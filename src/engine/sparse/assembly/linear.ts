/**
 * What all products of a matrix with vectors share: their arguments, and what becomes of a sum.
 *
 * A matrix is in groups of 16 rows, so that threads and layouts agree on where to divide it; rows that
 * fill the last group are zeros. Vectors lie one after the other, `stride` bytes apart.
 *
 * Inputs of int8 matrices are quantised, with a scale for each segment of 32. Most segments have 7
 * bits: from 1 to 127, with the zero at 64, which -64·Σw takes out again. A segment with an outlier
 * would lose all else in it that way, so it has 7 bits more, in a second vector; it is flagged, and
 * multiplied a second time.
 */
import { activate, NONE } from "./math";

/** Words of a linear step, in bytes from its beginning. `plan/encode.ts` writes them. */
export const KIND: usize = 8;
export const WEIGHTS: usize = 12;
/** Rows, a multiple of 16. */
export const ROWS: usize = 16;
/** Segments of 32 inputs. */
export const SEGMENTS: usize = 20;
/** Quantised inputs, or float32 ones. */
export const X: usize = 24;
/** Bytes from one token's inputs to the next one's. */
export const X_STRIDE: usize = 28;
/** Bytes from one thread's copy of the input to the next one's, when there is one token. */
export const X_COPY: usize = 32;
/** Scales of quantised inputs, `[token, segment]`; bytes between threads' copies. */
export const X_SCALES: usize = 36;
export const X_SCALES_COPY: usize = 40;
/** Bytes from the upper seven bits of inputs to the lower seven. */
export const X_LOW: usize = 44;
/** Flags `[token / 8, segment, 8 tokens]`, a byte each; bytes between threads' copies. */
export const X_FLAGS: usize = 48;
export const X_FLAGS_COPY: usize = 52;
export const OUT: usize = 56;
export const OUT_STRIDE: usize = 60;
/** Scale of each row, or 0. */
export const ROW_SCALES: usize = 64;
/** Scales `[rows / 4, segment, 4]`, or 0. */
export const GROUP_SCALES: usize = 68;
/** Added to the sum, or 0. */
export const BIAS: usize = 72;
export const ACTIVATION: usize = 76;
/** Vectors that the result is multiplied with, laid out like the output, or 0. */
export const TIMES: usize = 80;
/** Vectors that are added last, laid out like the output, or 0. */
export const PLUS: usize = 84;
/** Where the lists of each four rows begin: of all weights, or of those that slots have no room for; or 0. */
export const LISTS: usize = 88;
/** The float32 inputs of lists beside slots. */
export const LISTS_X: usize = 92;
export const LISTS_X_STRIDE: usize = 96;
export const LISTS_X_COPY: usize = 100;
/** Inputs, where those that fill the last segment must not be read. */
export const COLUMNS: usize = 104;

/** Numbers of the kinds. */
export const SLOTS_ONE = 0, SLOTS_TWO = 1, DENSE_INT8 = 2;
export const LISTS_F32 = 3, LISTS_F16 = 4, DENSE_F32 = 5, DENSE_F16 = 6;
export const SLOTS_ANY = 7;
export const SLOTS_ONE_INT4 = 10, SLOTS_TWO_INT4 = 11, DENSE_INT4 = 12;

/** Inputs of a segment. */
export const SEGMENT = 32;

/** What the lower seven bits are worth, in units of the upper ones. */
export const LOW_UNIT: f32 = 0.0078125;

/** Flags of a token, or of those in its tile of eight. */
// @ts-ignore: decorator
@inline
export function flagsOf(a: usize, token: i32, thread: i32, tokens: i32): usize {
  const flags = load<usize>(a, X_FLAGS);
  if (tokens == 1) return flags + <usize> thread * <usize> load<u32>(a, X_FLAGS_COPY);
  return flags + <usize> (token >> 3) * (<usize> load<u32>(a, SEGMENTS) << 3) + <usize> (token & 7);
}

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

/** Writes four rows' results for up to four tokens from `token` on. */
// @ts-ignore: decorator
@inline
export function finishFour(
  a: usize,
  row: i32,
  token: i32,
  tokens: i32,
  f0: v128,
  f1: v128,
  f2: v128,
  f3: v128,
): void {
  finish(a, row, token, f0);
  if (token + 1 < tokens) finish(a, row, token + 1, f1);
  if (token + 2 < tokens) finish(a, row, token + 2, f2);
  if (token + 3 < tokens) finish(a, row, token + 3, f3);
}

/** sum + an integer part with its scale. */
// @ts-ignore: decorator
@inline
export function addScaled(sum: v128, part: v128, scale: v128): v128 {
  return f32x4.add(sum, f32x4.mul(f32x4.convert_i32x4_s(part), scale));
}
