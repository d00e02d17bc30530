/**
 * Dense matrices, 16 rows together.
 *
 * int8: for each segment -Σw as int16 `[16]`, then its weights `[column / 4, 16 rows, 4 columns]`. Floats:
 * `[column, 16 rows]`. `vectors.ts` reads rows out of the same layouts, where a head is tied to a table.
 */
import { productAt, rowAt, setPlace, weightsAt } from "./runs";
import { dot, ones, widenHalves } from "./simd";
import {
  addScaled,
  COLUMNS,
  finishFour,
  finishGroup,
  finishGroupOfOne,
  finishRows,
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

/** Bytes of sixteen rows. */
export function denseInt8Size(a: usize): usize {
  return load<usize>(a, SEGMENTS) * SEGMENT_BYTES;
}

/**
 * One token.
 *
 * Lines of memory are read one after the other, each at once: what fetches ahead of loads sees few of them, with
 * steps of a line. A thread of Zen 5 read 26 GB/s so, and 15 where all columns of four rows came first.
 *
 * @param places In how many they are read, 1, 2 or 4: those of the thread's table (`runs.ts`).
 * @param a Any of their products.
 * @param rows Of each place, a multiple of 16.
 */
// @ts-ignore: decorator
@inline
function one(places: i32, a: usize, rows: i32, thread: i32): void {
  const one_ = ones();
  const segments = load<usize>(a, SEGMENTS), size = denseInt8Size(a);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const flagged = listFlaggedOfOne(a, thread);
  let b0 = weightsAt(a, thread, 0, 4, size), c0 = b0, d0 = b0, e0 = b0;
  if (places > 1) c0 = weightsAt(a, thread, 1, 4, size);
  if (places > 2) d0 = weightsAt(a, thread, 2, 4, size), e0 = weightsAt(a, thread, 3, 4, size);
  for (let row = 0; row < rows; row += 16) {
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
        const body = s * SEGMENT_BYTES, b = b0 + body, c = c0 + body, d = d0 + body, e = e0 + body;
        let p0 = begin(b), p1 = begin(b + 8), p2 = begin(b + 16), p3 = begin(b + 24);
        let q0 = p0, q1 = p0, q2 = p0, q3 = p0, r0 = p0, r1 = p0, r2 = p0, r3 = p0;
        let t0 = p0, t1 = p0, t2 = p0, t3 = p0;
        if (places > 1) q0 = begin(c), q1 = begin(c + 8), q2 = begin(c + 16), q3 = begin(c + 24);
        if (places > 2) {
          r0 = begin(d), r1 = begin(d + 8), r2 = begin(d + 16), r3 = begin(d + 24);
          t0 = begin(e), t1 = begin(e + 8), t2 = begin(e + 16), t3 = begin(e + 24);
        }
        let xp = start + (s << 5);
        for (let at: usize = 32; at < SEGMENT_BYTES; at += 64) {
          const xs = v128.load32_splat(xp), w = b + at;
          p0 = dot(v128.load(w), xs, p0, one_);
          p1 = dot(v128.load(w, 16), xs, p1, one_);
          p2 = dot(v128.load(w, 32), xs, p2, one_);
          p3 = dot(v128.load(w, 48), xs, p3, one_);
          if (places > 1) {
            const v = c + at;
            q0 = dot(v128.load(v), xs, q0, one_);
            q1 = dot(v128.load(v, 16), xs, q1, one_);
            q2 = dot(v128.load(v, 32), xs, q2, one_);
            q3 = dot(v128.load(v, 48), xs, q3, one_);
          }
          if (places > 2) {
            let v = d + at;
            r0 = dot(v128.load(v), xs, r0, one_);
            r1 = dot(v128.load(v, 16), xs, r1, one_);
            r2 = dot(v128.load(v, 32), xs, r2, one_);
            r3 = dot(v128.load(v, 48), xs, r3, one_);
            v = e + at;
            t0 = dot(v128.load(v), xs, t0, one_);
            t1 = dot(v128.load(v, 16), xs, t1, one_);
            t2 = dot(v128.load(v, 32), xs, t2, one_);
            t3 = dot(v128.load(v, 48), xs, t3, one_);
          }
          xp += 4;
        }
        const scale = f32x4.mul(v128.load32_splat(scales + (s << 2)), unit);
        f0 = addScaled(f0, p0, scale), f1 = addScaled(f1, p1, scale);
        f2 = addScaled(f2, p2, scale), f3 = addScaled(f3, p3, scale);
        if (places == 1) continue;
        g0 = addScaled(g0, q0, scale), g1 = addScaled(g1, q1, scale);
        g2 = addScaled(g2, q2, scale), g3 = addScaled(g3, q3, scale);
        if (places == 2) continue;
        h0 = addScaled(h0, r0, scale), h1 = addScaled(h1, r1, scale);
        h2 = addScaled(h2, r2, scale), h3 = addScaled(h3, r3, scale);
        k0 = addScaled(k0, t0, scale), k1 = addScaled(k1, t1, scale);
        k2 = addScaled(k2, t2, scale), k3 = addScaled(k3, t3, scale);
      }
    }
    finishGroupOfOne(productAt(a, thread, 0), rowAt(a, thread, 0) + row, f0, f1, f2, f3);
    if (places > 1) finishGroupOfOne(productAt(a, thread, 1), rowAt(a, thread, 1) + row, g0, g1, g2, g3);
    if (places > 2) {
      finishGroupOfOne(productAt(a, thread, 2), rowAt(a, thread, 2) + row, h0, h1, h2, h3);
      finishGroupOfOne(productAt(a, thread, 3), rowAt(a, thread, 3) + row, k0, k1, k2, k3);
    }
    b0 += size;
    c0 += size;
    d0 += size;
    e0 += size;
  }
}

/** Each in a function of its own: engines compile small functions better. */
function oneInFour(a: usize, rows: i32, thread: i32): void {
  one(4, a, rows, thread);
}
function oneInTwo(a: usize, rows: i32, thread: i32): void {
  one(2, a, rows, thread);
}
function oneInOne(a: usize, rows: i32, thread: i32): void {
  one(1, a, rows, thread);
}

/** y = W·x of int8 for so many rows, a multiple of 16, of each place of a thread's table, and one token. */
export function denseInt8One(places: i32, a: usize, rows: i32, thread: i32): void {
  if (places == 4) oneInFour(a, rows, thread);
  else if (places == 2) oneInTwo(a, rows, thread);
  else oneInOne(a, rows, thread);
}

/** The same for some rows of one product, multiples of 16. */
export function denseInt8Rows(a: usize, first: i32, last: i32, thread: i32): void {
  setPlace(a, thread, 0, a, first);
  oneInOne(a, last - first, thread);
  finishRows(a, first, last - first);
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

/** y = W·x of int8 for rows `first` to `last`, multiples of 16, and several tokens. */
export function denseInt8(a: usize, first: i32, last: i32, tokens: i32): void {
  const size = denseInt8Size(a);
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
