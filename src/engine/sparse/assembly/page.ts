/**
 * One page of the cache: 64 positions of one layer and one key/value head.
 *
 * As int8 it holds keys `[position / 4, dim / 4, 4 positions, 4 dims]`, values `[position / 4, dim,
 * 4 positions]`, then for each position the keys' scale, and for each the values' scale. As float32:
 * keys `[position / 4, dim, 4 positions]`, values `[position, dim]`.
 */
import { exp2OfNegative, roundPlus } from "./math";
import { maxLane, sumLanes } from "./simd";
import { largest, LEAST } from "./vectors";

/** Bytes that a head takes of a page. */
// @ts-ignore: decorator
@inline
export function headBytes(dim: usize, isInt8: bool): usize {
  return isInt8 ? (dim << 7) + 512 : dim << 9;
}

/** Puts a key and a value at a place, from 0 to 63. */
export function appendF32(k: usize, v: usize, to: usize, place: i32, dim: i32): void {
  const keys = to + (<usize> (place >> 2) * <usize> dim << 4) + (<usize> (place & 3) << 2);
  for (let d = 0; d < dim; d++) {
    store<f32>(keys + (<usize> d << 4), load<f32>(k + (<usize> d << 2)));
  }
  memory.copy(to + (<usize> dim << 8) + (<usize> place * <usize> dim << 2), v, <usize> dim << 2);
}

export function appendInt8(k: usize, v: usize, to: usize, place: i32, dim: i32): void {
  const group = <usize> (place >> 2), lane = <usize> (place & 3), width = <usize> dim;
  const scales = to + (width << 7) + (<usize> place << 2);
  let most = largest(k, dim);
  let factor = f32x4.splat(most > LEAST ? <f32> 127 / most : 0);
  const keys = to + group * (width << 2) + (lane << 2);
  for (let d: usize = 0; d < width; d += 4) {
    const q = roundPlus(f32x4.mul(v128.load(k + (d << 2)), factor), 0);
    const halves = i16x8.narrow_i32x4_s(q, q);
    v128.store32_lane(keys + (d << 2), i8x16.narrow_i16x8_s(halves, halves), 0);
  }
  store<f32>(scales, most / 127);
  most = largest(v, dim);
  factor = f32x4.splat(most > LEAST ? <f32> 127 / most : 0);
  const values = to + (width << 6) + group * (width << 2) + lane;
  for (let d: usize = 0; d < width; d += 4) {
    const q = roundPlus(f32x4.mul(v128.load(v + (d << 2)), factor), 0);
    store<u8>(values + (d << 2), i32x4.extract_lane(q, 0));
    store<u8>(values + (d << 2), i32x4.extract_lane(q, 1), 4);
    store<u8>(values + (d << 2), i32x4.extract_lane(q, 2), 8);
    store<u8>(values + (d << 2), i32x4.extract_lane(q, 3), 12);
  }
  store<f32>(scales, most / 127, 256);
}

/** Largest of the scales of what is seen: what lies behind may be there already, or not yet. */
export function largestOf(scales: usize, first: i32, last: i32): f32 {
  let most: f32 = 0, p = first;
  for (; p <= last && (p & 3) != 0; p++) most = max(most, load<f32>(scales + (<usize> p << 2)));
  let four = f32x4.splat(most);
  for (; p + 3 <= last; p += 4) four = f32x4.pmax(four, v128.load(scales + (<usize> p << 2)));
  most = maxLane(four);
  for (; p <= last; p++) most = max(most, load<f32>(scales + (<usize> p << 2)));
  return most;
}

/** 2^(score - highest) in place of scores; returns their sum. */
export function exponentials(scores: usize, first: i32, last: i32, highest: f32): f32 {
  const most = f32x4.splat(highest);
  let total = f32x4.splat(0);
  for (let g = first; g <= last; g++) {
    const at = scores + (<usize> g << 4);
    const e = exp2OfNegative(f32x4.sub(v128.load(at), most));
    v128.store(at, e);
    total = f32x4.add(total, e);
  }
  return sumLanes(total);
}

/** Probabilities times the scales of their values, as int16 of 14 bits; returns the sum of probabilities. */
export function probabilities(
  from: usize,
  scores: usize,
  work: usize,
  first: i32,
  last: i32,
  width: usize,
  highest: f32,
  valueScale: f32,
): f32 {
  const most = f32x4.splat(highest);
  const factor = f32x4.splat(valueScale > LEAST ? <f32> 16383 / valueScale : 0);
  const scales = from + (width << 7) + 256;
  let total = f32x4.splat(0);
  for (let g = first; g <= last; g++) {
    const e = exp2OfNegative(f32x4.sub(v128.load(scores + (<usize> g << 4)), most));
    total = f32x4.add(total, e);
    const p = roundPlus(f32x4.mul(f32x4.mul(e, v128.load(scales + (<usize> g << 4))), factor), 0);
    v128.store64_lane(work + (<usize> g << 3), i16x8.narrow_i32x4_s(p, p), 0);
  }
  return sumLanes(total);
}

/** Queries as int16; returns the scale. */
export function toHalves(from: usize, to: usize, width: usize): f32 {
  const most = largest(from, <i32> width);
  const factor = f32x4.splat(most > LEAST ? <f32> 16383 / most : 0);
  for (let d: usize = 0; d < width; d += 4) {
    const v = roundPlus(f32x4.mul(v128.load(from + (d << 2)), factor), 0);
    v128.store64_lane(to + (d << 1), i16x8.narrow_i32x4_s(v, v), 0);
  }
  return most / 16383;
}

/** Scores of int8 keys and int16 queries, for groups of four positions. */
export function scoresInt8(
  from: usize,
  q: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
  scale: f32,
): void {
  const factor = f32x4.splat(scale);
  for (let g = first; g <= last; g++) {
    const place = <usize> g;
    let k = from + place * (width << 2), x = q, d: usize = 0;
    // Two positions each, with two lanes to a position.
    let a = i32x4.splat(0), b = a;
    for (; d + 16 <= width; d += 16) {
      const x0 = v128.load64_splat(x), x1 = v128.load64_splat(x, 8);
      const x2 = v128.load64_splat(x, 16), x3 = v128.load64_splat(x, 24);
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load8x8_s(k), x0));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.load8x8_s(k, 8), x0));
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load8x8_s(k, 16), x1));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.load8x8_s(k, 24), x1));
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load8x8_s(k, 32), x2));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.load8x8_s(k, 40), x2));
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load8x8_s(k, 48), x3));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.load8x8_s(k, 56), x3));
      k += 64;
      x += 32;
    }
    for (; d < width; d += 4) {
      const x0 = v128.load64_splat(x);
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load8x8_s(k), x0));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.load8x8_s(k, 8), x0));
      k += 16;
      x += 8;
    }
    const keyScales = v128.load(from + (width << 7) + (place << 4));
    v128.store(
      scores + (place << 4),
      f32x4.mul(f32x4.mul(f32x4.convert_i32x4_s(pairSums(a, b)), keyScales), factor),
    );
  }
}

/** Sums of neighbouring lanes of two vectors. */
// @ts-ignore: decorator
@inline
function pairSums(a: v128, b: v128): v128 {
  return i32x4.add(i32x4.shuffle(a, b, 0, 2, 4, 6), i32x4.shuffle(a, b, 1, 3, 5, 7));
}

export function scoresF32(
  from: usize,
  q: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
  scale: f32,
): void {
  for (let g = first; g <= last; g++) {
    let keys = from + <usize> (g & 15) * (width << 4);
    let sum = f32x4.splat(0);
    for (let d: usize = 0; d < width; d++) {
      sum = f32x4.add(sum, f32x4.mul(v128.load(keys), v128.load32_splat(q + (d << 2))));
      keys += 16;
    }
    v128.store(scores + (<usize> g << 4), f32x4.mul(sum, f32x4.splat(scale)));
  }
}

/** A page's int8 values, mixed by probabilities as int16. */
export function mixInt8(
  from: usize,
  work: usize,
  to: usize,
  first: i32,
  last: i32,
  width: usize,
  valueScale: f32,
): void {
  const scale = f32x4.splat(valueScale);
  const step = width << 2;
  const values = from + (width << 6) + <usize> first * step;
  const begin = work + (<usize> first << 3), end = work + (<usize> last << 3);
  let d: usize = 0;
  // Two dims each, with two lanes to a dim.
  for (; d + 16 <= width; d += 16) {
    let at = values + (d << 2);
    let a = i32x4.splat(0), b = a, c = a, e = a, f = a, g = a, h = a, i = a;
    for (let w = begin; w <= end; w += 8) {
      const p = v128.load64_splat(w);
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load8x8_s(at), p));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.load8x8_s(at, 8), p));
      c = i32x4.add(c, i32x4.dot_i16x8_s(v128.load8x8_s(at, 16), p));
      e = i32x4.add(e, i32x4.dot_i16x8_s(v128.load8x8_s(at, 24), p));
      f = i32x4.add(f, i32x4.dot_i16x8_s(v128.load8x8_s(at, 32), p));
      g = i32x4.add(g, i32x4.dot_i16x8_s(v128.load8x8_s(at, 40), p));
      h = i32x4.add(h, i32x4.dot_i16x8_s(v128.load8x8_s(at, 48), p));
      i = i32x4.add(i, i32x4.dot_i16x8_s(v128.load8x8_s(at, 56), p));
      at += step;
    }
    put(to + (d << 2), pairSums(a, b), scale);
    put(to + (d << 2) + 16, pairSums(c, e), scale);
    put(to + (d << 2) + 32, pairSums(f, g), scale);
    put(to + (d << 2) + 48, pairSums(h, i), scale);
  }
  for (; d < width; d += 4) {
    let at = values + (d << 2);
    let a = i32x4.splat(0), b = a;
    for (let w = begin; w <= end; w += 8) {
      const p = v128.load64_splat(w);
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load8x8_s(at), p));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.load8x8_s(at, 8), p));
      at += step;
    }
    put(to + (d << 2), pairSums(a, b), scale);
  }
}

// @ts-ignore: decorator
@inline
function put(at: usize, sum: v128, scale: v128): void {
  v128.store(at, f32x4.mul(f32x4.convert_i32x4_s(sum), scale));
}

export function mixF32(from: usize, scores: usize, to: usize, first: i32, last: i32, width: usize): void {
  const values = from + (width << 8);
  let d: usize = 0;
  for (; d + 4 <= width; d += 4) {
    let sum = f32x4.splat(0);
    for (let p = first; p <= last; p++) {
      const v = v128.load(values + ((<usize> p * width + d) << 2));
      sum = f32x4.add(sum, f32x4.mul(v, v128.load32_splat(scores + (<usize> p << 2))));
    }
    v128.store(to + (d << 2), sum);
  }
  for (; d < width; d++) {
    let sum: f32 = 0;
    for (let p = first; p <= last; p++) {
      sum += load<f32>(values + ((<usize> p * width + d) << 2)) *
        load<f32>(scores + (<usize> p << 2));
    }
    store<f32>(to + (d << 2), sum);
  }
}
