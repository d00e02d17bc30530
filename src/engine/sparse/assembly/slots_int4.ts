/**
 * Sparse int4 matrices in slots: those of `slots.ts`, with values of four bits.
 *
 * A pair of slots takes 32 bytes: 16 of indices and 16 of values, of each the first slot in low halves
 * and the second in high ones. Values become int8 by a table of sixteen, as inputs are picked.
 *
 * Eight rows lie together: for each group of columns eight scales (float16), then for each of its
 * segments the pairs of the first four rows and those of the others.
 *
 * Products with one token are in `slots_int4_one.ts`.
 */
import { LEVELS, NIBBLES, ZERO_POINTS } from "./control";
import { fourBytes, GROUP_SEGMENTS, levels, SLOTS_HEADER, slotsBytes } from "./int4";
import {
  addScaled,
  inputsOf,
  LIST_END,
  listBytes,
  listFlagged,
  LOW_UNIT,
  scalesOf,
  scratchOf,
  SEGMENTS,
  SLOTS_ONE_INT4,
  SLOTS_TWO_INT4,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_LOW,
  X_SCALES,
  X_STRIDE,
} from "./linear";
import { UNPACKED_PAIR } from "./pairs";
import { addProducts, dot, halvesAt, ones, pick, products, sumProducts, upper, WIDE_PARTS } from "./simd";
import { clear, finishSums, isLast, placeOf, SUM_ROWS, SUMS, sumsBytes } from "./sums";

/** Bytes of a segment of four rows that is unpacked: what its sums begin with, then its pairs. */
// @ts-ignore: decorator
@inline
function unpackedBytes(kind: i32): usize {
  return kind == SLOTS_ONE_INT4 ? 16 + UNPACKED_PAIR : 16 + 2 * UNPACKED_PAIR;
}

/**
 * Gives the values and the indices of a pair a byte each, as `unpackPair` of `pairs.ts` does for int8.
 *
 * @returns The sums of both values.
 */
// @ts-ignore: decorator
@inline
function unpackPair(pair: usize, to: usize, nibbles: v128, table: v128): v128 {
  const i = v128.load(pair), v = v128.load(pair, 16);
  const v0 = levels(table, v128.and(v, nibbles)), v1 = levels(table, upper(v, nibbles));
  v128.store(to, v0);
  v128.store(to, v1, 16);
  v128.store(to, v128.and(i, nibbles), 32);
  v128.store(to, upper(i, nibbles), 48);
  return i8x16.add(v0, v1);
}

/**
 * Unpacks four rows: for each group of columns 16 bytes of scales, then its segments.
 *
 * @param at The stream of eight rows.
 * @param second 1 for the last four of them, else 0.
 */
function unpack(
  kind: i32,
  at: usize,
  second: usize,
  segments: usize,
  per: usize,
  to: usize,
): void {
  const nibbles = v128.load(NIBBLES), table = v128.load(LEVELS);
  const zeros = v128.load(ZERO_POINTS), one_ = ones(), bytes = fourBytes(kind);
  let w = at, out = to;
  for (let s: usize = 0; s < segments;) {
    const end = min(s + per, segments);
    v128.store(out, halvesAt(w + (second << 3)));
    out += 16;
    w += SLOTS_HEADER;
    for (; s < end; s++) {
      const pair = w + second * bytes;
      let all = unpackPair(pair, out + 16, nibbles, table);
      if (kind == SLOTS_TWO_INT4) {
        const more = unpackPair(pair + 32, out + 16 + UNPACKED_PAIR, nibbles, table);
        all = i8x16.add(all, more);
      }
      v128.store(out, i32x4.neg(dot(all, zeros, i32x4.splat(0), one_)));
      w += 2 * bytes;
      out += unpackedBytes(kind);
    }
  }
}

/** The products of two slots, of the windows `x` and `y`, and what they begin with where parts have room for it. */
// @ts-ignore: decorator
@inline
function two(begin: v128, v0: v128, v1: v128, i0: v128, i1: v128, x: v128, y: v128): v128 {
  if (WIDE_PARTS) return addProducts(addProducts(begin, v0, pick(x, i0)), v1, pick(y, i1));
  return addProducts(products(v0, pick(x, i0)), v1, pick(y, i1));
}

/** sum + the same of two slots more, of one window. */
// @ts-ignore: decorator
@inline
function twoMore(sum: v128, v0: v128, v1: v128, i0: v128, i1: v128, x: v128): v128 {
  return addProducts(addProducts(sum, v0, pick(x, i0)), v1, pick(x, i1));
}

/** sum + what a segment begins with and its products, as {@link two} gives them, times the scale at `scale`. */
// @ts-ignore: decorator
@inline
function addPart(sum: v128, begin: v128, products: v128, scale: usize, one_: v128): v128 {
  const part = WIDE_PARTS ? products : i32x4.add(begin, sumProducts(products, one_));
  return addScaled(sum, part, v128.load32_splat(scale));
}

/** Adds a group's sum, times the scales of its weights, to what a token has at `to`. */
// @ts-ignore: decorator
@inline
function addGroup(to: usize, sum: v128, scales: v128): void {
  v128.store(to, f32x4.add(v128.load(to), f32x4.mul(sum, scales)));
}

/** Adds the products of a tile with four unpacked rows to the sums at `to`. */
// @ts-ignore: decorator
@inline
function addTile(
  kind: i32,
  x: usize,
  scales: usize,
  segments: usize,
  per: usize,
  weights: usize,
  to: usize,
): void {
  const one_ = ones();
  let w = weights, xp = x, scale = scales;
  for (let s: usize = 0; s < segments;) {
    const end = min(s + per, segments), ss = v128.load(w);
    let p0 = f32x4.splat(0), p1 = p0, p2 = p0, p3 = p0;
    w += 16;
    for (; s < end; s++) {
      const begin = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      const i0 = v128.load(w, 48), i1 = v128.load(w, 64);
      let t0 = v128.load(xp), t1 = v128.load(xp, 32), t2 = v128.load(xp, 64), t3 = v128.load(xp, 96);
      if (kind == SLOTS_ONE_INT4) {
        t0 = two(begin, v0, v1, i0, i1, t0, v128.load(xp, 16));
        t1 = two(begin, v0, v1, i0, i1, t1, v128.load(xp, 48));
        t2 = two(begin, v0, v1, i0, i1, t2, v128.load(xp, 80));
        t3 = two(begin, v0, v1, i0, i1, t3, v128.load(xp, 112));
      } else {
        // One window after the other: fewer vectors are alive at once.
        t0 = two(begin, v0, v1, i0, i1, t0, t0);
        t1 = two(begin, v0, v1, i0, i1, t1, t1);
        t2 = two(begin, v0, v1, i0, i1, t2, t2);
        t3 = two(begin, v0, v1, i0, i1, t3, t3);
        const v2 = v128.load(w, 80), v3 = v128.load(w, 96);
        const i2 = v128.load(w, 112), i3 = v128.load(w, 128);
        t0 = twoMore(t0, v2, v3, i2, i3, v128.load(xp, 16));
        t1 = twoMore(t1, v2, v3, i2, i3, v128.load(xp, 48));
        t2 = twoMore(t2, v2, v3, i2, i3, v128.load(xp, 80));
        t3 = twoMore(t3, v2, v3, i2, i3, v128.load(xp, 112));
      }
      p0 = addPart(p0, begin, t0, scale, one_);
      p1 = addPart(p1, begin, t1, scale + 4, one_);
      p2 = addPart(p2, begin, t2, scale + 8, one_);
      p3 = addPart(p3, begin, t3, scale + 12, one_);
      w += unpackedBytes(kind);
      scale += TILE_WORDS;
      xp += TILE_SEGMENT;
    }
    addGroup(to, p0, ss);
    addGroup(to + SUMS, p1, ss);
    addGroup(to + 2 * SUMS, p2, ss);
    addGroup(to + 3 * SUMS, p3, ss);
  }
}

/** Adds the lower bits of a tile of four tokens, in the segments of a list, to the sums at `to`. */
// @ts-ignore: decorator
@inline
function addLow(
  kind: i32,
  x: usize,
  scales: usize,
  flagged: usize,
  per: usize,
  weights: usize,
  to: usize,
): void {
  const one_ = ones();
  for (let list = flagged;; list += 2) {
    const s = <usize> load<u16>(list);
    if (s == LIST_END) break;
    const group = s / per;
    const w = weights + (group + 1) * 16 + s * unpackedBytes(kind);
    const unit = f32x4.mul(
      v128.load(weights + group * (16 + per * unpackedBytes(kind))),
      f32x4.splat(LOW_UNIT),
    );
    for (let t: usize = 0; t < 4; t++) {
      const xs = x + s * TILE_SEGMENT + (t << 5), y = v128.load(xs), z = v128.load(xs, 16);
      const begin = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      const i0 = v128.load(w, 48), i1 = v128.load(w, 64);
      let p = two(begin, v0, v1, i0, i1, y, kind == SLOTS_ONE_INT4 ? z : y);
      if (kind == SLOTS_TWO_INT4) {
        const v2 = v128.load(w, 80), v3 = v128.load(w, 96);
        p = twoMore(p, v2, v3, v128.load(w, 112), v128.load(w, 128), z);
      }
      const scale = scales + s * TILE_WORDS + (t << 2);
      addGroup(to + t * SUMS, addPart(f32x4.splat(0), begin, p, scale, one_), unit);
    }
  }
}

/** Each in a function of its own: engines compile small functions better. */
function tileOfOne(x: usize, scales: usize, segments: usize, per: usize, w: usize, to: usize): void {
  addTile(SLOTS_ONE_INT4, x, scales, segments, per, w, to);
}
function tileOfTwo(x: usize, scales: usize, segments: usize, per: usize, w: usize, to: usize): void {
  addTile(SLOTS_TWO_INT4, x, scales, segments, per, w, to);
}
function lowOfOne(x: usize, scales: usize, flagged: usize, per: usize, w: usize, to: usize): void {
  addLow(SLOTS_ONE_INT4, x, scales, flagged, per, w, to);
}
function lowOfTwo(x: usize, scales: usize, flagged: usize, per: usize, w: usize, to: usize): void {
  addLow(SLOTS_TWO_INT4, x, scales, flagged, per, w, to);
}

/** y = W·x for rows `first` to `last`, multiples of 16, and two tokens or more. */
export function slotsInt4Many(
  kind: i32,
  a: usize,
  first: i32,
  last: i32,
  tokens: i32,
  thread: i32,
): void {
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const size = slotsBytes(segments, per, fourBytes(kind));
  const sums = scratchOf(a, thread), room = sums + sumsBytes(tokens), lists = room + sumsBytes(tokens);
  const weights = listFlagged(a, tokens, thread, lists);
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const at = load<usize>(a, WEIGHTS) + (<usize> row >> 3) * size;
    unpack(kind, at, (row & 4) != 0 ? 1 : 0, segments, per, weights);
    if (placeOf(row) == 0) clear(sums, tokens);
    allTokens(kind, a, tokens, weights, lists, sums + placeOf(row));
    if (isLast(row)) finishSums(a, row + 4 - SUM_ROWS, tokens, sums, room);
  }
}

/** Adds the products of four rows whose weights are unpacked, with all tokens. */
function allTokens(
  kind: i32,
  a: usize,
  tokens: i32,
  weights: usize,
  lists: usize,
  sums: usize,
): void {
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const stride = <usize> load<u32>(a, X_STRIDE), low = <usize> load<u32>(a, X_LOW);
  let flagged = lists, to = sums;
  for (let token = 0; token < tokens; token += 4) {
    const x = inputsOf(load<usize>(a, X), stride, token);
    const scales = scalesOf(load<usize>(a, X_SCALES), segments, token);
    if (kind == SLOTS_ONE_INT4) {
      tileOfOne(x, scales, segments, per, weights, to);
      lowOfOne(x + low, scales, flagged, per, weights, to);
    } else {
      tileOfTwo(x, scales, segments, per, weights, to);
      lowOfTwo(x + low, scales, flagged, per, weights, to);
    }
    flagged += listBytes(segments);
    to += 4 * SUMS;
  }
}
