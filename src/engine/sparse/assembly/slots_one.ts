/** Sparse int8 matrices in slots, times one token. */
import { LISTED_BYTES, LISTED_ROWS, timesListsOf } from "./beside";
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  finish,
  inUnits,
  listBytes,
  LIST_END,
  listFlaggedOfOne,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  stepsOf,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_STEPS,
} from "./linear";
import { endInPlaces, placesOf } from "./places";
import { ones } from "./simd";
import { addSegment, pairBytes, segmentBytes } from "./slots";

/**
 * One token.
 *
 * @param places In how many they are read, 1, 2 or 4, each of a multiple of 8; see `places.ts`.
 */
// @ts-ignore: decorator
@inline
function one(kind: i32, places: i32, a: usize, first: i32, last: i32, thread: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, 0, thread, 1);
  const unit = v128.load32_splat(steps + (segments << 2));
  const flagged = listFlaggedOfOne(a, thread), listed = (flagged + listBytes(segments) + 15) & ~15;
  const part = (last - first) / places, apart = <usize> (part >> 3) * size;
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < first + part; row += 8) {
    const done = row - first & (LISTED_ROWS - 1), at = w;
    if (done == 0) timesListsOf(places, part, a, row, min(LISTED_ROWS, first + part - row), thread, listed);
    let xp = x, p0 = i32x4.splat(0), q0 = p0, p1 = p0, q1 = p0, p2 = p0, q2 = p0, p3 = p0, q3 = p0;
    for (let s: usize = 0; s < segments; s++) {
      const step = v128.load32_splat(steps + (s << 2));
      // All rows have the same inputs.
      const y = v128.load(xp), z = v128.load(xp, 16);
      let v = w;
      p0 = addSegment(kind, v, y, z, p0, step, nibbles, one_, zeros);
      q0 = addSegment(kind, v + pairBytes(kind), y, z, q0, step, nibbles, one_, zeros);
      if (places > 1) {
        v += apart;
        p1 = addSegment(kind, v, y, z, p1, step, nibbles, one_, zeros);
        q1 = addSegment(kind, v + pairBytes(kind), y, z, q1, step, nibbles, one_, zeros);
      }
      if (places > 2) {
        v += apart;
        p2 = addSegment(kind, v, y, z, p2, step, nibbles, one_, zeros);
        q2 = addSegment(kind, v + pairBytes(kind), y, z, q2, step, nibbles, one_, zeros);
        v += apart;
        p3 = addSegment(kind, v, y, z, p3, step, nibbles, one_, zeros);
        q3 = addSegment(kind, v + pairBytes(kind), y, z, q3, step, nibbles, one_, zeros);
      }
      w += segmentBytes(kind);
      xp += 32;
    }
    let list = listed + (<usize> done << 2), b = at;
    for (let i = 0, r = row; i < places; i++) {
      const p = i == 0 ? p0 : i == 1 ? p1 : i == 2 ? p2 : p3;
      const q = i == 0 ? q0 : i == 1 ? q1 : i == 2 ? q2 : q3;
      let lp = i32x4.splat(0), lq = lp;
      for (let entry = flagged;; entry += 2) {
        const s = <usize> load<u16>(entry);
        if (s == LIST_END) break;
        const step = v128.load32_splat(steps + (s << 2)), v = b + s * segmentBytes(kind);
        const xs = x + low + (s << 5), y = v128.load(xs), z = v128.load(xs, 16);
        lp = addSegment(kind, v, y, z, lp, step, nibbles, one_, zeros);
        lq = addSegment(kind, v + pairBytes(kind), y, z, lq, step, nibbles, one_, zeros);
      }
      finish(a, r, 0, f32x4.add(inUnits(p, lp, unit), v128.load(list)));
      finish(a, r + 4, 0, f32x4.add(inUnits(q, lq, unit), v128.load(list, 16)));
      list += LISTED_BYTES;
      b += apart;
      r += part;
    }
  }
}

/** Each in a function of its own: engines compile small functions better. */
function oneInFour(a: usize, first: i32, last: i32, thread: i32): void {
  one(SLOTS_ONE, 4, a, first, last, thread);
}
function oneInTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(SLOTS_ONE, 2, a, first, last, thread);
}
function oneInOne(a: usize, first: i32, last: i32, thread: i32): void {
  one(SLOTS_ONE, 1, a, first, last, thread);
}
function twoInFour(a: usize, first: i32, last: i32, thread: i32): void {
  one(SLOTS_TWO, 4, a, first, last, thread);
}
function twoInTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(SLOTS_TWO, 2, a, first, last, thread);
}
function twoInOne(a: usize, first: i32, last: i32, thread: i32): void {
  one(SLOTS_TWO, 1, a, first, last, thread);
}

/** y = W·x for rows `first` to `last`, multiples of 16, and one token. */
export function slotsOne(kind: i32, a: usize, first: i32, last: i32, thread: i32): void {
  const places = placesOf(last - first, 8, load<usize>(a, SEGMENTS) * segmentBytes(kind));
  const end = endInPlaces(places, first, last, 8);
  if (kind == SLOTS_ONE) {
    if (first < end) {
      if (places == 4) oneInFour(a, first, end, thread);
      else oneInTwo(a, first, end, thread);
    }
    if (end < last) oneInOne(a, end, last, thread);
  } else {
    if (first < end) {
      if (places == 4) twoInFour(a, first, end, thread);
      else twoInTwo(a, first, end, thread);
    }
    if (end < last) twoInOne(a, end, last, thread);
  }
}
