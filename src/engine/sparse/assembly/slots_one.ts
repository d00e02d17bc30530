/** Sparse int8 matrices in slots, times one token. */
import { NIBBLES, ZERO_POINTS } from "./control";
import { addLists } from "./lists";
import {
  addScaled,
  finish,
  flagsOf,
  GROUP_SCALES,
  inUnits,
  LISTS,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  stepsOf,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
  X_STEPS,
} from "./linear";
import { ones } from "./simd";
import {
  addSegment,
  lowScaleOf,
  pairBytes,
  scaleOf,
  segmentBytes,
  segmentSum,
} from "./slots";

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
  const flags = flagsOf(a, 0, thread, 1), lists = load<usize>(a, LISTS);
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < last; row += 8) {
    const at = w;
    let xp = x, p = i32x4.splat(0), q = p, u = p, v = p;
    for (let s: usize = 0; s < segments; s++) {
      const step = v128.load32_splat(steps + (s << 2));
      p = addSegment(kind, w, xp, p, step, nibbles, one_, zeros);
      q = addSegment(kind, w + pairBytes(kind), xp, q, step, nibbles, one_, zeros);
      w += segmentBytes(kind);
      xp += 32;
    }
    for (let s: usize = 0; s < segments; s++) {
      if (load<u8>(flags + (s << 3)) == 0) continue;
      const step = v128.load32_splat(steps + (s << 2));
      const b = at + s * segmentBytes(kind), xs = x + low + (s << 5);
      u = addSegment(kind, b, xs, u, step, nibbles, one_, zeros);
      v = addSegment(kind, b + pairBytes(kind), xs, v, step, nibbles, one_, zeros);
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

/** One token, where groups of inputs have scales. */
// @ts-ignore: decorator
@inline
function oneGrouped(a: usize, first: i32, last: i32, thread: i32, kind: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), size = segments * segmentBytes(kind);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const flags = flagsOf(a, 0, thread, 1);
  const groupScales = load<usize>(a, GROUP_SCALES), lists = load<usize>(a, LISTS);
  let w = load<usize>(a, WEIGHTS) + (<usize> first >> 3) * size;
  for (let row = first; row < last; row += 8) {
    const at = w;
    const g0 = groupScales + (<usize> (row >> 2) * segments << 4), g1 = g0 + (segments << 4);
    let xp = x, f = f32x4.splat(0), g = f;
    for (let s: usize = 0; s < segments; s++) {
      const p = segmentSum(kind, w, xp, nibbles, one_, zeros);
      const q = segmentSum(kind, w + pairBytes(kind), xp, nibbles, one_, zeros);
      f = addScaled(f, p, scaleOf(scales + (s << 2), g0 + (s << 4)));
      g = addScaled(g, q, scaleOf(scales + (s << 2), g1 + (s << 4)));
      w += segmentBytes(kind);
      xp += 32;
    }
    for (let s: usize = 0; s < segments; s++) {
      if (load<u8>(flags + (s << 3)) == 0) continue;
      const v = at + s * segmentBytes(kind), xs = x + low + (s << 5);
      const p = segmentSum(kind, v, xs, nibbles, one_, zeros);
      const q = segmentSum(kind, v + pairBytes(kind), xs, nibbles, one_, zeros);
      f = addScaled(f, p, lowScaleOf(scales + (s << 2), g0 + (s << 4)));
      g = addScaled(g, q, lowScaleOf(scales + (s << 2), g1 + (s << 4)));
    }
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
function oneOfOneGrouped(a: usize, first: i32, last: i32, thread: i32): void {
  oneGrouped(a, first, last, thread, SLOTS_ONE);
}
function oneOfTwoGrouped(a: usize, first: i32, last: i32, thread: i32): void {
  oneGrouped(a, first, last, thread, SLOTS_TWO);
}

/** y = W·x for rows `first` to `last`, multiples of 8, and one token. */
export function slotsOne(kind: i32, a: usize, first: i32, last: i32, thread: i32): void {
  const isGrouped = load<usize>(a, GROUP_SCALES) != 0;
  if (kind == SLOTS_ONE) {
    if (isGrouped) oneOfOneGrouped(a, first, last, thread);
    else oneOfOne(a, first, last, thread);
  } else if (isGrouped) oneOfTwoGrouped(a, first, last, thread);
  else oneOfTwo(a, first, last, thread);
}
