/**
 * Which half of a slot a weight lies in: balanced, so that sums of products are small.
 *
 * A slot has four weights of a row, in any order. An instruction adds the products of the first two, and
 * those of the last two; where neither sum of a segment can be large, products with many tokens take fewer
 * steps (`slots_sorted.ts`). With weights as columns come, that held for 81 of 100 segments of four rows of
 * SmolLM2-135M at 8:16; with halves swapped where it makes both more alike, for 91. No order would do for
 * more than 95.
 */
import { NIBBLES } from "./control";
import { SLOTS_TWO } from "./linear";
import { PAIR } from "./pairs";
import { segmentBytes } from "./slots";

/** Sizes of the first two weights of each row, less those of the last two. */
// @ts-ignore: decorator
@inline
function excess(v: v128): v128 {
  const sizes = i16x8.extadd_pairwise_i8x16_u(i8x16.abs(v));
  return i32x4.dot_i16x8_s(sizes, i16x8(1, -1, 1, -1, 1, -1, 1, -1));
}

/** The halves of those rows swapped that `rows` says. */
// @ts-ignore: decorator
@inline
function swap(v: v128, rows: v128): v128 {
  return v128.bitselect(i16x8.shuffle(v, v, 1, 0, 3, 2, 5, 4, 7, 6), v, rows);
}

/** Rows in which two excesses have the same sign. */
// @ts-ignore: decorator
@inline
function alike(a: v128, b: v128): v128 {
  return i32x4.ge_s(v128.xor(a, b), i32x4.splat(0));
}

/** a + b, or a - b in the rows that `rows` says. */
// @ts-ignore: decorator
@inline
function addOrTake(a: v128, b: v128, rows: v128): v128 {
  return i32x4.add(a, i32x4.sub(v128.xor(b, rows), rows));
}

/**
 * Balances four rows with two slots a window.
 *
 * @param at Their packed pairs in the first segment.
 */
export function balance(at: usize, segments: usize): void {
  const nibbles = v128.load(NIBBLES);
  for (let w = at, end = at + segments * segmentBytes(SLOTS_TWO); w < end; w += segmentBytes(SLOTS_TWO)) {
    const i = v128.load(w), j = v128.load(w, PAIR);
    const v1 = v128.load(w, 32), v2 = v128.load(w, PAIR + 16), v3 = v128.load(w, PAIR + 32);
    const e1 = excess(v1), e2 = excess(v2), e3 = excess(v3);
    let sum = excess(v128.load(w, 16));
    const s1 = alike(sum, e1);
    sum = addOrTake(sum, e1, s1);
    const s2 = alike(sum, e2);
    sum = addOrTake(sum, e2, s2);
    const s3 = alike(sum, e3);
    v128.store(w, v128.or(v128.and(i, nibbles), swap(v128.andnot(i, nibbles), s1)));
    v128.store(w, swap(v1, s1), 32);
    v128.store(w, v128.or(swap(v128.and(j, nibbles), s2), swap(v128.andnot(j, nibbles), s3)), PAIR);
    v128.store(w, swap(v2, s2), PAIR + 16);
    v128.store(w, swap(v3, s3), PAIR + 32);
  }
}
