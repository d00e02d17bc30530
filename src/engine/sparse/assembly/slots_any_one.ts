/** Sparse int8 matrices with any number of slots a window, times one token. */
import { LISTED_ROWS, timesLists } from "./beside";
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  addScaled,
  finish,
  flagsOf,
  GROUP_SCALES,
  inUnits,
  LOW_UNIT,
  scratchOf,
  SEGMENTS,
  stepsOf,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
  X_STEPS,
} from "./linear";
import { pairPart } from "./pairs";
import { addTimes, centeredOne, ones, partSum, pick, upper } from "./simd";
import { addSegment, segmentSum } from "./slots";
import {
  bytesOf,
  COUPLE,
  DOUBLE,
  headBytes,
  kindOf,
  QUAD,
  UNIT,
} from "./slots_any";

/** sum + an entry of a stream times the window or segment at `x`, times its step. */
// @ts-ignore: decorator
@inline
function addEntry(
  stream: i32,
  w: usize,
  x: usize,
  sum: v128,
  step: v128,
  nibbles: v128,
  one_: v128,
  zeros: v128,
): v128 {
  const a = v128.load(x);
  if (stream != DOUBLE) {
    return addSegment(kindOf(stream), w, a, v128.load(x, 16), sum, step, nibbles, one_, zeros);
  }
  return addTimes(sum, pairPart(w, a, a, nibbles, one_, zeros), step);
}

/** The same product alone. */
// @ts-ignore: decorator
@inline
function entrySum(stream: i32, w: usize, x: usize, nibbles: v128, one_: v128, zeros: v128): v128 {
  const a = v128.load(x);
  if (stream != DOUBLE) {
    return segmentSum(kindOf(stream), w, a, v128.load(x, 16), nibbles, one_, zeros);
  }
  return partSum(pairPart(w, a, a, nibbles, one_, zeros), one_);
}

/** The part of a single, its values and its indices, and the window at `x`. */
// @ts-ignore: decorator
@inline
function singlePart(v: v128, i: v128, x: usize, one_: v128, zeros: v128): v128 {
  return centeredOne(v, pick(v128.load(x), i), one_, zeros);
}

/**
 * sum + a stream of `count` entries at `w` times one token.
 *
 * @param factors Steps of the token's segments; their scales where groups have scales, too, at `groups`.
 * @param lows Where the sum of lower bits is kept, in steps: few entries have any.
 */
// @ts-ignore: decorator
@inline
function addStream(
  stream: i32,
  isGrouped: bool,
  w: usize,
  at: usize,
  count: usize,
  x: usize,
  low: usize,
  factors: usize,
  groups: usize,
  flags: usize,
  lows: usize,
  nibbles: v128,
  one_: v128,
  zeros: v128,
  sum: v128,
): v128 {
  let f = sum, from = w, place = at;
  for (const end = w + count * bytesOf(stream); from < end; from += bytesOf(stream)) {
    const c = <usize> load<u16>(place), s = c >> 5, factor = v128.load32_splat(factors + (s << 2));
    if (isGrouped) {
      const scale = f32x4.mul(factor, v128.load(groups + (s << 4)));
      f = addScaled(f, entrySum(stream, from, x + c, nibbles, one_, zeros), scale);
      if (load<u8>(flags + (s << 3)) != 0) {
        const unit = f32x4.mul(scale, f32x4.splat(LOW_UNIT));
        f = addScaled(f, entrySum(stream, from, low + c, nibbles, one_, zeros), unit);
      }
    } else {
      f = addEntry(stream, from, x + c, f, factor, nibbles, one_, zeros);
      if (load<u8>(flags + (s << 3)) != 0) {
        const l = v128.load(lows);
        v128.store(lows, addEntry(stream, from, low + c, l, factor, nibbles, one_, zeros));
      }
    }
    place += 2;
  }
  return f;
}

/** sum + a single, its values and its indices, times the window that begins at input `c`. */
// @ts-ignore: decorator
@inline
function addSingle(
  isGrouped: bool,
  v: v128,
  i: v128,
  c: usize,
  x: usize,
  low: usize,
  factors: usize,
  groups: usize,
  flags: usize,
  lows: usize,
  one_: v128,
  zeros: v128,
  sum: v128,
): v128 {
  const s = c >> 5, factor = v128.load32_splat(factors + (s << 2));
  const part = singlePart(v, i, x + c, one_, zeros), isFlagged = load<u8>(flags + (s << 3)) != 0;
  if (isGrouped) {
    const scale = f32x4.mul(factor, v128.load(groups + (s << 4)));
    const f = addScaled(sum, partSum(part, one_), scale);
    if (!isFlagged) return f;
    const more = partSum(singlePart(v, i, low + c, one_, zeros), one_);
    return addScaled(f, more, f32x4.mul(scale, f32x4.splat(LOW_UNIT)));
  }
  if (isFlagged) {
    const more = singlePart(v, i, low + c, one_, zeros);
    v128.store(lows, addTimes(v128.load(lows), more, factor));
  }
  return addTimes(sum, part, factor);
}

/** One token. */
// @ts-ignore: decorator
@inline
function one(a: usize, first: i32, last: i32, thread: i32, isGrouped: bool): void {
  const n = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), table = load<usize>(a, WEIGHTS);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = x + <usize> load<u32>(a, X_LOW);
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, 0, thread, 1);
  const factors = isGrouped
    ? load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY)
    : steps;
  const unit = v128.load32_splat(steps + (segments << 2));
  const flags = flagsOf(a, 0, thread, 1), lows = scratchOf(a, thread), listed = lows + 16;
  const groupScales = load<usize>(a, GROUP_SCALES);
  for (let row = first; row < last; row += 4) {
    const chunk = load<usize>(table + <usize> row), g = isGrouped;
    const place = row - first & (LISTED_ROWS - 1);
    if (place == 0) timesLists(a, row, min(LISTED_ROWS, last - row), thread, listed);
    const quads = <usize> load<u32>(chunk), doubles = <usize> load<u32>(chunk, 4);
    const couples = <usize> load<u32>(chunk, 8), pairs = <usize> load<u32>(chunk, 12);
    const gs = groupScales + (<usize> (row >> 2) * segments << 4), k = factors;
    let f = i32x4.splat(0), at = chunk + 16;
    v128.store(lows, f);
    let w = chunk + headBytes(quads + doubles + couples + 2 * pairs);
    f = addStream(QUAD, g, w, at, quads, x, low, k, gs, flags, lows, n, one_, zeros, f);
    at += quads << 1;
    w += quads * 2 * UNIT;
    f = addStream(DOUBLE, g, w, at, doubles, x, low, k, gs, flags, lows, n, one_, zeros, f);
    at += doubles << 1;
    w += doubles * UNIT;
    f = addStream(COUPLE, g, w, at, couples, x, low, k, gs, flags, lows, n, one_, zeros, f);
    at += couples << 1;
    w += couples * UNIT;
    for (const end = w + pairs * UNIT; w < end; w += UNIT) {
      const c = <usize> load<u16>(at), d = <usize> load<u16>(at, 2), i = v128.load(w);
      const v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      f = addSingle(g, v0, v128.and(i, n), c, x, low, k, gs, flags, lows, one_, zeros, f);
      f = addSingle(g, v1, upper(i, n), d, x, low, k, gs, flags, lows, one_, zeros, f);
      at += 4;
    }
    if (!isGrouped) f = inUnits(f, v128.load(lows), unit);
    finish(a, row, 0, f32x4.add(f, v128.load(listed + (<usize> place << 2))));
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
