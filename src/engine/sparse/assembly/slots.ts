/**
 * Sparse int8 matrices in slots.
 *
 * A slot holds 4 weights of each of 4 rows, all from one window of 16 inputs, as 16 values and 16
 * indices of four bits: `pick` fetches the inputs, `dot` multiplies and adds, and four rows advance at
 * once. Two slots share the 16 bytes of their indices (low halves, high halves), so a pair of slots
 * takes 48 bytes: indices, values, values. With ONE slot a window a pair serves the two windows of a
 * segment, with TWO a pair serves one window.
 *
 * Eight rows lie together, as one stream: for each segment the pairs of the first four rows, then those
 * of the others. What inputs' zero, 64, adds to a product is not stored but computed beside it: that takes
 * instructions, but decoding waits for bytes, of which sums would be 7 to 14 of 100. Weights that a window
 * has no slot for are in lists beside (`beside.ts`).
 *
 * Products are in `slots_one.ts`, `slots_few.ts` and `slots_many.ts`; in `slots_grouped.ts` those with scales of groups.
 */
import { SLOTS_ONE } from "./linear";
import {
  addTwoPairs,
  PAIR,
  pairPart,
  secondBeginning,
  twoPairsSum,
  twoPartsSum,
  UNPACKED,
  unpackedPart,
} from "./pairs";
import { addTimes, partSum, WIDE_PARTS } from "./simd";

/** Bytes of a segment's pairs of four rows. */
// @ts-ignore: decorator
@inline
export function pairBytes(kind: i32): usize {
  return kind == SLOTS_ONE ? PAIR : 2 * PAIR;
}

/** Bytes of a segment of eight rows. */
// @ts-ignore: decorator
@inline
export function segmentBytes(kind: i32): usize {
  return 2 * pairBytes(kind);
}

/** Bytes of a segment of four rows that is unpacked. */
// @ts-ignore: decorator
@inline
export function unpackedBytes(kind: i32): usize {
  return kind == SLOTS_ONE ? UNPACKED : 2 * UNPACKED;
}

/** sum + a segment of four rows times a token's inputs, the windows `a` and `b`, times their step. */
// @ts-ignore: decorator
@inline
export function addSegment(
  kind: i32,
  w: usize,
  a: v128,
  b: v128,
  sum: v128,
  step: v128,
  nibbles: v128,
  one_: v128,
  zeros: v128,
): v128 {
  if (kind == SLOTS_ONE) return addTimes(sum, pairPart(w, a, b, nibbles, one_, zeros), step);
  return addTwoPairs(sum, w, a, b, step, nibbles, one_, zeros);
}

/** The same product alone. */
// @ts-ignore: decorator
@inline
export function segmentSum(
  kind: i32,
  w: usize,
  a: v128,
  b: v128,
  nibbles: v128,
  one_: v128,
  zeros: v128,
): v128 {
  if (kind == SLOTS_ONE) return partSum(pairPart(w, a, b, nibbles, one_, zeros), one_);
  return twoPairsSum(w, a, b, nibbles, one_, zeros);
}

/** sum + an unpacked segment of four rows times a token's inputs at `x`, times their step. */
// @ts-ignore: decorator
@inline
export function addUnpacked(kind: i32, w: usize, x: usize, sum: v128, step: v128): v128 {
  const y = v128.load(x), z = v128.load(x, 16), begin = v128.load(w);
  if (kind == SLOTS_ONE) return addTimes(sum, unpackedPart(begin, w, y, z), step);
  const first = unpackedPart(begin, w, y, y);
  const second = unpackedPart(secondBeginning(first, w), w + UNPACKED, z, z);
  return addTimes(WIDE_PARTS ? sum : addTimes(sum, first, step), second, step);
}

/** The same product alone. */
// @ts-ignore: decorator
@inline
export function unpackedSum(kind: i32, w: usize, x: usize, one_: v128): v128 {
  const y = v128.load(x), z = v128.load(x, 16), begin = v128.load(w);
  if (kind == SLOTS_ONE) return partSum(unpackedPart(begin, w, y, z), one_);
  const first = unpackedPart(begin, w, y, y);
  const second = unpackedPart(secondBeginning(first, w), w + UNPACKED, z, z);
  return WIDE_PARTS ? second : twoPartsSum(first, second, one_);
}
