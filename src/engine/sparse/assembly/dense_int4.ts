/**
 * Dense int4 matrices, 16 rows together.
 *
 * For each group of columns sixteen scales (float16), then for each of its segments the weights as
 * `[column / 8, 16 rows, 4 columns]` bytes: in low halves the first four of eight columns, in high ones
 * the others. Halves are 8 more than the level, 0 to 15, and those of columns that fill a segment are 0.
 *
 * Here the weights are the factor without a sign, and the inputs, less their zero point of 64, the one
 * with a sign: so no sums of weights are needed, only 8 times the sum of a segment's inputs, which is the
 * same for all rows.
 */
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  addGroup,
  DENSE_HEADER,
  DENSE_SEGMENT,
  denseBytes,
  GROUP_SEGMENTS,
  startOf,
  X_SUMS,
  X_SUMS_COPY,
} from "./int4";
import {
  finishGroupOfOne,
  floatsInUnits,
  LIST_END,
  listFlaggedOfOne,
  SEGMENTS,
  stepsOf,
  X,
  X_COPY,
  X_LOW,
  X_STEPS,
} from "./linear";
import { productAt, rowAt, weightsAt } from "./runs";
import { addProducts, addTimes, halvesAt, upper } from "./simd";

/** Inputs of four columns, for all rows, less their zero point. */
// @ts-ignore: decorator
@inline
function inputs(at: usize, zero: v128): v128 {
  return i8x16.sub(v128.load32_splat(at), zero);
}

/** sum + the products of eight columns: `x` and `y` are four inputs each. */
// @ts-ignore: decorator
@inline
function addEight(sum: v128, w: usize, x: v128, y: v128, nibbles: v128): v128 {
  const v = v128.load(w);
  return addProducts(
    addProducts(sum, x, v128.and(v, nibbles)),
    y,
    upper(v, nibbles),
  );
}

/** start + a segment of four rows, the inputs at `x`, times their step. */
// @ts-ignore: decorator
@inline
function segmentOf(w: usize, x: usize, start: v128, step: v128, zero: v128, nibbles: v128): v128 {
  let sum = i32x4.splat(0);
  for (let at: usize = 0; at < 32; at += 8) {
    sum = addEight(sum, w + (at << 3), inputs(x + at, zero), inputs(x + at + 4, zero), nibbles);
  }
  return addTimes(start, sum, step);
}

/**
 * One token: like `dense.ts`.
 *
 * @param places In how many they are read, 1, 2 or 4: those of the thread's table (`runs.ts`).
 * @param a Any of their products.
 * @param rows Of each place, a multiple of 16.
 */
// @ts-ignore: decorator
@inline
function one(places: i32, a: usize, rows: i32, thread: i32): void {
  const n = v128.load(NIBBLES), zero = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const size = denseBytes(segments, per);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, 0, thread, 1);
  const unit = v128.load32_splat(steps + (segments << 2));
  const sums = load<usize>(a, X_SUMS) + <usize> thread * <usize> load<u32>(a, X_SUMS_COPY);
  const flagged = listFlaggedOfOne(a, thread);
  let b0 = weightsAt(a, thread, 0, 4, size), c0 = b0, d0 = b0, e0 = b0;
  if (places > 1) c0 = weightsAt(a, thread, 1, 4, size);
  if (places > 2) d0 = weightsAt(a, thread, 2, 4, size), e0 = weightsAt(a, thread, 3, 4, size);
  for (let row = 0; row < rows; row += 16) {
    let at: usize = 0, xp = x, step = steps;
    let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
    let h0 = f0, h1 = f0, h2 = f0, h3 = f0, k0 = f0, k1 = f0, k2 = f0, k3 = f0;
    for (let s: usize = 0; s < segments;) {
      const end = min(s + per, segments);
      const header = at;
      let p0 = startOf(sums + (s << 3), end - s), p1 = p0, p2 = p0, p3 = p0, q0 = p0, q1 = p0, q2 = p0, q3 = p0;
      let r0 = p0, r1 = p0, r2 = p0, r3 = p0, t0 = p0, t1 = p0, t2 = p0, t3 = p0;
      at += DENSE_HEADER;
      for (; s < end; s++) {
        const t = v128.load32_splat(step);
        let i0 = i32x4.splat(0), i1 = i0, i2 = i0, i3 = i0, j0 = i0, j1 = i0, j2 = i0, j3 = i0;
        let l0 = i0, l1 = i0, l2 = i0, l3 = i0, m0 = i0, m1 = i0, m2 = i0, m3 = i0;
        for (const next = at + DENSE_SEGMENT; at < next; at += 64) {
          const y = inputs(xp, zero), z = inputs(xp + 4, zero), w = b0 + at;
          i0 = addEight(i0, w, y, z, n);
          i1 = addEight(i1, w + 16, y, z, n);
          i2 = addEight(i2, w + 32, y, z, n);
          i3 = addEight(i3, w + 48, y, z, n);
          if (places > 1) {
            const v = c0 + at;
            j0 = addEight(j0, v, y, z, n);
            j1 = addEight(j1, v + 16, y, z, n);
            j2 = addEight(j2, v + 32, y, z, n);
            j3 = addEight(j3, v + 48, y, z, n);
          }
          if (places > 2) {
            let v = d0 + at;
            l0 = addEight(l0, v, y, z, n);
            l1 = addEight(l1, v + 16, y, z, n);
            l2 = addEight(l2, v + 32, y, z, n);
            l3 = addEight(l3, v + 48, y, z, n);
            v = e0 + at;
            m0 = addEight(m0, v, y, z, n);
            m1 = addEight(m1, v + 16, y, z, n);
            m2 = addEight(m2, v + 32, y, z, n);
            m3 = addEight(m3, v + 48, y, z, n);
          }
          xp += 8;
        }
        p0 = addTimes(p0, i0, t), p1 = addTimes(p1, i1, t);
        p2 = addTimes(p2, i2, t), p3 = addTimes(p3, i3, t);
        if (places > 1) {
          q0 = addTimes(q0, j0, t), q1 = addTimes(q1, j1, t);
          q2 = addTimes(q2, j2, t), q3 = addTimes(q3, j3, t);
        }
        if (places > 2) {
          r0 = addTimes(r0, l0, t), r1 = addTimes(r1, l1, t);
          r2 = addTimes(r2, l2, t), r3 = addTimes(r3, l3, t);
          t0 = addTimes(t0, m0, t), t1 = addTimes(t1, m1, t);
          t2 = addTimes(t2, m2, t), t3 = addTimes(t3, m3, t);
        }
        step += 4;
      }
      let h = b0 + header;
      f0 = addGroup(f0, p0, halvesAt(h)), f1 = addGroup(f1, p1, halvesAt(h + 8));
      f2 = addGroup(f2, p2, halvesAt(h + 16)), f3 = addGroup(f3, p3, halvesAt(h + 24));
      if (places > 1) {
        h = c0 + header;
        g0 = addGroup(g0, q0, halvesAt(h)), g1 = addGroup(g1, q1, halvesAt(h + 8));
        g2 = addGroup(g2, q2, halvesAt(h + 16)), g3 = addGroup(g3, q3, halvesAt(h + 24));
      }
      if (places > 2) {
        h = d0 + header;
        h0 = addGroup(h0, r0, halvesAt(h)), h1 = addGroup(h1, r1, halvesAt(h + 8));
        h2 = addGroup(h2, r2, halvesAt(h + 16)), h3 = addGroup(h3, r3, halvesAt(h + 24));
        h = e0 + header;
        k0 = addGroup(k0, t0, halvesAt(h)), k1 = addGroup(k1, t1, halvesAt(h + 8));
        k2 = addGroup(k2, t2, halvesAt(h + 16)), k3 = addGroup(k3, t3, halvesAt(h + 24));
      }
    }
    for (let i = 0; i < places; i++) {
      const b = i == 0 ? b0 : i == 1 ? c0 : i == 2 ? d0 : e0;
      const s0 = i == 0 ? f0 : i == 1 ? g0 : i == 2 ? h0 : k0, s1 = i == 0 ? f1 : i == 1 ? g1 : i == 2 ? h1 : k1;
      const s2 = i == 0 ? f2 : i == 1 ? g2 : i == 2 ? h2 : k2, s3 = i == 0 ? f3 : i == 1 ? g3 : i == 2 ? h3 : k3;
      let l0 = f32x4.splat(0), l1 = l0, l2 = l0, l3 = l0;
      for (let entry = flagged;; entry += 2) {
        const s = <usize> load<u16>(entry);
        if (s == LIST_END) break;
        const group = s / per, h = b + group * (DENSE_HEADER + per * DENSE_SEGMENT);
        const v = b + (group + 1) * DENSE_HEADER + s * DENSE_SEGMENT;
        const xs = x + low + (s << 5), start = v128.load32_splat(sums + (s << 3), 4);
        const t = v128.load32_splat(steps + (s << 2));
        l0 = addGroup(l0, segmentOf(v, xs, start, t, zero, n), halvesAt(h));
        l1 = addGroup(l1, segmentOf(v + 16, xs, start, t, zero, n), halvesAt(h + 8));
        l2 = addGroup(l2, segmentOf(v + 32, xs, start, t, zero, n), halvesAt(h + 16));
        l3 = addGroup(l3, segmentOf(v + 48, xs, start, t, zero, n), halvesAt(h + 24));
      }
      const v0 = floatsInUnits(s0, l0, unit), v1 = floatsInUnits(s1, l1, unit);
      const v2 = floatsInUnits(s2, l2, unit), v3 = floatsInUnits(s3, l3, unit);
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

/** y = W·x for so many rows, a multiple of 16, of each place of a thread's table, and one token. */
export function denseInt4One(places: i32, a: usize, rows: i32, thread: i32): void {
  if (places == 4) oneInFour(a, rows, thread);
  else if (places == 2) oneInTwo(a, rows, thread);
  else oneInOne(a, rows, thread);
}

/** Bytes of sixteen rows. */
export function denseInt4Size(a: usize): usize {
  return denseBytes(load<usize>(a, SEGMENTS), load<usize>(a, GROUP_SEGMENTS));
}

/**
 * A row of a dense matrix as float32, for tables.
 *
 * @param table The matrix.
 * @param row Its row.
 * @param out Room for `width` numbers.
 */
export function rowOfInt4(
  table: usize,
  segments: usize,
  per: usize,
  row: i32,
  width: i32,
  out: usize,
): void {
  const at = table + <usize> (row >> 4) * denseBytes(segments, per);
  const lane = <usize> (row & 15);
  for (let c = 0; c < width; c++) {
    const s = <usize> c >> 5, group = s / per;
    const header = at + group * (DENSE_HEADER + per * DENSE_SEGMENT);
    const scale = f32x4.extract_lane(halvesAt(header + (lane << 1)), 0);
    const byte = load<u8>(
      at + (group + 1) * DENSE_HEADER + s * DENSE_SEGMENT + (<usize> (c & 24) << 3) + (lane << 2) +
        <usize> (c & 3),
    );
    const level = <i32> (c & 4 ? byte >> 4 : byte & 15) - 8;
    store<f32>(out + (<usize> c << 2), <f32> level * scale);
  }
}
