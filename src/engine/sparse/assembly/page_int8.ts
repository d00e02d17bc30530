/**
 * One page of an int8 cache: 64 positions of one layer and one key/value head.
 *
 * Positions are in chunks of 16: keys `[chunk, dim / 4, 16 positions, 4 dims]`, values
 * `[chunk, dim / 4, 4 groups, 4 dims, 4 positions]`, then for each position the keys' scale, the values'
 * scale, and what the zero of queries adds to a score, its sign turned.
 *
 * Two heads that share keys and values meet them at the same time: they are loaded once for both.
 */
import { touch } from "./ahead";
import { PLUS_0, roundPlus } from "./math";
import { LARGEST } from "./probabilities";
import { largest, LEAST, narrow, NARROW_MOST } from "./quantise";
import { dot, ones, sumOfLanes } from "./simd";

/** The integer that stands for 0 in a query of 7 bits. */
const ZERO = 64;
/** Where the 16 positions are, keys or values, of which a place is one, and where the scales of that place are. */
// @ts-ignore: decorator
@inline
function chunkOf(at: usize, place: i32, width: usize): usize {
  return at + <usize> (place >> 4) * (width << 4);
}
// @ts-ignore: decorator
@inline
function scalesOf(at: usize, place: i32, width: usize): usize {
  return at + (width << 7) + (<usize> place << 2);
}

/** Puts a key at a place, from 0 to 63. */
export function appendKeyInt8(k: usize, to: usize, place: i32, dim: i32): void {
  const width = <usize> dim, scales = scalesOf(to, place, width);
  const most = largest(k, dim);
  const factor = f32x4.splat(most > LEAST ? <f32> 127 / most : 0);
  let sums = i32x4.splat(0);
  const keys = chunkOf(to, place, width) + (<usize> (place & 15) << 2);
  for (let d: usize = 0; d < width; d += 4) {
    const q = roundPlus(f32x4.mul(v128.load(k + (d << 2)), factor), PLUS_0);
    sums = i32x4.add(sums, q);
    const halves = i16x8.narrow_i32x4_s(q, q);
    v128.store32_lane(keys + (d << 4), i8x16.narrow_i16x8_s(halves, halves), 0);
  }
  store<f32>(scales, most / 127);
  store<i32>(scales, -ZERO * sumOfLanes(sums), 512);
}

/** Puts a value at a place. */
export function appendValueInt8(v: usize, to: usize, place: i32, dim: i32): void {
  const width = <usize> dim, within = <usize> (place & 15);
  const most = largest(v, dim);
  const factor = f32x4.splat(most > LEAST ? <f32> 127 / most : 0);
  const values = chunkOf(to + (width << 6), place, width) + ((within >> 2) << 4) + (within & 3);
  for (let d: usize = 0; d < width; d += 4) {
    const q = roundPlus(f32x4.mul(v128.load(v + (d << 2)), factor), PLUS_0);
    store<u8>(values + (d << 4), i32x4.extract_lane(q, 0));
    store<u8>(values + (d << 4), i32x4.extract_lane(q, 1), 4);
    store<u8>(values + (d << 4), i32x4.extract_lane(q, 2), 8);
    store<u8>(values + (d << 4), i32x4.extract_lane(q, 3), 12);
  }
  store<f32>(scalesOf(to, place, width), most / 127, 256);
}

/** Reads a word of each line of what is seen of a page, as {@link touch} does. */
export function touchInt8(from: usize, first: i32, last: i32, width: usize): i32 {
  const begin = <usize> (first >> 4) * (width << 4), end = <usize> ((last >> 4) + 1) * (width << 4);
  const values = from + (width << 6), scales = from + (width << 7);
  return touch(from + begin, from + end) | touch(values + begin, values + end) | touch(scales, scales + 768);
}

/** A query as integers of 7 bits, 1 to 127, in its own place; its scale takes the last four bytes. */
export function narrowQuery(q: usize, dim: i32, scale: f32): void {
  const most = largest(q, dim);
  narrow(q, q, dim, most > LEAST ? NARROW_MOST / most : 0);
  store<f32>(q + (<usize> dim << 2) - 4, most / NARROW_MOST * scale);
}

/** Scores of int8 keys and a query as {@link narrowQuery} leaves it, for chunks of 16 positions. */
export function scoresInt8(
  from: usize,
  q: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
): void {
  const factor = v128.load32_splat(q + (width << 2) - 4), one = ones(), size = width << 4;
  // Two chunks, so that there are as many sums as it takes not to wait for them.
  for (let chunk = <usize> (first >> 5 << 1); chunk <= <usize> (last >> 4); chunk += 2) {
    const scales = from + (width << 7) + (chunk << 6);
    let k = from + chunk * size, l = k + size;
    let a = v128.load(scales, 512), b = v128.load(scales, 528);
    let c = v128.load(scales, 544), d = v128.load(scales, 560);
    let e = v128.load(scales, 576), f = v128.load(scales, 592);
    let g = v128.load(scales, 608), h = v128.load(scales, 624);
    for (let x = q; x < q + width; x += 4) {
      const four = v128.load32_splat(x);
      a = dot(v128.load(k), four, a, one);
      b = dot(v128.load(k, 16), four, b, one);
      c = dot(v128.load(k, 32), four, c, one);
      d = dot(v128.load(k, 48), four, d, one);
      e = dot(v128.load(l), four, e, one);
      f = dot(v128.load(l, 16), four, f, one);
      g = dot(v128.load(l, 32), four, g, one);
      h = dot(v128.load(l, 48), four, h, one);
      k += 64;
      l += 64;
    }
    putScores(scores, chunk, scales, factor, a, b, c, d);
    putScores(scores, chunk + 1, scales + 64, factor, e, f, g, h);
  }
}

/** The same of two queries, `q` and the next one. */
export function scoresInt8OfTwo(
  from: usize,
  q: usize,
  scores: usize,
  more: usize,
  first: i32,
  last: i32,
  width: usize,
): void {
  const r = q + (width << 2), one = ones();
  const factor = v128.load32_splat(r - 4), other = v128.load32_splat(r + (width << 2) - 4);
  for (let chunk = <usize> (first >> 4); chunk <= <usize> (last >> 4); chunk++) {
    const scales = from + (width << 7) + (chunk << 6);
    let k = from + chunk * (width << 4), y = r;
    let a = v128.load(scales, 512), b = v128.load(scales, 528);
    let c = v128.load(scales, 544), d = v128.load(scales, 560);
    let e = a, f = b, g = c, h = d;
    for (let x = q; x < q + width; x += 4) {
      const four = v128.load32_splat(x), fours = v128.load32_splat(y);
      let keys = v128.load(k);
      a = dot(keys, four, a, one);
      e = dot(keys, fours, e, one);
      keys = v128.load(k, 16);
      b = dot(keys, four, b, one);
      f = dot(keys, fours, f, one);
      keys = v128.load(k, 32);
      c = dot(keys, four, c, one);
      g = dot(keys, fours, g, one);
      keys = v128.load(k, 48);
      d = dot(keys, four, d, one);
      h = dot(keys, fours, h, one);
      k += 64;
      y += 4;
    }
    putScores(scores, chunk, scales, factor, a, b, c, d);
    putScores(more, chunk, scales, other, e, f, g, h);
  }
}

/** Writes a chunk's scores, sums with the scales of keys and the query's, and the largest of each fourth of them. */
// @ts-ignore: decorator
@inline
function putScores(
  scores: usize,
  chunk: usize,
  scales: usize,
  factor: v128,
  a: v128,
  b: v128,
  c: v128,
  d: v128,
): void {
  const to = scores + (chunk << 6);
  const p = scaled(a, f32x4.mul(v128.load(scales), factor));
  const q = scaled(b, f32x4.mul(v128.load(scales, 16), factor));
  const r = scaled(c, f32x4.mul(v128.load(scales, 32), factor));
  const s = scaled(d, f32x4.mul(v128.load(scales, 48), factor));
  v128.store(to, p);
  v128.store(to, q, 16);
  v128.store(to, r, 32);
  v128.store(to, s, 48);
  v128.store(scores + (chunk << 4), f32x4.pmax(f32x4.pmax(p, q), f32x4.pmax(r, s)), LARGEST);
}

// @ts-ignore: decorator
@inline
function scaled(sums: v128, scale: v128): v128 {
  return f32x4.mul(f32x4.convert_i32x4_s(sums), scale);
}

/** A page's int8 values, mixed by probabilities as `narrowAll` leaves them. */
export function mixInt8(
  from: usize,
  work: usize,
  to: usize,
  first: i32,
  last: i32,
  width: usize,
): void {
  const one = ones(), zero = i32x4.splat(0);
  for (let at = to; at < to + (width << 2); at += 16) v128.store(at, zero);
  for (let chunk = <usize> (first >> 4); chunk <= <usize> (last >> 4); chunk++) {
    const p = work + (chunk << 4);
    const p0 = v128.load32_splat(p), p1 = v128.load32_splat(p, 4);
    const p2 = v128.load32_splat(p, 8), p3 = v128.load32_splat(p, 12);
    const scale = v128.load32_splat(work + (chunk << 2), 64);
    let v = from + (width << 6) + chunk * (width << 4);
    for (let at = to; at < to + (width << 2); at += 16) {
      let sum = dot(v128.load(v), p0, zero, one);
      sum = dot(v128.load(v, 16), p1, sum, one);
      sum = dot(v128.load(v, 32), p2, sum, one);
      sum = dot(v128.load(v, 48), p3, sum, one);
      v128.store(at, f32x4.add(v128.load(at), scaled(sum, scale)));
      v += 64;
    }
  }
}

/** The same by the probabilities of two heads, whose results are `apart` bytes from each other. */
export function mixInt8OfTwo(
  from: usize,
  work: usize,
  more: usize,
  to: usize,
  apart: usize,
  first: i32,
  last: i32,
  width: usize,
): void {
  const one = ones(), zero = i32x4.splat(0);
  for (let at = to; at < to + (width << 2); at += 16) {
    v128.store(at, zero);
    v128.store(at + apart, zero);
  }
  for (let chunk = <usize> (first >> 4); chunk <= <usize> (last >> 4); chunk++) {
    const p = work + (chunk << 4), q = more + (chunk << 4);
    const p0 = v128.load32_splat(p), p1 = v128.load32_splat(p, 4);
    const p2 = v128.load32_splat(p, 8), p3 = v128.load32_splat(p, 12);
    const q0 = v128.load32_splat(q), q1 = v128.load32_splat(q, 4);
    const q2 = v128.load32_splat(q, 8), q3 = v128.load32_splat(q, 12);
    const scale = v128.load32_splat(work + (chunk << 2), 64);
    const other = v128.load32_splat(more + (chunk << 2), 64);
    let v = from + (width << 6) + chunk * (width << 4), next = to + apart;
    for (let at = to; at < to + (width << 2); at += 16) {
      let values = v128.load(v);
      let sum = dot(values, p0, zero, one), second = dot(values, q0, zero, one);
      values = v128.load(v, 16);
      sum = dot(values, p1, sum, one);
      second = dot(values, q1, second, one);
      values = v128.load(v, 32);
      sum = dot(values, p2, sum, one);
      second = dot(values, q2, second, one);
      values = v128.load(v, 48);
      sum = dot(values, p3, sum, one);
      second = dot(values, q3, second, one);
      v128.store(at, f32x4.add(v128.load(at), scaled(sum, scale)));
      v128.store(next, f32x4.add(v128.load(next), scaled(second, other)));
      v += 64;
      next += 16;
    }
  }
}
