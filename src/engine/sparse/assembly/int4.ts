/**
 * What kernels of int4 weights share: groups of columns with a scale, and levels of four bits.
 *
 * A group of a row is 32, 64 or 128 columns, one to four segments; its scale is float16, and lies before
 * its weights in the one stream that a kernel reads. Within a group products of segments are summed in
 * integers, in the token's steps; the sum is multiplied by the scale of the weights, and what groups give is
 * added in float32.
 */

import { SLOTS_ONE_INT4 } from "./linear";
import { pick } from "./simd";

/** Segments of a group, in a linear step. */
export const GROUP_SEGMENTS: usize = 108;
/**
 * -8 times the sums of a segment's quantised inputs less their zero points, times its step,
 * `[token, segment, 2]` int32: of those of upper seven bits, and of those of lower seven; bytes between
 * threads' copies.
 */
export const X_SUMS: usize = 112;
export const X_SUMS_COPY: usize = 116;

/** Bytes before a group of eight rows in slots: scales. */
export const SLOTS_HEADER: usize = 16;

/** Bytes of a segment of four rows in slots: indices and values of one or two pairs. */
const ONE_BYTES: usize = 32, TWO_BYTES: usize = 64;

/** The same by the kind of slots. */
// @ts-ignore: decorator
@inline
export function fourBytes(kind: i32): usize {
  return kind == SLOTS_ONE_INT4 ? ONE_BYTES : TWO_BYTES;
}

/** Bytes before a group of sixteen dense rows, and of a segment of them. */
export const DENSE_HEADER: usize = 32;
export const DENSE_SEGMENT: usize = 256;

/** Bytes of sixteen dense rows. */
// @ts-ignore: decorator
@inline
export function denseBytes(segments: usize, perGroup: usize): usize {
  return (segments + perGroup - 1) / perGroup * DENSE_HEADER + segments * DENSE_SEGMENT;
}

/** Bytes of eight rows in slots, of which a segment of four takes so many. */
// @ts-ignore: decorator
@inline
export function slotsBytes(segments: usize, perGroup: usize, four: usize): usize {
  return (segments + perGroup - 1) / perGroup * SLOTS_HEADER + segments * 2 * four;
}

/**
 * What the sums of a group of dense rows begin with, the same for all rows.
 *
 * @param starts Those of its segments: see {@link X_SUMS}.
 */
// @ts-ignore: decorator
@inline
export function startOf(starts: usize, count: usize): v128 {
  let start = load<i32>(starts);
  for (let i: usize = 1; i < count; i++) start += load<i32>(starts + (i << 3));
  return i32x4.splat(start);
}

/** sum + a group's integers, or some of them, times the scales of four rows. */
// @ts-ignore: decorator
@inline
export function addGroup(sum: v128, integers: v128, scales: v128): v128 {
  return f32x4.add(sum, f32x4.mul(f32x4.convert_i32x4_s(integers), scales));
}

/** Adds the same to four rows' sums at `to`. */
// @ts-ignore: decorator
@inline
export function endGroup(to: usize, integers: v128, scales: v128): void {
  v128.store(to, addGroup(v128.load(to), integers, scales));
}

/** Levels by their four bits. */
// @ts-ignore: decorator
@inline
export function levels(table: v128, nibbles: v128): v128 {
  return pick(table, nibbles);
}
