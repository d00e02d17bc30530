/**
 * Sparse int4 matrices in slots (`slots_int4.ts`), times one token.
 *
 * As in dense matrices the weights are the factor without a sign, level + 8, which is the level with its sign bit
 * turned, and the inputs, less their zero point, the one with a sign: so levels need no table. What the 8 adds is taken
 * out again, of the inputs that have been picked.
 */
import { LISTED_ROWS, timesListsOf } from "./beside";
import { EIGHTS, NIBBLES, SIGN_BITS, ZERO_POINTS } from "./control";
import { addGroup, fourBytes, GROUP_SEGMENTS, SLOTS_HEADER, slotsBytes } from "./int4";
import {
  finishOne,
  floatsInUnits,
  LIST_END,
  listBytes,
  listFlaggedOfOne,
  SEGMENTS,
  SLOTS_ONE_INT4,
  SLOTS_TWO_INT4,
  stepsOf,
  X,
  X_COPY,
  X_LOW,
  X_STEPS,
} from "./linear";
import { productAt, rowAt, weightsAt } from "./runs";
import { addProducts, addTimes, halvesAt, pick, products, subParts, upper } from "./simd";

/**
 * sum + the products of a segment of four rows, which begins at `w`, times their step.
 *
 * @param a Inputs of its first window, less their zero point; `b` those of the second.
 */
// @ts-ignore: decorator
@inline
export function addSegment(
  kind: i32,
  sum: v128,
  w: usize,
  a: v128,
  b: v128,
  step: v128,
  nibbles: v128,
  eights: v128,
  signs: v128,
): v128 {
  const i = v128.load(w), v = v128.xor(v128.load(w, 16), signs);
  const x0 = pick(a, v128.and(i, nibbles)), x1 = pick(kind == SLOTS_ONE_INT4 ? b : a, upper(i, nibbles));
  let all = addProducts(products(x0, v128.and(v, nibbles)), x1, upper(v, nibbles));
  // Two inputs of seven bits fit a byte.
  let less = products(i8x16.add(x0, x1), eights);
  if (kind == SLOTS_TWO_INT4) {
    const j = v128.load(w, 32), u = v128.xor(v128.load(w, 48), signs);
    const x2 = pick(b, v128.and(j, nibbles)), x3 = pick(b, upper(j, nibbles));
    all = addProducts(addProducts(all, x2, v128.and(u, nibbles)), x3, upper(u, nibbles));
    less = addProducts(less, i8x16.add(x2, x3), eights);
  }
  return addTimes(sum, subParts(all, less), step);
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
  const n = v128.load(NIBBLES), e = v128.load(EIGHTS), g = v128.load(SIGN_BITS), zero = v128.load(ZERO_POINTS);
  const segments = load<usize>(a, SEGMENTS), per = load<usize>(a, GROUP_SEGMENTS);
  const four = fourBytes(kind), size = slotsBytes(segments, per, four);
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  const low = <usize> load<u32>(a, X_LOW);
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, 0, thread, 1);
  const unit = v128.load32_splat(steps + (segments << 2));
  const flagged = listFlaggedOfOne(a, thread), listed = (flagged + listBytes(segments) + 15) & ~15;
  let w0 = weightsAt(a, thread, 0, 3, size), w1 = w0, w2 = w0, w3 = w0;
  if (places > 1) w1 = weightsAt(a, thread, 1, 3, size);
  if (places > 2) w2 = weightsAt(a, thread, 2, 3, size), w3 = weightsAt(a, thread, 3, 3, size);
  let each: usize = 0;
  for (let row = 0; row < rows; row += 8) {
    const done = row & (LISTED_ROWS - 1);
    if (done == 0) each = timesListsOf(places, a, row, min(LISTED_ROWS, rows - row), thread, listed);
    let at: usize = 0, xp = x, step = steps;
    let f0 = f32x4.splat(0), h0 = f0, f1 = f0, h1 = f0, f2 = f0, h2 = f0, f3 = f0, h3 = f0;
    for (let s: usize = 0; s < segments;) {
      const end = min(s + per, segments);
      const header = at;
      let p0 = i32x4.splat(0), q0 = p0, p1 = p0, q1 = p0, p2 = p0, q2 = p0, p3 = p0, q3 = p0;
      at += SLOTS_HEADER;
      for (; s < end; s++) {
        // All rows have the same inputs.
        const t = v128.load32_splat(step);
        const y = i8x16.sub(v128.load(xp), zero), z = i8x16.sub(v128.load(xp, 16), zero);
        let v = w0 + at;
        p0 = addSegment(kind, p0, v, y, z, t, n, e, g);
        q0 = addSegment(kind, q0, v + four, y, z, t, n, e, g);
        if (places > 1) {
          v = w1 + at;
          p1 = addSegment(kind, p1, v, y, z, t, n, e, g);
          q1 = addSegment(kind, q1, v + four, y, z, t, n, e, g);
        }
        if (places > 2) {
          v = w2 + at;
          p2 = addSegment(kind, p2, v, y, z, t, n, e, g);
          q2 = addSegment(kind, q2, v + four, y, z, t, n, e, g);
          v = w3 + at;
          p3 = addSegment(kind, p3, v, y, z, t, n, e, g);
          q3 = addSegment(kind, q3, v + four, y, z, t, n, e, g);
        }
        at += 2 * four;
        xp += 32;
        step += 4;
      }
      f0 = addGroup(f0, p0, halvesAt(w0 + header));
      h0 = addGroup(h0, q0, halvesAt(w0 + header + 8));
      if (places > 1) {
        f1 = addGroup(f1, p1, halvesAt(w1 + header));
        h1 = addGroup(h1, q1, halvesAt(w1 + header + 8));
      }
      if (places > 2) {
        f2 = addGroup(f2, p2, halvesAt(w2 + header));
        h2 = addGroup(h2, q2, halvesAt(w2 + header + 8));
        f3 = addGroup(f3, p3, halvesAt(w3 + header));
        h3 = addGroup(h3, q3, halvesAt(w3 + header + 8));
      }
    }
    let list = listed + <usize> done * each;
    for (let i = 0; i < places; i++) {
      const b = i == 0 ? w0 : i == 1 ? w1 : i == 2 ? w2 : w3;
      const f = i == 0 ? f0 : i == 1 ? f1 : i == 2 ? f2 : f3;
      const h = i == 0 ? h0 : i == 1 ? h1 : i == 2 ? h2 : h3;
      let lf = f32x4.splat(0), lh = lf;
      for (let entry = flagged;; entry += 2) {
        const s = <usize> load<u16>(entry);
        if (s == LIST_END) break;
        const group = s / per, header = b + group * (SLOTS_HEADER + per * 2 * four);
        const v = b + (group + 1) * SLOTS_HEADER + s * 2 * four, xs = x + low + (s << 5);
        const t = v128.load32_splat(steps + (s << 2)), none = i32x4.splat(0);
        const y = i8x16.sub(v128.load(xs), zero), z = i8x16.sub(v128.load(xs, 16), zero);
        lf = addGroup(lf, addSegment(kind, none, v, y, z, t, n, e, g), halvesAt(header));
        lh = addGroup(lh, addSegment(kind, none, v + four, y, z, t, n, e, g), halvesAt(header + 8));
      }
      const product = productAt(a, thread, i), r = rowAt(a, thread, i) + row;
      finishOne(product, r, f32x4.add(floatsInUnits(f, lf, unit), v128.load(list)));
      finishOne(product, r + 4, f32x4.add(floatsInUnits(h, lh, unit), v128.load(list, 16)));
      list += <usize> LISTED_ROWS * each;
    }
    w0 += size;
    w1 += size;
    w2 += size;
    w3 += size;
  }
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
