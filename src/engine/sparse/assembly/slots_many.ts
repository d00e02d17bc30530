/**
 * Sparse int8 matrices in slots, times several tokens.
 *
 * Four rows are unpacked once, and meet all tokens before the next four are read.
 */
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  GROUP_SCALES,
  LIST_END,
  listBytes,
  listFlagged,
  scratchOf,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  TILE_SEGMENT,
  WEIGHTS,
  X,
  X_LOW,
  X_STEPS,
  X_STRIDE,
} from "./linear";
import { secondBeginning, twoSlots, unpackPair, unpackTwoPairs } from "./pairs";
import { addTimes, LOADS_MATTER, ones, WIDE_PARTS } from "./simd";
import {
  addUnpacked,
  finishTile,
  pairBytes,
  segmentBytes,
  SUMS_LOW,
  unpackedBytes,
} from "./slots";
import { allTokensGrouped } from "./slots_grouped";

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
    if (kind == SLOTS_ONE) unpackPair(w, out, nibbles, one_, zeros);
    else unpackTwoPairs(w, out, nibbles, one_, zeros);
    w += segmentBytes(kind);
  }
}

/** A number of four, in all lanes. */
// @ts-ignore: decorator
@inline
function lane(four: v128, i: i32): v128 {
  if (i == 0) return i32x4.shuffle(four, four, 0, 0, 0, 0);
  if (i == 1) return i32x4.shuffle(four, four, 1, 1, 1, 1);
  if (i == 2) return i32x4.shuffle(four, four, 2, 2, 2, 2);
  return i32x4.shuffle(four, four, 3, 3, 3, 3);
}

/** Bytes in which sums are handed on, in a thread's room: of up to eight tokens, and of their lower bits. */
const SUMS_BYTES: usize = 256;

/** The sums of a tile of four tokens at `x` with four unpacked rows. */
// @ts-ignore: decorator
@inline
function sumFour(kind: i32, x: usize, steps: usize, segments: usize, weights: usize, to: usize): void {
  let f0 = i32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
  let w = weights, xp = x, step = steps;
  for (const end = x + segments * TILE_SEGMENT; xp < end; xp += TILE_SEGMENT) {
    const s = v128.load(step), s0 = lane(s, 0), s1 = lane(s, 1), s2 = lane(s, 2), s3 = lane(s, 3);
    const begin = v128.load(w);
    const v0 = v128.load(w, 16), v1 = v128.load(w, 32), i0 = v128.load(w, 48), i1 = v128.load(w, 64);
    let p0 = v128.load(xp), p1 = v128.load(xp, 32), p2 = v128.load(xp, 64), p3 = v128.load(xp, 96);
    if (kind == SLOTS_ONE) {
      p0 = twoSlots(begin, v0, v1, i0, i1, p0, v128.load(xp, 16));
      p1 = twoSlots(begin, v0, v1, i0, i1, p1, v128.load(xp, 48));
      p2 = twoSlots(begin, v0, v1, i0, i1, p2, v128.load(xp, 80));
      p3 = twoSlots(begin, v0, v1, i0, i1, p3, v128.load(xp, 112));
    } else {
      // One window after the other: fewer vectors are alive at once.
      p0 = twoSlots(begin, v0, v1, i0, i1, p0, p0);
      p1 = twoSlots(begin, v0, v1, i0, i1, p1, p1);
      p2 = twoSlots(begin, v0, v1, i0, i1, p2, p2);
      p3 = twoSlots(begin, v0, v1, i0, i1, p3, p3);
      if (!WIDE_PARTS) {
        f0 = addTimes(f0, p0, s0);
        f1 = addTimes(f1, p1, s1);
        f2 = addTimes(f2, p2, s2);
        f3 = addTimes(f3, p3, s3);
      }
      const v2 = v128.load(w, 96), v3 = v128.load(w, 112);
      const i2 = v128.load(w, 128), i3 = v128.load(w, 144);
      let z = v128.load(xp, 16);
      p0 = twoSlots(secondBeginning(p0, w), v2, v3, i2, i3, z, z);
      z = v128.load(xp, 48);
      p1 = twoSlots(secondBeginning(p1, w), v2, v3, i2, i3, z, z);
      z = v128.load(xp, 80);
      p2 = twoSlots(secondBeginning(p2, w), v2, v3, i2, i3, z, z);
      z = v128.load(xp, 112);
      p3 = twoSlots(secondBeginning(p3, w), v2, v3, i2, i3, z, z);
    }
    f0 = addTimes(f0, p0, s0);
    f1 = addTimes(f1, p1, s1);
    f2 = addTimes(f2, p2, s2);
    f3 = addTimes(f3, p3, s3);
    w += unpackedBytes(kind);
    step += 16;
  }
  v128.store(to, f0);
  v128.store(to, f1, 16);
  v128.store(to, f2, 32);
  v128.store(to, f3, 48);
}

/** sum + two slots of the windows `x` and `y` times a step in memory. */
// @ts-ignore: decorator
@inline
function addTwo(
  sum: v128,
  begin: v128,
  v0: v128,
  v1: v128,
  i0: v128,
  i1: v128,
  x: v128,
  y: v128,
  step: usize,
): v128 {
  return addTimes(sum, twoSlots(begin, v0, v1, i0, i1, x, y), v128.load32_splat(step));
}

/**
 * The same of two tiles: weights are loaded for eight tokens, which is a seventh faster than twice for four.
 * Not for parts of 32 bits, of which eight more would have to be kept between the windows of a segment.
 */
// @ts-ignore: decorator
@inline
function sumEight(
  kind: i32,
  x: usize,
  second: usize,
  steps: usize,
  secondSteps: usize,
  segments: usize,
  weights: usize,
  to: usize,
): void {
  let f0 = i32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, f4 = f0, f5 = f0, f6 = f0, f7 = f0;
  let w = weights, xp = x, yp = second, s = steps, t = secondSteps;
  for (const end = x + segments * TILE_SEGMENT; xp < end; xp += TILE_SEGMENT) {
    const b0 = v128.load(w);
    const v0 = v128.load(w, 16), v1 = v128.load(w, 32), i0 = v128.load(w, 48), i1 = v128.load(w, 64);
    const other: usize = kind == SLOTS_ONE ? 16 : 0;
    f0 = addTwo(f0, b0, v0, v1, i0, i1, v128.load(xp), v128.load(xp + other), s);
    f1 = addTwo(f1, b0, v0, v1, i0, i1, v128.load(xp, 32), v128.load(xp + other, 32), s + 4);
    f2 = addTwo(f2, b0, v0, v1, i0, i1, v128.load(xp, 64), v128.load(xp + other, 64), s + 8);
    f3 = addTwo(f3, b0, v0, v1, i0, i1, v128.load(xp, 96), v128.load(xp + other, 96), s + 12);
    f4 = addTwo(f4, b0, v0, v1, i0, i1, v128.load(yp), v128.load(yp + other), t);
    f5 = addTwo(f5, b0, v0, v1, i0, i1, v128.load(yp, 32), v128.load(yp + other, 32), t + 4);
    f6 = addTwo(f6, b0, v0, v1, i0, i1, v128.load(yp, 64), v128.load(yp + other, 64), t + 8);
    f7 = addTwo(f7, b0, v0, v1, i0, i1, v128.load(yp, 96), v128.load(yp + other, 96), t + 12);
    if (kind == SLOTS_TWO) {
      const b1 = v128.load(w, 80), v2 = v128.load(w, 96), v3 = v128.load(w, 112);
      const i2 = v128.load(w, 128), i3 = v128.load(w, 144);
      f0 = addTwo(f0, b1, v2, v3, i2, i3, v128.load(xp, 16), v128.load(xp, 16), s);
      f1 = addTwo(f1, b1, v2, v3, i2, i3, v128.load(xp, 48), v128.load(xp, 48), s + 4);
      f2 = addTwo(f2, b1, v2, v3, i2, i3, v128.load(xp, 80), v128.load(xp, 80), s + 8);
      f3 = addTwo(f3, b1, v2, v3, i2, i3, v128.load(xp, 112), v128.load(xp, 112), s + 12);
      f4 = addTwo(f4, b1, v2, v3, i2, i3, v128.load(yp, 16), v128.load(yp, 16), t);
      f5 = addTwo(f5, b1, v2, v3, i2, i3, v128.load(yp, 48), v128.load(yp, 48), t + 4);
      f6 = addTwo(f6, b1, v2, v3, i2, i3, v128.load(yp, 80), v128.load(yp, 80), t + 8);
      f7 = addTwo(f7, b1, v2, v3, i2, i3, v128.load(yp, 112), v128.load(yp, 112), t + 12);
    }
    w += unpackedBytes(kind);
    yp += TILE_SEGMENT;
    s += 16;
    t += 16;
  }
  v128.store(to, f0);
  v128.store(to, f1, 16);
  v128.store(to, f2, 32);
  v128.store(to, f3, 48);
  v128.store(to, f4, 64);
  v128.store(to, f5, 80);
  v128.store(to, f6, 96);
  v128.store(to, f7, 112);
}

/** The sums of lower bits of a tile of four tokens, in the segments of a list. */
// @ts-ignore: decorator
@inline
function sumLow(kind: i32, x: usize, steps: usize, flagged: usize, weights: usize, to: usize): void {
  let f0 = i32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
  for (let list = flagged;; list += 2) {
    const s = <usize> load<u16>(list);
    if (s == LIST_END) break;
    const w = weights + s * unpackedBytes(kind), xs = x + s * TILE_SEGMENT;
    const step = v128.load(steps + (s << 4));
    f0 = addUnpacked(kind, w, xs, f0, lane(step, 0));
    f1 = addUnpacked(kind, w, xs + 32, f1, lane(step, 1));
    f2 = addUnpacked(kind, w, xs + 64, f2, lane(step, 2));
    f3 = addUnpacked(kind, w, xs + 96, f3, lane(step, 3));
  }
  v128.store(to, f0);
  v128.store(to, f1, 16);
  v128.store(to, f2, 32);
  v128.store(to, f3, 48);
}

/** Each in a function of its own: engines compile small functions better. */
function sumFourOfOne(x: usize, steps: usize, segments: usize, w: usize, to: usize): void {
  sumFour(SLOTS_ONE, x, steps, segments, w, to);
}
function sumFourOfTwo(x: usize, steps: usize, segments: usize, w: usize, to: usize): void {
  sumFour(SLOTS_TWO, x, steps, segments, w, to);
}
function sumEightOfOne(
  x: usize,
  y: usize,
  steps: usize,
  more: usize,
  segments: usize,
  w: usize,
  to: usize,
): void {
  sumEight(SLOTS_ONE, x, y, steps, more, segments, w, to);
}
function sumEightOfTwo(
  x: usize,
  y: usize,
  steps: usize,
  more: usize,
  segments: usize,
  w: usize,
  to: usize,
): void {
  sumEight(SLOTS_TWO, x, y, steps, more, segments, w, to);
}
function sumLowOfOne(x: usize, steps: usize, flagged: usize, w: usize, to: usize): void {
  sumLow(SLOTS_ONE, x, steps, flagged, w, to);
}
function sumLowOfTwo(x: usize, steps: usize, flagged: usize, w: usize, to: usize): void {
  sumLow(SLOTS_TWO, x, steps, flagged, w, to);
}

/** Four rows whose weights are unpacked, and all tokens. */
function allTokens(
  kind: i32,
  a: usize,
  row: i32,
  tokens: i32,
  weights: usize,
  lists: usize,
  sums: usize,
): void {
  const segments = load<usize>(a, SEGMENTS), tile = <usize> load<u32>(a, X_STRIDE) << 2;
  const low = <usize> load<u32>(a, X_LOW), stepBytes = (segments + 1) << 4;
  let x = load<usize>(a, X), steps = load<usize>(a, X_STEPS), flagged = lists;
  for (let token = 0; token < tokens;) {
    const tiles = LOADS_MATTER && tokens - token > 4 ? 2 : 1;
    if (tiles == 2) {
      if (kind == SLOTS_ONE) {
        sumEightOfOne(x, x + tile, steps, steps + stepBytes, segments, weights, sums);
      } else sumEightOfTwo(x, x + tile, steps, steps + stepBytes, segments, weights, sums);
    } else if (kind == SLOTS_ONE) sumFourOfOne(x, steps, segments, weights, sums);
    else sumFourOfTwo(x, steps, segments, weights, sums);
    for (let i: usize = 0; i < <usize> tiles; i++) {
      const at = sums + (i << 6);
      if (kind == SLOTS_ONE) sumLowOfOne(x + low, steps, flagged, weights, at + SUMS_LOW);
      else sumLowOfTwo(x + low, steps, flagged, weights, at + SUMS_LOW);
      finishTile(a, row, token, tokens, at, steps + stepBytes - 16);
      x += tile;
      steps += stepBytes;
      flagged += listBytes(segments);
      token += 4;
    }
  }
}

/** y = W·x for rows `first` to `last`, multiples of 8, and two tokens or more. */
export function slotsMany(
  kind: i32,
  a: usize,
  first: i32,
  last: i32,
  tokens: i32,
  thread: i32,
): void {
  const isGrouped = load<usize>(a, GROUP_SCALES) != 0;
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const sums = scratchOf(a, thread), lists = sums + SUMS_BYTES;
  const weights = listFlagged(a, tokens, thread, lists);
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const at = load<usize>(a, WEIGHTS) + (<usize> row >> 3) * size;
    unpack(kind, at, (row & 4) != 0, segments, weights);
    if (isGrouped) allTokensGrouped(kind, a, row, tokens, weights, lists);
    else allTokens(kind, a, row, tokens, weights, lists, sums);
  }
}
