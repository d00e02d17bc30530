/** Sparse int8 matrices with any number of slots a window, times one token. */
import { NIBBLES, ZERO_POINTS } from "./control";
import { addLists } from "./lists";
import {
  addScaled,
  finish,
  flagsOf,
  GROUP_SCALES,
  LISTS,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
} from "./linear";
import { addCenteredPair, addPair } from "./pairs";
import { centeredOne, ones, pick, upper } from "./simd";
import { centeredSegment, plainSegment } from "./slots";
import {
  bytesOf,
  COUPLE,
  DOUBLE,
  headBytes,
  lowScaleOf,
  QUAD,
  scaleOf,
  single,
  UNIT,
} from "./slots_any";

/** The slots of a segment of `slots.ts` that an entry is: a quad two of each window, a couple one. */
// @ts-ignore: decorator
@inline
function kindOf(stream: i32): i32 {
  return stream == QUAD ? SLOTS_TWO : SLOTS_ONE;
}

/** An entry of a stream times inputs of which 64 is the zero, whose window or segment is at `x`. */
// @ts-ignore: decorator
@inline
function centered(stream: i32, w: usize, x: usize, nibbles: v128, one_: v128, zeros: v128): v128 {
  if (stream != DOUBLE) return centeredSegment(kindOf(stream), w, x, nibbles, one_, zeros);
  const a = v128.load(x);
  return addCenteredPair(w, a, a, i32x4.splat(0), nibbles, one_, zeros);
}

/** The same of inputs of which 0 is the zero. */
// @ts-ignore: decorator
@inline
function plain(stream: i32, w: usize, x: usize, nibbles: v128, one_: v128): v128 {
  if (stream != DOUBLE) return plainSegment(kindOf(stream), w, x, nibbles, one_);
  const a = v128.load(x);
  return addPair(w, a, a, i32x4.splat(0), nibbles, one_);
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
  zeros: v128,
  sum: v128,
): v128 {
  let f = sum, from = w, place = at;
  for (const end = w + count * bytesOf(stream); from < end; from += bytesOf(stream)) {
    const c = <usize> load<u16>(place);
    const p = centered(stream, from, x + c, nibbles, one_, zeros);
    f = addScaled(f, p, scaleOf(scales, groups, c, isGrouped));
    if (load<u8>(flags + (c >> 5 << 3)) != 0) {
      const q = plain(stream, from, low + c, nibbles, one_);
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
  const n = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
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
    f = addStream(QUAD, w, at, quads, x, low, scales, gs, flags, isGrouped, n, one_, zeros, f);
    at += quads << 1;
    w += quads * 2 * UNIT;
    f = addStream(DOUBLE, w, at, doubles, x, low, scales, gs, flags, isGrouped, n, one_, zeros, f);
    at += doubles << 1;
    w += doubles * UNIT;
    f = addStream(COUPLE, w, at, couples, x, low, scales, gs, flags, isGrouped, n, one_, zeros, f);
    at += couples << 1;
    w += couples * UNIT;
    for (const end = w + pairs * UNIT; w < end; w += UNIT) {
      const c = <usize> load<u16>(at), d = <usize> load<u16>(at, 2), zero = i32x4.splat(0);
      const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      const i0 = v128.and(i, n), i1 = upper(i, n);
      const o = centeredOne(v0, pick(v128.load(x + c), i0), zero, one_, zeros);
      f = addScaled(f, o, scaleOf(scales, gs, c, isGrouped));
      if (load<u8>(flags + (c >> 5 << 3)) != 0) {
        const q = single(v0, i0, low + c, zero, one_);
        f = addScaled(f, q, lowScaleOf(scales, gs, c, isGrouped));
      }
      const p = centeredOne(v1, pick(v128.load(x + d), i1), zero, one_, zeros);
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

/** Each in a function of its own: engines compile small functions better. */
function oneOfAny(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, false);
}
function oneOfAnyGrouped(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, true);
}

/** y = W·x for rows `first` to `last`, multiples of 4, and one token. */
export function slotsAnyOne(a: usize, first: i32, last: i32, thread: i32): void {
  if (load<usize>(a, GROUP_SCALES) != 0) oneOfAnyGrouped(a, first, last, thread);
  else oneOfAny(a, first, last, thread);
}
