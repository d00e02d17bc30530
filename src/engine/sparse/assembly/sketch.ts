/**
 * The largest logits, without reading all of the head.
 *
 * A sketch of the head in 4 bits (`pack_sketch.ts`) tells nearly what each row gives, and how far off that
 * may be. Rows that cannot come near the largest are done with; the others, some hundred, are computed as
 * ever, to the same bits. So half of the bytes of an int8 head are read, and a bit more.
 *
 * "Cannot" is a matter of chance. An error is the sum of what hundreds of weights lost by rounding, each times
 * an input, and so as good as normal: of 20 million errors of SmolLM2-135M the largest was 5.3 standard
 * deviations. A row is done with where it would take {@link DEVIATIONS}; of rows where few weights have most of what
 * is lost, which is no such sum, more are counted (`lumpiness` in `pack_sketch.ts`).
 */
import { denseInt8Rows } from "./dense";
import {
  flagsOf,
  LOW_UNIT,
  OUT,
  SEGMENT,
  SEGMENTS,
  WEIGHTS,
  X,
  X_COPY,
  X_LOW,
  X_SCALES,
  X_SCALES_COPY,
} from "./linear";
import {
  BLOCK,
  DEVIATIONS,
  LEAST_ERROR,
  OUTLIER_BYTES,
  OUTLIERS,
  SKETCH_HEAD,
  SKETCH_SEGMENT,
  sketchBytes,
} from "./pack_sketch";
import { capped } from "./math";
import { partOf, placesOf } from "./places";
import { addSumOfTwo, maxLane, ones, sumLanes, sumOfLanes, upper } from "./simd";
import { NIBBLES, WITHIN } from "./control";
import { spread } from "./spread";

/** Outliers among the inputs reach as far as int16. */
const MOST: f32 = 32767;

/**
 * Words of a step beside those of products: rows that there are, the mean that was taken out of all, what products are
 * capped by to be logits (0 is nothing); each thread's room, and its bytes.
 */
const REAL_ROWS: usize = 72, MEAN: usize = 76, CAP: usize = 80, ROOM: usize = 120, ROOM_BYTES: usize = 124;

/**
 * Words of a thread's room: what its inputs are worth, their sum, what errors are to be multiplied with, what
 * the mean gives.
 */
const UNIT: usize = 0, SUM: usize = 4, SPREAD: usize = 8, COMMON: usize = 12;
/** The greatest bound that it has found, and where; the largest logit among the rows there. */
const HIGHEST: usize = 16, BEST: usize = 20, LARGEST: usize = 24;
/** What outliers among the inputs are worth, and they as int16. */
const OUTLIER_UNIT: usize = 28, OUTLIER_INPUTS: usize = 32;
/** The largest logit that a thread has computed, of equal ones the first, and its number: JavaScript reads them. */
const FOUND: usize = 64, FOUND_AT: usize = 68;
/** Inputs as int8, then as float32. */
const INPUTS: usize = 80;

/** Less than any logit. */
const NONE_YET: f32 = -<f32> Infinity;

// @ts-ignore: decorator
@inline
function roomOf(a: usize, thread: i32): usize {
  return load<usize>(a, ROOM) + <usize> thread * <usize> load<u32>(a, ROOM_BYTES);
}

/** Whether a run of so many tokens wants the largest logits only. */
// @ts-ignore: decorator
@inline
export function isSketched(tokens: i32): bool {
  return tokens == 1 && load<f32>(WITHIN) >= 0;
}

/** Makes a thread ready: the inputs of the product, spread and in 8 bits with one scale. */
export function beginSketch(a: usize, thread: i32): void {
  const room = roomOf(a, thread), segments = load<usize>(a, SEGMENTS);
  const columns = segments * SEGMENT, q = room + INPUTS, x = q + columns, end = x + (columns << 2);
  readInputs(a, thread, x);
  const off = takeOutliers(x, load<usize>(a, MEAN) + (columns << 1), room);
  for (let at = x; at < end; at += BLOCK << 2) spread(at, BLOCK);
  let most = f32x4.splat(0), squares = most, common = most, mean = load<usize>(a, MEAN);
  for (let at = x; at < end; at += 16) {
    const v = v128.load(at);
    most = f32x4.pmax(most, f32x4.abs(v));
    squares = f32x4.add(squares, f32x4.mul(v, v));
    common = f32x4.add(common, f32x4.mul(v, f32x4.convert_i32x4_s(v128.load16x4_s(mean))));
    mean += 8;
  }
  const unit = maxLane(most) * (1 / 127.0), inverse = f32x4.splat(unit > 0 ? <f32> 1 / unit : 0);
  let sum = i32x4.splat(0), to = q;
  for (let at = x; at < end; at += 16) {
    const v = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(at), inverse)));
    sum = i32x4.add(sum, v);
    const halves = i16x8.narrow_i32x4_s(v, v);
    v128.store32_lane(to, i8x16.narrow_i16x8_s(halves, halves), 0);
    to += 4;
  }
  // Rounding moves each input by up to half a unit, evenly.
  const rounding = unit * unit * (<f32> columns / (12 * LEAST_ERROR));
  store<f32>(room, unit, UNIT);
  store<f32>(room, 7.5 * <f32> sumOfLanes(sum), SUM);
  store<f32>(room, DEVIATIONS * sqrt<f32>(sumLanes(squares) + rounding), SPREAD);
  store<f32>(room, sumLanes(common) + off, COMMON);
  store<f32>(room, NONE_YET, HIGHEST);
  store<i32>(room, -1, BEST);
  store<f32>(room, NONE_YET, LARGEST);
  store<f32>(room, NONE_YET, FOUND);
  store<i32>(room, -1, FOUND_AT);
}

/**
 * Takes the columns of outliers out of inputs.
 *
 * @param columns Their numbers.
 * @returns What rounding them may make of a product at most, in a row's units.
 */
function takeOutliers(x: usize, columns: usize, room: usize): f32 {
  let most: f32 = 0;
  for (let i: usize = 0; i < OUTLIERS; i++) {
    most = max(most, abs<f32>(load<f32>(x + (<usize> load<u16>(columns + (i << 1)) << 2))));
  }
  const inverse: f32 = most > 0 ? MOST / most : 0, unit = most / MOST * <f32> BLOCK;
  for (let i: usize = 0; i < OUTLIERS; i++) {
    const at = x + (<usize> load<u16>(columns + (i << 1)) << 2);
    store<i16>(room + (i << 1), <i16> nearest<f32>(load<f32>(at) * inverse), OUTLIER_INPUTS);
    store<f32>(at, 0);
  }
  store<f32>(room, unit, OUTLIER_UNIT);
  return 0.5 * unit * 127 * <f32> OUTLIERS;
}

/** The quantised inputs of the product as float32. */
function readInputs(a: usize, thread: i32, to: usize): void {
  const segments = load<usize>(a, SEGMENTS), low = <usize> load<u32>(a, X_LOW);
  const scales = load<usize>(a, X_SCALES) + <usize> thread * <usize> load<u32>(a, X_SCALES_COPY);
  const flags = flagsOf(a, 0, thread, 1);
  let x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY), out = to;
  for (let s: usize = 0; s < segments; s++) {
    const scale = load<f32>(scales + (s << 2)), isWide = load<u8>(flags + (s << 3)) != 0;
    for (const end = x + SEGMENT; x < end; x++) {
      let v = <f32> (<i32> load<u8>(x) - 64);
      if (isWide) v += <f32> (<i32> load<u8>(x + low) - 64) * LOW_UNIT;
      store<f32>(out, v * scale);
      out += 4;
    }
  }
}

/** Products of 32 columns of a row, four to a lane. */
// @ts-ignore: decorator
@inline
function addSegment(sum: v128, w: v128, x: v128, y: v128, nibbles: v128, one: v128): v128 {
  return addSumOfTwo(sum, x, v128.and(w, nibbles), y, upper(w, nibbles), one);
}

/** The lanes' sums of four rows. */
// @ts-ignore: decorator
@inline
function sumsOfFour(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.add(i32x4.shuffle(a, b, 0, 4, 1, 5), i32x4.shuffle(a, b, 2, 6, 3, 7));
  const cd = i32x4.add(i32x4.shuffle(c, d, 0, 4, 1, 5), i32x4.shuffle(c, d, 2, 6, 3, 7));
  return i32x4.add(i32x4.shuffle(ab, cd, 0, 1, 4, 5), i32x4.shuffle(ab, cd, 2, 3, 6, 7));
}

/** Writes for rows `first` to `last`, multiples of 16, what their logits are at most. */
export function sketch(a: usize, first: i32, last: i32, thread: i32): void {
  const places = placesOf(last - first, 4, sketchBytes(load<usize>(a, SEGMENTS)));
  const end = first + places * partOf(last - first, places, 4);
  if (places == 4) boundsInFour(a, first, end, thread);
  else if (places == 2) boundsInTwo(a, first, end, thread);
  else boundsInOne(a, first, end, thread);
  if (end < last) boundsInOne(a, end, last, thread);
}

/** Each in a function of its own: engines compile small functions better. */
function boundsInFour(a: usize, first: i32, last: i32, thread: i32): void {
  bounds(4, a, first, last, thread);
}
function boundsInTwo(a: usize, first: i32, last: i32, thread: i32): void {
  bounds(2, a, first, last, thread);
}
function boundsInOne(a: usize, first: i32, last: i32, thread: i32): void {
  bounds(1, a, first, last, thread);
}

/**
 * Bounds of rows `first` to `last`.
 *
 * @param places In how many they are read, 1, 2 or 4, each of a multiple of 4; see `places.ts`.
 */
// @ts-ignore: decorator
@inline
function bounds(places: i32, a: usize, first: i32, last: i32, thread: i32): void {
  const one = ones(), nibbles = v128.load(NIBBLES);
  const room = roomOf(a, thread), ofFour = sketchBytes(load<usize>(a, SEGMENTS));
  const unit = f32x4.splat(load<f32>(room, UNIT)), sum = f32x4.splat(load<f32>(room, SUM));
  const spread = f32x4.splat(load<f32>(room, SPREAD));
  const part = (last - first) / places, outApart = <usize> part << 2;
  const apart = <usize> (part >> 2) * ofFour;
  let out = load<usize>(a, OUT) + (<usize> first << 2);
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 2) * ofFour;
  for (let row = first; row < first + part; row += 4) {
    let w = at + SKETCH_HEAD, x = room + INPUTS;
    let p0 = i32x4.splat(0), p1 = p0, p2 = p0, p3 = p0, q0 = p0, q1 = p0, q2 = p0, q3 = p0;
    let r0 = p0, r1 = p0, r2 = p0, r3 = p0, t0 = p0, t1 = p0, t2 = p0, t3 = p0;
    for (const end = at + ofFour - OUTLIER_BYTES; w < end; w += SKETCH_SEGMENT) {
      const x0 = v128.load(x), x1 = v128.load(x, 16);
      let v = w;
      p0 = addSegment(p0, v128.load(v), x0, x1, nibbles, one);
      p1 = addSegment(p1, v128.load(v, 16), x0, x1, nibbles, one);
      p2 = addSegment(p2, v128.load(v, 32), x0, x1, nibbles, one);
      p3 = addSegment(p3, v128.load(v, 48), x0, x1, nibbles, one);
      if (places > 1) {
        v += apart;
        q0 = addSegment(q0, v128.load(v), x0, x1, nibbles, one);
        q1 = addSegment(q1, v128.load(v, 16), x0, x1, nibbles, one);
        q2 = addSegment(q2, v128.load(v, 32), x0, x1, nibbles, one);
        q3 = addSegment(q3, v128.load(v, 48), x0, x1, nibbles, one);
      }
      if (places > 2) {
        v += apart;
        r0 = addSegment(r0, v128.load(v), x0, x1, nibbles, one);
        r1 = addSegment(r1, v128.load(v, 16), x0, x1, nibbles, one);
        r2 = addSegment(r2, v128.load(v, 32), x0, x1, nibbles, one);
        r3 = addSegment(r3, v128.load(v, 48), x0, x1, nibbles, one);
        v += apart;
        t0 = addSegment(t0, v128.load(v), x0, x1, nibbles, one);
        t1 = addSegment(t1, v128.load(v, 16), x0, x1, nibbles, one);
        t2 = addSegment(t2, v128.load(v, 32), x0, x1, nibbles, one);
        t3 = addSegment(t3, v128.load(v, 48), x0, x1, nibbles, one);
      }
      x += SEGMENT;
    }
    for (let i = 0, b = at, o = out, r = row; i < places; i++) {
      const p = i == 0 ? sumsOfFour(p0, p1, p2, p3) : i == 1 ? sumsOfFour(q0, q1, q2, q3)
        : i == 2 ? sumsOfFour(r0, r1, r2, r3) : sumsOfFour(t0, t1, t2, t3);
      bound(b, b + ofFour - OUTLIER_BYTES, p, unit, sum, spread, o, r, room);
      b += apart;
      o += outApart;
      r += part;
    }
    out += 16;
    at += ofFour;
  }
}

/** Products with outliers of four rows, in their units. */
// @ts-ignore: decorator
@inline
function outliersOf(at: usize, room: usize): v128 {
  const x = v128.load(room, OUTLIER_INPUTS), y = v128.load(room, OUTLIER_INPUTS + 16);
  const a = outliersOfRow(v128.load(at), x, y), b = outliersOfRow(v128.load(at, 16), x, y);
  const c = outliersOfRow(v128.load(at, 32), x, y), d = outliersOfRow(v128.load(at, 48), x, y);
  const unit = v128.load32_splat(room, OUTLIER_UNIT);
  return f32x4.mul(f32x4.convert_i32x4_s(sumsOfFour(a, b, c, d)), unit);
}

/** The same of one row, spread over lanes. */
// @ts-ignore: decorator
@inline
function outliersOfRow(w: v128, x: v128, y: v128): v128 {
  const low = i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(w), x);
  return i32x4.add(low, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(w), y));
}

/** What four logits are at most. */
// @ts-ignore: decorator
@inline
function bound(
  at: usize,
  outliers: usize,
  products: v128,
  unit: v128,
  sum: v128,
  spread: v128,
  out: usize,
  row: i32,
  room: usize,
): void {
  const levels = f32x4.mul(f32x4.sub(f32x4.convert_i32x4_s(products), sum), unit);
  const error = f32x4.mul(v128.load(at, 16), spread);
  const rest = f32x4.add(outliersOf(outliers, room), v128.load32_splat(room, COMMON));
  const exact = f32x4.mul(rest, v128.load(at, 32));
  const most = f32x4.add(f32x4.add(f32x4.mul(levels, v128.load(at)), exact), error);
  v128.store(out, most);
  if (v128.any_true(f32x4.gt(most, v128.load32_splat(room, HIGHEST)))) {
    store<f32>(room, maxLane(most), HIGHEST);
    store<i32>(room, row & ~15, BEST);
  }
}

/**
 * Computes the rows where a thread has found the greatest bound: what is less than their largest logit
 * cannot be the largest of all.
 *
 * @param product The product that the sketch stands for.
 */
export function computeBest(a: usize, product: usize, thread: i32): void {
  const room = roomOf(a, thread), best = load<i32>(room, BEST);
  if (best < 0) return;
  compute(a, product, best, thread);
  // Others read this one, while the thread goes on looking.
  store<f32>(room, load<f32>(room, FOUND), LARGEST);
}

/** Computes sixteen rows, and looks for the largest logit among them. */
function compute(a: usize, product: usize, row: i32, thread: i32): void {
  denseInt8Rows(product, row, row + 16, thread);
  const room = roomOf(a, thread), end = min(row + 16, load<i32>(a, REAL_ROWS));
  let found = load<f32>(room, FOUND), at = load<i32>(room, FOUND_AT);
  for (let i = row; i < end; i++) {
    const logit = load<f32>(load<usize>(a, OUT) + (<usize> i << 2));
    // The rows of the greatest bound come before others, and once more among them.
    if (logit < found || (logit == found && i >= at)) continue;
    if (logit != logit) continue;
    found = logit;
    at = i;
  }
  store<f32>(room, found, FOUND);
  store<i32>(room, at, FOUND_AT);
}

/** A part of a cap, more than capping is off by. */
const CAP_SLACK: f32 = 1e-6;

/**
 * What is compared with the largest logit: a product, or what it is capped to, since a cap brings what is far below the
 * largest nearer to it.
 */
// @ts-ignore: decorator
@inline
function compared(products: v128, cap: f32): v128 {
  return cap == 0 ? products : capped(products, cap);
}

/** Computes all rows that may give what is within reach of the largest logit; threads take turns. */
export function computeWithin(a: usize, product: usize, thread: i32, threads: i32): void {
  const room = roomOf(a, thread);
  const rows = load<i32>(a, REAL_ROWS), out = load<usize>(a, OUT), wanted = load<f32>(WITHIN);
  // The largest is the largest before and behind a cap.
  const cap = wanted > 0 ? load<f32>(a, CAP) : 0, reach = f32x4.splat(wanted + cap * CAP_SLACK);
  let largest: f32 = NONE_YET;
  for (let i = 0; i < threads; i++) {
    const other = load<f32>(roomOf(a, i), LARGEST);
    if (other > largest) largest = other;
  }
  let limit = f32x4.sub(compared(f32x4.splat(largest), cap), reach);
  for (let row = thread << 4; row < rows; row += threads << 4) {
    const at = out + (<usize> row << 2);
    const p = f32x4.lt(compared(v128.load(at), cap), limit), q = f32x4.lt(compared(v128.load(at, 16), cap), limit);
    const r = f32x4.lt(compared(v128.load(at, 32), cap), limit), s = f32x4.lt(compared(v128.load(at, 48), cap), limit);
    // What is no number is not less.
    if (i32x4.all_true(v128.and(v128.and(p, q), v128.and(r, s)))) continue;
    compute(a, product, row, thread);
    const found = load<f32>(room, FOUND);
    if (found <= largest) continue;
    largest = found;
    limit = f32x4.sub(compared(f32x4.splat(largest), cap), reach);
  }
}
