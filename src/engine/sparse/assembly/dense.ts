/**
 * Dense matrices, 16 rows together.
 *
 * int8: -Σw of each segment as int16 `[segment, 16]`, then `[column / 4, 16 rows, 4 columns]`. Floats:
 * `[column, 16 rows]`. `embed.ts` reads rows out of the same layouts, where a head is tied to the table.
 */
import { dot, ones, widenHalves } from "./simd";
import {
  COLUMNS,
  finish,
  GROUP_SCALES,
  SEGMENT,
  WEIGHTS,
  WINDOWS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
  X_STRIDE,
} from "./linear";

/** Bytes of 16 rows of int8. */
// @ts-ignore: decorator
@inline
export function int8Bytes(windows: usize, segments: usize): usize {
  return (segments << 5) + (windows << 8);
}

// @ts-ignore: decorator
@inline
function one(a: usize, first: i32, last: i32, thread: i32, wide: bool): void {
  const one_ = ones();
  const windows = load<i32>(a, WINDOWS), segment = load<i32>(a, SEGMENT);
  const segments = (windows + segment - 1) / segment;
  const size = int8Bytes(windows, segments);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const groupScales = load<usize>(a, GROUP_SCALES);
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 4) * size;
  for (let row = first; row < last; row += 16) {
    let sums = at, w = at + (<usize> segments << 5), xp = x, scale = scales;
    let group = groupScales + (<usize> (row >> 2) * segments << 4);
    let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
    for (let window = 0; window < windows; window += segment) {
      let p0 = i32x4.shl(v128.load16x4_s(sums), 6), p1 = i32x4.shl(v128.load16x4_s(sums, 8), 6);
      let p2 = i32x4.shl(v128.load16x4_s(sums, 16), 6),
        p3 = i32x4.shl(v128.load16x4_s(sums, 24), 6);
      let r0 = i32x4.splat(0), r1 = r0, r2 = r0, r3 = r0;
      sums += 32;
      for (let n = min(segment, windows - window) << 2; n > 0; n--) {
        const xs = v128.load32_splat(xp);
        const w0 = v128.load(w),
          w1 = v128.load(w, 16),
          w2 = v128.load(w, 32),
          w3 = v128.load(w, 48);
        p0 = dot(w0, xs, p0, one_);
        p1 = dot(w1, xs, p1, one_);
        p2 = dot(w2, xs, p2, one_);
        p3 = dot(w3, xs, p3, one_);
        if (wide) {
          const ls = v128.load32_splat(xp + low);
          r0 = dot(w0, ls, r0, one_);
          r1 = dot(w1, ls, r1, one_);
          r2 = dot(w2, ls, r2, one_);
          r3 = dot(w3, ls, r3, one_);
        }
        w += 64;
        xp += 4;
      }
      if (wide) {
        p0 = i32x4.add(i32x4.shl(p0, 7), r0);
        p1 = i32x4.add(i32x4.shl(p1, 7), r1);
        p2 = i32x4.add(i32x4.shl(p2, 7), r2);
        p3 = i32x4.add(i32x4.shl(p3, 7), r3);
      }
      const s = v128.load32_splat(scale);
      scale += 4;
      let q0 = f32x4.mul(f32x4.convert_i32x4_s(p0), s),
        q1 = f32x4.mul(f32x4.convert_i32x4_s(p1), s);
      let q2 = f32x4.mul(f32x4.convert_i32x4_s(p2), s),
        q3 = f32x4.mul(f32x4.convert_i32x4_s(p3), s);
      if (groupScales != 0) {
        const next = <usize> segments << 4;
        q0 = f32x4.mul(q0, v128.load(group));
        q1 = f32x4.mul(q1, v128.load(group + next));
        q2 = f32x4.mul(q2, v128.load(group + 2 * next));
        q3 = f32x4.mul(q3, v128.load(group + 3 * next));
        group += 16;
      }
      f0 = f32x4.add(f0, q0);
      f1 = f32x4.add(f1, q1);
      f2 = f32x4.add(f2, q2);
      f3 = f32x4.add(f3, q3);
    }
    finish(a, row, 0, f0);
    finish(a, row + 4, 0, f1);
    finish(a, row + 8, 0, f2);
    finish(a, row + 12, 0, f3);
    at += size;
  }
}

/** Four tokens with the 4 rows at `row`; two passes make 8 rows, which share what they read of x. */
// @ts-ignore: decorator
@inline
function four(a: usize, row: i32, token: i32, tokens: i32, at: usize, wide: bool): void {
  const one_ = ones();
  const windows = load<i32>(a, WINDOWS), segment = load<i32>(a, SEGMENT);
  const segments = (windows + segment - 1) / segment;
  const stride = <usize> load<u32>(a, X_STRIDE), low = <usize> load<u32>(a, X_LOW);
  const groupScales = load<usize>(a, GROUP_SCALES);
  const inGroup = <usize> (row & 15);
  let sums = at + (inGroup << 1), w = at + (<usize> segments << 5) + (inGroup << 2);
  let x0 = load<usize>(a, X) + <usize> token * stride,
    x1 = x0 + stride,
    x2 = x1 + stride,
    x3 = x2 + stride;
  const scaleStride = <usize> segments << 2;
  let scale = load<usize>(a, X_SCALES) + <usize> token * scaleStride;
  const next = <usize> segments << 4;
  let group = groupScales + <usize> (row >> 2) * next;
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
  for (let window = 0; window < windows; window += segment) {
    let p0 = i32x4.shl(v128.load16x4_s(sums), 6), p1 = p0, p2 = p0, p3 = p0;
    let q0 = i32x4.shl(v128.load16x4_s(sums, 8), 6), q1 = q0, q2 = q0, q3 = q0;
    let r0 = i32x4.splat(0), r1 = r0, r2 = r0, r3 = r0, s0 = r0, s1 = r0, s2 = r0, s3 = r0;
    sums += 32;
    for (let n = min(segment, windows - window) << 2; n > 0; n--) {
      const v = v128.load(w), u = v128.load(w, 16);
      let xs = v128.load32_splat(x0);
      p0 = dot(v, xs, p0, one_);
      q0 = dot(u, xs, q0, one_);
      xs = v128.load32_splat(x1);
      p1 = dot(v, xs, p1, one_);
      q1 = dot(u, xs, q1, one_);
      xs = v128.load32_splat(x2);
      p2 = dot(v, xs, p2, one_);
      q2 = dot(u, xs, q2, one_);
      xs = v128.load32_splat(x3);
      p3 = dot(v, xs, p3, one_);
      q3 = dot(u, xs, q3, one_);
      if (wide) {
        xs = v128.load32_splat(x0 + low);
        r0 = dot(v, xs, r0, one_);
        s0 = dot(u, xs, s0, one_);
        xs = v128.load32_splat(x1 + low);
        r1 = dot(v, xs, r1, one_);
        s1 = dot(u, xs, s1, one_);
        xs = v128.load32_splat(x2 + low);
        r2 = dot(v, xs, r2, one_);
        s2 = dot(u, xs, s2, one_);
        xs = v128.load32_splat(x3 + low);
        r3 = dot(v, xs, r3, one_);
        s3 = dot(u, xs, s3, one_);
      }
      w += 64;
      x0 += 4;
      x1 += 4;
      x2 += 4;
      x3 += 4;
    }
    if (wide) {
      p0 = i32x4.add(i32x4.shl(p0, 7), r0);
      p1 = i32x4.add(i32x4.shl(p1, 7), r1);
      p2 = i32x4.add(i32x4.shl(p2, 7), r2);
      p3 = i32x4.add(i32x4.shl(p3, 7), r3);
      q0 = i32x4.add(i32x4.shl(q0, 7), s0);
      q1 = i32x4.add(i32x4.shl(q1, 7), s1);
      q2 = i32x4.add(i32x4.shl(q2, 7), s2);
      q3 = i32x4.add(i32x4.shl(q3, 7), s3);
    }
    let g = f32x4.splat(1), h = g;
    if (groupScales != 0) {
      g = v128.load(group);
      h = v128.load(group + next);
      group += 16;
    }
    f0 = scaled(f0, p0, scale, g, groupScales);
    f1 = scaled(f1, p1, scale + scaleStride, g, groupScales);
    f2 = scaled(f2, p2, scale + 2 * scaleStride, g, groupScales);
    f3 = scaled(f3, p3, scale + 3 * scaleStride, g, groupScales);
    g0 = scaled(g0, q0, scale, h, groupScales);
    g1 = scaled(g1, q1, scale + scaleStride, h, groupScales);
    g2 = scaled(g2, q2, scale + 2 * scaleStride, h, groupScales);
    g3 = scaled(g3, q3, scale + 3 * scaleStride, h, groupScales);
    scale += 4;
  }
  finish(a, row, token, f0);
  finish(a, row + 4, token, g0);
  if (token + 1 < tokens) {
    finish(a, row, token + 1, f1);
    finish(a, row + 4, token + 1, g1);
  }
  if (token + 2 < tokens) {
    finish(a, row, token + 2, f2);
    finish(a, row + 4, token + 2, g2);
  }
  if (token + 3 < tokens) {
    finish(a, row, token + 3, f3);
    finish(a, row + 4, token + 3, g3);
  }
}

// @ts-ignore: decorator
@inline
function scaled(f: v128, p: v128, scale: usize, g: v128, isGrouped: usize): v128 {
  let part = f32x4.mul(f32x4.convert_i32x4_s(p), v128.load32_splat(scale));
  if (isGrouped != 0) part = f32x4.mul(part, g);
  return f32x4.add(f, part);
}

function oneNarrow(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, false);
}
function oneWide(a: usize, first: i32, last: i32, thread: i32): void {
  one(a, first, last, thread, true);
}
function fourNarrow(a: usize, row: i32, token: i32, tokens: i32, at: usize): void {
  four(a, row, token, tokens, at, false);
}
function fourWide(a: usize, row: i32, token: i32, tokens: i32, at: usize): void {
  four(a, row, token, tokens, at, true);
}

/** y = W·x of int8 for rows `first` to `last`, multiples of 16. */
export function denseInt8(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const wide = load<u32>(a, X_LOW) != 0;
  if (tokens == 1) {
    if (wide) oneWide(a, first, last, thread);
    else oneNarrow(a, first, last, thread);
    return;
  }
  const windows = load<i32>(a, WINDOWS), segment = load<i32>(a, SEGMENT);
  const size = int8Bytes(windows, (windows + segment - 1) / segment);
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 4) * size;
  for (let row = first; row < last; row += 16) {
    for (let half = 0; half < 16; half += 8) {
      for (let token = 0; token < tokens; token += 4) {
        if (wide) fourWide(a, row + half, token, tokens, at);
        else fourNarrow(a, row + half, token, tokens, at);
      }
    }
    at += size;
  }
}

/** y = W·x of floats. */
// @ts-ignore: decorator
@inline
function floats(a: usize, first: i32, last: i32, tokens: i32, thread: i32, halves: bool): void {
  const columns = load<i32>(a, COLUMNS);
  const stride = <usize> load<u32>(a, X_STRIDE);
  const x = load<usize>(a, X) +
    (tokens == 1 ? <usize> thread * <usize> load<u32>(a, X_COPY) : 0);
  const step: usize = halves ? 32 : 64;
  const size = (<usize> load<u32>(a, WINDOWS) << 4) * step;
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 4) * size;
  for (let row = first; row < last; row += 16) {
    for (let token = 0; token < tokens; token++) {
      let w = at, xp = x + <usize> token * stride;
      let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
      for (let column = 0; column < columns; column++) {
        const xs = v128.load32_splat(xp);
        if (halves) {
          f0 = f32x4.add(f0, f32x4.mul(widenHalves(v128.load16x4_u(w)), xs));
          f1 = f32x4.add(f1, f32x4.mul(widenHalves(v128.load16x4_u(w, 8)), xs));
          f2 = f32x4.add(f2, f32x4.mul(widenHalves(v128.load16x4_u(w, 16)), xs));
          f3 = f32x4.add(f3, f32x4.mul(widenHalves(v128.load16x4_u(w, 24)), xs));
        } else {
          f0 = f32x4.add(f0, f32x4.mul(v128.load(w), xs));
          f1 = f32x4.add(f1, f32x4.mul(v128.load(w, 16), xs));
          f2 = f32x4.add(f2, f32x4.mul(v128.load(w, 32), xs));
          f3 = f32x4.add(f3, f32x4.mul(v128.load(w, 48), xs));
        }
        w += step;
        xp += 4;
      }
      finish(a, row, token, f0);
      finish(a, row + 4, token, f1);
      finish(a, row + 8, token, f2);
      finish(a, row + 12, token, f3);
    }
    at += size;
  }
}

export function denseF32(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  floats(a, first, last, tokens, thread, false);
}
export function denseF16(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  floats(a, first, last, tokens, thread, true);
}
