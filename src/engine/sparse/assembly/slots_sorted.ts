/**
 * Sparse int8 matrices with two slots a window, times many tokens, with relaxed instructions.
 *
 * A part of 16 bits has room for the products of both windows of a segment where its weights are not too large:
 * it is _narrow_, and its step is multiplied once, not once a window. Which are, is found where four rows are
 * unpacked; they come first, the others last, so that a loop over either has no branch. Sums are integers:
 * their order does not matter. Where parts have 32 bits, all are narrow.
 *
 * Sums of eight tokens are added to in memory. Beside a segment's weights there are no vector registers for them, and
 * where engines then keep them is not aligned: a vector that lies on two pages takes longer each time. The loop took
 * 1.4 to 2.3 times as long so, in one process of twenty.
 */
import { NIBBLES, ZERO_POINTS } from "./control";
import { SLOTS_TWO, TILE_SEGMENT } from "./linear";
import { beginOf, endOf, ENTRY, entryInputs, entryStep, sumsOf } from "./outliers";
import { addSlots, PAIR, twoSlots, UNPACKED } from "./pairs";
import { addParts, beginning, lane, ones, subParts, upper, WIDE_PARTS } from "./simd";
import { segmentBytes } from "./slots";
import { storeSums, SUMS } from "./sums";

/** Bytes of the head of a segment that is unpacked. */
export const HEAD: usize = 16;

/**
 * Bytes of a segment that is unpacked: a head, which says where its inputs begin in a tile, and two pairs.
 * The first begins with what both do.
 */
const UNPACKED_SEGMENT: usize = HEAD + 2 * UNPACKED;

/** Bytes of a tile's inputs for each of its steps, as a shift. */
const STEP_SHIFT: usize = 3;

/** What eight weights' sizes may add up to: times 64, which inputs go to, they fit 16 bits. */
const MOST: i16 = 511;

/** Sizes of neighbouring weights of two slots, added. */
// @ts-ignore: decorator
@inline
function sizes(v: v128, w: v128): v128 {
  return i16x8.add(
    i16x8.extadd_pairwise_i8x16_u(i8x16.abs(v)),
    i16x8.extadd_pairwise_i8x16_u(i8x16.abs(w)),
  );
}

/** Where segments that are unpacked end. */
// @ts-ignore: decorator
@inline
function endOfAll(segments: usize, to: usize): usize {
  return to + segments * UNPACKED_SEGMENT;
}

/**
 * Unpacks four rows.
 *
 * @param at Their packed pairs in the first segment.
 * @returns Where those segments begin that are not narrow.
 */
export function unpackSorted(at: usize, segments: usize, to: usize): usize {
  const nibbles = v128.load(NIBBLES), one = ones(), zeros = v128.load(ZERO_POINTS);
  const most = i16x8.splat(MOST);
  let w = at, front = to, back = endOfAll(segments, to);
  for (let offset: usize = 0; offset < segments * TILE_SEGMENT; offset += TILE_SEGMENT) {
    const v0 = v128.load(w, 16), v1 = v128.load(w, 32), v2 = v128.load(w, 64), v3 = v128.load(w, 80);
    const first = beginning(v0, v1, one, zeros), second = beginning(v2, v3, one, zeros);
    const large = i16x8.gt_s(i16x8.add(sizes(v0, v1), sizes(v2, v3)), most);
    const isWide: usize = WIDE_PARTS ? 0 : <usize> v128.any_true(large);
    // Without branches, of which nothing would foretell the way.
    back -= UNPACKED_SEGMENT & -isWide;
    const out = isWide ? back : front;
    front += UNPACKED_SEGMENT & (isWide - 1);
    store<u32>(out, <u32> offset);
    const i = v128.load(w), j = v128.load(w, PAIR);
    v128.store(out, addParts(first, second), 16);
    v128.store(out, v0, 32);
    v128.store(out, v1, 48);
    v128.store(out, v128.and(i, nibbles), 64);
    v128.store(out, upper(i, nibbles), 80);
    v128.store(out, second, 96);
    v128.store(out, v2, 112);
    v128.store(out, v3, 128);
    v128.store(out, v128.and(j, nibbles), 144);
    v128.store(out, upper(j, nibbles), 160);
    w += segmentBytes(SLOTS_TWO);
  }
  return front;
}

/** sum + the products of both windows, `y` and `z`, times their step. */
// @ts-ignore: decorator
@inline
export function addBoth(
  sum: v128,
  y: v128,
  z: v128,
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
  return addSlots(sum, twoSlots(begin, v0, v1, i0, i1, y, y), v2, v3, i2, i3, z, z, step);
}

/** sum + the products of the window `y`, times their step. */
// @ts-ignore: decorator
@inline
export function addOne(
  sum: v128,
  y: v128,
  begin: v128,
  v0: v128,
  v1: v128,
  i0: v128,
  i1: v128,
  step: v128,
): v128 {
  return addSlots(sum, begin, v0, v1, i0, i1, y, y, step);
}

/**
 * Adds a narrow segment at `w` to the sums of a tile of four tokens, or of eight: its inputs are at `x`.
 *
 * Places are constants from the same address, not addresses of their own: where an engine checks each (V8 in Deno), a
 * place that was written to before the loop is not checked again in it.
 */
// @ts-ignore: decorator
@inline
export function addNarrowTile(isEight: bool, to: usize, x: usize, step: usize, w: usize): void {
  const v0 = v128.load(w, 32), v1 = v128.load(w, 48), i0 = v128.load(w, 64), i1 = v128.load(w, 80);
  const v2 = v128.load(w, 112), v3 = v128.load(w, 128), i2 = v128.load(w, 144), i3 = v128.load(w, 160);
  const b = v128.load(w, 16), s = v128.load(step);
  let y = v128.load(x), z = v128.load(x, 16), sum = v128.load(to);
  v128.store(to, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(s, 0)));
  y = v128.load(x, 32), z = v128.load(x, 48), sum = v128.load(to, SUMS);
  v128.store(to, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(s, 1)), SUMS);
  y = v128.load(x, 64), z = v128.load(x, 80), sum = v128.load(to, 2 * SUMS);
  v128.store(to, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(s, 2)), 2 * SUMS);
  y = v128.load(x, 96), z = v128.load(x, 112), sum = v128.load(to, 3 * SUMS);
  v128.store(to, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(s, 3)), 3 * SUMS);
  if (!isEight) return;
  const t = v128.load(step, 16);
  y = v128.load(x, 128), z = v128.load(x, 144), sum = v128.load(to, 4 * SUMS);
  v128.store(to, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(t, 0)), 4 * SUMS);
  y = v128.load(x, 160), z = v128.load(x, 176), sum = v128.load(to, 5 * SUMS);
  v128.store(to, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(t, 1)), 5 * SUMS);
  y = v128.load(x, 192), z = v128.load(x, 208), sum = v128.load(to, 6 * SUMS);
  v128.store(to, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(t, 2)), 6 * SUMS);
  y = v128.load(x, 224), z = v128.load(x, 240), sum = v128.load(to, 7 * SUMS);
  v128.store(to, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(t, 3)), 7 * SUMS);
}

/** The sums of a tile of four tokens, or of eight, at `x`, with narrow segments. */
// @ts-ignore: decorator
@inline
function sumNarrow(isEight: bool, x: usize, steps: usize, from: usize, end: usize, to: usize): void {
  const zero = i32x4.splat(0);
  storeSums(isEight, to, zero, zero, zero, zero, zero, zero, zero, zero);
  for (let w = from; w < end; w += UNPACKED_SEGMENT) {
    const offset = <usize> load<u32>(w);
    addNarrowTile(isEight, to, x + offset, steps + (offset >> STEP_SHIFT), w);
  }
}

/** What the first pair of a segment begins with, where it begins by itself. */
// @ts-ignore: decorator
@inline
function firstBeginning(w: usize): v128 {
  return subParts(v128.load(w, 16), v128.load(w, 96));
}

/** Adds to the same sums what the others have, of which each window is multiplied with the step. */
// @ts-ignore: decorator
@inline
function addWide(isEight: bool, x: usize, steps: usize, from: usize, end: usize, to: usize): void {
  for (let w = from; w < end; w += UNPACKED_SEGMENT) {
    const offset = <usize> load<u32>(w), step = steps + (offset >> STEP_SHIFT);
    const s = v128.load(step), t = v128.load(step, 16);
    let xp = x + offset, b = firstBeginning(w), v0 = v128.load(w, 32), v1 = v128.load(w, 48);
    let i0 = v128.load(w, 64), i1 = v128.load(w, 80);
    for (let window = 0; window < 2; window++) {
      v128.store(to, addOne(v128.load(to), v128.load(xp), b, v0, v1, i0, i1, lane(s, 0)));
      v128.store(to, addOne(v128.load(to, SUMS), v128.load(xp, 32), b, v0, v1, i0, i1, lane(s, 1)), SUMS);
      v128.store(to, addOne(v128.load(to, 2 * SUMS), v128.load(xp, 64), b, v0, v1, i0, i1, lane(s, 2)), 2 * SUMS);
      v128.store(to, addOne(v128.load(to, 3 * SUMS), v128.load(xp, 96), b, v0, v1, i0, i1, lane(s, 3)), 3 * SUMS);
      if (isEight) {
        v128.store(to, addOne(v128.load(to, 4 * SUMS), v128.load(xp, 128), b, v0, v1, i0, i1, lane(t, 0)), 4 * SUMS);
        v128.store(to, addOne(v128.load(to, 5 * SUMS), v128.load(xp, 160), b, v0, v1, i0, i1, lane(t, 1)), 5 * SUMS);
        v128.store(to, addOne(v128.load(to, 6 * SUMS), v128.load(xp, 192), b, v0, v1, i0, i1, lane(t, 2)), 6 * SUMS);
        v128.store(to, addOne(v128.load(to, 7 * SUMS), v128.load(xp, 224), b, v0, v1, i0, i1, lane(t, 3)), 7 * SUMS);
      }
      xp += 16, b = v128.load(w, 96), v0 = v128.load(w, 112), v1 = v128.load(w, 128);
      i0 = v128.load(w, 144), i1 = v128.load(w, 160);
    }
  }
}

/** Each in a function of its own: engines compile small functions better. */
function sumNarrowOfFour(x: usize, steps: usize, from: usize, end: usize, to: usize): void {
  sumNarrow(false, x, steps, from, end, to);
}
function sumNarrowOfEight(x: usize, steps: usize, from: usize, end: usize, to: usize): void {
  sumNarrow(true, x, steps, from, end, to);
}
function addWideOfFour(x: usize, steps: usize, from: usize, end: usize, to: usize): void {
  addWide(false, x, steps, from, end, to);
}
function addWideOfEight(x: usize, steps: usize, from: usize, end: usize, to: usize): void {
  addWide(true, x, steps, from, end, to);
}

/**
 * The sums of a tile of four tokens, or of eight, at `x`, with four rows as {@link unpackSorted} leaves them.
 *
 * @param wide Where those begin that are not narrow.
 */
export function sumTile(
  isEight: bool,
  x: usize,
  steps: usize,
  segments: usize,
  weights: usize,
  wide: usize,
  to: usize,
): void {
  const end = endOfAll(segments, weights);
  if (isEight) {
    sumNarrowOfEight(x, steps, weights, wide, to);
    if (!WIDE_PARTS && wide < end) addWideOfEight(x, steps, wide, end, to);
  } else {
    sumNarrowOfFour(x, steps, weights, wide, to);
    if (!WIDE_PARTS && wide < end) addWideOfFour(x, steps, wide, end, to);
  }
}

/** Adds what a list has for a segment from `at` to `end`, times that segment at `w`. */
// @ts-ignore: decorator
@inline
function addEntries(isNarrow: bool, w: usize, from: usize, end: usize, place: usize): void {
  const b = v128.load(w, 16), v0 = v128.load(w, 32), v1 = v128.load(w, 48);
  const i0 = v128.load(w, 64), i1 = v128.load(w, 80), v2 = v128.load(w, 112), v3 = v128.load(w, 128);
  const i2 = v128.load(w, 144), i3 = v128.load(w, 160);
  for (let at = from; at < end; at += ENTRY) {
    const x = entryInputs(at), step = entryStep(at), to = sumsOf(at) + place;
    const y = v128.load(x), z = v128.load(x, 16);
    let sum = v128.load(to);
    if (isNarrow) sum = addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, step);
    else {
      sum = addOne(sum, y, firstBeginning(w), v0, v1, i0, i1, step);
      sum = addOne(sum, z, v128.load(w, 96), v2, v3, i2, i3, step);
    }
    v128.store(to, sum);
  }
}

/** Adds what a list has for the segments from `from` to `end`. */
// @ts-ignore: decorator
@inline
function addAll(isNarrow: bool, from: usize, end: usize, list: usize, place: usize): void {
  for (let w = from; w < end; w += UNPACKED_SEGMENT) {
    const s = <usize> load<u32>(w) / TILE_SEGMENT, at = beginOf(list, s), last = endOf(list, s);
    if (at < last) addEntries(isNarrow, w, at, last, place);
  }
}

function addAllNarrow(from: usize, end: usize, list: usize, place: usize): void {
  addAll(true, from, end, list, place);
}
function addAllWide(from: usize, end: usize, list: usize, place: usize): void {
  addAll(false, from, end, list, place);
}

/** Adds the lower bits of all tokens' outliers in a list to their sums, as `addOutliers` does. */
export function addOutliersSorted(
  segments: usize,
  weights: usize,
  wide: usize,
  list: usize,
  place: usize,
): void {
  addAllNarrow(weights, wide, list, place);
  if (!WIDE_PARTS) addAllWide(wide, endOfAll(segments, weights), list, place);
}
