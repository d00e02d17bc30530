/** Sparse int8 matrices in slots, times one token. */
import { NIBBLES, ZERO_POINTS } from "./control";
import { LISTED_BYTES, LISTED_ROWS, timesLists } from "./lists";
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
import { ones } from "./simd";
import { addSegment, pairBytes, segmentBytes } from "./slots";

/** One token. */
// @ts-ignore: decorator
@inline
function one(a: usize, first: i32, last: i32, thread: i32, kind: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, 0, thread, 1);
  const unit = v128.load32_splat(steps + (segments << 2));
  const flagged = listFlaggedOfOne(a, thread), listed = (flagged + listBytes(segments) + 15) & ~15;
  // Half of the rows beside the other half: memory is read faster in two places at once.
  const half = (last - first) >> 1, apart = <usize> (half >> 3) * size;
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < first + half; row += 8) {
    const place = row - first & (LISTED_ROWS - 1), at = w;
    if (place == 0) {
      timesLists(a, row, min(LISTED_ROWS, first + half - row), thread, listed);
      timesLists(a, row + half, min(LISTED_ROWS, first + half - row), thread, listed + LISTED_BYTES);
    }
    let xp = x, p = i32x4.splat(0), q = p, r = p, t = p;
    for (let s: usize = 0; s < segments; s++) {
      const step = v128.load32_splat(steps + (s << 2));
      // All sixteen rows have the same inputs.
      const y = v128.load(xp), z = v128.load(xp, 16), v = w + apart;
      p = addSegment(kind, w, y, z, p, step, nibbles, one_, zeros);
      r = addSegment(kind, v, y, z, r, step, nibbles, one_, zeros);
      q = addSegment(kind, w + pairBytes(kind), y, z, q, step, nibbles, one_, zeros);
      t = addSegment(kind, v + pairBytes(kind), y, z, t, step, nibbles, one_, zeros);
      w += segmentBytes(kind);
      xp += 32;
    }
    let lp = i32x4.splat(0), lq = lp, lr = lp, lt = lp;
    for (let entry = flagged;; entry += 2) {
      const s = <usize> load<u16>(entry);
      if (s == LIST_END) break;
      const step = v128.load32_splat(steps + (s << 2));
      const b = at + s * segmentBytes(kind), xs = x + low + (s << 5), v = b + apart;
      const y = v128.load(xs), z = v128.load(xs, 16);
      lp = addSegment(kind, b, y, z, lp, step, nibbles, one_, zeros);
      lq = addSegment(kind, b + pairBytes(kind), y, z, lq, step, nibbles, one_, zeros);
      lr = addSegment(kind, v, y, z, lr, step, nibbles, one_, zeros);
      lt = addSegment(kind, v + pairBytes(kind), y, z, lt, step, nibbles, one_, zeros);
    }
    const list = listed + (<usize> place << 2), other = list + LISTED_BYTES;
    finish(a, row, 0, f32x4.add(inUnits(p, lp, unit), v128.load(list)));
    finish(a, row + 4, 0, f32x4.add(inUnits(q, lq, unit), v128.load(list, 16)));
    finish(a, row + half, 0, f32x4.add(inUnits(r, lr, unit), v128.load(other)));
    finish(a, row + half + 4, 0, f32x4.add(inUnits(t, lt, unit), v128.load(other, 16)));
  }
}

/** Each in a function of its own: engines compile small functions better. */
function oneOfOne(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ONE);
}
function oneOfTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_TWO);
}

/** y = W·x for rows `first` to `last`, multiples of 16, and one token. */
export function slotsOne(kind: i32, a: usize, first: i32, last: i32, thread: i32): void {
  if (kind == SLOTS_ONE) oneOfOne(a, first, last, thread);
  else oneOfTwo(a, first, last, thread);
}
