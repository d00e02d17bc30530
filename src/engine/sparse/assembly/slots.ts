/**
 * Sparse int8 matrices in slots.
 *
 * A slot holds 4 weights of each of 4 rows, all from one window of 16 inputs, as 16 values and 16
 * indices of four bits: `pick` fetches the inputs, `dot` multiplies and adds, and four rows advance at
 * once. Two slots share the 16 bytes of their indices (low halves, high halves), so a pair of slots
 * takes 48 bytes: indices, values, values.
 *
 * Three layouts. ONE slot a window: a pair serves two windows. TWO slots a window: a pair serves one.
 * ANY: a segment has as many pairs as it needs, and each slot's window may begin at any input of it.
 *
 * Four rows lie together: first -Σw of each segment as int16 `[segment, 4]`, padded to 16 bytes, then
 * the pairs. For ANY, behind the sums: the pairs of each segment (uint8), then the offset of each slot's
 * window in its segment (uint8), padded to 16 bytes; a table has the addresses of both parts.
 *
 * Inputs are quantised to 7 bits with the zero at 64, which the sums take out again: 64·Σw. Inputs of
 * 14 bits have their upper 7 in one vector, their lower 7 in another; the zero, 64·128, is in the upper.
 */
import { NIBBLES } from "./control";
import { dot, ones, pick } from "./simd";
import {
  finish,
  GROUP_SCALES,
  ROWS,
  SEGMENT,
  SLOTS_ANY,
  SLOTS_ONE,
  SLOTS_TWO,
  TABLE,
  WEIGHTS,
  WINDOWS,
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
function headBytes(segments: usize): usize {
  return ((segments << 3) + 15) & ~15;
}

/** Bytes of four rows of a layout whose rows have a common size. */
// @ts-ignore: decorator
@inline
function quadBytes(kind: i32, windows: usize, segments: usize): usize {
  return headBytes(segments) + (kind == SLOTS_ONE ? windows * 24 : windows * 48);
}

/** A segment's sums begin with this: the zero point's part. */
// @ts-ignore: decorator
@inline
function begin(sums: usize): v128 {
  return i32x4.shl(v128.load16x4_s(sums), 6);
}

/** One token: rows `first` to `last` (multiples of 4). */
// @ts-ignore: decorator
@inline
function one(a: usize, first: i32, last: i32, thread: i32, kind: i32, wide: bool): void {
  const nibbles = v128.load(NIBBLES), one_ = ones();
  const windows = load<i32>(a, WINDOWS), segment = load<i32>(a, SEGMENT);
  const segments = (windows + segment - 1) / segment;
  const head = headBytes(segments), size = quadBytes(kind, windows, segments);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const groupScales = load<usize>(a, GROUP_SCALES);
  const table = load<usize>(a, TABLE);
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 2) * size;
  for (let row = first; row < last; row += 4) {
    let sums = at, w = at + head, counts: usize = 0, offsets: usize = 0;
    if (kind == SLOTS_ANY) {
      sums = load<usize>(table + (<usize> row << 1));
      w = load<usize>(table + (<usize> row << 1), 4);
      counts = sums + (<usize> segments << 3);
      offsets = counts + segments;
    }
    let sum = f32x4.splat(0), xp = x, scale = scales;
    let group = groupScales + (<usize> (row >> 2) * segments << 4);
    for (let window = 0; window < windows; window += segment) {
      let p = begin(sums), q = i32x4.splat(0), r = i32x4.splat(0);
      sums += 8;
      if (kind == SLOTS_TWO) {
        for (let n = min(segment, windows - window); n > 0; n--) {
          const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
          const i0 = v128.and(i, nibbles), i1 = i8x16.shr_u(i, 4);
          const xs = v128.load(xp);
          p = dot(v0, pick(xs, i0), p, one_);
          q = dot(v1, pick(xs, i1), q, one_);
          if (wide) {
            const ls = v128.load(xp + low);
            r = dot(v1, pick(ls, i1), dot(v0, pick(ls, i0), r, one_), one_);
          }
          w += 48;
          xp += 16;
        }
      } else if (kind == SLOTS_ONE) {
        for (let n = min(segment, windows - window); n > 0; n -= 2) {
          const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
          const i0 = v128.and(i, nibbles), i1 = i8x16.shr_u(i, 4);
          p = dot(v0, pick(v128.load(xp), i0), p, one_);
          q = dot(v1, pick(v128.load(xp, 16), i1), q, one_);
          if (wide) {
            r = dot(v0, pick(v128.load(xp + low), i0), r, one_);
            r = dot(v1, pick(v128.load(xp + low, 16), i1), r, one_);
          }
          w += 48;
          xp += 32;
        }
      } else {
        for (let n = <i32> load<u8>(counts++); n > 0; n--) {
          const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
          const i0 = v128.and(i, nibbles), i1 = i8x16.shr_u(i, 4);
          const x0 = xp + load<u8>(offsets), x1 = xp + load<u8>(offsets, 1);
          p = dot(v0, pick(v128.load(x0), i0), p, one_);
          q = dot(v1, pick(v128.load(x1), i1), q, one_);
          if (wide) {
            r = dot(v0, pick(v128.load(x0 + low), i0), r, one_);
            r = dot(v1, pick(v128.load(x1 + low), i1), r, one_);
          }
          w += 48;
          offsets += 2;
        }
        xp += <usize> segment << 4;
      }
      p = i32x4.add(p, q);
      if (wide) p = i32x4.add(i32x4.shl(p, 7), r);
      let part = f32x4.mul(f32x4.convert_i32x4_s(p), v128.load32_splat(scale));
      scale += 4;
      if (groupScales != 0) {
        part = f32x4.mul(part, v128.load(group));
        group += 16;
      }
      sum = f32x4.add(sum, part);
    }
    finish(a, row, 0, sum);
    at += size;
  }
}

/** Four tokens. */
// @ts-ignore: decorator
@inline
function four(a: usize, row: i32, token: i32, tokens: i32, at: usize, kind: i32, wide: bool): void {
  const nibbles = v128.load(NIBBLES), one_ = ones();
  const windows = load<i32>(a, WINDOWS), segment = load<i32>(a, SEGMENT);
  const segments = (windows + segment - 1) / segment;
  const stride = <usize> load<u32>(a, X_STRIDE), low = <usize> load<u32>(a, X_LOW);
  const groupScales = load<usize>(a, GROUP_SCALES);
  let sums = at, w = at + headBytes(segments), counts: usize = 0, offsets: usize = 0;
  if (kind == SLOTS_ANY) {
    const table = load<usize>(a, TABLE) + (<usize> row << 1);
    sums = load<usize>(table);
    w = load<usize>(table, 4);
    counts = sums + (<usize> segments << 3);
    offsets = counts + segments;
  }
  let x0 = load<usize>(a, X) + <usize> token * stride,
    x1 = x0 + stride,
    x2 = x1 + stride,
    x3 = x2 + stride;
  const scaleStride = <usize> segments << 2;
  let scale = load<usize>(a, X_SCALES) + <usize> token * scaleStride;
  let group = groupScales + (<usize> (row >> 2) * segments << 4);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
  for (let window = 0; window < windows; window += segment) {
    let p0 = begin(sums), p1 = p0, p2 = p0, p3 = p0;
    let r0 = i32x4.splat(0), r1 = r0, r2 = r0, r3 = r0;
    sums += 8;
    // A pair of slots at a time: the windows of its two slots are `second` bytes apart.
    let n = min(segment, windows - window);
    if (kind == SLOTS_ONE) n = n >> 1;
    if (kind == SLOTS_ANY) n = <i32> load<u8>(counts++);
    for (; n > 0; n--) {
      const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      const i0 = v128.and(i, nibbles), i1 = i8x16.shr_u(i, 4);
      let first: usize = 0, second: usize = kind == SLOTS_ONE ? 16 : 0;
      if (kind == SLOTS_ANY) {
        first = load<u8>(offsets);
        second = load<u8>(offsets, 1);
        offsets += 2;
      }
      p0 = dot(
        v1,
        pick(v128.load(x0 + second), i1),
        dot(v0, pick(v128.load(x0 + first), i0), p0, one_),
        one_,
      );
      p1 = dot(
        v1,
        pick(v128.load(x1 + second), i1),
        dot(v0, pick(v128.load(x1 + first), i0), p1, one_),
        one_,
      );
      p2 = dot(
        v1,
        pick(v128.load(x2 + second), i1),
        dot(v0, pick(v128.load(x2 + first), i0), p2, one_),
        one_,
      );
      p3 = dot(
        v1,
        pick(v128.load(x3 + second), i1),
        dot(v0, pick(v128.load(x3 + first), i0), p3, one_),
        one_,
      );
      if (wide) {
        const l0 = x0 + low, l1 = x1 + low, l2 = x2 + low, l3 = x3 + low;
        r0 = dot(
          v1,
          pick(v128.load(l0 + second), i1),
          dot(v0, pick(v128.load(l0 + first), i0), r0, one_),
          one_,
        );
        r1 = dot(
          v1,
          pick(v128.load(l1 + second), i1),
          dot(v0, pick(v128.load(l1 + first), i0), r1, one_),
          one_,
        );
        r2 = dot(
          v1,
          pick(v128.load(l2 + second), i1),
          dot(v0, pick(v128.load(l2 + first), i0), r2, one_),
          one_,
        );
        r3 = dot(
          v1,
          pick(v128.load(l3 + second), i1),
          dot(v0, pick(v128.load(l3 + first), i0), r3, one_),
          one_,
        );
      }
      w += 48;
      if (kind != SLOTS_ANY) {
        const step: usize = kind == SLOTS_ONE ? 32 : 16;
        x0 += step;
        x1 += step;
        x2 += step;
        x3 += step;
      }
    }
    if (kind == SLOTS_ANY) {
      const step = <usize> segment << 4;
      x0 += step;
      x1 += step;
      x2 += step;
      x3 += step;
    }
    if (wide) {
      p0 = i32x4.add(i32x4.shl(p0, 7), r0);
      p1 = i32x4.add(i32x4.shl(p1, 7), r1);
      p2 = i32x4.add(i32x4.shl(p2, 7), r2);
      p3 = i32x4.add(i32x4.shl(p3, 7), r3);
    }
    let s0 = v128.load32_splat(scale), s1 = v128.load32_splat(scale + scaleStride);
    let s2 = v128.load32_splat(scale + 2 * scaleStride),
      s3 = v128.load32_splat(scale + 3 * scaleStride);
    scale += 4;
    let q0 = f32x4.mul(f32x4.convert_i32x4_s(p0), s0),
      q1 = f32x4.mul(f32x4.convert_i32x4_s(p1), s1);
    let q2 = f32x4.mul(f32x4.convert_i32x4_s(p2), s2),
      q3 = f32x4.mul(f32x4.convert_i32x4_s(p3), s3);
    if (groupScales != 0) {
      const g = v128.load(group);
      group += 16;
      q0 = f32x4.mul(q0, g);
      q1 = f32x4.mul(q1, g);
      q2 = f32x4.mul(q2, g);
      q3 = f32x4.mul(q3, g);
    }
    f0 = f32x4.add(f0, q0);
    f1 = f32x4.add(f1, q1);
    f2 = f32x4.add(f2, q2);
    f3 = f32x4.add(f3, q3);
  }
  finish(a, row, token, f0);
  if (token + 1 < tokens) finish(a, row, token + 1, f1);
  if (token + 2 < tokens) finish(a, row, token + 2, f2);
  if (token + 3 < tokens) finish(a, row, token + 3, f3);
}

/** Eight tokens, inputs of 7 bits: what most of a prefill runs. */
// @ts-ignore: decorator
@inline
function eight(a: usize, row: i32, token: i32, at: usize, kind: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones();
  const windows = load<i32>(a, WINDOWS), segment = load<i32>(a, SEGMENT);
  const segments = (windows + segment - 1) / segment;
  const stride = <usize> load<u32>(a, X_STRIDE);
  const groupScales = load<usize>(a, GROUP_SCALES);
  let sums = at, w = at + headBytes(segments), counts: usize = 0, offsets: usize = 0;
  if (kind == SLOTS_ANY) {
    const table = load<usize>(a, TABLE) + (<usize> row << 1);
    sums = load<usize>(table);
    w = load<usize>(table, 4);
    counts = sums + (<usize> segments << 3);
    offsets = counts + segments;
  }
  let x0 = load<usize>(a, X) + <usize> token * stride,
    x1 = x0 + stride,
    x2 = x1 + stride,
    x3 = x2 + stride;
  let x4 = x3 + stride, x5 = x4 + stride, x6 = x5 + stride, x7 = x6 + stride;
  const scaleStride = <usize> segments << 2;
  let scale = load<usize>(a, X_SCALES) + <usize> token * scaleStride;
  let group = groupScales + (<usize> (row >> 2) * segments << 4);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, f4 = f0, f5 = f0, f6 = f0, f7 = f0;
  for (let window = 0; window < windows; window += segment) {
    let p0 = begin(sums), p1 = p0, p2 = p0, p3 = p0, p4 = p0, p5 = p0, p6 = p0, p7 = p0;
    sums += 8;
    let n = min(segment, windows - window);
    if (kind == SLOTS_ONE) n = n >> 1;
    if (kind == SLOTS_ANY) n = <i32> load<u8>(counts++);
    for (; n > 0; n--) {
      const i = v128.load(w), v0 = v128.load(w, 16), v1 = v128.load(w, 32);
      const i0 = v128.and(i, nibbles), i1 = i8x16.shr_u(i, 4);
      let first: usize = 0, second: usize = kind == SLOTS_ONE ? 16 : 0;
      if (kind == SLOTS_ANY) {
        first = load<u8>(offsets);
        second = load<u8>(offsets, 1);
        offsets += 2;
      }
      p0 = dot(
        v1,
        pick(v128.load(x0 + second), i1),
        dot(v0, pick(v128.load(x0 + first), i0), p0, one_),
        one_,
      );
      p1 = dot(
        v1,
        pick(v128.load(x1 + second), i1),
        dot(v0, pick(v128.load(x1 + first), i0), p1, one_),
        one_,
      );
      p2 = dot(
        v1,
        pick(v128.load(x2 + second), i1),
        dot(v0, pick(v128.load(x2 + first), i0), p2, one_),
        one_,
      );
      p3 = dot(
        v1,
        pick(v128.load(x3 + second), i1),
        dot(v0, pick(v128.load(x3 + first), i0), p3, one_),
        one_,
      );
      p4 = dot(
        v1,
        pick(v128.load(x4 + second), i1),
        dot(v0, pick(v128.load(x4 + first), i0), p4, one_),
        one_,
      );
      p5 = dot(
        v1,
        pick(v128.load(x5 + second), i1),
        dot(v0, pick(v128.load(x5 + first), i0), p5, one_),
        one_,
      );
      p6 = dot(
        v1,
        pick(v128.load(x6 + second), i1),
        dot(v0, pick(v128.load(x6 + first), i0), p6, one_),
        one_,
      );
      p7 = dot(
        v1,
        pick(v128.load(x7 + second), i1),
        dot(v0, pick(v128.load(x7 + first), i0), p7, one_),
        one_,
      );
      w += 48;
      if (kind != SLOTS_ANY) {
        const step: usize = kind == SLOTS_ONE ? 32 : 16;
        x0 += step;
        x1 += step;
        x2 += step;
        x3 += step;
        x4 += step;
        x5 += step;
        x6 += step;
        x7 += step;
      }
    }
    if (kind == SLOTS_ANY) {
      const step = <usize> segment << 4;
      x0 += step;
      x1 += step;
      x2 += step;
      x3 += step;
      x4 += step;
      x5 += step;
      x6 += step;
      x7 += step;
    }
    let g = f32x4.splat(1);
    if (groupScales != 0) {
      g = v128.load(group);
      group += 16;
    }
    f0 = scaled(f0, p0, scale, g, groupScales);
    f1 = scaled(f1, p1, scale + scaleStride, g, groupScales);
    f2 = scaled(f2, p2, scale + 2 * scaleStride, g, groupScales);
    f3 = scaled(f3, p3, scale + 3 * scaleStride, g, groupScales);
    f4 = scaled(f4, p4, scale + 4 * scaleStride, g, groupScales);
    f5 = scaled(f5, p5, scale + 5 * scaleStride, g, groupScales);
    f6 = scaled(f6, p6, scale + 6 * scaleStride, g, groupScales);
    f7 = scaled(f7, p7, scale + 7 * scaleStride, g, groupScales);
    scale += 4;
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

// @ts-ignore: decorator
@inline
function scaled(f: v128, p: v128, scale: usize, g: v128, isGrouped: usize): v128 {
  let part = f32x4.mul(f32x4.convert_i32x4_s(p), v128.load32_splat(scale));
  if (isGrouped != 0) part = f32x4.mul(part, g);
  return f32x4.add(f, part);
}

/** Many tokens: each four rows meet all of them before the next four are read. */
// @ts-ignore: decorator
@inline
function many(a: usize, first: i32, last: i32, tokens: i32, kind: i32): void {
  const windows = load<i32>(a, WINDOWS), segment = load<i32>(a, SEGMENT);
  const size = quadBytes(kind, windows, (windows + segment - 1) / segment);
  const wide = load<u32>(a, X_LOW) != 0;
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 2) * size;
  for (let row = first; row < last; row += 4) {
    let token = 0;
    if (wide) {
      for (; token < tokens; token += 4) fourWide(a, row, token, tokens, at, kind);
    } else {
      for (; token + 8 <= tokens; token += 8) eight(a, row, token, at, kind);
      for (; token < tokens; token += 4) fourNarrow(a, row, token, tokens, at, kind);
    }
    at += size;
  }
}

function fourWide(a: usize, row: i32, token: i32, tokens: i32, at: usize, kind: i32): void {
  if (kind == SLOTS_TWO) four(a, row, token, tokens, at, SLOTS_TWO, true);
  else if (kind == SLOTS_ONE) four(a, row, token, tokens, at, SLOTS_ONE, true);
  else four(a, row, token, tokens, at, SLOTS_ANY, true);
}

function fourNarrow(a: usize, row: i32, token: i32, tokens: i32, at: usize, kind: i32): void {
  if (kind == SLOTS_TWO) four(a, row, token, tokens, at, SLOTS_TWO, false);
  else if (kind == SLOTS_ONE) four(a, row, token, tokens, at, SLOTS_ONE, false);
  else four(a, row, token, tokens, at, SLOTS_ANY, false);
}

/** Each in a function of its own: engines compile small functions better. */
function oneTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_TWO, false);
}
function oneOne(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ONE, false);
}
function oneAny(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ANY, false);
}
function oneTwoWide(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_TWO, true);
}
function oneOneWide(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ONE, true);
}
function oneAnyWide(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, SLOTS_ANY, true);
}
function manyTwo(a: usize, first: i32, last: i32, tokens: i32): void {
  many(a, first, last, tokens, SLOTS_TWO);
}
function manyOne(a: usize, first: i32, last: i32, tokens: i32): void {
  many(a, first, last, tokens, SLOTS_ONE);
}
function manyAny(a: usize, first: i32, last: i32, tokens: i32): void {
  many(a, first, last, tokens, SLOTS_ANY);
}

/** y = W·x for rows `first` to `last`, multiples of 4. */
export function slots(kind: i32, a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const wide = load<u32>(a, X_LOW) != 0;
  if (tokens > 1) {
    if (kind == SLOTS_TWO) manyTwo(a, first, last, tokens);
    else if (kind == SLOTS_ONE) manyOne(a, first, last, tokens);
    else manyAny(a, first, last, tokens);
  } else if (kind == SLOTS_TWO) {
    if (wide) oneTwoWide(a, first, last, thread);
    else oneTwo(a, first, last, thread);
  } else if (kind == SLOTS_ONE) {
    if (wide) oneOneWide(a, first, last, thread);
    else oneOne(a, first, last, thread);
  } else if (wide) oneAnyWide(a, first, last, thread);
  else oneAny(a, first, last, thread);
}
