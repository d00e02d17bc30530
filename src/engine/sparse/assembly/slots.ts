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
 * has no slot for are in lists beside (`lists.ts`).
 *
 * Products are in `slots_one.ts` and `slots_many.ts`; in `slots_grouped.ts` those with scales of groups.
 */
import { SLOTS_ONE } from "./linear";
import { addTwoTimes, PAIR, pairPart, twoPartsSum, UNPACKED } from "./pairs";
import { addTimes, partSum } from "./simd";

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

/** sum + a segment of four rows times a token's inputs at `x`, times their step. */
// @ts-ignore: decorator
@inline
export function addSegment(
  kind: i32,
  w: usize,
  x: usize,
  sum: v128,
  step: v128,
  nibbles: v128,
  one_: v128,
  zeros: v128,
): v128 {
  const a = v128.load(x), b = v128.load(x, 16);
  if (kind == SLOTS_ONE) return addTimes(sum, pairPart(w, a, b, nibbles, one_, zeros), step);
  const p = pairPart(w, a, a, nibbles, one_, zeros);
  return addTwoTimes(sum, p, pairPart(w + PAIR, b, b, nibbles, one_, zeros), step);
}

/** The same product alone. */
// @ts-ignore: decorator
@inline
export function segmentSum(
  kind: i32,
  w: usize,
  x: usize,
  nibbles: v128,
  one_: v128,
  zeros: v128,
): v128 {
  const a = v128.load(x), b = v128.load(x, 16);
  if (kind == SLOTS_ONE) return partSum(pairPart(w, a, b, nibbles, one_, zeros), one_);
  const p = pairPart(w, a, a, nibbles, one_, zeros);
  return twoPartsSum(p, pairPart(w + PAIR, b, b, nibbles, one_, zeros), one_);
}
