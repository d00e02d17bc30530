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
  DENSE_HEADER,
  DENSE_SEGMENT,
  denseBytes,
  GROUP_SEGMENTS,
  scalesAt,
  X_SUMS,
  X_SUMS_COPY,
} from "./int4";
import {
  addScaled,
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
import { addProducts, ones, products, sumProducts, upper } from "./simd";

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

/** start + a segment of four rows. */
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
  start: v128,
  nibbles: v128,
  one_: v128,
): v128 {
  const v = v128.load(w);
  let p = products(x0, v128.and(v, nibbles));
  p = addProducts(p, x1, upper(v, nibbles));
  p = addEight(p, w + 64, x2, x3, nibbles);
  p = addEight(p, w + 128, x4, x5, nibbles);
  p = addEight(p, w + 192, x6, x7, nibbles);
  return i32x4.add(sumProducts(p, one_), start);
}

/** f + a segment of four rows of one token, with a scale. */
// @ts-ignore: decorator
@inline
function addRows(
  f: v128,
  w: usize,
  x0: v128,
  x1: v128,
  x2: v128,
  x3: v128,
  x4: v128,
  x5: v128,
  x6: v128,
  x7: v128,
  start: v128,
  scale: v128,
  nibbles: v128,
  one_: v128,
): v128 {
  return addScaled(f, addSegment(w, x0, x1, x2, x3, x4, x5, x6, x7, start, nibbles, one_), scale);
}

/** One token. */
function one(a: usize, first: i32, last: i32, thread: i32): void {
  const n = v128.load(NIBBLES), o = ones(), zero = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const size = denseBytes(segments, per);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const sums = load<usize>(a, X_SUMS) + <usize> thread * <usize> load<u32>(a, X_SUMS_COPY);
  const flagged = listFlaggedOfOne(a, thread);
  // Half of the groups of rows beside the other half, like `dense.ts`: one that is alone is beside itself.
  const half = (last - first + 16) >> 5 << 4;
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 4) * size;
  for (let row = first; row < first + half; row += 16) {
    const isAlone = row + half >= last, apart = isAlone ? 0 : <usize> (half >> 4) * size;
    let w = at, xp = x, scale = scales, begin = sums;
    let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
    for (let s: usize = 0; s < segments;) {
      const end = min(s + per, segments), header = w;
      let p0 = f32x4.splat(0), p1 = p0, p2 = p0, p3 = p0, q0 = p0, q1 = p0, q2 = p0, q3 = p0;
      w += DENSE_HEADER;
      for (; s < end; s++) {
        const unit = v128.load32_splat(scale), start = v128.load32_splat(begin), v = w + apart;
        const x0 = inputs(xp, zero), x1 = inputs(xp + 4, zero);
        const x2 = inputs(xp + 8, zero), x3 = inputs(xp + 12, zero);
        const x4 = inputs(xp + 16, zero), x5 = inputs(xp + 20, zero);
        const x6 = inputs(xp + 24, zero), x7 = inputs(xp + 28, zero);
        p0 = addRows(p0, w, x0, x1, x2, x3, x4, x5, x6, x7, start, unit, n, o);
        q0 = addRows(q0, v, x0, x1, x2, x3, x4, x5, x6, x7, start, unit, n, o);
        p1 = addRows(p1, w + 16, x0, x1, x2, x3, x4, x5, x6, x7, start, unit, n, o);
        q1 = addRows(q1, v + 16, x0, x1, x2, x3, x4, x5, x6, x7, start, unit, n, o);
        p2 = addRows(p2, w + 32, x0, x1, x2, x3, x4, x5, x6, x7, start, unit, n, o);
        q2 = addRows(q2, v + 32, x0, x1, x2, x3, x4, x5, x6, x7, start, unit, n, o);
        p3 = addRows(p3, w + 48, x0, x1, x2, x3, x4, x5, x6, x7, start, unit, n, o);
        q3 = addRows(q3, v + 48, x0, x1, x2, x3, x4, x5, x6, x7, start, unit, n, o);
        w += DENSE_SEGMENT;
        xp += 32;
        scale += 4;
        begin += 8;
      }
      f0 = f32x4.add(f0, f32x4.mul(p0, scalesAt(header)));
      f1 = f32x4.add(f1, f32x4.mul(p1, scalesAt(header + 8)));
      f2 = f32x4.add(f2, f32x4.mul(p2, scalesAt(header + 16)));
      f3 = f32x4.add(f3, f32x4.mul(p3, scalesAt(header + 24)));
      g0 = f32x4.add(g0, f32x4.mul(q0, scalesAt(header + apart)));
      g1 = f32x4.add(g1, f32x4.mul(q1, scalesAt(header + apart + 8)));
      g2 = f32x4.add(g2, f32x4.mul(q2, scalesAt(header + apart + 16)));
      g3 = f32x4.add(g3, f32x4.mul(q3, scalesAt(header + apart + 24)));
    }
    for (let entry = flagged;; entry += 2) {
      const s = <usize> load<u16>(entry);
      if (s == LIST_END) break;
      const group = s / per, h = at + group * (DENSE_HEADER + per * DENSE_SEGMENT), k = h + apart;
      const v = at + (group + 1) * DENSE_HEADER + s * DENSE_SEGMENT, u = v + apart;
      const xs = x + low + (s << 5), start = v128.load32_splat(sums + (s << 3), 4);
      const unit = f32x4.mul(v128.load32_splat(scales + (s << 2)), f32x4.splat(LOW_UNIT));
      const x0 = inputs(xs, zero), x1 = inputs(xs + 4, zero);
      const x2 = inputs(xs + 8, zero), x3 = inputs(xs + 12, zero);
      const x4 = inputs(xs + 16, zero), x5 = inputs(xs + 20, zero);
      const x6 = inputs(xs + 24, zero), x7 = inputs(xs + 28, zero);
      let t = f32x4.mul(unit, scalesAt(h));
      f0 = addRows(f0, v, x0, x1, x2, x3, x4, x5, x6, x7, start, t, n, o);
      t = f32x4.mul(unit, scalesAt(h + 8));
      f1 = addRows(f1, v + 16, x0, x1, x2, x3, x4, x5, x6, x7, start, t, n, o);
      t = f32x4.mul(unit, scalesAt(h + 16));
      f2 = addRows(f2, v + 32, x0, x1, x2, x3, x4, x5, x6, x7, start, t, n, o);
      t = f32x4.mul(unit, scalesAt(h + 24));
      f3 = addRows(f3, v + 48, x0, x1, x2, x3, x4, x5, x6, x7, start, t, n, o);
      t = f32x4.mul(unit, scalesAt(k));
      g0 = addRows(g0, u, x0, x1, x2, x3, x4, x5, x6, x7, start, t, n, o);
      t = f32x4.mul(unit, scalesAt(k + 8));
      g1 = addRows(g1, u + 16, x0, x1, x2, x3, x4, x5, x6, x7, start, t, n, o);
      t = f32x4.mul(unit, scalesAt(k + 16));
      g2 = addRows(g2, u + 32, x0, x1, x2, x3, x4, x5, x6, x7, start, t, n, o);
      t = f32x4.mul(unit, scalesAt(k + 24));
      g3 = addRows(g3, u + 48, x0, x1, x2, x3, x4, x5, x6, x7, start, t, n, o);
    }
    finishGroup(a, row, 0, f0, f1, f2, f3);
    if (!isAlone) finishGroup(a, row + half, 0, g0, g1, g2, g3);
    at += size;
  }
}

/** Four tokens of those from `token` on, with the 8 rows at `row`. */
function four(a: usize, row: i32, token: i32, tokens: i32, at: usize): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zero = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const low = <usize> load<u32>(a, X_LOW), inGroup = <usize> (row & 15);
  const x = inputsOf(load<usize>(a, X), load<u32>(a, X_STRIDE), token);
  const next = segments << 2;
  const scales = scalesOf(load<usize>(a, X_SCALES), segments, token);
  const sums = load<usize>(a, X_SUMS) + <usize> token * 2 * next;
  const flags = flagsOf(a, token, 0, tokens);
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
  for (let s: usize = 0, header = at; s < segments;) {
    const end = min(s + per, segments);
    let p0 = f32x4.splat(0), p1 = p0, p2 = p0, p3 = p0, q0 = p0, q1 = p0, q2 = p0, q3 = p0;
    let w = header + DENSE_HEADER + (inGroup << 2);
    for (; s < end; s++) {
      const begin = sums + (s << 3);
      let i0 = i32x4.splat(0), i1 = i0, i2 = i0, i3 = i0, k0 = i0, k1 = i0, k2 = i0, k3 = i0;
      let xp = x + s * TILE_SEGMENT;
      for (const last = w + DENSE_SEGMENT; w < last; w += 64) {
        const v = v128.load(w), u = v128.load(w, 16);
        const v0 = v128.and(v, nibbles), v1 = upper(v, nibbles);
        const u0 = v128.and(u, nibbles), u1 = upper(u, nibbles);
        let y = inputs(xp, zero), z = inputs(xp + 4, zero);
        i0 = addProducts(addProducts(i0, y, v0), z, v1);
        k0 = addProducts(addProducts(k0, y, u0), z, u1);
        y = inputs(xp + 32, zero), z = inputs(xp + 36, zero);
        i1 = addProducts(addProducts(i1, y, v0), z, v1);
        k1 = addProducts(addProducts(k1, y, u0), z, u1);
        y = inputs(xp + 64, zero), z = inputs(xp + 68, zero);
        i2 = addProducts(addProducts(i2, y, v0), z, v1);
        k2 = addProducts(addProducts(k2, y, u0), z, u1);
        y = inputs(xp + 96, zero), z = inputs(xp + 100, zero);
        i3 = addProducts(addProducts(i3, y, v0), z, v1);
        k3 = addProducts(addProducts(k3, y, u0), z, u1);
        xp += 8;
      }
      const t0 = v128.load32_splat(begin), t1 = v128.load32_splat(begin + 2 * next);
      const t2 = v128.load32_splat(begin + 4 * next), t3 = v128.load32_splat(begin + 6 * next);
      const scale = scales + s * TILE_WORDS;
      const s0 = v128.load32_splat(scale), s1 = v128.load32_splat(scale, 4);
      const s2 = v128.load32_splat(scale, 8), s3 = v128.load32_splat(scale, 12);
      p0 = addScaled(p0, i32x4.add(sumProducts(i0, one_), t0), s0);
      p1 = addScaled(p1, i32x4.add(sumProducts(i1, one_), t1), s1);
      p2 = addScaled(p2, i32x4.add(sumProducts(i2, one_), t2), s2);
      p3 = addScaled(p3, i32x4.add(sumProducts(i3, one_), t3), s3);
      q0 = addScaled(q0, i32x4.add(sumProducts(k0, one_), t0), s0);
      q1 = addScaled(q1, i32x4.add(sumProducts(k1, one_), t1), s1);
      q2 = addScaled(q2, i32x4.add(sumProducts(k2, one_), t2), s2);
      q3 = addScaled(q3, i32x4.add(sumProducts(k3, one_), t3), s3);
    }
    const sf = scalesAt(header + (inGroup << 1)), sg = scalesAt(header + (inGroup << 1) + 8);
    f0 = f32x4.add(f0, f32x4.mul(p0, sf));
    f1 = f32x4.add(f1, f32x4.mul(p1, sf));
    f2 = f32x4.add(f2, f32x4.mul(p2, sf));
    f3 = f32x4.add(f3, f32x4.mul(p3, sf));
    g0 = f32x4.add(g0, f32x4.mul(q0, sg));
    g1 = f32x4.add(g1, f32x4.mul(q1, sg));
    g2 = f32x4.add(g2, f32x4.mul(q2, sg));
    g3 = f32x4.add(g3, f32x4.mul(q3, sg));
    header += DENSE_HEADER + per * DENSE_SEGMENT;
  }
  for (let s: usize = 0; s < segments; s++) {
    if (load<u32>(flags + (s << 3)) == 0) continue;
    const group = s / per, header = at + group * (DENSE_HEADER + per * DENSE_SEGMENT);
    const w = at + (group + 1) * DENSE_HEADER + s * DENSE_SEGMENT + (inGroup << 2);
    const sf = scalesAt(header + (inGroup << 1)), sg = scalesAt(header + (inGroup << 1) + 8);
    for (let t = 0; t < 4; t++) {
      const xp = x + low + s * TILE_SEGMENT + <usize> (t << 5);
      const start = v128.load32_splat(sums + (s << 3) + <usize> t * 2 * next, 4);
      const unit = f32x4.mul(
        v128.load32_splat(scales + s * TILE_WORDS + <usize> (t << 2)),
        f32x4.splat(LOW_UNIT),
      );
      const x0 = inputs(xp, zero), x1 = inputs(xp + 4, zero);
      const x2 = inputs(xp + 8, zero), x3 = inputs(xp + 12, zero);
      const x4 = inputs(xp + 16, zero), x5 = inputs(xp + 20, zero);
      const x6 = inputs(xp + 24, zero), x7 = inputs(xp + 28, zero);
      const p = addSegment(w, x0, x1, x2, x3, x4, x5, x6, x7, start, nibbles, one_);
      const q = addSegment(w + 16, x0, x1, x2, x3, x4, x5, x6, x7, start, nibbles, one_);
      const pf = f32x4.mul(unit, sf), qf = f32x4.mul(unit, sg);
      if (t == 0) f0 = addScaled(f0, p, pf), g0 = addScaled(g0, q, qf);
      else if (t == 1) f1 = addScaled(f1, p, pf), g1 = addScaled(g1, q, qf);
      else if (t == 2) f2 = addScaled(f2, p, pf), g2 = addScaled(g2, q, qf);
      else f3 = addScaled(f3, p, pf), g3 = addScaled(g3, q, qf);
    }
  }
  finishFour(a, row, token, tokens, f0, f1, f2, f3);
  finishFour(a, row + 4, token, tokens, g0, g1, g2, g3);
}

/** y = W·x for rows `first` to `last`, multiples of 16. */
export function denseInt4(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  if (tokens == 1) return one(a, first, last, thread);
  const size = denseBytes(load<usize>(a, SEGMENTS), load<usize>(a, GROUP_SEGMENTS));
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 4) * size;
  for (let row = first; row < last; row += 16) {
    for (let half = 0; half < 16; half += 8) {
      for (let token = 0; token < tokens; token += 4) four(a, row + half, token, tokens, at);
    }
    at += size;
  }
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
    const scale = f32x4.extract_lane(scalesAt(header + (lane << 1)), 0);
    const byte = load<u8>(
      at + (group + 1) * DENSE_HEADER + s * DENSE_SEGMENT + (<usize> (c & 24) << 3) + (lane << 2) +
        <usize> (c & 3),
    );
    const level = <i32> (c & 4 ? byte >> 4 : byte & 15) - 8;
    store<f32>(out + (<usize> c << 2), <f32> level * scale);
  }
}
