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
import { exp2OfNegative, PLUS_0, roundPlus } from "./math";
import { capScores, highestSeen } from "./page";
import { dot, maxLane, maxOfFour, ones, sumLanes, sumOfLanes } from "./simd";
import { largest, LEAST, narrow, NARROW_MOST } from "./quantise";

/** The integer that stands for 0 in a query of 7 bits. */
const ZERO = 64;
/** Positions whose probabilities share a scale. */
const CHUNK = 16;
/**
 * Behind a head's scores of a page: its probabilities as integers with a scale for each chunk, and for each chunk a
 * vector of largest scores, then of largest probabilities.
 */
export const PROBABILITIES: usize = 256;
const LARGEST: usize = PROBABILITIES + 96;
/** Bytes of all these. */
export const WORK: usize = 512;

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

/**
 * Spreads what a few elements have over all: blocks of 2^k elements, as long as divides `dim`, times a
 * Hadamard matrix of 1 and -1 (the transform of Walsh). Products of two vectors that are spread are
 * {@link spreadGain} times what they were, and largest elements are nearer to typical ones, which is
 * what rounding to integers goes by.
 */
export function spread(at: usize, dim: i32): void {
  const block = <usize> spreadGain(dim) << 2, end = at + (<usize> dim << 2);
  const second = f32x4(1, -1, 1, -1), upper = f32x4(1, 1, -1, -1);
  for (let x = at; x < end; x += 16) {
    let v = v128.load(x);
    v = f32x4.add(f32x4.mul(v, second), i32x4.shuffle(v, v, 1, 0, 3, 2));
    v128.store(x, f32x4.add(f32x4.mul(v, upper), i32x4.shuffle(v, v, 2, 3, 0, 1)));
  }
  let stride: usize = 16;
  // Two steps at a time, so that half as often all is loaded and stored.
  for (; stride << 1 < block; stride <<= 2) {
    for (let x = at; x < end; x += 3 * stride) {
      for (const quarter = x + stride; x < quarter; x += 16) {
        const a = v128.load(x), b = v128.load(x + stride);
        const c = v128.load(x + 2 * stride), d = v128.load(x + 3 * stride);
        const p = f32x4.add(a, b), q = f32x4.sub(a, b), r = f32x4.add(c, d), s = f32x4.sub(c, d);
        v128.store(x, f32x4.add(p, r));
        v128.store(x + stride, f32x4.add(q, s));
        v128.store(x + 2 * stride, f32x4.sub(p, r));
        v128.store(x + 3 * stride, f32x4.sub(q, s));
      }
    }
  }
  if (stride < block) {
    for (let x = at; x < end; x += stride) {
      for (const half = x + stride; x < half; x += 16) {
        const a = v128.load(x), b = v128.load(x + stride);
        v128.store(x, f32x4.add(a, b));
        v128.store(x + stride, f32x4.sub(a, b));
      }
    }
  }
}

/** Elements of a block of {@link spread}: the greatest power of 2 that divides `dim`, a multiple of 4. */
// @ts-ignore: decorator
@inline
export function spreadGain(dim: i32): i32 {
  return dim & -dim;
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

/** Caps the scores of positions that are seen, and what is the largest of each chunk's fourths. */
export function capInt8(scores: usize, first: i32, last: i32, cap: f32): void {
  capScores(scores, first, last, cap);
  capScores(scores + LARGEST, 0, 15, cap);
}

/** The highest of the scores that are seen, as `highestSeen` says it. */
export function highestInt8(scores: usize, first: i32, last: i32): f32 {
  if (first > 0 || last < 63) return highestSeen(scores, first, last);
  const ab = f32x4.pmax(v128.load(scores, LARGEST), v128.load(scores, LARGEST + 16));
  return maxLane(f32x4.pmax(ab, f32x4.pmax(v128.load(scores, LARGEST + 32), v128.load(scores, LARGEST + 48))));
}

/** The largest lanes of four vectors, one after the other. */
// @ts-ignore: decorator
@inline
function maxLanes(at: usize): v128 {
  return maxOfFour(v128.load(at), v128.load(at, 16), v128.load(at, 32), v128.load(at, 48));
}

/** 2^(score - highest): as near as rounding to 7 bits asks for. */
// @ts-ignore: decorator
@inline
function weightOf(scores: v128, highest: v128): v128 {
  return exp2OfNegative(f32x4.sub(scores, highest), true);
}

/** Which of four positions from `begin` on are seen, of `first` to `last`: all bits of their lanes. */
// @ts-ignore: decorator
@inline
function areSeen(begin: i32, first: i32, last: i32): v128 {
  const position = i32x4.add(i32x4.splat(begin), i32x4(0, 1, 2, 3));
  return v128.and(i32x4.ge_s(position, i32x4.splat(first)), i32x4.le_s(position, i32x4.splat(last)));
}

/**
 * Makes of scores probabilities times the scales of their values. What is not seen has a probability of 0. Returns the
 * sum of probabilities.
 */
export function weigh(
  from: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
  highest: f32,
): f32 {
  const most = f32x4.splat(highest), none = f32x4.splat(0);
  const sizes = scores + LARGEST;
  let total = none;
  for (let chunk = first >> 4; chunk <= last >> 4; chunk++) {
    const at = scores + (<usize> chunk << 6), scales = from + (width << 7) + 256 + (<usize> chunk << 6);
    const begin = chunk * CHUNK;
    let a = none, b = none, c = none, d = none;
    // Groups of four of which some position is seen: as a rule all of them.
    if (begin + 3 >= first && begin + 12 <= last) {
      a = weightOf(v128.load(at), most);
      b = weightOf(v128.load(at, 16), most);
      c = weightOf(v128.load(at, 32), most);
      d = weightOf(v128.load(at, 48), most);
    } else {
      if (begin + 3 >= first && begin <= last) a = weightOf(v128.load(at), most);
      if (begin + 7 >= first && begin + 4 <= last) b = weightOf(v128.load(at, 16), most);
      if (begin + 11 >= first && begin + 8 <= last) c = weightOf(v128.load(at, 32), most);
      if (begin + 15 >= first && begin + 12 <= last) d = weightOf(v128.load(at, 48), most);
    }
    total = f32x4.add(f32x4.add(f32x4.add(f32x4.add(total, a), b), c), d);
    a = f32x4.mul(a, v128.load(scales));
    b = f32x4.mul(b, v128.load(scales, 16));
    c = f32x4.mul(c, v128.load(scales, 32));
    d = f32x4.mul(d, v128.load(scales, 48));
    if (begin < first || begin + CHUNK - 1 > last) {
      // Scales of what is not seen are whatever a former sequence has left.
      a = v128.and(a, areSeen(begin, first, last));
      b = v128.and(b, areSeen(begin + 4, first, last));
      c = v128.and(c, areSeen(begin + 8, first, last));
      d = v128.and(d, areSeen(begin + 12, first, last));
    }
    v128.store(at, a);
    v128.store(at, b, 16);
    v128.store(at, c, 32);
    v128.store(at, d, 48);
    v128.store(sizes + (<usize> chunk << 4), f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d)));
  }
  return sumLanes(total);
}

/**
 * The scales by which each chunk of what {@link weigh} leaves has 7 bits. What is said of chunks that are not seen is
 * not read.
 */
export function chooseScales(scores: usize): void {
  const sizes = scores + LARGEST, size = maxLanes(sizes);
  v128.store(scores + PROBABILITIES, f32x4.mul(size, f32x4.splat(1.0 / 127.0)), 64);
  v128.store(sizes, v128.and(f32x4.div(f32x4.splat(127), size), f32x4.gt(size, f32x4.splat(LEAST))));
}
/** Rounds to the integers of 7 bits, behind scores. */
export function narrowAll(scores: usize, first: i32, last: i32): void {
  const work = scores + PROBABILITIES, sizes = scores + LARGEST;
  for (let chunk = <usize> (first >> 4); chunk <= <usize> (last >> 4); chunk++) {
    const at = scores + (chunk << 6), factor = v128.load32_splat(sizes + (chunk << 2));
    const a = roundPlus(f32x4.mul(v128.load(at), factor), PLUS_0);
    const b = roundPlus(f32x4.mul(v128.load(at, 16), factor), PLUS_0);
    const c = roundPlus(f32x4.mul(v128.load(at, 32), factor), PLUS_0);
    const d = roundPlus(f32x4.mul(v128.load(at, 48), factor), PLUS_0);
    v128.store(
      work + (chunk << 4),
      i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d)),
    );
  }
}

/** A page's int8 values, mixed by probabilities as {@link narrowAll} leaves them. */
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
