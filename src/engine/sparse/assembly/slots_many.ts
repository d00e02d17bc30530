/**
 * Sparse int8 matrices in slots, times several tokens.
 *
 * Four rows are unpacked once, and meet all tokens before the next four are read.
 */
import { fetch } from "./ahead";
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  GROUP_SCALES,
  inputsOf,
  listFlagged,
  scratchOf,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  stepsOf,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_STEPS,
  X_STRIDE,
} from "./linear";
import { addOutliers, listOutliers } from "./outliers";
import { addSlots, secondBeginning, twoSlots, unpackPair, unpackTwoPairs } from "./pairs";
import { addTimes, lane, LOADS_MATTER, ones, WIDE_PARTS } from "./simd";
import { pairBytes, segmentBytes, unpackedBytes } from "./slots";
import { allTokensGrouped } from "./slots_grouped";
import { addOutliersSorted, sumTile, unpackSorted } from "./slots_sorted";
import { clear, finishSteps, finishSums, isLast, placeOf, storeSums, SUM_ROWS, SUMS, sumsBytes } from "./sums";

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
    step += TILE_WORDS;
  }
  storeSums(false, to, f0, f1, f2, f3, f0, f0, f0, f0);
}

/**
 * The same of eight tokens and one slot a window: weights are loaded for all of them, which is a seventh faster
 * than twice for four.
 */
function sumEightOfOne(x: usize, steps: usize, segments: usize, weights: usize, to: usize): void {
  let f0 = i32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, f4 = f0, f5 = f0, f6 = f0, f7 = f0;
  let w = weights, xp = x, step = steps;
  for (const end = x + segments * TILE_SEGMENT; xp < end; xp += TILE_SEGMENT) {
    const s = v128.load(step), t = v128.load(step, 16), b = v128.load(w);
    const v0 = v128.load(w, 16), v1 = v128.load(w, 32), i0 = v128.load(w, 48), i1 = v128.load(w, 64);
    f0 = addSlots(f0, b, v0, v1, i0, i1, v128.load(xp), v128.load(xp, 16), lane(s, 0));
    f1 = addSlots(f1, b, v0, v1, i0, i1, v128.load(xp, 32), v128.load(xp, 48), lane(s, 1));
    f2 = addSlots(f2, b, v0, v1, i0, i1, v128.load(xp, 64), v128.load(xp, 80), lane(s, 2));
    f3 = addSlots(f3, b, v0, v1, i0, i1, v128.load(xp, 96), v128.load(xp, 112), lane(s, 3));
    f4 = addSlots(f4, b, v0, v1, i0, i1, v128.load(xp, 128), v128.load(xp, 144), lane(t, 0));
    f5 = addSlots(f5, b, v0, v1, i0, i1, v128.load(xp, 160), v128.load(xp, 176), lane(t, 1));
    f6 = addSlots(f6, b, v0, v1, i0, i1, v128.load(xp, 192), v128.load(xp, 208), lane(t, 2));
    f7 = addSlots(f7, b, v0, v1, i0, i1, v128.load(xp, 224), v128.load(xp, 240), lane(t, 3));
    w += unpackedBytes(SLOTS_ONE);
    step += TILE_WORDS;
  }
  storeSums(true, to, f0, f1, f2, f3, f4, f5, f6, f7);
}

/** Each in a function of its own: engines compile small functions better. */
function sumFourOfOne(x: usize, steps: usize, segments: usize, w: usize, to: usize): void {
  sumFour(SLOTS_ONE, x, steps, segments, w, to);
}
function sumFourOfTwo(x: usize, steps: usize, segments: usize, w: usize, to: usize): void {
  sumFour(SLOTS_TWO, x, steps, segments, w, to);
}

/** Whether rows are unpacked as `slots_sorted.ts` says. */
// @ts-ignore: decorator
@inline
function isSorted(kind: i32, isGrouped: bool): bool {
  return LOADS_MATTER && kind == SLOTS_TWO && !isGrouped;
}

/**
 * Four rows whose weights are unpacked, and all tokens.
 *
 * @param wide What `unpackSorted` has returned, where rows are sorted.
 * @param place Where the sums of these rows are in those of a token.
 */
function allTokens(
  kind: i32,
  a: usize,
  tokens: i32,
  weights: usize,
  wide: usize,
  outliers: usize,
  sums: usize,
  place: usize,
): void {
  const segments = load<usize>(a, SEGMENTS), stride = <usize> load<u32>(a, X_STRIDE);
  const sorted = isSorted(kind, false);
  for (let token = 0; token < tokens;) {
    const x = inputsOf(load<usize>(a, X), stride, token), to = sums + place + <usize> token * SUMS;
    const steps = stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens);
    const isEight = LOADS_MATTER && tokens - token > 4;
    if (sorted) sumTile(isEight, x, steps, segments, weights, wide, to);
    else if (kind == SLOTS_TWO) sumFourOfTwo(x, steps, segments, weights, to);
    else if (isEight) sumEightOfOne(x, steps, segments, weights, to);
    else sumFourOfOne(x, steps, segments, weights, to);
    token += isEight ? 8 : 4;
  }
  if (sorted) addOutliersSorted(segments, weights, wide, outliers, place);
  else addOutliers(kind, segments, weights, outliers, place);
}

/** y = W·x for rows `first` to `last`, multiples of 16, and two tokens or more. */
export function slotsMany(
  kind: i32,
  a: usize,
  first: i32,
  last: i32,
  tokens: i32,
  thread: i32,
): void {
  const isGrouped = load<usize>(a, GROUP_SCALES) != 0, sorted = isSorted(kind, isGrouped);
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const sums = scratchOf(a, thread), lows = sums + sumsBytes(tokens), lists = lows + sumsBytes(tokens);
  const weights = isGrouped
    ? listFlagged(a, tokens, thread, lists)
    : listOutliers(a, tokens, lows, lists);
  const end = load<usize>(a, WEIGHTS) + (<usize> last >> 3) * size;
  let wide: usize = 0, fetched: usize = 0;
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const at = load<usize>(a, WEIGHTS) + (<usize> row >> 3) * size, second = (row & 4) != 0;
    const place = placeOf(row), group = row + 4 - SUM_ROWS;
    if (place == 0 && at >= fetched) fetched = fetch(at, end, sums);
    if (sorted) wide = unpackSorted(at + (second ? pairBytes(kind) : 0), segments, weights);
    else unpack(kind, at, second, segments, weights);
    if (isGrouped) {
      allTokensGrouped(kind, a, row, tokens, weights, lists, sums + place);
      if (isLast(row)) finishSums(a, group, tokens, sums, lows);
    } else {
      if (place == 0) clear(lows, tokens);
      allTokens(kind, a, tokens, weights, wide, lists, sums, place);
      if (isLast(row)) finishSteps(a, group, tokens, sums, lows);
    }
  }
}
