/**
 * Sparse int8 matrices in slots, where groups of a row's inputs have scales: products of segments are summed
 * in float32.
 */
import { LISTED_ROWS, timesLists } from "./beside";
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  addScaled,
  GROUP_SCALES,
  inputsOf,
  LIST_END,
  finish,
  listBytes,
  listFlaggedOfOne,
  LOW_UNIT,
  scalesOf,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
  X_STRIDE,
} from "./linear";
import { ones } from "./simd";
import { pairBytes, segmentBytes, segmentSum, unpackedBytes, unpackedSum } from "./slots";
import { storeSums, SUMS } from "./sums";

/** A token's scale of a segment times those of the rows' groups. */
// @ts-ignore: decorator
@inline
function scaleOf(at: usize, groups: usize): v128 {
  return f32x4.mul(v128.load32_splat(at), v128.load(groups));
}

/** The same for lower seven bits. */
// @ts-ignore: decorator
@inline
function lowScaleOf(at: usize, groups: usize): v128 {
  const scale = f32x4.mul(v128.load32_splat(at), f32x4.splat(LOW_UNIT));
  return f32x4.mul(scale, v128.load(groups));
}

/** One token. */
// @ts-ignore: decorator
@inline
function one(a: usize, first: i32, last: i32, thread: i32, kind: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const flagged = listFlaggedOfOne(a, thread), listed = (flagged + listBytes(segments) + 15) & ~15;
  const groupScales = load<usize>(a, GROUP_SCALES);
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < last; row += 8) {
    const at = w, done = row - first & (LISTED_ROWS - 1);
    if (done == 0) timesLists(a, row, min(LISTED_ROWS, last - row), thread, listed);
    const g0 = groupScales + (<usize> (row >> 2) * segments << 4), g1 = g0 + (segments << 4);
    let xp = x, f = f32x4.splat(0), g = f;
    for (let s: usize = 0; s < segments; s++) {
      const y = v128.load(xp), z = v128.load(xp, 16);
      const p = segmentSum(kind, w, y, z, nibbles, one_, zeros);
      const q = segmentSum(kind, w + pairBytes(kind), y, z, nibbles, one_, zeros);
      f = addScaled(f, p, scaleOf(scales + (s << 2), g0 + (s << 4)));
      g = addScaled(g, q, scaleOf(scales + (s << 2), g1 + (s << 4)));
      w += segmentBytes(kind);
      xp += 32;
    }
    for (let entry = flagged;; entry += 2) {
      const s = <usize> load<u16>(entry);
      if (s == LIST_END) break;
      const v = at + s * segmentBytes(kind), xs = x + low + (s << 5);
      const y = v128.load(xs), z = v128.load(xs, 16);
      const p = segmentSum(kind, v, y, z, nibbles, one_, zeros);
      const q = segmentSum(kind, v + pairBytes(kind), y, z, nibbles, one_, zeros);
      f = addScaled(f, p, lowScaleOf(scales + (s << 2), g0 + (s << 4)));
      g = addScaled(g, q, lowScaleOf(scales + (s << 2), g1 + (s << 4)));
    }
    const list = listed + (<usize> done << 2);
    finish(a, row, 0, f32x4.add(f, v128.load(list)));
    finish(a, row + 4, 0, f32x4.add(g, v128.load(list, 16)));
  }
}

/** Four tokens from `token` on, and four rows whose weights are unpacked: their sums. */
// @ts-ignore: decorator
@inline
function four(
  a: usize,
  row: i32,
  token: i32,
  weights: usize,
  flagged: usize,
  kind: i32,
  to: usize,
): void {
  const one_ = ones(), segments = load<usize>(a, SEGMENTS);
  const x = inputsOf(load<usize>(a, X), load<u32>(a, X_STRIDE), token);
  const scales = scalesOf(load<usize>(a, X_SCALES), segments, token);
  const groups = load<usize>(a, GROUP_SCALES) + (<usize> (row >> 2) * segments << 4);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
  let w = weights, xp = x, scale = scales, group = groups;
  for (const end = scales + segments * TILE_WORDS; scale < end; scale += TILE_WORDS) {
    f0 = addScaled(f0, unpackedSum(kind, w, xp, one_), scaleOf(scale, group));
    f1 = addScaled(f1, unpackedSum(kind, w, xp + 32, one_), scaleOf(scale + 4, group));
    f2 = addScaled(f2, unpackedSum(kind, w, xp + 64, one_), scaleOf(scale + 8, group));
    f3 = addScaled(f3, unpackedSum(kind, w, xp + 96, one_), scaleOf(scale + 12, group));
    w += unpackedBytes(kind);
    xp += TILE_SEGMENT;
    group += 16;
  }
  for (let list = flagged;; list += 2) {
    const s = <usize> load<u16>(list);
    if (s == LIST_END) break;
    const w = weights + s * unpackedBytes(kind);
    const xs = x + <usize> load<u32>(a, X_LOW) + s * TILE_SEGMENT;
    const scale = scales + s * TILE_WORDS, group = groups + (s << 4);
    f0 = addScaled(f0, unpackedSum(kind, w, xs, one_), lowScaleOf(scale, group));
    f1 = addScaled(f1, unpackedSum(kind, w, xs + 32, one_), lowScaleOf(scale + 4, group));
    f2 = addScaled(f2, unpackedSum(kind, w, xs + 64, one_), lowScaleOf(scale + 8, group));
    f3 = addScaled(f3, unpackedSum(kind, w, xs + 96, one_), lowScaleOf(scale + 12, group));
  }
  storeSums(false, to, f0, f1, f2, f3, f0, f0, f0, f0);
}

/** Each in a function of its own: engines compile small functions better. */
function oneOfOne(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ONE);
}
function oneOfTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_TWO);
}
function fourOfOne(
  a: usize,
  row: i32,
  token: i32,
  w: usize,
  flagged: usize,
  to: usize,
): void {
  four(a, row, token, w, flagged, SLOTS_ONE, to);
}
function fourOfTwo(
  a: usize,
  row: i32,
  token: i32,
  w: usize,
  flagged: usize,
  to: usize,
): void {
  four(a, row, token, w, flagged, SLOTS_TWO, to);
}

/** y = W·x for rows `first` to `last`, multiples of 8, and one token. */
export function slotsOneGrouped(kind: i32, a: usize, first: i32, last: i32, thread: i32): void {
  if (kind == SLOTS_ONE) oneOfOne(a, first, last, thread);
  else oneOfTwo(a, first, last, thread);
}

/** The sums of four rows whose weights are unpacked, with all tokens. */
export function allTokensGrouped(
  kind: i32,
  a: usize,
  row: i32,
  tokens: i32,
  weights: usize,
  lists: usize,
  sums: usize,
): void {
  let flagged = lists, to = sums;
  for (let token = 0; token < tokens; token += 4) {
    if (kind == SLOTS_ONE) fourOfOne(a, row, token, weights, flagged, to);
    else fourOfTwo(a, row, token, weights, flagged, to);
    flagged += listBytes(load<usize>(a, SEGMENTS));
    to += 4 * SUMS;
  }
}
