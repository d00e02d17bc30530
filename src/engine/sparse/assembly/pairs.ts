/**
 * Pairs of slots of int8 weights, as all layouts with slots have them.
 *
 * Packed, a pair takes 48 bytes: indices in low and high halves, values, values. Unpacked, for products
 * with many tokens, indices have a byte each: values, values, indices, indices.
 */
import { centered, dot, pick, upper } from "./simd";

/** Bytes of a pair, packed and unpacked. */
export const PAIR: usize = 48, UNPACKED_PAIR: usize = 64;

/** sum + two slots, of the windows `x` and `y`: their values and their indices. */
// @ts-ignore: decorator
@inline
export function dotTwo(
  v0: v128,
  v1: v128,
  i0: v128,
  i1: v128,
  x: v128,
  y: v128,
  sum: v128,
  one: v128,
): v128 {
  return dot(v1, pick(y, i1), dot(v0, pick(x, i0), sum, one), one);
}

/** sum + the pair at `w`, whose slots are of the windows `x` and `y`. */
// @ts-ignore: decorator
@inline
export function addPair(w: usize, x: v128, y: v128, sum: v128, nibbles: v128, one: v128): v128 {
  const i = v128.load(w), i0 = v128.and(i, nibbles), i1 = upper(i, nibbles);
  return dotTwo(v128.load(w, 16), v128.load(w, 32), i0, i1, x, y, sum, one);
}

/** The same, with inputs of which 64 is the zero; of those `zeros` are sixteen. */
// @ts-ignore: decorator
@inline
export function addCenteredPair(
  w: usize,
  x: v128,
  y: v128,
  sum: v128,
  nibbles: v128,
  one: v128,
  zeros: v128,
): v128 {
  const i = v128.load(w), x0 = pick(x, v128.and(i, nibbles)), x1 = pick(y, upper(i, nibbles));
  return centered(v128.load(w, 16), x0, v128.load(w, 32), x1, sum, one, zeros);
}

/** sum + what inputs' zeros add to a product with the pair at `w`: 64·Σw. */
// @ts-ignore: decorator
@inline
export function addZeros(w: usize, sum: v128, one: v128, zeros: v128): v128 {
  return dot(v128.load(w, 32), zeros, dot(v128.load(w, 16), zeros, sum, one), one);
}

/** The same as {@link addPair} of an unpacked pair. */
// @ts-ignore: decorator
@inline
export function addUnpackedPair(w: usize, x: v128, y: v128, sum: v128, one: v128): v128 {
  const v0 = v128.load(w), v1 = v128.load(w, 16), i0 = v128.load(w, 32), i1 = v128.load(w, 48);
  return dotTwo(v0, v1, i0, i1, x, y, sum, one);
}

/** Unpacks the pair at `w`. */
// @ts-ignore: decorator
@inline
export function unpackPair(w: usize, to: usize, nibbles: v128): void {
  const i = v128.load(w);
  v128.store(to, v128.load(w, 16));
  v128.store(to, v128.load(w, 32), 16);
  v128.store(to, v128.and(i, nibbles), 32);
  v128.store(to, upper(i, nibbles), 48);
}
