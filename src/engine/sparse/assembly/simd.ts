/** Vector operations that builds make in different ways, all with the same result. */
import { FUSED_DOT } from "./variant";
import { EVEN_BYTES, HALF_BITS, HALF_UNIT, ONES } from "./control";

/** The vector of eight halves of 1 that {@link dot} wants: loaded once by a kernel. */
// @ts-ignore: decorator
@inline
export function ones(): v128 {
  return v128.load(ONES);
}

/** sum + the products of int8 weights and activations from 0 to 127, four to a lane. */
// @ts-ignore: decorator
@inline
export function dot(weights: v128, activations: v128, sum: v128, one: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) {
    return i32x4.relaxed_dot_i8x16_i7x16_add_s(weights, activations, sum);
  }
  if (ASC_FEATURE_RELAXED_SIMD) {
    return i32x4.add(sum, i32x4.dot_i16x8_s(pairs(weights, activations), one));
  }
  const even = i32x4.dot_i16x8_s(evenBytes(weights), v128.and(activations, v128.load(EVEN_BYTES)));
  const odd = i32x4.dot_i16x8_s(i16x8.shr_s(weights, 8), i16x8.shr_u(activations, 8));
  return i32x4.add(sum, i32x4.add(even, odd));
}

/**
 * v·(x - 64) + w·(y - 64), of activations of which 64 is the zero, with weights above -128: a *part*.
 *
 * Where an instruction gives pairs, a part has 16 bits: sums of four products may wrap around on the way,
 * but what is left when the zeros have gone is 4 · 64 · 127 at most. {@link addTimes} and {@link partSum}
 * make four products a lane of it. Elsewhere it has that form already.
 *
 * @param zeros Sixteen of 64.
 */
// @ts-ignore: decorator
@inline
export function centered(v: v128, x: v128, w: v128, y: v128, one: v128, zeros: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) {
    const zero = i32x4.splat(0);
    const all = dot(w, y, dot(v, x, zero, one), one);
    return i32x4.sub(all, dot(w, zeros, dot(v, zeros, zero, one), one));
  }
  const all = i16x8.add(pairs(v, x), pairs(w, y));
  return i16x8.sub(all, i16x8.add(zeroPairs(v, zeros), zeroPairs(w, zeros)));
}

/** v·(x - 64): the same of one. */
// @ts-ignore: decorator
@inline
export function centeredOne(v: v128, x: v128, one: v128, zeros: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) {
    const zero = i32x4.splat(0);
    return i32x4.sub(dot(v, x, zero, one), dot(v, zeros, zero, one));
  }
  return i16x8.sub(pairs(v, x), zeroPairs(v, zeros));
}

/** What parts of v and w begin with, where their zeros are taken out once for many tokens: -64·v - 64·w. */
// @ts-ignore: decorator
@inline
export function beginning(v: v128, w: v128, one: v128, zeros: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) {
    return i32x4.neg(dot(w, zeros, dot(v, zeros, i32x4.splat(0), one), one));
  }
  return i16x8.neg(i16x8.add(zeroPairs(v, zeros), zeroPairs(w, zeros)));
}

/** part + part. */
// @ts-ignore: decorator
@inline
export function addParts(a: v128, b: v128): v128 {
  return WIDE_PARTS ? i32x4.add(a, b) : i16x8.add(a, b);
}

/** part - part. */
// @ts-ignore: decorator
@inline
export function subParts(a: v128, b: v128): v128 {
  return WIDE_PARTS ? i32x4.sub(a, b) : i16x8.sub(a, b);
}

/** part + v·x. */
// @ts-ignore: decorator
@inline
export function addToPart(part: v128, v: v128, x: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) return dot(v, x, part, part);
  return i16x8.add(part, pairs(v, x));
}

/** Four products, or eight, a lane of a part. */
// @ts-ignore: decorator
@inline
export function partSum(part: v128, one: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) return part;
  return i32x4.dot_i16x8_s(part, one);
}

/**
 * sum + part · step, in integers.
 *
 * @param step As {@link stepBits} has made it, in every lane.
 */
// @ts-ignore: decorator
@inline
export function addTimes(sum: v128, part: v128, step: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) return i32x4.add(sum, i32x4.mul(part, step));
  return i32x4.add(sum, i32x4.dot_i16x8_s(part, step));
}

/** Steps of 0 to 32767 for {@link addTimes}: in both halves of a lane, where parts have 16 bits. */
// @ts-ignore: decorator
@inline
export function stepBits(steps: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD && FUSED_DOT ? steps : v128.or(steps, i32x4.shl(steps, 16));
}

/** A step as it is, of what {@link stepBits} has made of it. */
// @ts-ignore: decorator
@inline
export function wholeStep(step: v128): v128 {
  return WIDE_PARTS ? step : i32x4.shr_u(step, 16);
}

/** sum + four sums of {@link dot} times a step, in integers; the step is whole. */
// @ts-ignore: decorator
@inline
export function addWholeTimes(sum: v128, part: v128, step: v128): v128 {
  return i32x4.add(sum, i32x4.mul(part, step));
}

/** Whether a part has 32 bits, and room for more products than {@link centered} gives. */
export const WIDE_PARTS: bool = ASC_FEATURE_RELAXED_SIMD && FUSED_DOT;

/** Whether a part of two slots takes few instructions, and no longer than it takes to load their weights. */
export const LOADS_MATTER: bool = ASC_FEATURE_RELAXED_SIMD;

/** Sums of neighbouring weights, times 64. */
// @ts-ignore: decorator
@inline
function zeroPairs(v: v128, zeros: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return pairs(v, zeros);
  return i16x8.shl(i16x8.extadd_pairwise_i8x16_s(v), 6);
}

/**
 * Products of bytes of which one is from 0 to 127 and the other so small that eight pairs of products fit
 * 16 bits (15 · 127 does): summed in 16 bits where an instruction gives pairs, which leaves one step
 * fewer for each than {@link dot}. First {@link products}, then {@link addProducts} up to seven times,
 * then {@link sumProducts}.
 */
// @ts-ignore: decorator
@inline
export function products(signed: v128, unsigned: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) {
    return i32x4.relaxed_dot_i8x16_i7x16_add_s(signed, unsigned, i32x4.splat(0));
  }
  return pairs(signed, unsigned);
}

/** More of them. */
// @ts-ignore: decorator
@inline
export function addProducts(sum: v128, signed: v128, unsigned: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) {
    return i32x4.relaxed_dot_i8x16_i7x16_add_s(signed, unsigned, sum);
  }
  return i16x8.add(sum, products(signed, unsigned));
}

/** Their sums, four products or a multiple of four to a lane. */
// @ts-ignore: decorator
@inline
function sumProducts(sum: v128, one: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) return sum;
  return i32x4.dot_i16x8_s(sum, one);
}

/** sum + two vectors of such products, in 32 bits. */
// @ts-ignore: decorator
@inline
export function addSumOfTwo(sum: v128, a: v128, x: v128, b: v128, y: v128, one: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD && FUSED_DOT) return addProducts(addProducts(sum, a, x), b, y);
  return i32x4.add(sum, sumProducts(addProducts(products(a, x), b, y), one));
}

/** Sums of neighbouring products, in 16 bits: two of 127 · 127 fit, so nothing saturates. */
// @ts-ignore: decorator
@inline
function pairs(a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i16x8.relaxed_dot_i8x16_i7x16_s(a, b);
  const even = i16x8.mul(evenBytes(a), v128.and(b, v128.load(EVEN_BYTES)));
  return i16x8.add(even, i16x8.mul(i16x8.shr_s(a, 8), i16x8.shr_u(b, 8)));
}

/** The first of each two bytes, with its sign, in 16 bits. */
// @ts-ignore: decorator
@inline
function evenBytes(v: v128): v128 {
  return i16x8.shr_s(i16x8.shl(v, 8), 8);
}

/** Bytes of `from` at indices of 0 to 15. */
// @ts-ignore: decorator
@inline
export function pick(from: v128, indices: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i8x16.relaxed_swizzle(from, indices);
  return i8x16.swizzle(from, indices);
}

/** The high halves of bytes. (A shift of bytes has its mask made anew at each use.) */
// @ts-ignore: decorator
@inline
export function upper(v: v128, nibbles: v128): v128 {
  return v128.and(i16x8.shr_u(v, 4), nibbles);
}

/** A number of four, in all lanes. */
// @ts-ignore: decorator
@inline
export function lane(four: v128, i: i32): v128 {
  if (i == 0) return i32x4.shuffle(four, four, 0, 0, 0, 0);
  if (i == 1) return i32x4.shuffle(four, four, 1, 1, 1, 1);
  if (i == 2) return i32x4.shuffle(four, four, 2, 2, 2, 2);
  return i32x4.shuffle(four, four, 3, 3, 3, 3);
}

/** Sum of the lanes, always in the same order. */
// @ts-ignore: decorator
@inline
export function sumLanes(v: v128): f32 {
  return (f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1)) +
    (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** Sum of the lanes of integers. */
// @ts-ignore: decorator
@inline
export function sumOfLanes(v: v128): i32 {
  return i32x4.extract_lane(v, 0) + i32x4.extract_lane(v, 1) + i32x4.extract_lane(v, 2) +
    i32x4.extract_lane(v, 3);
}

/** Largest of the lanes. */
// @ts-ignore: decorator
@inline
export function maxLane(v: v128): f32 {
  // `max` of single numbers is seven instructions.
  const two = f32x4.pmax(v, i32x4.shuffle(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.pmax(two, i32x4.shuffle(two, two, 1, 0, 3, 2)), 0);
}

/** The largest lane of each of four vectors. */
// @ts-ignore: decorator
@inline
export function maxOfFour(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.pmax(i32x4.shuffle(a, b, 0, 4, 1, 5), i32x4.shuffle(a, b, 2, 6, 3, 7));
  const cd = f32x4.pmax(i32x4.shuffle(c, d, 0, 4, 1, 5), i32x4.shuffle(c, d, 2, 6, 3, 7));
  return f32x4.pmax(i32x4.shuffle(ab, cd, 0, 1, 4, 5), i32x4.shuffle(ab, cd, 2, 3, 6, 7));
}

/** Writes the first lanes of four vectors, the second ones and so on, each four `apart`. */
// @ts-ignore: decorator
@inline
export function turnFour(v0: v128, v1: v128, v2: v128, v3: v128, to: usize, apart: usize): void {
  putTurned(false, v0, v1, v2, v3, to, apart);
}

/** Adds them to float32 numbers that are there. */
// @ts-ignore: decorator
@inline
export function addFourTurned(v0: v128, v1: v128, v2: v128, v3: v128, to: usize, apart: usize): void {
  putTurned(true, v0, v1, v2, v3, to, apart);
}

// @ts-ignore: decorator
@inline
function putTurned(adds: bool, v0: v128, v1: v128, v2: v128, v3: v128, to: usize, apart: usize): void {
  const a = i32x4.shuffle(v0, v1, 0, 4, 1, 5), b = i32x4.shuffle(v2, v3, 0, 4, 1, 5);
  const c = i32x4.shuffle(v0, v1, 2, 6, 3, 7), d = i32x4.shuffle(v2, v3, 2, 6, 3, 7);
  put(adds, to, i64x2.shuffle(a, b, 0, 2));
  put(adds, to + apart, i64x2.shuffle(a, b, 1, 3));
  put(adds, to + 2 * apart, i64x2.shuffle(c, d, 0, 2));
  put(adds, to + 3 * apart, i64x2.shuffle(c, d, 1, 3));
}

// @ts-ignore: decorator
@inline
function put(adds: bool, to: usize, v: v128): void {
  if (adds) addFloats(to, v);
  else v128.store(to, v);
}

/** Adds four float32 numbers to those at `to`. */
// @ts-ignore: decorator
@inline
export function addFloats(to: usize, v: v128): void {
  v128.store(to, f32x4.add(v128.load(to), v));
}

/** Four float16 numbers at `at` as float32: exact, subnormal numbers too. */
// @ts-ignore: decorator
@inline
export function halvesAt(at: usize): v128 {
  // The sign fills the upper half; moved up by 13, it and the number's 15 bits are where they belong. The
  // exponent is then 112 too small; multiplying mends it, and makes subnormal numbers normal.
  const moved = v128.and(i32x4.shl(v128.load16x4_s(at), 13), v128.load(HALF_BITS));
  return f32x4.mul(moved, v128.load(HALF_UNIT));
}

/** The float16 number at `at` as float32. */
export function halfAt(at: usize): f32 {
  const bits = <u32> load<i16>(at) << 13 & load<u32>(HALF_BITS);
  return reinterpret<f32>(bits) * load<f32>(HALF_UNIT);
}
