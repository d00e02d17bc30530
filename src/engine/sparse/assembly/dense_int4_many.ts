/**
 * Dense int4 matrices, times several tokens.
 *
 * Sixteen rows are unpacked, and then meet all tokens, two at a time: for each group of columns sixteen scales in
 * float32, then its segments as `[column / 4, 16 rows, 4 columns]` bytes, each 8 more than the level.
 */
import { fetch } from "./ahead";
import { NIBBLES, ZERO_POINTS } from "./control";
import { DENSE_HEADER, DENSE_SEGMENT, denseBytes, GROUP_SEGMENTS, X_SUMS } from "./int4";
import {
  addScaled,
  inputsOf,
  LOW_UNIT,
  scalesOf,
  scratchOf,
  SEGMENTS,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_SCALES,
  X_STRIDE,
} from "./linear";
import { beginOf, ENTRY, entryInputs, entrySegment, listOutliers, sumsOf } from "./outliers";
import { addFloats, addProducts, halvesAt, lane, ones, sumProducts, upper } from "./simd";
import { clear, finishSums, SUM_ROWS, SUMS, sumsBytes } from "./sums";

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
 * Adds a segment of four rows to what is at `to`.
 *
 * @param start What the sums of these products begin with: see `X_SUMS`.
 * @param unit The scale of the inputs.
 * @param scales The scales of the rows, where the segment is a group.
 */
// @ts-ignore: decorator
@inline
function addPart(isGroup: bool, to: usize, products: v128, start: v128, unit: v128, scales: usize, one: v128): void {
  const part = f32x4.mul(f32x4.convert_i32x4_s(i32x4.add(sumProducts(products, one), start)), unit);
  addFloats(to, isGroup ? f32x4.mul(part, v128.load(scales)) : part);
}

/** The same of sixteen rows. */
// @ts-ignore: decorator
@inline
function addParts(
  isGroup: bool,
  to: usize,
  p0: v128,
  p1: v128,
  p2: v128,
  p3: v128,
  start: v128,
  unit: v128,
  scales: usize,
  one: v128,
): void {
  addPart(isGroup, to, p0, start, unit, scales, one);
  addPart(isGroup, to + 16, p1, start, unit, scales + 16, one);
  addPart(isGroup, to + 32, p2, start, unit, scales + 32, one);
  addPart(isGroup, to + 48, p3, start, unit, scales + 48, one);
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
  scales: usize,
  starts: usize,
  segments: usize,
  per: usize,
  weights: usize,
  to: usize,
  group: usize,
): void {
  const one = ones(), zero = v128.load(ZERO_POINTS), second = segments << 3;
  clear(to, 2);
  let xp = x, scale = scales, start = starts, w = weights;
  for (let s: usize = 0; s < segments;) {
    const header = w, end = min(s + per, segments), out = isGroup ? to : group;
    if (!isGroup) clear(group, 2);
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
      const y = v128.load32_splat(start), z = v128.load32_splat(start + second);
      addParts(isGroup, out, p0, p1, p2, p3, y, v128.load32_splat(scale), header, one);
      addParts(isGroup, out + SUMS, q0, q1, q2, q3, z, v128.load32_splat(scale, 4), header, one);
      xp += TILE_SEGMENT - 32;
      start += 8;
      scale += TILE_WORDS;
    }
    if (isGroup) continue;
    for (let row: usize = 0; row < SUMS; row += 16) {
      const scale = v128.load(header + row);
      addFloats(to + row, f32x4.mul(v128.load(group + row), scale));
      addFloats(to + SUMS + row, f32x4.mul(v128.load(group + SUMS + row), scale));
    }
  }
}

/** Each in a function of its own: engines compile small functions better. */
function sumTwoBySegments(
  x: usize,
  scales: usize,
  starts: usize,
  segments: usize,
  weights: usize,
  to: usize,
): void {
  sumTwo(true, x, scales, starts, segments, 1, weights, to, to);
}
function sumTwoByGroups(
  x: usize,
  scales: usize,
  starts: usize,
  segments: usize,
  per: usize,
  weights: usize,
  to: usize,
  group: usize,
): void {
  sumTwo(false, x, scales, starts, segments, per, weights, to, group);
}

/** Adds the lower bits of all tokens' outliers in a list, times sixteen unpacked rows, to the sums at `sums`. */
function addLows(a: usize, weights: usize, list: usize, sums: usize): void {
  const one = ones(), zero = v128.load(ZERO_POINTS), low = f32x4.splat(LOW_UNIT);
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const scales = load<usize>(a, X_SCALES), starts = load<usize>(a, X_SUMS);
  for (let at = beginOf(list, 0), end = beginOf(list, segments); at < end; at += ENTRY) {
    const s = entrySegment(at), group = s / per, to = sumsOf(at), token = (to - sums) / SUMS;
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
    const unit = f32x4.mul(v128.load32_splat(scalesOf(scales, segments, token) + s * TILE_WORDS), low);
    addLow(to, p0, start, unit, header, one);
    addLow(to + 16, p1, start, unit, header + 16, one);
    addLow(to + 32, p2, start, unit, header + 32, one);
    addLow(to + 48, p3, start, unit, header + 48, one);
  }
}

/** Adds those of four rows. */
// @ts-ignore: decorator
@inline
function addLow(to: usize, products: v128, start: v128, unit: v128, scales: usize, one: v128): void {
  const part = i32x4.add(sumProducts(products, one), start);
  v128.store(to, addScaled(v128.load(to), part, f32x4.mul(unit, v128.load(scales))));
}

/** y = W·x for rows `first` to `last`, multiples of 16, and several tokens. */
export function denseInt4Many(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const size = denseBytes(segments, per), stride = <usize> load<u32>(a, X_STRIDE);
  const sums = scratchOf(a, thread), group = sums + sumsBytes(tokens), list = group + 2 * SUMS;
  const weights = listOutliers(a, tokens, sums, list);
  const matrix = load<usize>(a, WEIGHTS), end = matrix + (<usize> last >> 4) * size;
  let at = matrix + (<usize> first >> 4) * size, fetched: usize = 0;
  for (let row = first; row < last; row += SUM_ROWS) {
    if (at >= fetched) fetched = fetch(at, end, sums);
    unpack(at, segments, per, weights);
    for (let token = 0; token < tokens; token += 2) {
      const x = inputsOf(load<usize>(a, X), stride, token), to = sums + <usize> token * SUMS;
      const scales = scalesOf(load<usize>(a, X_SCALES), segments, token);
      const starts = load<usize>(a, X_SUMS) + <usize> token * (segments << 3);
      if (per == 1) sumTwoBySegments(x, scales, starts, segments, weights, to);
      else sumTwoByGroups(x, scales, starts, segments, per, weights, to, group);
    }
    addLows(a, weights, list, sums);
    finishSums(a, row, tokens, sums, group);
    at += size;
  }
}
