/**
 * Sparse int4 matrices in slots, times a few tokens: what several sequences that generate together ask for.
 *
 * As in `slots_few.ts`, weights are unpacked in registers, for two tokens or four at a time.
 */
import { EIGHTS, LEVELS, NIBBLES, SIGN_BITS, ZERO_POINTS } from "./control";
import { endGroup, fourBytes, GROUP_SEGMENTS, levels, SLOTS_HEADER, slotsBytes } from "./int4";
import {
  inputsOf,
  scratchOf,
  SEGMENTS,
  SLOTS_ONE_INT4,
  SLOTS_TWO_INT4,
  stepsOf,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_STEPS,
  X_STRIDE,
} from "./linear";
import { beginOf, ENTRY, entryInputs, entrySegment, entryStep, listOutliers, sumsOf } from "./outliers";
import { addParts, beginning, halvesAt, lane, ones, upper } from "./simd";
import { addToken } from "./slots_int4";
import { addSegment } from "./slots_int4_one";
import { clear, finishFloatSteps, isLast, placeOf, SUM_ROWS, SUMS, sumsBytes } from "./sums";

/**
 * Adds eight rows with two tokens or four to sums: those of the first four rows at `to`, of the others at `more`.
 */
// @ts-ignore: decorator
@inline
function addRows(
  kind: i32,
  isTwo: bool,
  w: usize,
  segments: usize,
  per: usize,
  x: usize,
  steps: usize,
  to: usize,
  more: usize,
): void {
  const n = v128.load(NIBBLES), table = v128.load(LEVELS), one = ones(), zeros = v128.load(ZERO_POINTS);
  let at = w, xp = x, step = steps;
  for (let s: usize = 0; s < segments;) {
    const end = min(s + per, segments), header = at;
    let p0 = i32x4.splat(0), p1 = p0, p2 = p0, p3 = p0, q0 = p0, q1 = p0, q2 = p0, q3 = p0;
    at += SLOTS_HEADER;
    for (; s < end; s++) {
      const t = v128.load(step), s0 = lane(t, 0), s1 = lane(t, 1), s2 = lane(t, 2), s3 = lane(t, 3);
      let i = v128.load(at), v = v128.load(at, 16);
      let v0 = levels(table, v128.and(v, n)), v1 = levels(table, upper(v, n));
      let i0 = v128.and(i, n), i1 = upper(i, n), b = beginning(v0, v1, one, zeros);
      let v2 = v0, v3 = v1, i2 = i0, i3 = i1;
      if (kind == SLOTS_TWO_INT4) {
        i = v128.load(at, 32), v = v128.load(at, 48);
        v2 = levels(table, v128.and(v, n)), v3 = levels(table, upper(v, n));
        i2 = v128.and(i, n), i3 = upper(i, n), b = addParts(b, beginning(v2, v3, one, zeros));
      }
      p0 = addToken(kind, p0, xp, b, v0, v1, i0, i1, v2, v3, i2, i3, s0);
      p1 = addToken(kind, p1, xp + 32, b, v0, v1, i0, i1, v2, v3, i2, i3, s1);
      if (!isTwo) {
        p2 = addToken(kind, p2, xp + 64, b, v0, v1, i0, i1, v2, v3, i2, i3, s2);
        p3 = addToken(kind, p3, xp + 96, b, v0, v1, i0, i1, v2, v3, i2, i3, s3);
      }
      at += fourBytes(kind);
      i = v128.load(at), v = v128.load(at, 16);
      v0 = levels(table, v128.and(v, n)), v1 = levels(table, upper(v, n));
      i0 = v128.and(i, n), i1 = upper(i, n), b = beginning(v0, v1, one, zeros);
      if (kind == SLOTS_TWO_INT4) {
        i = v128.load(at, 32), v = v128.load(at, 48);
        v2 = levels(table, v128.and(v, n)), v3 = levels(table, upper(v, n));
        i2 = v128.and(i, n), i3 = upper(i, n), b = addParts(b, beginning(v2, v3, one, zeros));
      }
      q0 = addToken(kind, q0, xp, b, v0, v1, i0, i1, v2, v3, i2, i3, s0);
      q1 = addToken(kind, q1, xp + 32, b, v0, v1, i0, i1, v2, v3, i2, i3, s1);
      if (!isTwo) {
        q2 = addToken(kind, q2, xp + 64, b, v0, v1, i0, i1, v2, v3, i2, i3, s2);
        q3 = addToken(kind, q3, xp + 96, b, v0, v1, i0, i1, v2, v3, i2, i3, s3);
      }
      at += fourBytes(kind);
      step += TILE_WORDS;
      xp += TILE_SEGMENT;
    }
    const scales = halvesAt(header), others = halvesAt(header + 8);
    endGroup(to, p0, scales), endGroup(to + SUMS, p1, scales);
    endGroup(more, q0, others), endGroup(more + SUMS, q1, others);
    if (isTwo) continue;
    endGroup(to + 2 * SUMS, p2, scales), endGroup(to + 3 * SUMS, p3, scales);
    endGroup(more + 2 * SUMS, q2, others), endGroup(more + 3 * SUMS, q3, others);
  }
}

/** Each in a function of its own: engines compile small functions better. */
function twoOfOne(w: usize, segments: usize, per: usize, x: usize, steps: usize, to: usize, more: usize): void {
  addRows(SLOTS_ONE_INT4, true, w, segments, per, x, steps, to, more);
}
function fourOfOne(w: usize, segments: usize, per: usize, x: usize, steps: usize, to: usize, more: usize): void {
  addRows(SLOTS_ONE_INT4, false, w, segments, per, x, steps, to, more);
}
function twoOfTwo(w: usize, segments: usize, per: usize, x: usize, steps: usize, to: usize, more: usize): void {
  addRows(SLOTS_TWO_INT4, true, w, segments, per, x, steps, to, more);
}
function fourOfTwo(w: usize, segments: usize, per: usize, x: usize, steps: usize, to: usize, more: usize): void {
  addRows(SLOTS_TWO_INT4, false, w, segments, per, x, steps, to, more);
}

/**
 * Adds the lower bits of the tokens' outliers in a list, times four rows, to their sums at `place`.
 *
 * @param second 1 for the last four of the eight rows at `w`, else 0.
 */
function addLows(kind: i32, w: usize, second: usize, a: usize, list: usize, place: usize): void {
  const n = v128.load(NIBBLES), e = v128.load(EIGHTS), g = v128.load(SIGN_BITS), zero = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS), four = fourBytes(kind);
  for (let at = beginOf(list, 0), end = beginOf(list, segments); at < end; at += ENTRY) {
    const s = entrySegment(at), group = s / per, header = w + group * (SLOTS_HEADER + per * 2 * four);
    const v = w + (group + 1) * SLOTS_HEADER + (s * 2 + second) * four, x = entryInputs(at);
    const y = i8x16.sub(v128.load(x), zero), z = i8x16.sub(v128.load(x, 16), zero);
    const sum = addSegment(kind, i32x4.splat(0), v, y, z, entryStep(at), n, e, g);
    endGroup(sumsOf(at) + place, sum, halvesAt(header + (second << 3)));
  }
}

/** Adds eight rows with all tokens, in tiles of eight. */
function addTokens(kind: i32, a: usize, w: usize, tokens: i32, sums: usize, more: usize): void {
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const stride = <usize> load<u32>(a, X_STRIDE);
  for (let token = 0; token < tokens; token += 4) {
    const x = inputsOf(load<usize>(a, X), stride, token), at = <usize> token * SUMS;
    const steps = stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens), isTwo = tokens - token <= 2;
    if (kind == SLOTS_ONE_INT4) {
      if (isTwo) twoOfOne(w, segments, per, x, steps, sums + at, more + at);
      else fourOfOne(w, segments, per, x, steps, sums + at, more + at);
    } else if (isTwo) twoOfTwo(w, segments, per, x, steps, sums + at, more + at);
    else fourOfTwo(w, segments, per, x, steps, sums + at, more + at);
  }
}

/** y = W·x for rows `first` to `last`, multiples of 16, and two to `FEW_TOKENS` tokens. */
export function slotsInt4Few(kind: i32, a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const size = slotsBytes(load<usize>(a, SEGMENTS), load<usize>(a, GROUP_SEGMENTS), fourBytes(kind));
  const sums = scratchOf(a, thread), lows = sums + sumsBytes(tokens), list = lows + sumsBytes(tokens);
  listOutliers(a, tokens, lows, list);
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < last; row += 8) {
    const place = placeOf(row), other = placeOf(row + 4);
    if (place == 0) {
      clear(sums, tokens + 3 & ~3);
      clear(lows, tokens);
    }
    addTokens(kind, a, w, tokens, sums + place, sums + other);
    addLows(kind, w, 0, a, list, place);
    addLows(kind, w, 1, a, list, other);
    if (isLast(row + 4)) finishFloatSteps(a, row + 8 - SUM_ROWS, tokens, sums, lows);
    w += size;
  }
}
