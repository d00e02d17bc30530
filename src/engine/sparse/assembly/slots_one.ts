/** Sparse int8 matrices in slots, times one token. */
import { NIBBLES, ZERO_POINTS } from "./control";
import { addLists } from "./lists";
import {
  finish,
  inUnits,
  LIST_END,
  listFlagged,
  LISTS,
  scratchOf,
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
  const flagged = scratchOf(a, thread);
  listFlagged(a, 1, thread, flagged);
  const lists = load<usize>(a, LISTS);
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < last; row += 8) {
    const at = w;
    let xp = x, p = i32x4.splat(0), q = p, u = p, v = p;
    for (let s: usize = 0; s < segments; s++) {
      const step = v128.load32_splat(steps + (s << 2));
      // Both fours of rows have the same inputs.
      const y = v128.load(xp), z = v128.load(xp, 16);
      p = addSegment(kind, w, y, z, p, step, nibbles, one_, zeros);
      q = addSegment(kind, w + pairBytes(kind), y, z, q, step, nibbles, one_, zeros);
      w += segmentBytes(kind);
      xp += 32;
    }
    for (let entry = flagged;; entry += 2) {
      const s = <usize> load<u16>(entry);
      if (s == LIST_END) break;
      const step = v128.load32_splat(steps + (s << 2));
      const b = at + s * segmentBytes(kind), xs = x + low + (s << 5);
      const y = v128.load(xs), z = v128.load(xs, 16);
      u = addSegment(kind, b, y, z, u, step, nibbles, one_, zeros);
      v = addSegment(kind, b + pairBytes(kind), y, z, v, step, nibbles, one_, zeros);
    }
    let f = inUnits(p, u, unit), g = inUnits(q, v, unit);
    if (lists != 0) {
      f = addLists(a, row, 0, thread, 1, f);
      g = addLists(a, row + 4, 0, thread, 1, g);
    }
    finish(a, row, 0, f);
    finish(a, row + 4, 0, g);
  }
}

/** Each in a function of its own: engines compile small functions better. */
function oneOfOne(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ONE);
}
function oneOfTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_TWO);
}

/** y = W·x for rows `first` to `last`, multiples of 8, and one token. */
export function slotsOne(kind: i32, a: usize, first: i32, last: i32, thread: i32): void {
  if (kind == SLOTS_ONE) oneOfOne(a, first, last, thread);
  else oneOfTwo(a, first, last, thread);
}
