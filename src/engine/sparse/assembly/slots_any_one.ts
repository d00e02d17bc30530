/** Sparse int8 matrices with any number of slots a window, times one token. */
import { NIBBLES, ZERO_POINTS } from "./control";
import { addLists } from "./lists";
import {
  addScaled,
  finish,
  flagsOf,
  GROUP_SCALES,
  inUnits,
  LISTS,
  LOW_UNIT,
  scratchOf,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
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
  QUAD,
  UNIT,
} from "./slots_any";

/** A token's scale of the segment of input `c` times those of the rows' groups. */
// @ts-ignore: decorator
@inline
function scaleOf(scales: usize, groups: usize, c: usize): v128 {
  return f32x4.mul(v128.load32_splat(scales + (c >> 5 << 2)), v128.load(groups + (c >> 5 << 4)));
}

/** The same for lower seven bits. */
// @ts-ignore: decorator
@inline
function lowScaleOf(scales: usize, groups: usize, c: usize): v128 {
  return f32x4.mul(scaleOf(scales, groups, c), f32x4.splat(LOW_UNIT));
}

/** The slots of a segment of `slots.ts` that an entry is: a quad two of each window, a couple one. */
// @ts-ignore: decorator
@inline
function kindOf(stream: i32): i32 {
  return stream == QUAD ? SLOTS_TWO : SLOTS_ONE;
}

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
  if (stream != DOUBLE) return addSegment(kindOf(stream), w, x, sum, step, nibbles, one_, zeros);
  const a = v128.load(x);
  return addTimes(sum, pairPart(w, a, a, nibbles, one_, zeros), step);
}

/** The same product alone. */
// @ts-ignore: decorator
@inline
function entrySum(stream: i32, w: usize, x: usize, nibbles: v128, one_: v128, zeros: v128): v128 {
  if (stream != DOUBLE) return segmentSum(kindOf(stream), w, x, nibbles, one_, zeros);
  const a = v128.load(x);
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
 * @param lows Where the sum of lower bits is kept: few entries have any.
 */
// @ts-ignore: decorator
@inline
function addStream(
  stream: i32,
  w: usize,
  at: usize,
  count: usize,
  x: usize,
  low: usize,
  steps: usize,
  flags: usize,
  lows: usize,
  nibbles: v128,
  one_: v128,
  zeros: v128,
  sum: v128,
): v128 {
  let p = sum, from = w, place = at;
  for (const end = w + count * bytesOf(stream); from < end; from += bytesOf(stream)) {
    const c = <usize> load<u16>(place), step = v128.load32_splat(steps + (c >> 5 << 2));
    p = addEntry(stream, from, x + c, p, step, nibbles, one_, zeros);
    if (load<u8>(flags + (c >> 5 << 3)) != 0) {
      const q = addEntry(stream, from, low + c, v128.load(lows), step, nibbles, one_, zeros);
      v128.store(lows, q);
    }
    place += 2;
  }
  return p;
}

/** The same where groups of inputs have scales. */
// @ts-ignore: decorator
@inline
function addStreamGrouped(
  stream: i32,
  w: usize,
  at: usize,
  count: usize,
  x: usize,
  low: usize,
  scales: usize,
  groups: usize,
  flags: usize,
  nibbles: v128,
  one_: v128,
  zeros: v128,
  sum: v128,
): v128 {
  let f = sum, from = w, place = at;
  for (const end = w + count * bytesOf(stream); from < end; from += bytesOf(stream)) {
    const c = <usize> load<u16>(place);
    const p = entrySum(stream, from, x + c, nibbles, one_, zeros);
    f = addScaled(f, p, scaleOf(scales, groups, c));
    if (load<u8>(flags + (c >> 5 << 3)) != 0) {
      const q = entrySum(stream, from, low + c, nibbles, one_, zeros);
      f = addScaled(f, q, lowScaleOf(scales, groups, c));
    }
    place += 2;
  }
  return f;
}

/** sum + a single with its step. */
// @ts-ignore: decorator
@inline
function addSingle(
  v: v128,
  i: v128,
  c: usize,
  x: usize,
  low: usize,
  steps: usize,
  flags: usize,
  lows: usize,
  one_: v128,
  zeros: v128,
  sum: v128,
): v128 {
  const step = v128.load32_splat(steps + (c >> 5 << 2));
  if (load<u8>(flags + (c >> 5 << 3)) != 0) {
    const part = singlePart(v, i, low + c, one_, zeros);
    v128.store(lows, addTimes(v128.load(lows), part, step));
  }
  return addTimes(sum, singlePart(v, i, x + c, one_, zeros), step);
}

/** The same where groups of inputs have scales. */
// @ts-ignore: decorator
@inline
function addSingleGrouped(
  v: v128,
  i: v128,
  c: usize,
  x: usize,
  low: usize,
  scales: usize,
  groups: usize,
  flags: usize,
  one_: v128,
  zeros: v128,
  sum: v128,
): v128 {
  const p = partSum(singlePart(v, i, x + c, one_, zeros), one_);
  const f = addScaled(sum, p, scaleOf(scales, groups, c));
  if (load<u8>(flags + (c >> 5 << 3)) == 0) return f;
  const q = partSum(singlePart(v, i, low + c, one_, zeros), one_);
  return addScaled(f, q, lowScaleOf(scales, groups, c));
}

/** One token. */
function one(a: usize, first: i32, last: i32, thread: i32): void {
  const n = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), table = load<usize>(a, WEIGHTS);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = x + <usize> load<u32>(a, X_LOW);
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, 0, thread, 1);
  const unit = v128.load32_splat(steps + (segments << 2));
  const flags = flagsOf(a, 0, thread, 1), lows = scratchOf(a, thread);
  const lists = load<usize>(a, LISTS);
  for (let row = first; row < last; row += 4) {
    const chunk = load<usize>(table + <usize> row);
    const quads = <usize> load<u32>(chunk), doubles = <usize> load<u32>(chunk, 4);
    const couples = <usize> load<u32>(chunk, 8), pairs = <usize> load<u32>(chunk, 12);
    let p = i32x4.splat(0), at = chunk + 16;
    v128.store(lows, p);
    let w = chunk + headBytes(quads + doubles + couples + 2 * pairs);
    p = addStream(QUAD, w, at, quads, x, low, steps, flags, lows, n, one_, zeros, p);
    at += quads << 1;
    w += quads * 2 * UNIT;
    p = addStream(DOUBLE, w, at, doubles, x, low, steps, flags, lows, n, one_, zeros, p);
    at += doubles << 1;
    w += doubles * UNIT;
    p = addStream(COUPLE, w, at, couples, x, low, steps, flags, lows, n, one_, zeros, p);
    at += couples << 1;
    w += couples * UNIT;
    for (const end = w + pairs * UNIT; w < end; w += UNIT) {
      const c = <usize> load<u16>(at), d = <usize> load<u16>(at, 2), i = v128.load(w);
      const v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      p = addSingle(v0, v128.and(i, n), c, x, low, steps, flags, lows, one_, zeros, p);
      p = addSingle(v1, upper(i, n), d, x, low, steps, flags, lows, one_, zeros, p);
      at += 4;
    }
    let f = inUnits(p, v128.load(lows), unit);
    if (lists != 0) f = addLists(a, row, 0, thread, 1, f);
    finish(a, row, 0, f);
  }
}

/** One token, where groups of inputs have scales. */
function oneGrouped(a: usize, first: i32, last: i32, thread: i32): void {
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
    f = addStreamGrouped(QUAD, w, at, quads, x, low, scales, gs, flags, n, one_, zeros, f);
    at += quads << 1;
    w += quads * 2 * UNIT;
    f = addStreamGrouped(DOUBLE, w, at, doubles, x, low, scales, gs, flags, n, one_, zeros, f);
    at += doubles << 1;
    w += doubles * UNIT;
    f = addStreamGrouped(COUPLE, w, at, couples, x, low, scales, gs, flags, n, one_, zeros, f);
    at += couples << 1;
    w += couples * UNIT;
    for (const end = w + pairs * UNIT; w < end; w += UNIT) {
      const c = <usize> load<u16>(at), d = <usize> load<u16>(at, 2), i = v128.load(w);
      const v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      f = addSingleGrouped(v0, v128.and(i, n), c, x, low, scales, gs, flags, one_, zeros, f);
      f = addSingleGrouped(v1, upper(i, n), d, x, low, scales, gs, flags, one_, zeros, f);
      at += 4;
    }
    if (lists != 0) f = addLists(a, row, 0, thread, 1, f);
    finish(a, row, 0, f);
  }
}

/** y = W·x for rows `first` to `last`, multiples of 4, and one token. */
export function slotsAnyOne(a: usize, first: i32, last: i32, thread: i32): void {
  if (load<usize>(a, GROUP_SCALES) != 0) oneGrouped(a, first, last, thread);
  else one(a, first, last, thread);
}
