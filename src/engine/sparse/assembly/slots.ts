/**
 * Sparse int8 matrices in slots.
 *
 * A slot holds 4 weights of each of 4 rows, all from one window of 16 inputs, as 16 values and 16
 * indices of four bits: `pick` fetches the inputs, `dot` multiplies and adds, and four rows advance at
 * once. Two slots share the 16 bytes of their indices (low halves, high halves), so a pair of slots
 * takes 48 bytes: indices, values, values. With ONE slot a window a pair serves the two windows of a
 * segment, with TWO a pair serves one window.
 *
 * Four rows lie together: first -Σw of each segment as int16 `[segment, 4]`, padded to 16 bytes, then
 * the pairs. Weights that a window has no slot for are in lists beside (`lists.ts`).
 */
import { NIBBLES } from "./control";
import { addLists } from "./lists";
import { dot, ones, pick } from "./simd";
import {
  addScaled,
  finish,
  flagsOf,
  GROUP_SCALES,
  LISTS,
  LOW_UNIT,
  SEGMENTS,
  SLOTS_ONE,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
  X_STRIDE,
} from "./linear";

/** Bytes of the sums before four rows. */
// @ts-ignore: decorator
@inline
export function headBytes(segments: usize): usize {
  return ((segments << 3) + 15) & ~15;
}

/** Bytes of a segment of four rows. */
// @ts-ignore: decorator
@inline
export function segmentBytes(kind: i32): usize {
  return kind == SLOTS_ONE ? 48 : 96;
}

/** A segment's sums begin with this: the zero point's part. */
// @ts-ignore: decorator
@inline
function begin(sums: usize): v128 {
  return i32x4.shl(v128.load16x4_s(sums), 6);
}

/** sum + a pair of slots, of the windows at `x` and `y`. */
// @ts-ignore: decorator
@inline
function addPair(w: usize, x: v128, y: v128, sum: v128, nibbles: v128, one_: v128): v128 {
  const i = v128.load(w);
  const first = dot(v128.load(w, 16), pick(x, v128.and(i, nibbles)), sum, one_);
  return dot(v128.load(w, 32), pick(y, i8x16.shr_u(i, 4)), first, one_);
}

/** sum + a segment of four rows. */
// @ts-ignore: decorator
@inline
function addSegment(kind: i32, w: usize, x: usize, sum: v128, nibbles: v128, one_: v128): v128 {
  const a = v128.load(x), b = v128.load(x, 16);
  if (kind == SLOTS_ONE) return addPair(w, a, b, sum, nibbles, one_);
  return addPair(w + 48, b, b, addPair(w, a, a, sum, nibbles, one_), nibbles, one_);
}

/** One token. */
// @ts-ignore: decorator
@inline
function one(a: usize, first: i32, last: i32, thread: i32, kind: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones();
  const segments = load<i32>(a, SEGMENTS);
  const head = headBytes(segments), size = head + <usize>segments * segmentBytes(kind);
  const x = load<usize>(a, X) + <usize>thread * <usize>load<u32>(a, X_COPY);
  const low = <usize>load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize>thread * <usize>load<u32>(a, X_SCALES_COPY);
  const flags = flagsOf(a, 0, thread, 1);
  const groupScales = load<usize>(a, GROUP_SCALES), lists = load<usize>(a, LISTS);
  let at = load<usize>(a, WEIGHTS) + (<usize>first >> 2) * size;
  for (let row = first; row < last; row += 4) {
    let sums = at, w = at + head, xp = x, scale = scales;
    let group = groupScales + (<usize>(row >> 2) * <usize>segments << 4);
    let sum = f32x4.splat(0);
    if (groupScales == 0) {
      for (const end = scales + (<usize>segments << 2); scale < end; scale += 4) {
        const part = addSegment(kind, w, xp, begin(sums), nibbles, one_);
        sum = addScaled(sum, part, v128.load32_splat(scale));
        w += segmentBytes(kind);
        sums += 8;
        xp += 32;
      }
    } else {
      for (const end = scales + (<usize>segments << 2); scale < end; scale += 4) {
        const part = addSegment(kind, w, xp, begin(sums), nibbles, one_);
        sum = addScaled(sum, part, f32x4.mul(v128.load32_splat(scale), v128.load(group)));
        w += segmentBytes(kind);
        sums += 8;
        xp += 32;
        group += 16;
      }
    }
    for (let s: usize = 0; s < <usize>segments; s++) {
      if (load<u8>(flags + (s << 3)) == 0) continue;
      const part = addSegment(kind, at + head + s * segmentBytes(kind), x + low + (s << 5), i32x4.splat(0), nibbles, one_);
      let unit = f32x4.mul(v128.load32_splat(scales + (s << 2)), f32x4.splat(LOW_UNIT));
      if (groupScales != 0) {
        unit = f32x4.mul(unit, v128.load(groupScales + ((<usize>(row >> 2) * <usize>segments + s) << 4)));
      }
      sum = addScaled(sum, part, unit);
    }
    if (lists != 0) sum = addLists(a, row, 0, thread, 1, sum);
    finish(a, row, 0, sum);
    at += size;
  }
}

/** Four tokens of those from `token` on. */
// @ts-ignore: decorator
@inline
function four(a: usize, row: i32, token: i32, tokens: i32, at: usize, kind: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones();
  const segments = load<i32>(a, SEGMENTS);
  const stride = <usize>load<u32>(a, X_STRIDE), low = <usize>load<u32>(a, X_LOW);
  const groupScales = load<usize>(a, GROUP_SCALES), lists = load<usize>(a, LISTS);
  const head = headBytes(segments);
  const x0 = load<usize>(a, X) + <usize>token * stride;
  const x1 = x0 + stride, x2 = x1 + stride, x3 = x2 + stride;
  const next = <usize>segments << 2;
  const scales = load<usize>(a, X_SCALES) + <usize>token * next;
  const groups = groupScales + (<usize>(row >> 2) * <usize>segments << 4);
  const flags = flagsOf(a, token, 0, tokens);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
  for (let s: usize = 0; s < <usize>segments; s++) {
    const w = at + head + s * segmentBytes(kind), xs = s << 5;
    const start = begin(at + (s << 3)), scale = scales + (s << 2);
    const g = groupScales != 0 ? v128.load(groups + (s << 4)) : f32x4.splat(1);
    f0 = addScaled(f0, addSegment(kind, w, x0 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale), g));
    f1 = addScaled(f1, addSegment(kind, w, x1 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + next), g));
    f2 = addScaled(f2, addSegment(kind, w, x2 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + 2 * next), g));
    f3 = addScaled(f3, addSegment(kind, w, x3 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + 3 * next), g));
  }
  for (let s: usize = 0; s < <usize>segments; s++) {
    if (load<u32>(flags + (s << 3)) == 0) continue;
    const w = at + head + s * segmentBytes(kind), xs = low + (s << 5);
    const start = i32x4.splat(0), scale = scales + (s << 2);
    const unit = f32x4.splat(LOW_UNIT);
    const g = groupScales != 0 ? v128.load(groups + (s << 4)) : f32x4.splat(1);
    f0 = addScaled(f0, addSegment(kind, w, x0 + xs, start, nibbles, one_), f32x4.mul(f32x4.mul(v128.load32_splat(scale), unit), g));
    f1 = addScaled(f1, addSegment(kind, w, x1 + xs, start, nibbles, one_), f32x4.mul(f32x4.mul(v128.load32_splat(scale + next), unit), g));
    f2 = addScaled(f2, addSegment(kind, w, x2 + xs, start, nibbles, one_), f32x4.mul(f32x4.mul(v128.load32_splat(scale + 2 * next), unit), g));
    f3 = addScaled(f3, addSegment(kind, w, x3 + xs, start, nibbles, one_), f32x4.mul(f32x4.mul(v128.load32_splat(scale + 3 * next), unit), g));
  }
  if (lists != 0) {
    f0 = addLists(a, row, token, 0, tokens, f0);
    f1 = addLists(a, row, token + 1, 0, tokens, f1);
    f2 = addLists(a, row, token + 2, 0, tokens, f2);
    f3 = addLists(a, row, token + 3, 0, tokens, f3);
  }
  finish(a, row, token, f0);
  if (token + 1 < tokens) finish(a, row, token + 1, f1);
  if (token + 2 < tokens) finish(a, row, token + 2, f2);
  if (token + 3 < tokens) finish(a, row, token + 3, f3);
}

/** Eight tokens, without scales of groups: what most of a prefill runs. */
// @ts-ignore: decorator
@inline
function eight(a: usize, row: i32, token: i32, tokens: i32, at: usize, kind: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones();
  const segments = load<i32>(a, SEGMENTS);
  const stride = <usize>load<u32>(a, X_STRIDE), low = <usize>load<u32>(a, X_LOW);
  const lists = load<usize>(a, LISTS);
  const head = headBytes(segments);
  const x0 = load<usize>(a, X) + <usize>token * stride, x1 = x0 + stride, x2 = x1 + stride, x3 = x2 + stride;
  const x4 = x3 + stride, x5 = x4 + stride, x6 = x5 + stride, x7 = x6 + stride;
  const next = <usize>segments << 2;
  const scales = load<usize>(a, X_SCALES) + <usize>token * next;
  const flags = flagsOf(a, token, 0, tokens);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, f4 = f0, f5 = f0, f6 = f0, f7 = f0;
  let w = at + head, sums = at, xs: usize = 0, scale = scales;
  for (const end = scales + next; scale < end; scale += 4) {
    let p0 = begin(sums), p1 = p0, p2 = p0, p3 = p0, p4 = p0, p5 = p0, p6 = p0, p7 = p0;
    sums += 8;
    // A pair of slots at a time, so that its values and indices stay in registers.
    for (let pair = 0; pair < (kind == SLOTS_ONE ? 1 : 2); pair++) {
      const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      const i0 = v128.and(i, nibbles), i1 = i8x16.shr_u(i, 4);
      w += 48;
      if (kind == SLOTS_ONE) {
        p0 = dot(v1, pick(v128.load(x0 + xs, 16), i1), dot(v0, pick(v128.load(x0 + xs), i0), p0, one_), one_);
        p1 = dot(v1, pick(v128.load(x1 + xs, 16), i1), dot(v0, pick(v128.load(x1 + xs), i0), p1, one_), one_);
        p2 = dot(v1, pick(v128.load(x2 + xs, 16), i1), dot(v0, pick(v128.load(x2 + xs), i0), p2, one_), one_);
        p3 = dot(v1, pick(v128.load(x3 + xs, 16), i1), dot(v0, pick(v128.load(x3 + xs), i0), p3, one_), one_);
        p4 = dot(v1, pick(v128.load(x4 + xs, 16), i1), dot(v0, pick(v128.load(x4 + xs), i0), p4, one_), one_);
        p5 = dot(v1, pick(v128.load(x5 + xs, 16), i1), dot(v0, pick(v128.load(x5 + xs), i0), p5, one_), one_);
        p6 = dot(v1, pick(v128.load(x6 + xs, 16), i1), dot(v0, pick(v128.load(x6 + xs), i0), p6, one_), one_);
        p7 = dot(v1, pick(v128.load(x7 + xs, 16), i1), dot(v0, pick(v128.load(x7 + xs), i0), p7, one_), one_);
        xs += 32;
      } else {
        let x = v128.load(x0 + xs);
        p0 = dot(v1, pick(x, i1), dot(v0, pick(x, i0), p0, one_), one_);
        x = v128.load(x1 + xs);
        p1 = dot(v1, pick(x, i1), dot(v0, pick(x, i0), p1, one_), one_);
        x = v128.load(x2 + xs);
        p2 = dot(v1, pick(x, i1), dot(v0, pick(x, i0), p2, one_), one_);
        x = v128.load(x3 + xs);
        p3 = dot(v1, pick(x, i1), dot(v0, pick(x, i0), p3, one_), one_);
        x = v128.load(x4 + xs);
        p4 = dot(v1, pick(x, i1), dot(v0, pick(x, i0), p4, one_), one_);
        x = v128.load(x5 + xs);
        p5 = dot(v1, pick(x, i1), dot(v0, pick(x, i0), p5, one_), one_);
        x = v128.load(x6 + xs);
        p6 = dot(v1, pick(x, i1), dot(v0, pick(x, i0), p6, one_), one_);
        x = v128.load(x7 + xs);
        p7 = dot(v1, pick(x, i1), dot(v0, pick(x, i0), p7, one_), one_);
        xs += 16;
      }
    }
    f0 = addScaled(f0, p0, v128.load32_splat(scale));
    f1 = addScaled(f1, p1, v128.load32_splat(scale + next));
    f2 = addScaled(f2, p2, v128.load32_splat(scale + 2 * next));
    f3 = addScaled(f3, p3, v128.load32_splat(scale + 3 * next));
    f4 = addScaled(f4, p4, v128.load32_splat(scale + 4 * next));
    f5 = addScaled(f5, p5, v128.load32_splat(scale + 5 * next));
    f6 = addScaled(f6, p6, v128.load32_splat(scale + 6 * next));
    f7 = addScaled(f7, p7, v128.load32_splat(scale + 7 * next));
  }
  for (let s: usize = 0; s < <usize>segments; s++) {
    if (load<u64>(flags + (s << 3)) == 0) continue;
    const w = at + head + s * segmentBytes(kind), xs = low + (s << 5);
    const start = i32x4.splat(0), scale = scales + (s << 2), unit = f32x4.splat(LOW_UNIT);
    f0 = addScaled(f0, addSegment(kind, w, x0 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale), unit));
    f1 = addScaled(f1, addSegment(kind, w, x1 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + next), unit));
    f2 = addScaled(f2, addSegment(kind, w, x2 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + 2 * next), unit));
    f3 = addScaled(f3, addSegment(kind, w, x3 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + 3 * next), unit));
    f4 = addScaled(f4, addSegment(kind, w, x4 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + 4 * next), unit));
    f5 = addScaled(f5, addSegment(kind, w, x5 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + 5 * next), unit));
    f6 = addScaled(f6, addSegment(kind, w, x6 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + 6 * next), unit));
    f7 = addScaled(f7, addSegment(kind, w, x7 + xs, start, nibbles, one_), f32x4.mul(v128.load32_splat(scale + 7 * next), unit));
  }
  if (lists != 0) {
    f0 = addLists(a, row, token, 0, tokens, f0);
    f1 = addLists(a, row, token + 1, 0, tokens, f1);
    f2 = addLists(a, row, token + 2, 0, tokens, f2);
    f3 = addLists(a, row, token + 3, 0, tokens, f3);
    f4 = addLists(a, row, token + 4, 0, tokens, f4);
    f5 = addLists(a, row, token + 5, 0, tokens, f5);
    f6 = addLists(a, row, token + 6, 0, tokens, f6);
    f7 = addLists(a, row, token + 7, 0, tokens, f7);
  }
  finish(a, row, token, f0);
  finish(a, row, token + 1, f1);
  finish(a, row, token + 2, f2);
  finish(a, row, token + 3, f3);
  finish(a, row, token + 4, f4);
  finish(a, row, token + 5, f5);
  finish(a, row, token + 6, f6);
  finish(a, row, token + 7, f7);
}

/** Each in a function of its own: engines compile small functions better. */
function fourOfOne(a: usize, row: i32, token: i32, tokens: i32, at: usize): void {
  four(a, row, token, tokens, at, 0);
}
function fourOfTwo(a: usize, row: i32, token: i32, tokens: i32, at: usize): void {
  four(a, row, token, tokens, at, 1);
}
function eightOfOne(a: usize, row: i32, token: i32, tokens: i32, at: usize): void {
  eight(a, row, token, tokens, at, 0);
}
function eightOfTwo(a: usize, row: i32, token: i32, tokens: i32, at: usize): void {
  eight(a, row, token, tokens, at, 1);
}
function oneOfOne(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, 0);
}
function oneOfTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, 1);
}

/** y = W·x for rows `first` to `last`, multiples of 4. */
export function slots(kind: i32, a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  if (tokens == 1) {
    if (kind == SLOTS_ONE) oneOfOne(a, first, last, thread);
    else oneOfTwo(a, first, last, thread);
    return;
  }
  const segments = load<usize>(a, SEGMENTS);
  const size = headBytes(segments) + segments * segmentBytes(kind);
  const inEights = load<usize>(a, GROUP_SCALES) == 0 ? tokens & ~7 : 0;
  // Each four rows meet all tokens before the next four are read.
  let at = load<usize>(a, WEIGHTS) + (<usize>first >> 2) * size;
  for (let row = first; row < last; row += 4) {
    for (let token = 0; token < inEights; token += 8) {
      if (kind == SLOTS_ONE) eightOfOne(a, row, token, tokens, at);
      else eightOfTwo(a, row, token, tokens, at);
    }
    for (let token = inEights; token < tokens; token += 4) {
      if (kind == SLOTS_ONE) fourOfOne(a, row, token, tokens, at);
      else fourOfTwo(a, row, token, tokens, at);
    }
    at += size;
  }
}
