/** Sparse int4 matrices in slots (`slots_int4.ts`), times one token. */
import { LISTED_ROWS, timesListsOf } from "./beside";
import { LEVELS, NIBBLES, ZERO_POINTS } from "./control";
import { fourBytes, GROUP_SEGMENTS, levels, SLOTS_HEADER, slotsBytes } from "./int4";
import {
  addScaled,
  finishOne,
  LIST_END,
  listBytes,
  listFlaggedOfOne,
  LOW_UNIT,
  SEGMENTS,
  SLOTS_ONE_INT4,
  SLOTS_TWO_INT4,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
} from "./linear";
import { productAt, rowAt, weightsAt } from "./runs";
import { addProducts, halvesAt, lessZeros, ones, pick, products, sumProducts, upper } from "./simd";

/** The products of a segment of four rows, which begins at `w`. */
// @ts-ignore: decorator
@inline
function segmentOf(
  kind: i32,
  w: usize,
  a: v128,
  b: v128,
  nibbles: v128,
  table: v128,
  zeros: v128,
  one_: v128,
): v128 {
  const i = v128.load(w), v = v128.load(w, 16);
  const v0 = levels(table, v128.and(v, nibbles)), v1 = levels(table, upper(v, nibbles));
  const first = products(v0, pick(a, v128.and(i, nibbles)));
  // Four levels of four bits fit a byte.
  let all = i8x16.add(v0, v1), sum: v128;
  if (kind == SLOTS_ONE_INT4) sum = addProducts(first, v1, pick(b, upper(i, nibbles)));
  else {
    const k = v128.load(w, 32), m = v128.load(w, 48);
    const v2 = levels(table, v128.and(m, nibbles)), v3 = levels(table, upper(m, nibbles));
    sum = addProducts(first, v1, pick(a, upper(i, nibbles)));
    sum = addProducts(sum, v2, pick(b, v128.and(k, nibbles)));
    sum = addProducts(sum, v3, pick(b, upper(k, nibbles)));
    all = i8x16.add(all, i8x16.add(v2, v3));
  }
  return sumProducts(lessZeros(sum, all, zeros), one_);
}

/**
 * One token.
 *
 * @param places In how many they are read, 1, 2 or 4: those of the thread's table (`runs.ts`).
 * @param a Any of their products.
 * @param rows Of each place, a multiple of 8.
 */
// @ts-ignore: decorator
@inline
function one(kind: i32, places: i32, a: usize, rows: i32, thread: i32): void {
  const nibbles = v128.load(NIBBLES), one_ = ones(), table = v128.load(LEVELS);
  const zeros = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const four = fourBytes(kind), size = slotsBytes(segments, per, four);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const flagged = listFlaggedOfOne(a, thread), listed = (flagged + listBytes(segments) + 15) & ~15;
  let w0 = weightsAt(a, thread, 0, 3, size), w1 = w0, w2 = w0, w3 = w0;
  if (places > 1) w1 = weightsAt(a, thread, 1, 3, size);
  if (places > 2) w2 = weightsAt(a, thread, 2, 3, size), w3 = weightsAt(a, thread, 3, 3, size);
  let each: usize = 0;
  for (let row = 0; row < rows; row += 8) {
    const done = row & (LISTED_ROWS - 1);
    if (done == 0) each = timesListsOf(places, a, row, min(LISTED_ROWS, rows - row), thread, listed);
    let at: usize = 0, xp = x, scale = scales;
    let f0 = f32x4.splat(0), g0 = f0, f1 = f0, g1 = f0, f2 = f0, g2 = f0, f3 = f0, g3 = f0;
    for (let s: usize = 0; s < segments;) {
      const end = min(s + per, segments);
      const header = at;
      let p0 = f32x4.splat(0), q0 = p0, p1 = p0, q1 = p0, p2 = p0, q2 = p0, p3 = p0, q3 = p0;
      at += SLOTS_HEADER;
      for (; s < end; s++) {
        // All rows have the same inputs.
        const unit = v128.load32_splat(scale), y = v128.load(xp), z = v128.load(xp, 16);
        let v = w0 + at;
        p0 = addScaled(p0, segmentOf(kind, v, y, z, nibbles, table, zeros, one_), unit);
        q0 = addScaled(q0, segmentOf(kind, v + four, y, z, nibbles, table, zeros, one_), unit);
        if (places > 1) {
          v = w1 + at;
          p1 = addScaled(p1, segmentOf(kind, v, y, z, nibbles, table, zeros, one_), unit);
          q1 = addScaled(q1, segmentOf(kind, v + four, y, z, nibbles, table, zeros, one_), unit);
        }
        if (places > 2) {
          v = w2 + at;
          p2 = addScaled(p2, segmentOf(kind, v, y, z, nibbles, table, zeros, one_), unit);
          q2 = addScaled(q2, segmentOf(kind, v + four, y, z, nibbles, table, zeros, one_), unit);
          v = w3 + at;
          p3 = addScaled(p3, segmentOf(kind, v, y, z, nibbles, table, zeros, one_), unit);
          q3 = addScaled(q3, segmentOf(kind, v + four, y, z, nibbles, table, zeros, one_), unit);
        }
        at += 2 * four;
        xp += 32;
        scale += 4;
      }
      f0 = f32x4.add(f0, f32x4.mul(p0, halvesAt(w0 + header)));
      g0 = f32x4.add(g0, f32x4.mul(q0, halvesAt(w0 + header + 8)));
      if (places > 1) {
        f1 = f32x4.add(f1, f32x4.mul(p1, halvesAt(w1 + header)));
        g1 = f32x4.add(g1, f32x4.mul(q1, halvesAt(w1 + header + 8)));
      }
      if (places > 2) {
        f2 = f32x4.add(f2, f32x4.mul(p2, halvesAt(w2 + header)));
        g2 = f32x4.add(g2, f32x4.mul(q2, halvesAt(w2 + header + 8)));
        f3 = f32x4.add(f3, f32x4.mul(p3, halvesAt(w3 + header)));
        g3 = f32x4.add(g3, f32x4.mul(q3, halvesAt(w3 + header + 8)));
      }
    }
    let list = listed + <usize> done * each;
    for (let i = 0; i < places; i++) {
      const b = i == 0 ? w0 : i == 1 ? w1 : i == 2 ? w2 : w3;
      let f = i == 0 ? f0 : i == 1 ? f1 : i == 2 ? f2 : f3;
      let g = i == 0 ? g0 : i == 1 ? g1 : i == 2 ? g2 : g3;
      for (let entry = flagged;; entry += 2) {
        const s = <usize> load<u16>(entry);
        if (s == LIST_END) break;
        const group = s / per, header = b + group * (SLOTS_HEADER + per * 2 * four);
        const v = b + (group + 1) * SLOTS_HEADER + s * 2 * four, xs = x + low + (s << 5);
        const scale = v128.load32_splat(scales + (s << 2));
        const y = v128.load(xs), z = v128.load(xs, 16);
        f = addLowPart(f, segmentOf(kind, v, y, z, nibbles, table, zeros, one_), scale, header);
        g = addLowPart(g, segmentOf(kind, v + four, y, z, nibbles, table, zeros, one_), scale, header + 8);
      }
      const product = productAt(a, thread, i), r = rowAt(a, thread, i) + row;
      finishOne(product, r, f32x4.add(f, v128.load(list)));
      finishOne(product, r + 4, f32x4.add(g, v128.load(list, 16)));
      list += <usize> LISTED_ROWS * each;
    }
    w0 += size;
    w1 += size;
    w2 += size;
    w3 += size;
  }
}

/** sum + a sum of lower bits, with the input's scale and those of rows. */
// @ts-ignore: decorator
@inline
function addLowPart(sum: v128, part: v128, scale: v128, scales: usize): v128 {
  const scaled = f32x4.mul(f32x4.convert_i32x4_s(part), scale);
  return f32x4.add(sum, f32x4.mul(scaled, f32x4.mul(halvesAt(scales), f32x4.splat(LOW_UNIT))));
}

/** Each in a function of its own: engines compile small functions better. */
function oneInFour(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_ONE_INT4, 4, a, rows, thread);
}
function oneInTwo(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_ONE_INT4, 2, a, rows, thread);
}
function oneInOne(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_ONE_INT4, 1, a, rows, thread);
}
function twoInFour(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_TWO_INT4, 4, a, rows, thread);
}
function twoInTwo(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_TWO_INT4, 2, a, rows, thread);
}
function twoInOne(a: usize, rows: i32, thread: i32): void {
  one(SLOTS_TWO_INT4, 1, a, rows, thread);
}

/** y = W·x for so many rows, a multiple of 8, of each place of a thread's table, and one token. */
export function slotsInt4One(kind: i32, places: i32, a: usize, rows: i32, thread: i32): void {
  if (kind == SLOTS_ONE_INT4) {
    if (places == 4) oneInFour(a, rows, thread);
    else if (places == 2) oneInTwo(a, rows, thread);
    else oneInOne(a, rows, thread);
  } else {
    if (places == 4) twoInFour(a, rows, thread);
    else if (places == 2) twoInTwo(a, rows, thread);
    else twoInOne(a, rows, thread);
  }
}

/** Bytes of eight rows. */
export function slotsInt4Size(kind: i32, a: usize): usize {
  return slotsBytes(load<usize>(a, SEGMENTS), load<usize>(a, GROUP_SEGMENTS), fourBytes(kind));
}
