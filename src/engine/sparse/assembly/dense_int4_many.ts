/**
 * Dense int4 matrices, times several tokens.
 *
 * Sixteen rows are unpacked, and then meet all tokens, two at a time: for each group of columns sixteen scales in
 * float32, then its segments as `[column / 4, 16 rows, 4 columns]` bytes, each 8 more than the level.
 */
import { fetch } from "./ahead";
import { NIBBLES, ZERO_POINTS } from "./control";
import { DENSE_HEADER, DENSE_SEGMENT, denseBytes, endGroup, GROUP_SEGMENTS, startOf, X_SUMS } from "./int4";
import {
  FEW_TOKENS,
  inputsOf,
  scratchOf,
  SEGMENTS,
  stepsOf,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_STEPS,
  X_STRIDE,
} from "./linear";
import { beginOf, ENTRY, entryInputs, entrySegment, entryStep, listOutliers, sumsOf } from "./outliers";
import { addProducts, addTimes, halvesAt, lane, upper } from "./simd";
import { clear, finishFloatSteps, SUM_ROWS, SUMS, sumsBytes } from "./sums";

/** Bytes before an unpacked group, and of an unpacked segment. */
const HEADER: usize = 64, SEGMENT: usize = 512;

/** Unpacks sixteen rows. */
function unpack(at: usize, segments: usize, per: usize, to: usize): void {
  const nibbles = v128.load(NIBBLES);
  let w = at, out = to;
  for (let s: usize = 0; s < segments; s += per) {
    for (let row: usize = 0; row < HEADER; row += 16) v128.store(out + row, halvesAt(w + (row >> 1)));
    w += DENSE_HEADER;
    out += HEADER;
    for (const end = w + min(per, segments - s) * DENSE_SEGMENT; w < end; w += 64) {
      const v0 = v128.load(w), v1 = v128.load(w, 16), v2 = v128.load(w, 32), v3 = v128.load(w, 48);
      v128.store(out, v128.and(v0, nibbles));
      v128.store(out, v128.and(v1, nibbles), 16);
      v128.store(out, v128.and(v2, nibbles), 32);
      v128.store(out, v128.and(v3, nibbles), 48);
      v128.store(out, upper(v0, nibbles), 64);
      v128.store(out, upper(v1, nibbles), 80);
      v128.store(out, upper(v2, nibbles), 96);
      v128.store(out, upper(v3, nibbles), 112);
      out += 128;
    }
  }
}

/**
 * Adds a segment of sixteen rows, times its step, to the integers at `group`, or where it is a group itself, with the
 * scales of the rows, to the sums at `to`.
 *
 * @param start What the sums of a group begin with: see `startOf`.
 */
// @ts-ignore: decorator
@inline
function addParts(
  isGroup: bool,
  to: usize,
  group: usize,
  p0: v128,
  p1: v128,
  p2: v128,
  p3: v128,
  start: v128,
  step: v128,
  scales: usize,
): void {
  if (isGroup) {
    endGroup(to, addTimes(start, p0, step), v128.load(scales));
    endGroup(to + 16, addTimes(start, p1, step), v128.load(scales, 16));
    endGroup(to + 32, addTimes(start, p2, step), v128.load(scales, 32));
    endGroup(to + 48, addTimes(start, p3, step), v128.load(scales, 48));
  } else {
    v128.store(group, addTimes(v128.load(group), p0, step));
    v128.store(group, addTimes(v128.load(group, 16), p1, step), 16);
    v128.store(group, addTimes(v128.load(group, 32), p2, step), 32);
    v128.store(group, addTimes(v128.load(group, 48), p3, step), 48);
  }
}

/** Begins a group of a token's sums of sixteen rows. */
// @ts-ignore: decorator
@inline
function begin(group: usize, start: v128): void {
  for (let row: usize = 0; row < SUMS; row += 16) v128.store(group + row, start);
}

/**
 * The sums of sixteen rows with two tokens.
 *
 * @param isGroup Whether each segment is a group of its own.
 * @param starts Of the first token's inputs; those of the second are behind them.
 * @param group Room for the sums of a group.
 */
// @ts-ignore: decorator
@inline
function sumTwo(
  isGroup: bool,
  x: usize,
  steps: usize,
  starts: usize,
  segments: usize,
  per: usize,
  weights: usize,
  to: usize,
  group: usize,
): void {
  const zero = v128.load(ZERO_POINTS), second = starts + (segments << 3);
  clear(to, 2);
  let xp = x, step = steps, w = weights;
  for (let s: usize = 0; s < segments;) {
    const header = w, end = min(s + per, segments);
    if (!isGroup) {
      begin(group, startOf(starts + (s << 3), end - s));
      begin(group + SUMS, startOf(second + (s << 3), end - s));
    }
    w += HEADER;
    for (; s < end; s++) {
      let p0 = i32x4.splat(0), p1 = p0, p2 = p0, p3 = p0, q0 = p0, q1 = p0, q2 = p0, q3 = p0;
      // Eight columns at a time: with more, sums do not stay in registers.
      for (const last = w + SEGMENT; w < last; w += 128) {
        const y01 = i8x16.sub(v128.load64_zero(xp), zero), z01 = i8x16.sub(v128.load64_zero(xp, 32), zero);
        let y = lane(y01, 0), z = lane(z01, 0), v = v128.load(w);
        p0 = addProducts(p0, y, v), q0 = addProducts(q0, z, v);
        v = v128.load(w, 16), p1 = addProducts(p1, y, v), q1 = addProducts(q1, z, v);
        v = v128.load(w, 32), p2 = addProducts(p2, y, v), q2 = addProducts(q2, z, v);
        v = v128.load(w, 48), p3 = addProducts(p3, y, v), q3 = addProducts(q3, z, v);
        y = lane(y01, 1), z = lane(z01, 1);
        v = v128.load(w, 64), p0 = addProducts(p0, y, v), q0 = addProducts(q0, z, v);
        v = v128.load(w, 80), p1 = addProducts(p1, y, v), q1 = addProducts(q1, z, v);
        v = v128.load(w, 96), p2 = addProducts(p2, y, v), q2 = addProducts(q2, z, v);
        v = v128.load(w, 112), p3 = addProducts(p3, y, v), q3 = addProducts(q3, z, v);
        xp += 8;
      }
      const y = v128.load32_splat(starts + (s << 3)), z = v128.load32_splat(second + (s << 3));
      addParts(isGroup, to, group, p0, p1, p2, p3, y, v128.load32_splat(step), header);
      addParts(isGroup, to + SUMS, group + SUMS, q0, q1, q2, q3, z, v128.load32_splat(step, 4), header);
      xp += TILE_SEGMENT - 32;
      step += TILE_WORDS;
    }
    if (isGroup) continue;
    for (let row: usize = 0; row < SUMS; row += 16) {
      const rows = v128.load(header + row);
      endGroup(to + row, v128.load(group + row), rows);
      endGroup(to + SUMS + row, v128.load(group + SUMS + row), rows);
    }
  }
}

/** Each in a function of its own: engines compile small functions better. */
function sumTwoBySegments(
  x: usize,
  steps: usize,
  starts: usize,
  segments: usize,
  weights: usize,
  to: usize,
): void {
  sumTwo(true, x, steps, starts, segments, 1, weights, to, to);
}
function sumTwoByGroups(
  x: usize,
  steps: usize,
  starts: usize,
  segments: usize,
  per: usize,
  weights: usize,
  to: usize,
  group: usize,
): void {
  sumTwo(false, x, steps, starts, segments, per, weights, to, group);
}

/** Adds the lower bits of all tokens' outliers in a list, times sixteen unpacked rows, to the sums at `lows`. */
function addLows(a: usize, weights: usize, list: usize, lows: usize): void {
  const zero = v128.load(ZERO_POINTS), starts = load<usize>(a, X_SUMS);
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  for (let at = beginOf(list, 0), end = beginOf(list, segments); at < end; at += ENTRY) {
    const s = entrySegment(at), group = s / per, to = sumsOf(at), token = (to - lows) / SUMS;
    const header = weights + group * (HEADER + per * SEGMENT);
    const begin = weights + (group + 1) * HEADER + s * SEGMENT;
    let p0 = i32x4.splat(0), p1 = p0, p2 = p0, p3 = p0, x = entryInputs(at);
    for (let w = begin, last = begin + SEGMENT; w < last; w += 64) {
      const y = i8x16.sub(v128.load32_splat(x), zero);
      p0 = addProducts(p0, y, v128.load(w));
      p1 = addProducts(p1, y, v128.load(w, 16));
      p2 = addProducts(p2, y, v128.load(w, 32));
      p3 = addProducts(p3, y, v128.load(w, 48));
      x += 4;
    }
    const start = v128.load32_splat(starts + ((token * segments + s) << 3), 4);
    addParts(true, to, to, p0, p1, p2, p3, start, entryStep(at), header);
  }
}

/** y = W·x for rows `first` to `last`, multiples of 16, and several tokens. */
export function denseInt4Many(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const size = denseBytes(segments, per), stride = <usize> load<u32>(a, X_STRIDE);
  const sums = scratchOf(a, thread), lows = sums + sumsBytes(tokens), group = lows + sumsBytes(tokens);
  const list = group + 2 * SUMS, weights = listOutliers(a, tokens, lows, list);
  const matrix = load<usize>(a, WEIGHTS), end = matrix + (<usize> last >> 4) * size;
  let at = matrix + (<usize> first >> 4) * size, fetched: usize = 0;
  for (let row = first; row < last; row += SUM_ROWS) {
    if (tokens > FEW_TOKENS && at >= fetched) fetched = fetch(at, end, sums);
    unpack(at, segments, per, weights);
    for (let token = 0; token < tokens; token += 2) {
      const x = inputsOf(load<usize>(a, X), stride, token), to = sums + <usize> token * SUMS;
      const steps = stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens);
      const starts = load<usize>(a, X_SUMS) + <usize> token * (segments << 3);
      if (per == 1) sumTwoBySegments(x, steps, starts, segments, weights, to);
      else sumTwoByGroups(x, steps, starts, segments, per, weights, to, group);
    }
    clear(lows, tokens);
    addLows(a, weights, list, lows);
    finishFloatSteps(a, row, tokens, sums, lows);
    at += size;
  }
}
