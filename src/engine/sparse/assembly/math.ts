/** Functions on four float32 numbers, of additions and multiplications alone: the same bits everywhere. */

import { CONSTANTS } from "./control";

/** Added to a number below 2²² in size, it leaves the nearest integer in the lowest bits. */
const MAGIC: f32 = 12582912;
/** The bits of that number. */
const MAGIC_BITS = 0x4b400000;

/**
 * A vector that is the same all over, by its place in a table in memory. Engines make a constant vector
 * anew wherever it is used, from two or three instructions; a load is one, or none.
 */
// @ts-ignore: decorator
@inline
function constant(place: usize): v128 {
  return v128.load(CONSTANTS + (place << 4));
}

/** Fills the table. */
export function setUpMath(): void {
  put(0, MAGIC);
  put(1, -87.3);
  put(2, 88.3);
  put(3, 1.44269504088896341);
  // ln 2 in two parts, of which the first has few bits.
  put(4, 0.693359375);
  put(5, -2.12194440e-4);
  put(6, 1.9875691500e-4);
  put(7, 1.3981999507e-3);
  put(8, 8.3334519073e-3);
  put(9, 4.1665795894e-2);
  put(10, 1.6666665459e-1);
  put(11, 5.0000001201e-1);
  put(12, 1);
  // 2^r for |r| ≤ 1/2, by its Taylor series in r·ln 2, the last terms fitted.
  put(13, -126);
  put(14, 1.3333558146e-3);
  put(15, 9.6181291076e-3);
  put(16, 5.5504108665e-2);
  put(17, 2.4022650696e-1);
  put(18, 6.9314718056e-1);
  // 2^r with fewer terms, for the least relative error.
  put(22, 0.9999993);
  put(23, 0.6931218);
  put(24, 0.24024744);
  put(25, 0.055917863);
  put(26, 0.009570102);
  // -1 / ln 2, and the largest power.
  put(27, -1.44269504088896341);
  put(28, 126);
  // Zero points less the bits of MAGIC, as integers.
  v128.store(CONSTANTS + (PLUS_0 << 4), i32x4.splat(-MAGIC_BITS));
  v128.store(CONSTANTS + (PLUS_64 << 4), i32x4.splat(64 - MAGIC_BITS));
  v128.store(CONSTANTS + (PLUS_8256 << 4), i32x4.splat(8256 - MAGIC_BITS));
}

function put(place: usize, value: f32): void {
  v128.store(CONSTANTS + (place << 4), f32x4.splat(value));
}

/** What {@link roundPlus} can add, by its place in the table. */
export const PLUS_0: usize = 19, PLUS_64: usize = 20, PLUS_8256: usize = 21;

/** The nearest integers, ties to even, of numbers below 2²² in size; plus a constant of the table. */
// @ts-ignore: decorator
@inline
export function roundPlus(x: v128, plus: usize): v128 {
  return i32x4.add(f32x4.add(x, constant(0)), constant(plus));
}

/** e^x, to 2 units in the last place; 0 below -87, and finite above 88. */
// @ts-ignore: decorator
@inline
export function exp(x: v128): v128 {
  // Cody-Waite: x = n·ln 2 + r with |r| ≤ ln 2 / 2, and a polynomial for e^r. `pmin` and `pmax` are one
  // instruction each where `min` and `max` are seven.
  const bounded = f32x4.pmin(constant(2), f32x4.pmax(constant(1), x));
  const shifted = f32x4.add(f32x4.mul(bounded, constant(3)), constant(0));
  const n = f32x4.sub(shifted, constant(0));
  let r = f32x4.sub(bounded, f32x4.mul(n, constant(4)));
  r = f32x4.sub(r, f32x4.mul(n, constant(5)));
  // Pairs of terms do not wait for each other.
  const square = f32x4.mul(r, r);
  const low = f32x4.add(f32x4.mul(constant(10), r), constant(11));
  const middle = f32x4.add(f32x4.mul(constant(8), r), constant(9));
  let p = f32x4.add(f32x4.mul(constant(6), r), constant(7));
  p = f32x4.add(f32x4.mul(p, square), middle);
  p = f32x4.add(f32x4.mul(p, square), low);
  p = f32x4.add(f32x4.add(f32x4.mul(p, square), r), constant(12));
  // 2^n: the lowest bits of `shifted` are n, and those of 1 are what is added.
  const power = i32x4.add(i32x4.shl(shifted, 23), constant(12));
  return v128.and(f32x4.mul(p, power), f32x4.gt(x, constant(1)));
}

/** 2^r for |r| ≤ 1/2, to 3 units in the last place. */
// @ts-ignore: decorator
@inline
function exp2Of(r: v128): v128 {
  let p = constant(14);
  p = f32x4.add(f32x4.mul(p, r), constant(15));
  p = f32x4.add(f32x4.mul(p, r), constant(16));
  p = f32x4.add(f32x4.mul(p, r), constant(17));
  p = f32x4.add(f32x4.mul(p, r), constant(18));
  return f32x4.add(f32x4.mul(p, r), constant(12));
}

/** The same to 1 part in 300,000. */
// @ts-ignore: decorator
@inline
function nearlyExp2Of(r: v128): v128 {
  // Pairs of terms do not wait for each other.
  const square = f32x4.mul(r, r), low = f32x4.add(f32x4.mul(constant(23), r), constant(22));
  let p = f32x4.add(f32x4.mul(constant(25), r), constant(24));
  p = f32x4.add(f32x4.mul(constant(26), square), p);
  return f32x4.add(f32x4.mul(p, square), low);
}

/**
 * 2^x for x ≤ 0; what is below 2^-126 is 2^-126.
 *
 * @param isNear Whether 1 part in 300,000 will do.
 */
// @ts-ignore: decorator
@inline
export function exp2OfNegative(x: v128, isNear: bool = false): v128 {
  return exp2(f32x4.pmax(constant(13), x), isNear);
}

/** 2^x for x from -126 to 126. */
// @ts-ignore: decorator
@inline
function exp2(x: v128, isNear: bool): v128 {
  const shifted = f32x4.add(x, constant(0)), r = f32x4.sub(x, f32x4.sub(shifted, constant(0)));
  const p = isNear ? nearlyExp2Of(r) : exp2Of(r);
  return f32x4.mul(p, i32x4.add(i32x4.shl(shifted, 23), constant(12)));
}

/** 1 / (1 + e^-x). */
// @ts-ignore: decorator
@inline
export function sigmoid(x: v128): v128 {
  return f32x4.div(constant(12), f32x4.add(constant(12), exp(f32x4.neg(x))));
}

/** x · sigmoid(x). */
// @ts-ignore: decorator
@inline
export function silu(x: v128): v128 {
  return f32x4.div(x, f32x4.add(constant(12), exp(f32x4.neg(x))));
}

/** The same to 1 part in 100,000. */
// @ts-ignore: decorator
@inline
function nearlySilu(x: v128): v128 {
  const bounded = f32x4.pmin(constant(28), f32x4.pmax(constant(13), f32x4.mul(x, constant(27))));
  return f32x4.div(x, f32x4.add(constant(12), exp2(bounded, true)));
}

/** x · Φ(x), with the error function of Abramowitz and Stegun 7.1.26 (to 1.5e-7). */
// @ts-ignore: decorator
@inline
export function gelu(x: v128): v128 {
  const one = f32x4.splat(1);
  const z = f32x4.abs(f32x4.mul(x, f32x4.splat(0.70710678118654752)));
  const t = f32x4.div(one, f32x4.add(one, f32x4.mul(z, f32x4.splat(0.3275911))));
  let p = f32x4.splat(1.061405429);
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(-1.453152027));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(1.421413741));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(-0.284496736));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(0.254829592));
  // 1 - erf(|z|); by the sign of x it is added to, or taken from, what a half of x has.
  const rest = f32x4.mul(f32x4.mul(p, t), exp(f32x4.neg(f32x4.mul(z, z))));
  const erf = f32x4.sub(one, rest);
  const signed = v128.or(erf, v128.and(x, i32x4.splat(0x80000000)));
  return f32x4.mul(f32x4.mul(x, f32x4.splat(0.5)), f32x4.add(one, signed));
}

/** The approximation by tanh: x · (1 + tanh u) / 2 = x · sigmoid(2u), u = √(2/π) · (x + 0.044715 · x³). */
// @ts-ignore: decorator
@inline
function geluTanh(x: v128): v128 {
  // 2 · √(2/π), and that times 0.044715.
  const bend = f32x4.mul(f32x4.mul(x, x), f32x4.splat(0.07135481282));
  const u = f32x4.mul(x, f32x4.add(bend, f32x4.splat(1.595769121606)));
  return f32x4.div(x, f32x4.add(constant(12), exp(f32x4.neg(u))));
}

/** To 3 units in the last place. What is no number stays so. */
// @ts-ignore: decorator
@inline
function tanh(x: v128): v128 {
  const one = constant(12), signs = i32x4.splat(0x80000000), size = v128.andnot(x, signs);
  // Far from 0, 1 - 2 / (1 + e^2|x|); near to it, where little would be left of that, x + x^3 times a polynomial in x^2
  // that was fitted for the least relative error up to a half.
  const far = f32x4.sub(one, f32x4.div(f32x4.splat(2), f32x4.add(one, exp(f32x4.add(size, size)))));
  const square = f32x4.mul(x, x);
  let p = f32x4.splat(1.724148355e-2);
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(-5.304549262e-2));
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(1.332587898e-1));
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(-3.333314359e-1));
  const near = f32x4.add(x, f32x4.mul(f32x4.mul(p, square), x));
  return v128.bitselect(v128.or(far, v128.and(x, signs)), near, f32x4.ge(size, f32x4.splat(0.5)));
}

/** cap · tanh(x / cap). Not inlined: most models have no cap. */
export function capped(x: v128, cap: f32): v128 {
  const size = f32x4.splat(cap);
  return f32x4.mul(tanh(f32x4.div(x, size)), size);
}

/** Activations by their number in a program. */
export const NONE = 0, SILU = 1, GELU = 2, RELU = 3, SIGMOID = 4, NEARLY_SILU = 5, GELU_TANH = 6, TANH = 7,
  RELU_SQUARED = 8,
  SOFTPLUS = 9;

/** An activation. Not inlined: it would be there some hundred times. */
export function activate(kind: i32, x: v128): v128 {
  if (kind == NEARLY_SILU) return nearlySilu(x);
  if (kind == SILU) return silu(x);
  if (kind == GELU) return gelu(x);
  if (kind == GELU_TANH) return geluTanh(x);
  if (kind == TANH) return tanh(x);
  if (kind == RELU) return f32x4.pmax(f32x4.splat(0), x);
  if (kind == SIGMOID) return sigmoid(x);
  if (kind == RELU_SQUARED) {
    const positive = f32x4.pmax(f32x4.splat(0), x);
    return f32x4.mul(positive, positive);
  }
  if (kind == SOFTPLUS) return softplus(x);
  return x;
}

/**
 * ln(1 + e^x), as max(x, 0) + ln(1 + e^-|x|); ln(1 + t) = 2 artanh(t / (2 + t)), by the latter's Taylor series: what
 * follows its terms is below a part in 10^9 where t is up to 1.
 */
function softplus(x: v128): v128 {
  const t = exp(f32x4.neg(f32x4.abs(x))), z = f32x4.div(t, f32x4.add(t, f32x4.splat(2)));
  const square = f32x4.mul(z, z);
  let p = f32x4.splat(1.0 / 15.0);
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(1.0 / 13.0));
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(1.0 / 11.0));
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(1.0 / 9.0));
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(1.0 / 7.0));
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(1.0 / 5.0));
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(1.0 / 3.0));
  p = f32x4.add(f32x4.mul(p, square), f32x4.splat(1));
  return f32x4.add(f32x4.pmax(f32x4.splat(0), x), f32x4.mul(f32x4.add(z, z), p));
}

/** Activates all numbers from `from` to `end`. */
export function activateAll(kind: i32, from: usize, end: usize): void {
  if (kind == NONE) return;
  if (kind == NEARLY_SILU) {
    for (let at = from; at < end; at += 16) v128.store(at, nearlySilu(v128.load(at)));
  } else {
    for (let at = from; at < end; at += 16) v128.store(at, activate(kind, v128.load(at)));
  }
}
