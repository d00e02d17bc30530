/**
 * Dense int8 matrices, 16 rows together: for each segment -Σw as int16 `[16]`, then its weights
 * `[column / 4, 16 rows, 4 columns]`. `vectors.ts` reads rows out of the same layout, where a head is tied to a table.
 */
import { productAt, rowAt, setPlace, weightsAt } from "./runs";
import { addWholeTimes, dot, ones, wholeStep } from "./simd";
import {
  finishGroupOfOne,
  finishRows,
  inUnits,
  LIST_END,
  listBytes,
  listFlaggedOfOne,
  SEGMENTS,
  stepsOf,
  X,
  X_COPY,
  X_LOW,
  X_STEPS,
} from "./linear";
import { clear } from "./sums";

/** Bytes of a segment of 16 rows of int8, of which the first 32 are sums. */
export const SEGMENT_BYTES: usize = 32 + 512;

/** What the sums of int8 weights begin with: the zero point's part, from -Σw of four rows as int16. */
// @ts-ignore: decorator
@inline
export function begin(sums: usize): v128 {
  return i32x4.shl(v128.load16x4_s(sums), 6);
}

/** Adds four rows' part of a segment, times its step, to their sums at `to`. */
// @ts-ignore: decorator
@inline
export function addPart(to: usize, part: v128, step: v128): void {
  v128.store(to, addWholeTimes(v128.load(to), part, step));
}

/** Adds a segment of sixteen rows, times a token's inputs at `x` and their step, to their sums at `to`. */
export function addSegment(segment: usize, x: usize, step: v128, to: usize): void {
  const one_ = ones(), end = segment + SEGMENT_BYTES;
  let p0 = begin(segment), p1 = begin(segment + 8), p2 = begin(segment + 16), p3 = begin(segment + 24);
  let xp = x;
  for (let w = segment + 32; w < end; w += 64) {
    const xs = v128.load32_splat(xp);
    p0 = dot(v128.load(w), xs, p0, one_);
    p1 = dot(v128.load(w, 16), xs, p1, one_);
    p2 = dot(v128.load(w, 32), xs, p2, one_);
    p3 = dot(v128.load(w, 48), xs, p3, one_);
    xp += 4;
  }
  addPart(to, p0, step);
  addPart(to + 16, p1, step);
  addPart(to + 32, p2, step);
  addPart(to + 48, p3, step);
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
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, 0, thread, 1);
  const unit = v128.load32_splat(steps + (segments << 2));
  const flagged = listFlaggedOfOne(a, thread), lows = (flagged + listBytes(segments) + 15) & ~15;
  let b0 = weightsAt(a, thread, 0, 4, size), c0 = b0, d0 = b0, e0 = b0;
  if (places > 1) c0 = weightsAt(a, thread, 1, 4, size);
  if (places > 2) d0 = weightsAt(a, thread, 2, 4, size), e0 = weightsAt(a, thread, 3, 4, size);
  for (let row = 0; row < rows; row += 16) {
    let f0 = i32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
    let h0 = f0, h1 = f0, h2 = f0, h3 = f0, k0 = f0, k1 = f0, k2 = f0, k3 = f0;
    let xp = x;
    for (let s: usize = 0, body: usize = 0; s < segments; s++, body += SEGMENT_BYTES) {
      const b = b0 + body, c = c0 + body, d = d0 + body, e = e0 + body;
      let p0 = begin(b), p1 = begin(b + 8), p2 = begin(b + 16), p3 = begin(b + 24);
      let q0 = p0, q1 = p0, q2 = p0, q3 = p0, r0 = p0, r1 = p0, r2 = p0, r3 = p0;
      let t0 = p0, t1 = p0, t2 = p0, t3 = p0;
      if (places > 1) q0 = begin(c), q1 = begin(c + 8), q2 = begin(c + 16), q3 = begin(c + 24);
      if (places > 2) {
        r0 = begin(d), r1 = begin(d + 8), r2 = begin(d + 16), r3 = begin(d + 24);
        t0 = begin(e), t1 = begin(e + 8), t2 = begin(e + 16), t3 = begin(e + 24);
      }
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
      const step = wholeStep(v128.load32_splat(steps + (s << 2)));
      f0 = addWholeTimes(f0, p0, step), f1 = addWholeTimes(f1, p1, step);
      f2 = addWholeTimes(f2, p2, step), f3 = addWholeTimes(f3, p3, step);
      if (places == 1) continue;
      g0 = addWholeTimes(g0, q0, step), g1 = addWholeTimes(g1, q1, step);
      g2 = addWholeTimes(g2, q2, step), g3 = addWholeTimes(g3, q3, step);
      if (places == 2) continue;
      h0 = addWholeTimes(h0, r0, step), h1 = addWholeTimes(h1, r1, step);
      h2 = addWholeTimes(h2, r2, step), h3 = addWholeTimes(h3, r3, step);
      k0 = addWholeTimes(k0, t0, step), k1 = addWholeTimes(k1, t1, step);
      k2 = addWholeTimes(k2, t2, step), k3 = addWholeTimes(k3, t3, step);
    }
    for (let i = 0; i < places; i++) {
      clear(lows, 1);
      const w = i == 0 ? b0 : i == 1 ? c0 : i == 2 ? d0 : e0;
      for (let entry = flagged;; entry += 2) {
        const s = <usize> load<u16>(entry);
        if (s == LIST_END) break;
        const step = v128.load32_splat(steps + (s << 2));
        addSegment(w + s * SEGMENT_BYTES, x + low + (s << 5), wholeStep(step), lows);
      }
      const s0 = i == 0 ? f0 : i == 1 ? g0 : i == 2 ? h0 : k0, s1 = i == 0 ? f1 : i == 1 ? g1 : i == 2 ? h1 : k1;
      const s2 = i == 0 ? f2 : i == 1 ? g2 : i == 2 ? h2 : k2, s3 = i == 0 ? f3 : i == 1 ? g3 : i == 2 ? h3 : k3;
      const v0 = inUnits(s0, v128.load(lows), unit), v1 = inUnits(s1, v128.load(lows, 16), unit);
      const v2 = inUnits(s2, v128.load(lows, 32), unit), v3 = inUnits(s3, v128.load(lows, 48), unit);
      finishGroupOfOne(productAt(a, thread, i), rowAt(a, thread, i) + row, v0, v1, v2, v3);
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
