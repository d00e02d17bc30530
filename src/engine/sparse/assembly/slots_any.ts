/**
 * Sparse int8 matrices with as many slots a window as it needs, from none to four, and lists.
 *
 * A slot is that of `slots.ts`. How many there are is no branch: the slots of four rows are four streams
 * that are gone through from end to end, in units of two slots of 48 bytes (indices in low and high
 * halves, values, values):
 *
 * - *quads*: two slots of each window of a segment: two units;
 * - *doubles*: two slots of one window, where the segment's other one has no two to spare: a unit;
 * - *couples*: a slot of each window of a segment: a unit;
 * - *singles*: a slot of a window whose neighbour has none to spare; two of them, from anywhere, are a pair
 *   in one unit.
 *
 * A window of three slots is in a quad or a double and in a couple or a single. A chunk is all that four
 * rows have:
 *
 *     0   quads, doubles, couples, pairs of singles: uint32
 *     16  where the inputs of each entry begin, both windows' of a pair of singles: uint16
 *         zeros up to a multiple of 16
 *         the streams
 *
 * `WEIGHTS` is a table with the address of each chunk. Products are in `slots_any_one.ts` and
 * `slots_any_many.ts`.
 */
import { SLOTS_ONE, SLOTS_TWO } from "./linear";
import { PAIR } from "./pairs";

/** Bytes of a unit: a pair of `pairs.ts`. */
export const UNIT: usize = PAIR;

/** Bytes of a chunk before its streams, which have so many beginnings. */
// @ts-ignore: decorator
@inline
export function headBytes(places: usize): usize {
  return (16 + (places << 1) + 15) & ~15;
}

/** Streams by number. */
export const QUAD = 0, DOUBLE = 1, COUPLE = 2, SINGLE = 3;

// @ts-ignore: decorator
@inline
export function bytesOf(stream: i32): usize {
  return stream == QUAD ? 2 * UNIT : UNIT;
}

/** The slots of a segment of `slots.ts` that an entry is: a quad two of each window, a couple one. */
// @ts-ignore: decorator
@inline
export function kindOf(stream: i32): i32 {
  return stream == QUAD ? SLOTS_TWO : SLOTS_ONE;
}
