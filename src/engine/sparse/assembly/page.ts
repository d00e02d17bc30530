/**
 * One page of the cache: 64 positions of one layer and one key/value head.
 *
 * As float32: keys `[position / 4, dim, 4 positions]`, values `[position, dim]`. As int8: `page_int8.ts`.
 */
import { capped, exp2OfNegative } from "./math";
import { maxLane, sumLanes } from "./simd";

/** Bytes that a head takes of a page. */
// @ts-ignore: decorator
@inline
export function headBytes(dim: usize, isInt8: bool): usize {
  return isInt8 ? (dim << 7) + 768 : dim << 9;
}

/** Puts a key at a place, from 0 to 63. */
export function appendKeyF32(k: usize, to: usize, place: i32, dim: i32): void {
  const keys = to + (<usize> (place >> 2) * <usize> dim << 4) + (<usize> (place & 3) << 2);
  for (let d = 0; d < dim; d++) {
    store<f32>(keys + (<usize> d << 4), load<f32>(k + (<usize> d << 2)));
  }
}

/** Puts a value at a place. */
export function appendValueF32(v: usize, to: usize, place: i32, dim: i32): void {
  memory.copy(to + (<usize> dim << 8) + (<usize> place * <usize> dim << 2), v, <usize> dim << 2);
}

/** cap · tanh(score / cap) in place of scores, those of all groups of four of which some are seen. */
export function capScores(scores: usize, first: i32, last: i32, cap: f32): void {
  for (let at = scores + (<usize> (first >> 2) << 4); at <= scores + (<usize> (last >> 2) << 4); at += 16) {
    v128.store(at, capped(v128.load(at), cap));
  }
}

/** The highest of the scores that are seen; the others of their groups of four become -∞. */
export function highestSeen(scores: usize, first: i32, last: i32): f32 {
  const lastGroup = last >> 2;
  for (let p = first & ~3; p < first; p++) store<f32>(scores + (<usize> p << 2), -Infinity);
  for (let p = last + 1; p <= (last | 3); p++) store<f32>(scores + (<usize> p << 2), -Infinity);
  let most = v128.load(scores + (<usize> (first >> 2) << 4));
  for (let g = (first >> 2) + 1; g <= lastGroup; g++) {
    most = f32x4.pmax(most, v128.load(scores + (<usize> g << 4)));
  }
  return maxLane(most);
}

/** 2^(score - highest) in place of scores; returns their sum. */
export function exponentials(scores: usize, first: i32, last: i32, highest: f32): f32 {
  const most = f32x4.splat(highest);
  let total = f32x4.splat(0);
  for (let g = first >> 2; g <= last >> 2; g++) {
    const at = scores + (<usize> g << 4);
    const e = exp2OfNegative(f32x4.sub(v128.load(at), most));
    v128.store(at, e);
    total = f32x4.add(total, e);
  }
  return sumLanes(total);
}

export function scoresF32(
  from: usize,
  q: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
  scale: f32,
): void {
  for (let g = first >> 2; g <= last >> 2; g++) {
    let keys = from + <usize> (g & 15) * (width << 4);
    let sum = f32x4.splat(0);
    for (let d: usize = 0; d < width; d++) {
      sum = f32x4.add(sum, f32x4.mul(v128.load(keys), v128.load32_splat(q + (d << 2))));
      keys += 16;
    }
    v128.store(scores + (<usize> g << 4), f32x4.mul(sum, f32x4.splat(scale)));
  }
}

export function mixF32(from: usize, scores: usize, to: usize, first: i32, last: i32, width: usize): void {
  const values = from + (width << 8);
  let d: usize = 0;
  for (; d + 4 <= width; d += 4) {
    let sum = f32x4.splat(0);
    for (let p = first; p <= last; p++) {
      const v = v128.load(values + ((<usize> p * width + d) << 2));
      sum = f32x4.add(sum, f32x4.mul(v, v128.load32_splat(scores + (<usize> p << 2))));
    }
    v128.store(to + (d << 2), sum);
  }
  for (; d < width; d++) {
    let sum: f32 = 0;
    for (let p = first; p <= last; p++) {
      sum += load<f32>(values + ((<usize> p * width + d) << 2)) *
        load<f32>(scores + (<usize> p << 2));
    }
    store<f32>(to + (d << 2), sum);
  }
}
