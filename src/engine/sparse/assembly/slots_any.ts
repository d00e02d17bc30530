/**
 * Sparse int8 matrices with as many slots a window as it needs, from none to four, and lists.
 *
 * A slot is that of `slots.ts`. How many there are is no branch: the slots of four rows are four streams
 * that are gone through from end to end, in units of two slots of 48 bytes (indices in low and high
 * halves, values, values) with the units' own -Σw of the four rows, as int16, before them:
 *
 * - *quads*: two slots of each window of a segment: sums, two units;
 * - *doubles*: two slots of one window, where the segment's other one has no two to spare: sums, a unit;
 * - *couples*: a slot of each window of a segment: sums, a unit;
 * - *singles*: a slot of a window whose neighbour has none to spare; two of them, from anywhere, are a pair:
 *   sums of the one, sums of the other, a unit.
 *
 * A window of three slots is in a quad or a double and in a couple or a single. A chunk is all that four
 * rows have:
 *
 *     0   quads, doubles, couples, pairs of singles: uint32
 *     16  where the inputs of each entry begin, both windows' of a pair of singles: uint16
 *         zeros up to a multiple of 16
 *         the streams
 *
 * `WEIGHTS` is a table with the address of each chunk.
 */
import { NIBBLES } from "./control";
import { addLists } from "./lists";
import { dot, ones, pick } from "./simd";
import {
  addScaled,
  finish,
  finishFour,
  flagsOf,
  GROUP_SCALES,
  LISTS,
  LOW_UNIT,
  SEGMENTS,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
  X_STRIDE,
} from "./linear";

/** Bytes of two slots. */
export const UNIT: usize = 48;
/** Bytes of the sums of four rows. */
export const SUMS: usize = 8;
/** Bytes of entries. */
export const QUAD_BYTES: usize = SUMS + 2 * UNIT, UNIT_BYTES: usize = SUMS + UNIT;
export const PAIR_BYTES: usize = 2 * SUMS + UNIT;

/** Bytes of a chunk before its streams, which have so many beginnings. */
// @ts-ignore: decorator
@inline
export function headBytes(places: usize): usize {
  return (16 + (places << 1) + 15) & ~15;
}

/** A token's scale of the segment of input `c`, times those of the rows' groups where they have any. */
// @ts-ignore: decorator
@inline
function scaleOf(scales: usize, groups: usize, c: usize, isGrouped: bool): v128 {
  const scale = v128.load32_splat(scales + (c >> 5 << 2));
  return isGrouped ? f32x4.mul(scale, v128.load(groups + (c >> 5 << 4))) : scale;
}

/** The same for lower seven bits. */
// @ts-ignore: decorator
@inline
function lowScaleOf(scales: usize, groups: usize, c: usize, isGrouped: bool): v128 {
  return f32x4.mul(scaleOf(scales, groups, c, isGrouped), f32x4.splat(LOW_UNIT));
}

/** sum + the unit at `w`, whose slots are of the windows `x` and `y`. */
// @ts-ignore: decorator
@inline
function addUnit(w: usize, x: v128, y: v128, sum: v128, nibbles: v128, one_: v128): v128 {
  const i = v128.load(w);
  const first = dot(v128.load(w, 16), pick(x, v128.and(i, nibbles)), sum, one_);
  return dot(v128.load(w, 32), pick(y, i8x16.shr_u(i, 4)), first, one_);
}

/** sum + the quad whose units are at `w` times the segment at `x`. */
// @ts-ignore: decorator
@inline
function quad(w: usize, x: usize, sum: v128, nibbles: v128, one_: v128): v128 {
  const a = v128.load(x), b = v128.load(x, 16);
  return addUnit(w + UNIT, b, b, addUnit(w, a, a, sum, nibbles, one_), nibbles, one_);
}

/** sum + the double whose unit is at `w` times the window at `x`. */
// @ts-ignore: decorator
@inline
function double(w: usize, x: usize, sum: v128, nibbles: v128, one_: v128): v128 {
  const a = v128.load(x);
  return addUnit(w, a, a, sum, nibbles, one_);
}

/** sum + the couple whose unit is at `w` times the segment at `x`. */
// @ts-ignore: decorator
@inline
function couple(w: usize, x: usize, sum: v128, nibbles: v128, one_: v128): v128 {
  return addUnit(w, v128.load(x), v128.load(x, 16), sum, nibbles, one_);
}

/** sum + a single, its values and its indices, times the window at `x`. */
// @ts-ignore: decorator
@inline
function single(v: v128, i: v128, x: usize, sum: v128, one_: v128): v128 {
  return dot(v, pick(v128.load(x), i), sum, one_);
}

const QUAD = 0, DOUBLE = 1, COUPLE = 2;

/** sum + an entry of a stream. */
// @ts-ignore: decorator
@inline
function entry(stream: i32, w: usize, x: usize, sum: v128, nibbles: v128, one_: v128): v128 {
  if (stream == QUAD) return quad(w, x, sum, nibbles, one_);
  if (stream == DOUBLE) return double(w, x, sum, nibbles, one_);
  return couple(w, x, sum, nibbles, one_);
}

// @ts-ignore: decorator
@inline
function bytesOf(stream: i32): usize {
  return stream == QUAD ? QUAD_BYTES : UNIT_BYTES;
}

/** An entry's sums begin with this: the zero point's part. */
// @ts-ignore: decorator
@inline
function begin(sums: usize): v128 {
  return i32x4.shl(v128.load16x4_s(sums), 6);
}

/** sum + a stream of `count` entries at `w` times one token. */
// @ts-ignore: decorator
@inline
function addStream(
  stream: i32,
  w: usize,
  at: usize,
  count: usize,
  x: usize,
  low: usize,
  scales: usize,
  groups: usize,
  flags: usize,
  isGrouped: bool,
  nibbles: v128,
  one_: v128,
  sum: v128,
): v128 {
  let f = sum, from = w, place = at;
  for (const end = w + count * bytesOf(stream); from < end; from += bytesOf(stream)) {
    const c = <usize> load<u16>(place);
    const p = entry(stream, from + SUMS, x + c, begin(from), nibbles, one_);
    f = addScaled(f, p, scaleOf(scales, groups, c, isGrouped));
    if (load<u8>(flags + (c >> 5 << 3)) != 0) {
      const q = entry(stream, from + SUMS, low + c, i32x4.splat(0), nibbles, one_);
      f = addScaled(f, q, lowScaleOf(scales, groups, c, isGrouped));
    }
    place += 2;
  }
  return f;
}

/** One token. */
// @ts-ignore: decorator
@inline
function one(a: usize, first: i32, last: i32, thread: i32, isGrouped: bool): void {
  const n = v128.load(NIBBLES), one_ = ones();
  const segments = load<usize>(a, SEGMENTS), table = load<usize>(a, WEIGHTS);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = x + <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const flags = flagsOf(a, 0, thread, 1);
  const groupScales = load<usize>(a, GROUP_SCALES), lists = load<usize>(a, LISTS);
  for (let row = first; row < last; row += 4) {
    const chunk = load<usize>(table + <usize> row);
    const quads = <usize> load<u32>(chunk), doubles = <usize> load<u32>(chunk, 4);
    const couples = <usize> load<u32>(chunk, 8), pairs = <usize> load<u32>(chunk, 12);
    const gs = groupScales + (<usize> (row >> 2) * segments << 4);
    let f = f32x4.splat(0), at = chunk + 16;
    let w = chunk + headBytes(quads + doubles + couples + 2 * pairs);
    f = addStream(QUAD, w, at, quads, x, low, scales, gs, flags, isGrouped, n, one_, f);
    at += quads << 1;
    w += quads * QUAD_BYTES;
    f = addStream(DOUBLE, w, at, doubles, x, low, scales, gs, flags, isGrouped, n, one_, f);
    at += doubles << 1;
    w += doubles * UNIT_BYTES;
    f = addStream(COUPLE, w, at, couples, x, low, scales, gs, flags, isGrouped, n, one_, f);
    at += couples << 1;
    w += couples * UNIT_BYTES;
    for (const end = w + pairs * PAIR_BYTES; w < end; w += PAIR_BYTES) {
      const c = <usize> load<u16>(at), d = <usize> load<u16>(at, 2), zero = i32x4.splat(0);
      const i = v128.load(w, 16), v0 = v128.load(w, 32), v1 = v128.load(w, 48);
      const i0 = v128.and(i, n), i1 = i8x16.shr_u(i, 4);
      f = addScaled(f, single(v0, i0, x + c, begin(w), one_), scaleOf(scales, gs, c, isGrouped));
      if (load<u8>(flags + (c >> 5 << 3)) != 0) {
        const q = single(v0, i0, low + c, zero, one_);
        f = addScaled(f, q, lowScaleOf(scales, gs, c, isGrouped));
      }
      const p = single(v1, i1, x + d, begin(w + SUMS), one_);
      f = addScaled(f, p, scaleOf(scales, gs, d, isGrouped));
      if (load<u8>(flags + (d >> 5 << 3)) != 0) {
        const q = single(v1, i1, low + d, zero, one_);
        f = addScaled(f, q, lowScaleOf(scales, gs, d, isGrouped));
      }
      at += 4;
    }
    if (lists != 0) f = addLists(a, row, 0, thread, 1, f);
    finish(a, row, 0, f);
  }
}

/** Up to four tokens from `token` on, each in the order of one: slots stay near for all of them. */
// @ts-ignore: decorator
@inline
function four(
  a: usize,
  row: i32,
  token: i32,
  tokens: i32,
  chunk: usize,
  isGrouped: bool,
): void {
  const n = v128.load(NIBBLES), one_ = ones();
  const segments = load<usize>(a, SEGMENTS), lists = load<usize>(a, LISTS);
  const stride = <usize> load<u32>(a, X_STRIDE), low = <usize> load<u32>(a, X_LOW);
  const x0 = load<usize>(a, X) + <usize> token * stride;
  const x1 = x0 + stride, x2 = x1 + stride, x3 = x2 + stride;
  const next = segments << 2;
  const s0 = load<usize>(a, X_SCALES) + <usize> token * next;
  const s1 = s0 + next, s2 = s1 + next, s3 = s2 + next;
  const gs = load<usize>(a, GROUP_SCALES) + (<usize> (row >> 2) * segments << 4);
  const flags = flagsOf(a, token, 0, tokens);
  const quads = <usize> load<u32>(chunk), doubles = <usize> load<u32>(chunk, 4);
  const couples = <usize> load<u32>(chunk, 8), pairs = <usize> load<u32>(chunk, 12);
  const zero = i32x4.splat(0);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, at = chunk + 16;
  let w = chunk + headBytes(quads + doubles + couples + 2 * pairs);
  for (const end = w + quads * QUAD_BYTES; w < end; w += QUAD_BYTES) {
    const c = <usize> load<u16>(at), v = w + SUMS, b = begin(w);
    f0 = addScaled(f0, quad(v, x0 + c, b, n, one_), scaleOf(s0, gs, c, isGrouped));
    f1 = addScaled(f1, quad(v, x1 + c, b, n, one_), scaleOf(s1, gs, c, isGrouped));
    f2 = addScaled(f2, quad(v, x2 + c, b, n, one_), scaleOf(s2, gs, c, isGrouped));
    f3 = addScaled(f3, quad(v, x3 + c, b, n, one_), scaleOf(s3, gs, c, isGrouped));
    if (load<u32>(flags + (c >> 5 << 3)) != 0) {
      const l = low + c;
      f0 = addScaled(f0, quad(v, x0 + l, zero, n, one_), lowScaleOf(s0, gs, c, isGrouped));
      f1 = addScaled(f1, quad(v, x1 + l, zero, n, one_), lowScaleOf(s1, gs, c, isGrouped));
      f2 = addScaled(f2, quad(v, x2 + l, zero, n, one_), lowScaleOf(s2, gs, c, isGrouped));
      f3 = addScaled(f3, quad(v, x3 + l, zero, n, one_), lowScaleOf(s3, gs, c, isGrouped));
    }
    at += 2;
  }
  for (const end = w + doubles * UNIT_BYTES; w < end; w += UNIT_BYTES) {
    const c = <usize> load<u16>(at), v = w + SUMS, b = begin(w);
    f0 = addScaled(f0, double(v, x0 + c, b, n, one_), scaleOf(s0, gs, c, isGrouped));
    f1 = addScaled(f1, double(v, x1 + c, b, n, one_), scaleOf(s1, gs, c, isGrouped));
    f2 = addScaled(f2, double(v, x2 + c, b, n, one_), scaleOf(s2, gs, c, isGrouped));
    f3 = addScaled(f3, double(v, x3 + c, b, n, one_), scaleOf(s3, gs, c, isGrouped));
    if (load<u32>(flags + (c >> 5 << 3)) != 0) {
      const l = low + c;
      f0 = addScaled(f0, double(v, x0 + l, zero, n, one_), lowScaleOf(s0, gs, c, isGrouped));
      f1 = addScaled(f1, double(v, x1 + l, zero, n, one_), lowScaleOf(s1, gs, c, isGrouped));
      f2 = addScaled(f2, double(v, x2 + l, zero, n, one_), lowScaleOf(s2, gs, c, isGrouped));
      f3 = addScaled(f3, double(v, x3 + l, zero, n, one_), lowScaleOf(s3, gs, c, isGrouped));
    }
    at += 2;
  }
  for (const end = w + couples * UNIT_BYTES; w < end; w += UNIT_BYTES) {
    const c = <usize> load<u16>(at), v = w + SUMS, b = begin(w);
    f0 = addScaled(f0, couple(v, x0 + c, b, n, one_), scaleOf(s0, gs, c, isGrouped));
    f1 = addScaled(f1, couple(v, x1 + c, b, n, one_), scaleOf(s1, gs, c, isGrouped));
    f2 = addScaled(f2, couple(v, x2 + c, b, n, one_), scaleOf(s2, gs, c, isGrouped));
    f3 = addScaled(f3, couple(v, x3 + c, b, n, one_), scaleOf(s3, gs, c, isGrouped));
    if (load<u32>(flags + (c >> 5 << 3)) != 0) {
      const l = low + c;
      f0 = addScaled(f0, couple(v, x0 + l, zero, n, one_), lowScaleOf(s0, gs, c, isGrouped));
      f1 = addScaled(f1, couple(v, x1 + l, zero, n, one_), lowScaleOf(s1, gs, c, isGrouped));
      f2 = addScaled(f2, couple(v, x2 + l, zero, n, one_), lowScaleOf(s2, gs, c, isGrouped));
      f3 = addScaled(f3, couple(v, x3 + l, zero, n, one_), lowScaleOf(s3, gs, c, isGrouped));
    }
    at += 2;
  }
  for (let k: usize = 0; k < 2 * pairs; k++) {
    // The first of a pair, then the second.
    const c = <usize> load<u16>(at), second = k & 1, b = begin(w + second * SUMS);
    const v = v128.load(w + 32 + (second << 4));
    let i = v128.load(w, 16);
    if (second == 0) i = v128.and(i, n);
    else i = i8x16.shr_u(i, 4);
    f0 = addScaled(f0, single(v, i, x0 + c, b, one_), scaleOf(s0, gs, c, isGrouped));
    f1 = addScaled(f1, single(v, i, x1 + c, b, one_), scaleOf(s1, gs, c, isGrouped));
    f2 = addScaled(f2, single(v, i, x2 + c, b, one_), scaleOf(s2, gs, c, isGrouped));
    f3 = addScaled(f3, single(v, i, x3 + c, b, one_), scaleOf(s3, gs, c, isGrouped));
    if (load<u32>(flags + (c >> 5 << 3)) != 0) {
      const l = low + c;
      f0 = addScaled(f0, single(v, i, x0 + l, zero, one_), lowScaleOf(s0, gs, c, isGrouped));
      f1 = addScaled(f1, single(v, i, x1 + l, zero, one_), lowScaleOf(s1, gs, c, isGrouped));
      f2 = addScaled(f2, single(v, i, x2 + l, zero, one_), lowScaleOf(s2, gs, c, isGrouped));
      f3 = addScaled(f3, single(v, i, x3 + l, zero, one_), lowScaleOf(s3, gs, c, isGrouped));
    }
    at += 2;
    w += second * PAIR_BYTES;
  }
  if (lists != 0) {
    f0 = addLists(a, row, token, 0, tokens, f0);
    f1 = addLists(a, row, token + 1, 0, tokens, f1);
    f2 = addLists(a, row, token + 2, 0, tokens, f2);
    f3 = addLists(a, row, token + 3, 0, tokens, f3);
  }
  finishFour(a, row, token, tokens, f0, f1, f2, f3);
}

/** Each in a function of its own: engines compile small functions better. */
function fourOfAny(a: usize, row: i32, token: i32, tokens: i32, chunk: usize): void {
  four(a, row, token, tokens, chunk, false);
}
function fourOfAnyGrouped(a: usize, row: i32, token: i32, tokens: i32, chunk: usize): void {
  four(a, row, token, tokens, chunk, true);
}
function oneOfAny(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, false);
}
function oneOfAnyGrouped(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, true);
}

/** y = W·x for rows `first` to `last`, multiples of 4. */
export function slotsAny(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const isGrouped = load<usize>(a, GROUP_SCALES) != 0;
  if (tokens == 1) {
    if (isGrouped) oneOfAnyGrouped(a, first, last, thread);
    else oneOfAny(a, first, last, thread);
    return;
  }
  const table = load<usize>(a, WEIGHTS);
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const chunk = load<usize>(table + <usize> row);
    for (let token = 0; token < tokens; token += 4) {
      if (isGrouped) fourOfAnyGrouped(a, row, token, tokens, chunk);
      else fourOfAny(a, row, token, tokens, chunk);
    }
  }
}
