/**
 * Pairs of slots of int8 weights, as all layouts with slots have them.
 *
 * Packed, a pair takes 48 bytes: indices in low and high halves, values, values. Unpacked, for products
 * with many tokens, indices have a byte each, and what products begin with lies before: beginning, values,
 * values, indices, indices.
 */
import {
  addTimes,
  addToPart,
  beginning,
  centered,
  partSum,
  pick,
  subParts,
  upper,
  WIDE_PARTS,
} from "./simd";

/** Bytes of a pair, packed and unpacked; of one unpacked without its beginning. */
export const PAIR: usize = 48, UNPACKED: usize = 80, UNPACKED_PAIR: usize = 64;

/** The part of the pair at `w`, whose slots are of the windows `x` and `y`. */
// @ts-ignore: decorator
@inline
export function pairPart(
  w: usize,
  x: v128,
  y: v128,
  nibbles: v128,
  one: v128,
  zeros: v128,
): v128 {
  const i = v128.load(w), x0 = pick(x, v128.and(i, nibbles)), x1 = pick(y, upper(i, nibbles));
  return centered(v128.load(w, 16), x0, v128.load(w, 32), x1, one, zeros);
}

/** sum + the products of the pair at `w`, both of whose slots are of the window `x`, and of the next, of `y`. */
// @ts-ignore: decorator
@inline
export function addTwoPairs(
  sum: v128,
  w: usize,
  x: v128,
  y: v128,
  step: v128,
  nibbles: v128,
  one: v128,
  zeros: v128,
): v128 {
  if (!WIDE_PARTS) {
    const first = addTimes(sum, pairPart(w, x, x, nibbles, one, zeros), step);
    return addTimes(first, pairPart(w + PAIR, y, y, nibbles, one, zeros), step);
  }
  return addTimes(sum, twoPairsSum(w, x, y, nibbles, one, zeros), step);
}

/** The sums of those products alone. */
// @ts-ignore: decorator
@inline
export function twoPairsSum(w: usize, x: v128, y: v128, nibbles: v128, one: v128, zeros: v128): v128 {
  if (!WIDE_PARTS) {
    const first = partSum(pairPart(w, x, x, nibbles, one, zeros), one);
    return i32x4.add(first, partSum(pairPart(w + PAIR, y, y, nibbles, one, zeros), one));
  }
  // One chain of all four slots, and one of their zeros.
  const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
  const j = v128.load(w, PAIR), v2 = v128.load(w, PAIR + 16), v3 = v128.load(w, PAIR + 32);
  let all = addToPart(i32x4.splat(0), v0, pick(x, v128.and(i, nibbles)));
  all = addToPart(addToPart(all, v1, pick(x, upper(i, nibbles))), v2, pick(y, v128.and(j, nibbles)));
  all = addToPart(all, v3, pick(y, upper(j, nibbles)));
  const none = i32x4.splat(0);
  const first = addToPart(addToPart(none, v0, zeros), v1, zeros);
  return subParts(all, addToPart(addToPart(first, v2, zeros), v3, zeros));
}

/** Unpacks the pair at `w`; returns what products with it begin with. */
// @ts-ignore: decorator
@inline
export function unpackPair(w: usize, to: usize, nibbles: v128, one: v128, zeros: v128): v128 {
  const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
  const begin = beginning(v0, v1, one, zeros);
  v128.store(to, begin);
  v128.store(to, v0, 16);
  v128.store(to, v1, 32);
  v128.store(to, v128.and(i, nibbles), 48);
  v128.store(to, upper(i, nibbles), 64);
  return begin;
}

/** Unpacks two pairs that are added together: {@link secondBeginning} says where the second begins. */
// @ts-ignore: decorator
@inline
export function unpackTwoPairs(w: usize, to: usize, nibbles: v128, one: v128, zeros: v128): void {
  const first = unpackPair(w, to, nibbles, one, zeros);
  const second = unpackPair(w + PAIR, to + UNPACKED, nibbles, one, zeros);
  if (WIDE_PARTS) v128.store(to, i32x4.add(first, second));
}

/**
 * What the second of two unpacked pairs begins with: its own beginning, or the first one's part, where a
 * part has room for the products of both.
 */
// @ts-ignore: decorator
@inline
export function secondBeginning(first: v128, w: usize): v128 {
  return WIDE_PARTS ? first : v128.load(w, UNPACKED);
}

/** begin + two slots of the windows `x` and `y`: their values and their indices. */
// @ts-ignore: decorator
@inline
export function twoSlots(
  begin: v128,
  v0: v128,
  v1: v128,
  i0: v128,
  i1: v128,
  x: v128,
  y: v128,
): v128 {
  return addToPart(addToPart(begin, v0, pick(x, i0)), v1, pick(y, i1));
}

/** sum + (begin + two slots of the windows `x` and `y`) times a step. */
// @ts-ignore: decorator
@inline
export function addSlots(
  sum: v128,
  begin: v128,
  v0: v128,
  v1: v128,
  i0: v128,
  i1: v128,
  x: v128,
  y: v128,
  step: v128,
): v128 {
  return addTimes(sum, twoSlots(begin, v0, v1, i0, i1, x, y), step);
}

/** begin + the unpacked pair at `w`, whose slots are of the windows `x` and `y`. */
// @ts-ignore: decorator
@inline
export function unpackedPart(begin: v128, w: usize, x: v128, y: v128): v128 {
  const v0 = v128.load(w, 16), v1 = v128.load(w, 32);
  return twoSlots(begin, v0, v1, v128.load(w, 48), v128.load(w, 64), x, y);
}

/** p + q, of the parts of two pairs. */
// @ts-ignore: decorator
@inline
export function twoPartsSum(p: v128, q: v128, one: v128): v128 {
  return i32x4.add(partSum(p, one), partSum(q, one));
}
