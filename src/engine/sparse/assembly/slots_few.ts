/**
 * Sparse int8 matrices in slots, times a few tokens: what several sequences that generate together ask for.
 *
 * Weights are unpacked in registers, for two tokens or four at a time. To unpack rows first, as for many tokens, takes
 * longer than so few products with them.
 */
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  inputsOf,
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
import {
  beginOf,
  ENTRY,
  entryInputs,
  entrySegment,
  entryStep,
  listOutliers,
  sumsOf,
} from "./outliers";
import { addSlots, PAIR } from "./pairs";
import { addParts, beginning, lane, ones, upper, WIDE_PARTS } from "./simd";
import { addSegment, pairBytes, segmentBytes } from "./slots";
import { addBoth, addOne } from "./slots_sorted";
import { clear, finishSteps, isLast, placeOf, storeSums, SUM_ROWS, SUMS, sumsBytes } from "./sums";

/** sum + a segment of four rows, unpacked, times a token's inputs at `x`, times their step. */
// @ts-ignore: decorator
@inline
function addToken(
  kind: i32,
  sum: v128,
  x: usize,
  begin: v128,
  v0: v128,
  v1: v128,
  i0: v128,
  i1: v128,
  second: v128,
  v2: v128,
  v3: v128,
  i2: v128,
  i3: v128,
  step: v128,
): v128 {
  const y = v128.load(x), z = v128.load(x, 16);
  if (kind == SLOTS_ONE) return addSlots(sum, begin, v0, v1, i0, i1, y, z, step);
  if (WIDE_PARTS) return addBoth(sum, y, z, begin, v0, v1, i0, i1, v2, v3, i2, i3, step);
  return addOne(addOne(sum, y, begin, v0, v1, i0, i1, step), z, second, v2, v3, i2, i3, step);
}

/** The sums of eight rows with two tokens or four: those of the first four rows go to `to`, of the others to `more`. */
// @ts-ignore: decorator
@inline
function addRows(
  kind: i32,
  isTwo: bool,
  w: usize,
  segments: usize,
  x: usize,
  steps: usize,
  to: usize,
  more: usize,
): void {
  const nibbles = v128.load(NIBBLES), one = ones(), zeros = v128.load(ZERO_POINTS);
  let f0 = i32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
  let at = w, xp = x, step = steps;
  for (const end = x + segments * TILE_SEGMENT; xp < end; xp += TILE_SEGMENT) {
    const s = v128.load(step), s0 = lane(s, 0), s1 = lane(s, 1), s2 = lane(s, 2), s3 = lane(s, 3);
    let i = v128.load(at), v0 = v128.load(at, 16), v1 = v128.load(at, 32);
    let i0 = v128.and(i, nibbles), i1 = upper(i, nibbles);
    let begin = beginning(v0, v1, one, zeros), second = begin, v2 = v0, v3 = v1, i2 = i0, i3 = i1;
    if (kind == SLOTS_TWO) {
      i = v128.load(at, PAIR), v2 = v128.load(at, PAIR + 16), v3 = v128.load(at, PAIR + 32);
      i2 = v128.and(i, nibbles), i3 = upper(i, nibbles);
      second = beginning(v2, v3, one, zeros);
      if (WIDE_PARTS) begin = addParts(begin, second);
    }
    f0 = addToken(kind, f0, xp, begin, v0, v1, i0, i1, second, v2, v3, i2, i3, s0);
    f1 = addToken(kind, f1, xp + 32, begin, v0, v1, i0, i1, second, v2, v3, i2, i3, s1);
    if (!isTwo) {
      f2 = addToken(kind, f2, xp + 64, begin, v0, v1, i0, i1, second, v2, v3, i2, i3, s2);
      f3 = addToken(kind, f3, xp + 96, begin, v0, v1, i0, i1, second, v2, v3, i2, i3, s3);
    }
    const next = at + pairBytes(kind);
    i = v128.load(next), v0 = v128.load(next, 16), v1 = v128.load(next, 32);
    i0 = v128.and(i, nibbles), i1 = upper(i, nibbles);
    begin = beginning(v0, v1, one, zeros), second = begin;
    if (kind == SLOTS_TWO) {
      i = v128.load(next, PAIR), v2 = v128.load(next, PAIR + 16), v3 = v128.load(next, PAIR + 32);
      i2 = v128.and(i, nibbles), i3 = upper(i, nibbles);
      second = beginning(v2, v3, one, zeros);
      if (WIDE_PARTS) begin = addParts(begin, second);
    }
    g0 = addToken(kind, g0, xp, begin, v0, v1, i0, i1, second, v2, v3, i2, i3, s0);
    g1 = addToken(kind, g1, xp + 32, begin, v0, v1, i0, i1, second, v2, v3, i2, i3, s1);
    if (!isTwo) {
      g2 = addToken(kind, g2, xp + 64, begin, v0, v1, i0, i1, second, v2, v3, i2, i3, s2);
      g3 = addToken(kind, g3, xp + 96, begin, v0, v1, i0, i1, second, v2, v3, i2, i3, s3);
    }
    at += segmentBytes(kind);
    step += TILE_WORDS;
  }
  storeSums(false, to, f0, f1, f2, f3, f0, f0, f0, f0);
  storeSums(false, more, g0, g1, g2, g3, g0, g0, g0, g0);
}

/** Each in a function of its own: engines compile small functions better. */
function twoOfOne(w: usize, segments: usize, x: usize, steps: usize, to: usize, more: usize): void {
  addRows(SLOTS_ONE, true, w, segments, x, steps, to, more);
}
function fourOfOne(w: usize, segments: usize, x: usize, steps: usize, to: usize, more: usize): void {
  addRows(SLOTS_ONE, false, w, segments, x, steps, to, more);
}
function twoOfTwo(w: usize, segments: usize, x: usize, steps: usize, to: usize, more: usize): void {
  addRows(SLOTS_TWO, true, w, segments, x, steps, to, more);
}
function fourOfTwo(w: usize, segments: usize, x: usize, steps: usize, to: usize, more: usize): void {
  addRows(SLOTS_TWO, false, w, segments, x, steps, to, more);
}

/** Adds the lower bits of the tokens' outliers in a list, times four rows, to their sums at `place`. */
function addLows(kind: i32, w: usize, segments: usize, list: usize, place: usize): void {
  const nibbles = v128.load(NIBBLES), one = ones(), zeros = v128.load(ZERO_POINTS);
  for (let at = beginOf(list, 0), end = beginOf(list, segments); at < end; at += ENTRY) {
    const v = w + entrySegment(at) * segmentBytes(kind), x = entryInputs(at), to = sumsOf(at) + place;
    const y = v128.load(x), z = v128.load(x, 16), sum = v128.load(to), step = entryStep(at);
    if (kind == SLOTS_ONE) v128.store(to, addSegment(SLOTS_ONE, v, y, z, sum, step, nibbles, one, zeros));
    else v128.store(to, addSegment(SLOTS_TWO, v, y, z, sum, step, nibbles, one, zeros));
  }
}

/** The sums of eight rows with all tokens, in tiles of eight. */
function addTokens(kind: i32, a: usize, w: usize, tokens: i32, sums: usize, more: usize): void {
  const segments = load<usize>(a, SEGMENTS), stride = <usize> load<u32>(a, X_STRIDE);
  for (let token = 0; token < tokens; token += 4) {
    const x = inputsOf(load<usize>(a, X), stride, token), at = <usize> token * SUMS;
    const steps = stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens), isTwo = tokens - token <= 2;
    if (kind == SLOTS_ONE) {
      if (isTwo) twoOfOne(w, segments, x, steps, sums + at, more + at);
      else fourOfOne(w, segments, x, steps, sums + at, more + at);
    } else if (isTwo) twoOfTwo(w, segments, x, steps, sums + at, more + at);
    else fourOfTwo(w, segments, x, steps, sums + at, more + at);
  }
}

/** y = W·x for rows `first` to `last`, multiples of 16, and two to `FEW_TOKENS` tokens. */
export function slotsFew(kind: i32, a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const sums = scratchOf(a, thread), lows = sums + sumsBytes(tokens), list = lows + sumsBytes(tokens);
  listOutliers(a, tokens, lows, list);
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < last; row += 8) {
    const place = placeOf(row), other = placeOf(row + 4);
    if (place == 0) clear(lows, tokens);
    addTokens(kind, a, w, tokens, sums + place, sums + other);
    addLows(kind, w, segments, list, place);
    addLows(kind, w + pairBytes(kind), segments, list, other);
    if (isLast(row + 4)) finishSteps(a, row + 8 - SUM_ROWS, tokens, sums, lows);
    w += size;
  }
}
