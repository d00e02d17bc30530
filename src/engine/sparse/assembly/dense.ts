/**
 * Dense matrices, 16 rows together.
 *
 * int8: for each segment -Σw as int16 `[16]`, then its weights `[column / 4, 16 rows, 4 columns]`. Floats:
 * `[column, 16 rows]`. `vectors.ts` reads rows out of the same layouts, where a head is tied to a table.
 */
import { dot, ones, widenHalves } from "./simd";
import {
  addScaled,
  COLUMNS,
  finishFour,
  finishGroup,
  flagsOf,
  inputsOf,
  LIST_END,
  listFlaggedOfOne,
  LOW_UNIT,
  scalesOf,
  SEGMENTS,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
  X_STRIDE,
} from "./linear";

/** Bytes of a segment of 16 rows of int8, of which the first 32 are sums. */
export const SEGMENT_BYTES: usize = 32 + 512;

/** What the sums of int8 weights begin with: the zero point's part, from -Σw of four rows as int16. */
// @ts-ignore: decorator
@inline
function begin(sums: usize): v128 {
  return i32x4.shl(v128.load16x4_s(sums), 6);
}

/** sum + a segment of four rows, whose weights begin at `w`; `x0` to `x7` are its inputs, four each. */
// @ts-ignore: decorator
@inline
function addSegment(
  w: usize,
  x0: v128,
  x1: v128,
  x2: v128,
  x3: v128,
  x4: v128,
  x5: v128,
  x6: v128,
  x7: v128,
  sum: v128,
  one_: v128,
): v128 {
  let p = dot(v128.load(w), x0, sum, one_);
  p = dot(v128.load(w, 64), x1, p, one_);
  p = dot(v128.load(w, 128), x2, p, one_);
  p = dot(v128.load(w, 192), x3, p, one_);
  p = dot(v128.load(w, 256), x4, p, one_);
  p = dot(v128.load(w, 320), x5, p, one_);
  p = dot(v128.load(w, 384), x6, p, one_);
  return dot(v128.load(w, 448), x7, p, one_);
}

/** f + a segment of four rows of one token, with the scale of its inputs. */
// @ts-ignore: decorator
@inline
function addRows(
  f: v128,
  w: usize,
  sums: usize,
  x0: v128,
  x1: v128,
  x2: v128,
  x3: v128,
  x4: v128,
  x5: v128,
  x6: v128,
  x7: v128,
  scale: v128,
  one_: v128,
): v128 {
  return addScaled(f, addSegment(w, x0, x1, x2, x3, x4, x5, x6, x7, begin(sums), one_), scale);
}

/**
 * One token.
 *
 * @param isFour Whether rows are a multiple of 64, and read in four places; else they are one of 16, in two.
 */
// @ts-ignore: decorator
@inline
function one(isFour: bool, a: usize, first: i32, last: i32, thread: i32): void {
  const one_ = ones();
  const segments = load<usize>(a, SEGMENTS), size = segments * SEGMENT_BYTES;
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const flagged = listFlaggedOfOne(a, thread);
  // Half of the groups beside the other half, or quarters: memory is read faster in several places at once.
  // Where there are two, and an odd number of groups, the last of the first half is beside itself, and written
  // once: what is added to it may lie where it is written.
  const part = isFour ? (last - first) >> 2 : (last - first + 16) >> 5 << 4;
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 4) * size;
  for (let row = first; row < first + part; row += 16) {
    const isAlone = !isFour && row + part >= last;
    const apart = isAlone ? 0 : <usize> (part >> 4) * size;
    let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
    let h0 = f0, h1 = f0, h2 = f0, h3 = f0, k0 = f0, k1 = f0, k2 = f0, k3 = f0;
    for (let pass = 0; pass < 2; pass++) {
      const start = x + (pass == 0 ? 0 : low), unit = f32x4.splat(pass == 0 ? 1 : LOW_UNIT);
      let entry = flagged;
      for (let s: usize = 0;; s++) {
        if (pass == 1) {
          s = <usize> load<u16>(entry);
          entry += 2;
          if (s == LIST_END) break;
        } else if (s == segments) break;
        let b = at + s * SEGMENT_BYTES, w = b + 32;
        const xp = start + (s << 5), scale = f32x4.mul(v128.load32_splat(scales + (s << 2)), unit);
        const x0 = v128.load32_splat(xp), x1 = v128.load32_splat(xp, 4);
        const x2 = v128.load32_splat(xp, 8), x3 = v128.load32_splat(xp, 12);
        const x4 = v128.load32_splat(xp, 16), x5 = v128.load32_splat(xp, 20);
        const x6 = v128.load32_splat(xp, 24), x7 = v128.load32_splat(xp, 28);
        f0 = addRows(f0, w, b, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        f1 = addRows(f1, w + 16, b + 8, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        f2 = addRows(f2, w + 32, b + 16, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        f3 = addRows(f3, w + 48, b + 24, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        b += apart, w += apart;
        g0 = addRows(g0, w, b, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        g1 = addRows(g1, w + 16, b + 8, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        g2 = addRows(g2, w + 32, b + 16, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        g3 = addRows(g3, w + 48, b + 24, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        if (!isFour) continue;
        b += apart, w += apart;
        h0 = addRows(h0, w, b, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        h1 = addRows(h1, w + 16, b + 8, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        h2 = addRows(h2, w + 32, b + 16, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        h3 = addRows(h3, w + 48, b + 24, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        b += apart, w += apart;
        k0 = addRows(k0, w, b, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        k1 = addRows(k1, w + 16, b + 8, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        k2 = addRows(k2, w + 32, b + 16, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
        k3 = addRows(k3, w + 48, b + 24, x0, x1, x2, x3, x4, x5, x6, x7, scale, one_);
      }
    }
    finishGroup(a, row, 0, f0, f1, f2, f3);
    if (!isAlone) finishGroup(a, row + part, 0, g0, g1, g2, g3);
    if (isFour) {
      finishGroup(a, row + 2 * part, 0, h0, h1, h2, h3);
      finishGroup(a, row + 3 * part, 0, k0, k1, k2, k3);
    }
    at += size;
  }
}

/** Each in a function of its own: engines compile small functions better. */
function oneInFour(a: usize, first: i32, last: i32, thread: i32): void {
  one(true, a, first, last, thread);
}
function oneInTwo(a: usize, first: i32, last: i32, thread: i32): void {
  one(false, a, first, last, thread);
}

/** Four tokens of those from `token` on, with the 8 rows at `row`. */
function four(a: usize, row: i32, token: i32, tokens: i32, at: usize): void {
  const one_ = ones();
  const segments = load<usize>(a, SEGMENTS);
  const low = <usize> load<u32>(a, X_LOW), inGroup = <usize> (row & 15);
  const body = at + 32 + (inGroup << 2);
  const x = inputsOf(load<usize>(a, X), load<u32>(a, X_STRIDE), token);
  const scales = scalesOf(load<usize>(a, X_SCALES), segments, token);
  const flags = flagsOf(a, token, 0, tokens);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
  for (let pass = 0; pass < 2; pass++) {
    const start = x + (pass == 0 ? 0 : low);
    for (let s: usize = 0; s < segments; s++) {
      if (pass == 1 && load<u32>(flags + (s << 3)) == 0) continue;
      const sums = at + (inGroup << 1) + s * SEGMENT_BYTES;
      let p0 = begin(sums), p1 = p0, p2 = p0, p3 = p0;
      let q0 = begin(sums + 8), q1 = q0, q2 = q0, q3 = q0;
      let xp = start + s * TILE_SEGMENT;
      let w = body + s * SEGMENT_BYTES;
      for (const end = w + 512; w < end; w += 64) {
        const v = v128.load(w), u = v128.load(w, 16);
        let xs = v128.load32_splat(xp);
        p0 = dot(v, xs, p0, one_);
        q0 = dot(u, xs, q0, one_);
        xs = v128.load32_splat(xp, 32);
        p1 = dot(v, xs, p1, one_);
        q1 = dot(u, xs, q1, one_);
        xs = v128.load32_splat(xp, 64);
        p2 = dot(v, xs, p2, one_);
        q2 = dot(u, xs, q2, one_);
        xs = v128.load32_splat(xp, 96);
        p3 = dot(v, xs, p3, one_);
        q3 = dot(u, xs, q3, one_);
        xp += 4;
      }
      const scale = scales + s * TILE_WORDS, unit = f32x4.splat(pass == 0 ? 1 : LOW_UNIT);
      const s0 = f32x4.mul(v128.load32_splat(scale), unit),
        s1 = f32x4.mul(v128.load32_splat(scale, 4), unit);
      const s2 = f32x4.mul(v128.load32_splat(scale, 8), unit),
        s3 = f32x4.mul(v128.load32_splat(scale, 12), unit);
      f0 = addScaled(f0, p0, s0);
      f1 = addScaled(f1, p1, s1);
      f2 = addScaled(f2, p2, s2);
      f3 = addScaled(f3, p3, s3);
      g0 = addScaled(g0, q0, s0);
      g1 = addScaled(g1, q1, s1);
      g2 = addScaled(g2, q2, s2);
      g3 = addScaled(g3, q3, s3);
    }
  }
  finishFour(a, row, token, tokens, f0, f1, f2, f3);
  finishFour(a, row + 4, token, tokens, g0, g1, g2, g3);
}

/** y = W·x of int8 for rows `first` to `last`, multiples of 16. */
export function denseInt8(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  if (tokens == 1) {
    const inFour = last - (last - first & 63);
    if (first < inFour) oneInFour(a, first, inFour, thread);
    if (inFour < last) oneInTwo(a, inFour, last, thread);
    return;
  }
  const size = load<usize>(a, SEGMENTS) * SEGMENT_BYTES;
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 4) * size;
  for (let row = first; row < last; row += 16) {
    for (let half = 0; half < 16; half += 8) {
      for (let token = 0; token < tokens; token += 4) four(a, row + half, token, tokens, at);
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
  const size = (load<usize>(a, SEGMENTS) << 5) * step;
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
      finishGroup(a, row, token, f0, f1, f2, f3);
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
