/** Functions on four float32 numbers, of additions and multiplications alone: the same bits everywhere. */

/** e^x, to 2 units in the last place; 0 below -87, and finite above 88. */
// @ts-ignore: decorator
@inline
export function exp(x: v128): v128 {
  // Cody-Waite: x = n·ln 2 + r with |r| ≤ ln 2 / 2, and a polynomial for e^r.
  const bounded = f32x4.min(f32x4.max(x, f32x4.splat(-87.3)), f32x4.splat(88.3));
  const n = f32x4.nearest(f32x4.mul(bounded, f32x4.splat(1.44269504088896341)));
  let r = f32x4.sub(bounded, f32x4.mul(n, f32x4.splat(0.693359375)));
  r = f32x4.sub(r, f32x4.mul(n, f32x4.splat(-2.12194440e-4)));
  let p = f32x4.splat(1.9875691500e-4);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1));
  p = f32x4.add(f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), r), f32x4.splat(1));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return v128.and(f32x4.mul(p, power), f32x4.ge(x, f32x4.splat(-87.3)));
}

/** 1 / (1 + e^-x). */
// @ts-ignore: decorator
@inline
export function sigmoid(x: v128): v128 {
  const one = f32x4.splat(1);
  return f32x4.div(one, f32x4.add(one, exp(f32x4.neg(x))));
}

/** x · sigmoid(x). */
// @ts-ignore: decorator
@inline
export function silu(x: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1), exp(f32x4.neg(x))));
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

/** Activations by their number in a program. */
export const NONE = 0, SILU = 1, GELU = 2, RELU = 3, SIGMOID = 4;

/** An activation. Not inlined: it would be there some hundred times. */
export function activate(kind: i32, x: v128): v128 {
  if (kind == SILU) return silu(x);
  if (kind == GELU) return gelu(x);
  if (kind == RELU) return f32x4.max(x, f32x4.splat(0));
  if (kind == SIGMOID) return sigmoid(x);
  return x;
}
