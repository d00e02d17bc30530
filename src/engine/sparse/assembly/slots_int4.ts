/**
 * Sparse int4 matrices in slots: those of `slots.ts`, with values of four bits.
 *
 * A pair of slots takes 32 bytes: 16 of indices and 16 of values, of each the first slot in low halves
 * and the second in high ones. Values become int8 by a table of sixteen, as inputs are picked.
 *
 * Eight rows lie together: for each group of columns eight scales (float16), then for each of its
 * segments the pairs of the first four rows and those of the others.
 *
 * Products with one token are in `slots_int4_one.ts`, with a few in `slots_int4_few.ts`.
 */
import { LEVELS, NIBBLES, ZERO_POINTS } from "./control";
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
import { beginOf, endOf, ENTRY, entryInputs, entryStep, listOutliers, sumsOf } from "./outliers";
import { addSlots, UNPACKED_PAIR } from "./pairs";
import { addParts, beginning, halvesAt, lane, LOADS_MATTER, ones, upper } from "./simd";
import { addBoth } from "./slots_sorted";
import { clear, finishFloatSteps, isLast, placeOf, SUM_ROWS, SUMS, sumsBytes } from "./sums";

/** Bytes of a segment of four rows that is unpacked: what its sums begin with, then its pairs. */
// @ts-ignore: decorator
@inline
function unpackedBytes(kind: i32): usize {
  return kind == SLOTS_ONE_INT4 ? 16 + UNPACKED_PAIR : 16 + 2 * UNPACKED_PAIR;
}

/**
 * Gives the values and the indices of a pair a byte each, as `unpackPair` of `pairs.ts` does for int8.
 *
 * @returns What products with it begin with.
 */
// @ts-ignore: decorator
@inline
function unpackPair(pair: usize, to: usize, nibbles: v128, table: v128, one: v128, zeros: v128): v128 {
  const i = v128.load(pair), v = v128.load(pair, 16);
  const v0 = levels(table, v128.and(v, nibbles)), v1 = levels(table, upper(v, nibbles));
  v128.store(to, v0);
  v128.store(to, v1, 16);
  v128.store(to, v128.and(i, nibbles), 32);
  v128.store(to, upper(i, nibbles), 48);
  return beginning(v0, v1, one, zeros);
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
      let begin = unpackPair(pair, out + 16, nibbles, table, one_, zeros);
      if (kind == SLOTS_TWO_INT4) {
        const more = unpackPair(pair + 32, out + 16 + UNPACKED_PAIR, nibbles, table, one_, zeros);
        begin = addParts(begin, more);
      }
      v128.store(out, begin);
      w += 2 * bytes;
      out += unpackedBytes(kind);
    }
  }
}

/**
 * sum + an unpacked segment of four rows, times a token's inputs at `x` and their step. Products of four bits
 * fit a part, all of a segment's.
 */
// @ts-ignore: decorator
@inline
export function addToken(
  kind: i32,
  sum: v128,
  x: usize,
  begin: v128,
  v0: v128,
  v1: v128,
  i0: v128,
  i1: v128,
  v2: v128,
  v3: v128,
  i2: v128,
  i3: v128,
  step: v128,
): v128 {
  const y = v128.load(x), z = v128.load(x, 16);
  if (kind == SLOTS_ONE_INT4) return addSlots(sum, begin, v0, v1, i0, i1, y, z, step);
  return addBoth(sum, y, z, begin, v0, v1, i0, i1, v2, v3, i2, i3, step);
}

/** Adds the products of a tile of four tokens, or of eight, with four unpacked rows to the sums at `to`. */
// @ts-ignore: decorator
@inline
function addTile(
  kind: i32,
  isEight: bool,
  x: usize,
  steps: usize,
  segments: usize,
  per: usize,
  weights: usize,
  to: usize,
): void {
  let w = weights, xp = x, step = steps;
  for (let s: usize = 0; s < segments;) {
    const end = min(s + per, segments), scales = v128.load(w);
    let p0 = i32x4.splat(0), p1 = p0, p2 = p0, p3 = p0, p4 = p0, p5 = p0, p6 = p0, p7 = p0;
    w += 16;
    for (; s < end; s++) {
      const b = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      const i0 = v128.load(w, 48), i1 = v128.load(w, 64), t = v128.load(step);
      let v2 = v0, v3 = v1, i2 = i0, i3 = i1;
      if (kind == SLOTS_TWO_INT4) {
        v2 = v128.load(w, 80), v3 = v128.load(w, 96), i2 = v128.load(w, 112), i3 = v128.load(w, 128);
      }
      p0 = addToken(kind, p0, xp, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(t, 0));
      p1 = addToken(kind, p1, xp + 32, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(t, 1));
      p2 = addToken(kind, p2, xp + 64, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(t, 2));
      p3 = addToken(kind, p3, xp + 96, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(t, 3));
      if (isEight) {
        const u = v128.load(step, 16);
        p4 = addToken(kind, p4, xp + 128, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(u, 0));
        p5 = addToken(kind, p5, xp + 160, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(u, 1));
        p6 = addToken(kind, p6, xp + 192, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(u, 2));
        p7 = addToken(kind, p7, xp + 224, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(u, 3));
      }
      w += unpackedBytes(kind);
      step += TILE_WORDS;
      xp += TILE_SEGMENT;
    }
    endGroup(to, p0, scales);
    endGroup(to + SUMS, p1, scales);
    endGroup(to + 2 * SUMS, p2, scales);
    endGroup(to + 3 * SUMS, p3, scales);
    if (!isEight) continue;
    endGroup(to + 4 * SUMS, p4, scales);
    endGroup(to + 5 * SUMS, p5, scales);
    endGroup(to + 6 * SUMS, p6, scales);
    endGroup(to + 7 * SUMS, p7, scales);
  }
}

/** Adds the lower bits of all tokens' outliers in a list, times four unpacked rows, to their sums. */
// @ts-ignore: decorator
@inline
function addLows(kind: i32, segments: usize, per: usize, weights: usize, list: usize, place: usize): void {
  for (let s: usize = 0, at = beginOf(list, 0); s < segments; s++) {
    const end = endOf(list, s);
    if (at == end) continue;
    const group = s / per, header = weights + group * (16 + per * unpackedBytes(kind));
    const w = weights + (group + 1) * 16 + s * unpackedBytes(kind);
    const b = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
    const i0 = v128.load(w, 48), i1 = v128.load(w, 64), scales = v128.load(header);
    let v2 = v0, v3 = v1, i2 = i0, i3 = i1;
    if (kind == SLOTS_TWO_INT4) {
      v2 = v128.load(w, 80), v3 = v128.load(w, 96), i2 = v128.load(w, 112), i3 = v128.load(w, 128);
    }
    for (; at < end; at += ENTRY) {
      const x = entryInputs(at), step = entryStep(at), none = i32x4.splat(0);
      endGroup(sumsOf(at) + place, addToken(kind, none, x, b, v0, v1, i0, i1, v2, v3, i2, i3, step), scales);
    }
  }
}

/** Each in a function of its own: engines compile small functions better. */
function fourOfOne(x: usize, steps: usize, segments: usize, per: usize, w: usize, to: usize): void {
  addTile(SLOTS_ONE_INT4, false, x, steps, segments, per, w, to);
}
function eightOfOne(x: usize, steps: usize, segments: usize, per: usize, w: usize, to: usize): void {
  addTile(SLOTS_ONE_INT4, true, x, steps, segments, per, w, to);
}
function fourOfTwo(x: usize, steps: usize, segments: usize, per: usize, w: usize, to: usize): void {
  addTile(SLOTS_TWO_INT4, false, x, steps, segments, per, w, to);
}
function lowsOfOne(segments: usize, per: usize, w: usize, list: usize, place: usize): void {
  addLows(SLOTS_ONE_INT4, segments, per, w, list, place);
}
function lowsOfTwo(segments: usize, per: usize, w: usize, list: usize, place: usize): void {
  addLows(SLOTS_TWO_INT4, segments, per, w, list, place);
}

/** Adds the products of four rows whose weights are unpacked, with all tokens. */
function allTokens(kind: i32, a: usize, tokens: i32, weights: usize, sums: usize): void {
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const stride = <usize> load<u32>(a, X_STRIDE);
  for (let token = 0; token < tokens;) {
    const x = inputsOf(load<usize>(a, X), stride, token), to = sums + <usize> token * SUMS;
    const steps = stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens);
    const isEight = LOADS_MATTER && kind == SLOTS_ONE_INT4 && tokens - token > 4;
    if (isEight) eightOfOne(x, steps, segments, per, weights, to);
    else if (kind == SLOTS_ONE_INT4) fourOfOne(x, steps, segments, per, weights, to);
    else fourOfTwo(x, steps, segments, per, weights, to);
    token += isEight ? 8 : 4;
  }
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
  const size = slotsBytes(segments, per, fourBytes(kind)), whole = tokens + 7 & ~7;
  const sums = scratchOf(a, thread), lows = sums + sumsBytes(tokens), list = lows + sumsBytes(tokens);
  const weights = listOutliers(a, tokens, lows, list);
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const at = load<usize>(a, WEIGHTS) + (<usize> row >> 3) * size, place = placeOf(row);
    unpack(kind, at, (row & 4) != 0 ? 1 : 0, segments, per, weights);
    if (place == 0) {
      clear(sums, whole);
      clear(lows, tokens);
    }
    allTokens(kind, a, tokens, weights, sums + place);
    if (kind == SLOTS_ONE_INT4) lowsOfOne(segments, per, weights, list, place);
    else lowsOfTwo(segments, per, weights, list, place);
    if (isLast(row)) finishFloatSteps(a, row + 4 - SUM_ROWS, tokens, sums, lows);
  }
}
