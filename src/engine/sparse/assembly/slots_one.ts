/** Sparse int8 matrices in slots, times one token. */
import { LISTED_ROWS, timesListsOf } from "./beside";
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  finishOne,
  inUnits,
  listBytes,
  LIST_END,
  listFlaggedOfOne,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  stepsOf,
  X,
  X_COPY,
  X_LOW,
  X_STEPS,
} from "./linear";
import { productAt, rowAt, weightsAt } from "./runs";
import { ones } from "./simd";
import { addSegment, pairBytes, segmentBytes } from "./slots";

/**
 * One token.
 *
 * @param places In how many they are read, 1, 2 or 4: those of the thread's table (`runs.ts`).
 * @param a Any of their products.
 * @param rows Of each place, a multiple of 8.
 */
// @ts-ignore: decorator
@inline
function one(kind: i32, places: i32, a: usize, rows: i32, thread: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, 0, thread, 1);
  const unit = v128.load32_splat(steps + (segments << 2));
  const flagged = listFlaggedOfOne(a, thread), listed = (flagged + listBytes(segments) + 15) & ~15;
  let w0 = weightsAt(a, thread, 0, 3, size), w1 = w0, w2 = w0, w3 = w0;
  if (places > 1) w1 = weightsAt(a, thread, 1, 3, size);
  if (places > 2) w2 = weightsAt(a, thread, 2, 3, size), w3 = weightsAt(a, thread, 3, 3, size);
  let each: usize = 0;
  for (let row = 0; row < rows; row += 8) {
    const done = row & (LISTED_ROWS - 1);
    if (done == 0) each = timesListsOf(places, a, row, min(LISTED_ROWS, rows - row), thread, listed);
    let xp = x, p0 = i32x4.splat(0), q0 = p0, p1 = p0, q1 = p0, p2 = p0, q2 = p0, p3 = p0, q3 = p0;
    for (let s: usize = 0; s < segments; s++) {
      const step = v128.load32_splat(steps + (s << 2));
      // All rows have the same inputs.
      const y = v128.load(xp), z = v128.load(xp, 16);
      p0 = addSegment(kind, w0, y, z, p0, step, nibbles, one_, zeros);
      q0 = addSegment(kind, w0 + pairBytes(kind), y, z, q0, step, nibbles, one_, zeros);
      w0 += segmentBytes(kind);
      if (places > 1) {
        p1 = addSegment(kind, w1, y, z, p1, step, nibbles, one_, zeros);
        q1 = addSegment(kind, w1 + pairBytes(kind), y, z, q1, step, nibbles, one_, zeros);
        w1 += segmentBytes(kind);
      }
      if (places > 2) {
        p2 = addSegment(kind, w2, y, z, p2, step, nibbles, one_, zeros);
        q2 = addSegment(kind, w2 + pairBytes(kind), y, z, q2, step, nibbles, one_, zeros);
        w2 += segmentBytes(kind);
        p3 = addSegment(kind, w3, y, z, p3, step, nibbles, one_, zeros);
        q3 = addSegment(kind, w3 + pairBytes(kind), y, z, q3, step, nibbles, one_, zeros);
        w3 += segmentBytes(kind);
      }
      xp += 32;
    }
    let list = listed + <usize> done * each;
    for (let i = 0; i < places; i++) {
      const p = i == 0 ? p0 : i == 1 ? p1 : i == 2 ? p2 : p3;
      const q = i == 0 ? q0 : i == 1 ? q1 : i == 2 ? q2 : q3;
      const begin = (i == 0 ? w0 : i == 1 ? w1 : i == 2 ? w2 : w3) - size;
      let lp = i32x4.splat(0), lq = lp;
      for (let entry = flagged;; entry += 2) {
        const s = <usize> load<u16>(entry);
        if (s == LIST_END) break;
        const step = v128.load32_splat(steps + (s << 2)), v = begin + s * segmentBytes(kind);
        const xs = x + low + (s << 5), y = v128.load(xs), z = v128.load(xs, 16);
        lp = addSegment(kind, v, y, z, lp, step, nibbles, one_, zeros);
        lq = addSegment(kind, v + pairBytes(kind), y, z, lq, step, nibbles, one_, zeros);
      }
      const product = productAt(a, thread, i), r = rowAt(a, thread, i) + row;
      finishOne(product, r, f32x4.add(inUnits(p, lp, unit), v128.load(list)));
      finishOne(product, r + 4, f32x4.add(inUnits(q, lq, unit), v128.load(list, 16)));
      list += <usize> LISTED_ROWS * each;
    }
  }
}

/** Each in a function of its own: engines compile small functions better. */
function oneInFour(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_ONE, 4, a, rows, thread);
}
function oneInTwo(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_ONE, 2, a, rows, thread);
}
function oneInOne(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_ONE, 1, a, rows, thread);
}
function twoInFour(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_TWO, 4, a, rows, thread);
}
function twoInTwo(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_TWO, 2, a, rows, thread);
}
function twoInOne(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_TWO, 1, a, rows, thread);
}

/** y = W·x for so many rows, a multiple of 8, of each place of a thread's table, and one token. */
export function slotsOne(kind: i32, places: i32, a: usize, rows: i32, thread: i32): void {
  if (kind == SLOTS_ONE) {
    if (places == 4) oneInFour(a, rows, thread);
    else if (places == 2) oneInTwo(a, rows, thread);
    else oneInOne(a, rows, thread);
  } else {
    if (places == 4) twoInFour(a, rows, thread);
    else if (places == 2) twoInTwo(a, rows, thread);
    else twoInOne(a, rows, thread);
  }
}

/** Bytes of eight rows. */
export function slotsSize(kind: i32, a: usize): usize {
  return load<usize>(a, SEGMENTS) * segmentBytes(kind);
}
