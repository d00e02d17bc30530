/**
 * Sparse int8 matrices in slots.
 *
 * A slot holds 4 weights of each of 4 rows, all from one window of 16 inputs, as 16 values and 16
 * indices of four bits: `pick` fetches the inputs, `dot` multiplies and adds, and four rows advance at
 * once. Two slots share the 16 bytes of their indices (low halves, high halves), so a pair of slots
 * takes 48 bytes: indices, values, values. With ONE slot a window a pair serves the two windows of a
 * segment, with TWO a pair serves one window.
 *
 * Eight rows lie together, as one stream: for each segment the pairs of the first four rows, then those
 * of the others. What inputs' zero, 64, adds to a product is not stored but computed beside it: that takes
 * instructions, but decoding waits for bytes, of which sums would be 7 to 14 of 100. Weights that a window
 * has no slot for are in lists beside (`lists.ts`).
 */
import { NIBBLES, ZERO_POINTS } from "./control";
import { addLists, finishFourWithLists } from "./lists";
import {
  addScaled,
  finish,
  flagsOf,
  GROUP_SCALES,
  LIST_END,
  listBytes,
  listFlagged,
  LISTS,
  LOW_UNIT,
  scratchOf,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
  X_STRIDE,
} from "./linear";
import {
  addCenteredPair,
  addPair,
  addUnpackedPair,
  addZeros,
  dotTwo,
  PAIR,
  unpackPair,
  UNPACKED_PAIR,
} from "./pairs";
import { ones } from "./simd";

/** Bytes of a segment's pairs of four rows. */
// @ts-ignore: decorator
@inline
export function pairBytes(kind: i32): usize {
  return kind == SLOTS_ONE ? PAIR : 2 * PAIR;
}

/** Bytes of a segment of eight rows. */
// @ts-ignore: decorator
@inline
export function segmentBytes(kind: i32): usize {
  return 2 * pairBytes(kind);
}

/** A segment of four rows, with inputs of which 64 is the zero. */
// @ts-ignore: decorator
@inline
export function centeredSegment(
  kind: i32,
  w: usize,
  x: usize,
  nibbles: v128,
  one_: v128,
  zeros: v128,
): v128 {
  const a = v128.load(x), b = v128.load(x, 16), zero = i32x4.splat(0);
  if (kind == SLOTS_ONE) return addCenteredPair(w, a, b, zero, nibbles, one_, zeros);
  const first = addCenteredPair(w, a, a, zero, nibbles, one_, zeros);
  return addCenteredPair(w + PAIR, b, b, first, nibbles, one_, zeros);
}

/** The same with inputs of which 0 is the zero. */
// @ts-ignore: decorator
@inline
export function plainSegment(kind: i32, w: usize, x: usize, nibbles: v128, one_: v128): v128 {
  const a = v128.load(x), b = v128.load(x, 16), zero = i32x4.splat(0);
  if (kind == SLOTS_ONE) return addPair(w, a, b, zero, nibbles, one_);
  return addPair(w + PAIR, b, b, addPair(w, a, a, zero, nibbles, one_), nibbles, one_);
}

/** A token's scale of a segment, times those of the rows' groups where they have any. */
// @ts-ignore: decorator
@inline
function scaleOf(at: usize, groups: usize, isGrouped: bool): v128 {
  const scale = v128.load32_splat(at);
  return isGrouped ? f32x4.mul(scale, v128.load(groups)) : scale;
}

/** The same for lower seven bits. */
// @ts-ignore: decorator
@inline
function lowScaleOf(at: usize, groups: usize, isGrouped: bool): v128 {
  const scale = f32x4.mul(v128.load32_splat(at), f32x4.splat(LOW_UNIT));
  return isGrouped ? f32x4.mul(scale, v128.load(groups)) : scale;
}

/** One token. */
// @ts-ignore: decorator
@inline
function one(
  a: usize,
  first: i32,
  last: i32,
  thread: i32,
  kind: i32,
  isGrouped: bool,
): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const flags = flagsOf(a, 0, thread, 1);
  const groupScales = load<usize>(a, GROUP_SCALES), lists = load<usize>(a, LISTS);
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < last; row += 8) {
    const at = w;
    const g0 = groupScales + (<usize> (row >> 2) * segments << 4), g1 = g0 + (segments << 4);
    let xp = x, f = f32x4.splat(0), g = f;
    for (let s: usize = 0; s < segments; s++) {
      const p = centeredSegment(kind, w, xp, nibbles, one_, zeros);
      const q = centeredSegment(kind, w + pairBytes(kind), xp, nibbles, one_, zeros);
      f = addScaled(f, p, scaleOf(scales + (s << 2), g0 + (s << 4), isGrouped));
      g = addScaled(g, q, scaleOf(scales + (s << 2), g1 + (s << 4), isGrouped));
      w += segmentBytes(kind);
      xp += 32;
    }
    for (let s: usize = 0; s < segments; s++) {
      if (load<u8>(flags + (s << 3)) == 0) continue;
      const v = at + s * segmentBytes(kind), xs = x + low + (s << 5);
      const p = plainSegment(kind, v, xs, nibbles, one_);
      const q = plainSegment(kind, v + pairBytes(kind), xs, nibbles, one_);
      f = addScaled(f, p, lowScaleOf(scales + (s << 2), g0 + (s << 4), isGrouped));
      g = addScaled(g, q, lowScaleOf(scales + (s << 2), g1 + (s << 4), isGrouped));
    }
    if (lists != 0) {
      f = addLists(a, row, 0, thread, 1, f);
      g = addLists(a, row + 4, 0, thread, 1, g);
    }
    finish(a, row, 0, f);
    finish(a, row + 4, 0, g);
  }
}

/** Bytes of a segment of four rows that is unpacked: what its sums begin with, then its pairs. */
// @ts-ignore: decorator
@inline
function unpackedBytes(kind: i32): usize {
  return kind == SLOTS_ONE ? 16 + UNPACKED_PAIR : 16 + 2 * UNPACKED_PAIR;
}

/**
 * Unpacks four rows: for many tokens it is done once, and the loop over their segments has only loads.
 *
 * @param at The stream of eight rows.
 * @param second Whether it is the last four of them.
 */
function unpack(kind: i32, at: usize, second: bool, segments: usize, to: usize): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  let w = at + (second ? pairBytes(kind) : 0), out = to;
  for (const end = to + segments * unpackedBytes(kind); out < end; out += unpackedBytes(kind)) {
    let sum = addZeros(w, i32x4.splat(0), one_, zeros);
    unpackPair(w, out + 16, nibbles);
    if (kind == SLOTS_TWO) {
      sum = addZeros(w + PAIR, sum, one_, zeros);
      unpackPair(w + PAIR, out + 16 + UNPACKED_PAIR, nibbles);
    }
    v128.store(out, i32x4.neg(sum));
    w += segmentBytes(kind);
  }
}

/** sum + an unpacked segment of four rows. */
// @ts-ignore: decorator
@inline
function addUnpacked(kind: i32, w: usize, x: usize, sum: v128, one_: v128): v128 {
  const y = v128.load(x), z = v128.load(x, 16);
  if (kind == SLOTS_ONE) return addUnpackedPair(w + 16, y, z, sum, one_);
  const first = addUnpackedPair(w + 16, y, y, sum, one_);
  return addUnpackedPair(w + 16 + UNPACKED_PAIR, z, z, first, one_);
}

/** Up to four tokens from `token` on, and four rows whose weights are unpacked. */
// @ts-ignore: decorator
@inline
function four(
  a: usize,
  row: i32,
  token: i32,
  tokens: i32,
  weights: usize,
  flagged: usize,
  kind: i32,
  isGrouped: bool,
): void {
  const one_ = ones();
  const segments = load<usize>(a, SEGMENTS);
  const stride = <usize> load<u32>(a, X_STRIDE), low = <usize> load<u32>(a, X_LOW);
  const x = load<usize>(a, X) + <usize> token * stride;
  const next = segments << 2;
  const scales = load<usize>(a, X_SCALES) + <usize> token * next;
  const groups = load<usize>(a, GROUP_SCALES) + (<usize> (row >> 2) * segments << 4);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
  let x0 = x, x1 = x0 + stride, x2 = x1 + stride, x3 = x2 + stride;
  let t0 = scales, t1 = t0 + next, t2 = t1 + next, t3 = t2 + next;
  let w = weights, group = groups;
  for (const end = scales + next; t0 < end; t0 += 4) {
    const start = v128.load(w);
    const v0 = v128.load(w, 16), v1 = v128.load(w, 32), i0 = v128.load(w, 48), i1 = v128.load(w, 64);
    let p0 = v128.load(x0), p1 = v128.load(x1), p2 = v128.load(x2), p3 = v128.load(x3);
    if (kind == SLOTS_ONE) {
      p0 = dotTwo(v0, v1, i0, i1, p0, v128.load(x0, 16), start, one_);
      p1 = dotTwo(v0, v1, i0, i1, p1, v128.load(x1, 16), start, one_);
      p2 = dotTwo(v0, v1, i0, i1, p2, v128.load(x2, 16), start, one_);
      p3 = dotTwo(v0, v1, i0, i1, p3, v128.load(x3, 16), start, one_);
    } else {
      p0 = dotTwo(v0, v1, i0, i1, p0, p0, start, one_);
      p1 = dotTwo(v0, v1, i0, i1, p1, p1, start, one_);
      p2 = dotTwo(v0, v1, i0, i1, p2, p2, start, one_);
      p3 = dotTwo(v0, v1, i0, i1, p3, p3, start, one_);
      const v2 = v128.load(w, 80), v3 = v128.load(w, 96);
      const i2 = v128.load(w, 112), i3 = v128.load(w, 128);
      let z = v128.load(x0, 16);
      p0 = dotTwo(v2, v3, i2, i3, z, z, p0, one_);
      z = v128.load(x1, 16);
      p1 = dotTwo(v2, v3, i2, i3, z, z, p1, one_);
      z = v128.load(x2, 16);
      p2 = dotTwo(v2, v3, i2, i3, z, z, p2, one_);
      z = v128.load(x3, 16);
      p3 = dotTwo(v2, v3, i2, i3, z, z, p3, one_);
    }
    f0 = addScaled(f0, p0, scaleOf(t0, group, isGrouped));
    f1 = addScaled(f1, p1, scaleOf(t1, group, isGrouped));
    f2 = addScaled(f2, p2, scaleOf(t2, group, isGrouped));
    f3 = addScaled(f3, p3, scaleOf(t3, group, isGrouped));
    w += unpackedBytes(kind);
    group += 16;
    x0 += 32;
    x1 += 32;
    x2 += 32;
    x3 += 32;
    t1 += 4;
    t2 += 4;
    t3 += 4;
  }
  const zero = i32x4.splat(0);
  for (let list = flagged;; list += 2) {
    const s = <usize> load<u16>(list);
    if (s == LIST_END) break;
    const w = weights + s * unpackedBytes(kind), xs = x + low + (s << 5);
    const scale = scales + (s << 2), group = groups + (s << 4);
    const s0 = lowScaleOf(scale, group, isGrouped), s1 = lowScaleOf(scale + next, group, isGrouped);
    const s2 = lowScaleOf(scale + 2 * next, group, isGrouped);
    const s3 = lowScaleOf(scale + 3 * next, group, isGrouped);
    f0 = addScaled(f0, addUnpacked(kind, w, xs, zero, one_), s0);
    f1 = addScaled(f1, addUnpacked(kind, w, xs + stride, zero, one_), s1);
    f2 = addScaled(f2, addUnpacked(kind, w, xs + 2 * stride, zero, one_), s2);
    f3 = addScaled(f3, addUnpacked(kind, w, xs + 3 * stride, zero, one_), s3);
  }
  finishFourWithLists(a, row, token, tokens, f0, f1, f2, f3);
}

/** Each in a function of its own: engines compile small functions better. */
function fourOfOne(a: usize, row: i32, token: i32, tokens: i32, w: usize, flagged: usize): void {
  four(a, row, token, tokens, w, flagged, SLOTS_ONE, false);
}
function fourOfTwo(a: usize, row: i32, token: i32, tokens: i32, w: usize, flagged: usize): void {
  four(a, row, token, tokens, w, flagged, SLOTS_TWO, false);
}
function fourOfOneGrouped(a: usize, row: i32, token: i32, tokens: i32, w: usize, flagged: usize): void {
  four(a, row, token, tokens, w, flagged, SLOTS_ONE, true);
}
function fourOfTwoGrouped(a: usize, row: i32, token: i32, tokens: i32, w: usize, flagged: usize): void {
  four(a, row, token, tokens, w, flagged, SLOTS_TWO, true);
}
function oneOfOne(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ONE, false);
}
function oneOfTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_TWO, false);
}
function oneOfOneGrouped(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ONE, true);
}
function oneOfTwoGrouped(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_TWO, true);
}

/** y = W·x for rows `first` to `last`, multiples of 8. */
export function slots(kind: i32, a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const isGrouped = load<usize>(a, GROUP_SCALES) != 0;
  if (tokens == 1) {
    if (kind == SLOTS_ONE) {
      if (isGrouped) oneOfOneGrouped(a, first, last, thread);
      else oneOfOne(a, first, last, thread);
    } else if (isGrouped) oneOfTwoGrouped(a, first, last, thread);
    else oneOfTwo(a, first, last, thread);
    return;
  }
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const lists = scratchOf(a, thread), weights = listFlagged(a, tokens, lists);
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const at = load<usize>(a, WEIGHTS) + (<usize> row >> 3) * size;
    unpack(kind, at, (row & 4) != 0, segments, weights);
    let flagged = lists;
    for (let token = 0; token < tokens; token += 4) {
      if (kind == SLOTS_ONE) {
        if (isGrouped) fourOfOneGrouped(a, row, token, tokens, weights, flagged);
        else fourOfOne(a, row, token, tokens, weights, flagged);
      } else if (isGrouped) fourOfTwoGrouped(a, row, token, tokens, weights, flagged);
      else fourOfTwo(a, row, token, tokens, weights, flagged);
      flagged += listBytes(segments);
    }
  }
}
