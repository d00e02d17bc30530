/**
 * Causal attention over a cache in pages of 64 positions.
 *
 * A page has room for all layers and key/value heads of a model. For each layer and head it holds, as
 * int8: keys `[position / 4, dim / 4, 4 positions, 4 dims]`, values `[position / 4, dim, 4 positions]`,
 * then for each position the keys' scale, -64·Σk (int32), and the values' scale. As float32: keys
 * `[position / 4, dim, 4 positions]`, values `[position, dim]`.
 *
 * What a token gets depends on its position and on the cache alone, never on how many tokens are run
 * at once or by how many threads.
 */
import { PAGES, POSITION } from "./control";
import { exp } from "./math";
import { dot, maxLane, ones, sumLanes } from "./simd";
import { largest, narrow, wide } from "./vectors";

const QUERIES: usize = 8, QUERIES_STRIDE: usize = 12;
const KEYS: usize = 16, KEYS_STRIDE: usize = 20;
const VALUES: usize = 24, VALUES_STRIDE: usize = 28;
const OUT: usize = 32, OUT_STRIDE: usize = 36;
const HEADS: usize = 40, KV_HEADS: usize = 44, DIM: usize = 48;
/** Bytes from a page's beginning to this layer's part of it. */
const LAYER: usize = 52;
const COSINES: usize = 56, SINES: usize = 60;
/** Tokens that are seen; 0 is all. */
const WINDOW: usize = 64;
const SCALE: usize = 68;
/** Not 0: the cache is int8. */
const IS_INT8: usize = 72;
/** Room for a thread, and bytes of it: scores, then 1 kB for a head. */
const SCRATCH: usize = 76, SCRATCH_BYTES: usize = 80;
/** Not 0: queries have 14 bits. */
const WIDE_QUERIES: usize = 84;

/** Bytes that a head takes of a page. */
// @ts-ignore: decorator
@inline
function headBytes(dim: usize, isInt8: bool): usize {
  return isInt8 ? (dim << 7) + 768 : dim << 9;
}

// @ts-ignore: decorator
@inline
function page(index: i32): usize {
  return load<usize>(load<usize>(PAGES) + (<usize> index << 2));
}

/** Turns queries in place, and puts turned keys, and values, into the cache. */
export function append(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const heads = load<i32>(a, HEADS), kvHeads = load<i32>(a, KV_HEADS), dim = load<i32>(a, DIM);
  const isInt8 = load<i32>(a, IS_INT8) != 0;
  const head = <usize> dim << 2;
  const scratch = load<usize>(a, SCRATCH) + <usize> thread * <usize> load<u32>(a, SCRATCH_BYTES);
  const units = heads + kvHeads;
  for (let unit = thread; unit < units * tokens; unit += threads) {
    const token = unit / units, which = unit % units;
    const position = load<i32>(POSITION) + token;
    if (which < heads) {
      const q = load<usize>(a, QUERIES) + <usize> token * <usize> load<u32>(a, QUERIES_STRIDE) +
        <usize> which * head;
      turn(a, q, q, position, dim);
      continue;
    }
    const h = which - heads;
    const k = load<usize>(a, KEYS) + <usize> token * <usize> load<u32>(a, KEYS_STRIDE) +
      <usize> h * head;
    const v = load<usize>(a, VALUES) + <usize> token * <usize> load<u32>(a, VALUES_STRIDE) +
      <usize> h * head;
    turn(a, k, scratch, position, dim);
    const to = page(position >> 6) + load<usize>(a, LAYER) + <usize> h * headBytes(dim, isInt8);
    if (isInt8) appendInt8(scratch, v, to, position & 63, dim);
    else appendF32(scratch, v, to, position & 63, dim);
  }
}

/** Rotary embedding of one head; a copy where there is none. */
function turn(a: usize, from: usize, to: usize, position: i32, dim: i32): void {
  const cosines = load<usize>(a, COSINES);
  if (cosines == 0) {
    if (from != to) memory.copy(to, from, <usize> dim << 2);
    return;
  }
  const half = <usize> dim << 1;
  const c = cosines + <usize> position * half, s = load<usize>(a, SINES) + <usize> position * half;
  let i: usize = 0;
  for (; i + 16 <= half; i += 16) {
    const x = v128.load(from + i), y = v128.load(from + half + i);
    const cos = v128.load(c + i), sin = v128.load(s + i);
    v128.store(to + i, f32x4.sub(f32x4.mul(x, cos), f32x4.mul(y, sin)));
    v128.store(to + half + i, f32x4.add(f32x4.mul(y, cos), f32x4.mul(x, sin)));
  }
  for (; i < half; i += 4) {
    const x = load<f32>(from + i), y = load<f32>(from + half + i);
    store<f32>(to + i, x * load<f32>(c + i) - y * load<f32>(s + i));
    store<f32>(to + half + i, y * load<f32>(c + i) + x * load<f32>(s + i));
  }
}

function appendF32(k: usize, v: usize, to: usize, place: i32, dim: i32): void {
  const keys = to + (<usize> (place >> 2) * <usize> dim << 4) + (<usize> (place & 3) << 2);
  for (let d = 0; d < dim; d++) {
    store<f32>(keys + (<usize> d << 4), load<f32>(k + (<usize> d << 2)));
  }
  memory.copy(to + (<usize> dim << 8) + (<usize> place * <usize> dim << 2), v, <usize> dim << 2);
}

function appendInt8(k: usize, v: usize, to: usize, place: i32, dim: i32): void {
  const group = <usize> (place >> 2), lane = <usize> (place & 3), width = <usize> dim;
  const scales = to + (width << 7) + (<usize> place << 2);
  let most = largest(k, dim);
  let factor = f32x4.splat(most > 0 ? <f32> 127 / most : 0);
  let sum = i32x4.splat(0);
  const keys = to + group * (width << 2) + (lane << 2);
  for (let d: usize = 0; d < width; d += 4) {
    const q = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(k + (d << 2)), factor)));
    sum = i32x4.add(sum, q);
    const halves = i16x8.narrow_i32x4_s(q, q);
    v128.store32_lane(keys + (d << 2), i8x16.narrow_i16x8_s(halves, halves), 0);
  }
  store<f32>(scales, most / 127);
  const total = i32x4.extract_lane(sum, 0) + i32x4.extract_lane(sum, 1) +
    i32x4.extract_lane(sum, 2) +
    i32x4.extract_lane(sum, 3);
  store<i32>(scales, -64 * total, 256);
  most = largest(v, dim);
  factor = f32x4.splat(most > 0 ? <f32> 127 / most : 0);
  const values = to + (width << 6) + group * (width << 2) + lane;
  for (let d: usize = 0; d < width; d += 4) {
    const q = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(v + (d << 2)), factor)));
    store<u8>(values + (d << 2), i32x4.extract_lane(q, 0));
    store<u8>(values + (d << 2), i32x4.extract_lane(q, 1), 4);
    store<u8>(values + (d << 2), i32x4.extract_lane(q, 2), 8);
    store<u8>(values + (d << 2), i32x4.extract_lane(q, 3), 12);
  }
  store<f32>(scales, most / 127, 512);
}

/** Each head of each token is one piece of work. */
export function attend(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const heads = load<i32>(a, HEADS);
  for (let unit = thread; unit < heads * tokens; unit += threads) {
    attendOne(a, unit / heads, unit % heads, thread);
  }
}

function attendOne(a: usize, token: i32, head: i32, thread: i32): void {
  const dim = load<i32>(a, DIM), width = <usize> dim;
  const isInt8 = load<i32>(a, IS_INT8) != 0;
  const scratch = load<usize>(a, SCRATCH) + <usize> thread * <usize> load<u32>(a, SCRATCH_BYTES);
  // Quantised queries or probabilities, then the output as it grows, then scores.
  const work = scratch, sums = scratch + 1024 + (width << 1), scores = sums + (width << 2);
  const group = head / (load<i32>(a, HEADS) / load<i32>(a, KV_HEADS));
  const at = load<usize>(a, LAYER) + <usize> group * headBytes(width, isInt8);
  const position = load<i32>(POSITION) + token;
  const window = load<i32>(a, WINDOW);
  const first = window > 0 ? max(0, position - window + 1) : 0;
  const q = load<usize>(a, QUERIES) + <usize> token * <usize> load<u32>(a, QUERIES_STRIDE) +
    (<usize> head * width << 2);
  const scale = load<f32>(a, SCALE);

  // Scores of whole groups of four positions; those outside of what is seen are taken out after.
  const firstGroup = first >> 2, lastGroup = position >> 2;
  if (isInt8) {
    const isWide = load<i32>(a, WIDE_QUERIES) != 0;
    const qScale = (isWide ? wide(q, work, width, dim) : narrow(q, work, dim)) * scale;
    for (let g = firstGroup; g <= lastGroup;) {
      const end = min(lastGroup, g | 15);
      const from = page(g >> 4) + at;
      if (isWide) scoresWide(from, work, scores, g, end, width, qScale);
      else scoresNarrow(from, work, scores, g, end, width, qScale);
      g = end + 1;
    }
  } else {
    for (let g = firstGroup; g <= lastGroup;) {
      const end = min(lastGroup, g | 15);
      scoresF32(page(g >> 4) + at, q, scores, g, end, width, scale);
      g = end + 1;
    }
  }
  for (let p = firstGroup << 2; p < first; p++) store<f32>(scores + (<usize> p << 2), -Infinity);
  for (let p = position + 1; p <= (lastGroup << 2 | 3); p++) {
    store<f32>(scores + (<usize> p << 2), -Infinity);
  }

  let most = f32x4.splat(-Infinity);
  for (let g = firstGroup; g <= lastGroup; g++) {
    most = f32x4.max(most, v128.load(scores + (<usize> g << 4)));
  }
  const highest = f32x4.splat(maxLane(most));
  let total = f32x4.splat(0);
  for (let g = firstGroup; g <= lastGroup; g++) {
    const e = exp(f32x4.sub(v128.load(scores + (<usize> g << 4)), highest));
    v128.store(scores + (<usize> g << 4), e);
    total = f32x4.add(total, e);
  }
  memory.fill(sums, 0, width << 2);
  for (let g = firstGroup; g <= lastGroup;) {
    const end = min(lastGroup, g | 15);
    const from = page(g >> 4) + at;
    if (isInt8) mixInt8(from, work, scores, sums, g, end, width);
    else mixF32(from, scores, sums, max(first, g << 2), min(position, end << 2 | 3), width);
    g = end + 1;
  }
  const out = load<usize>(a, OUT) + <usize> token * <usize> load<u32>(a, OUT_STRIDE) +
    (<usize> head * width << 2);
  const factor: f32 = <f32> 1 / sumLanes(total);
  if (width & 3) {
    for (let d: usize = 0; d < width; d++) {
      store<f32>(out + (d << 2), load<f32>(sums + (d << 2)) * factor);
    }
  } else {
    const factors = f32x4.splat(factor);
    for (let d: usize = 0; d < width; d += 4) {
      v128.store(out + (d << 2), f32x4.mul(v128.load(sums + (d << 2)), factors));
    }
  }
}

function scoresNarrow(
  from: usize,
  q: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
  scale: f32,
): void {
  const one = ones(), factor = f32x4.splat(scale);
  for (let g = first; g <= last; g++) {
    const place = <usize> (g & 15);
    const keys = from + place * (width << 2), scales = from + (width << 7) + (place << 4);
    let sum = v128.load(scales, 256);
    for (let d: usize = 0; d < width; d += 4) {
      sum = dot(v128.load(keys + (d << 2)), v128.load32_splat(q + d), sum, one);
    }
    v128.store(
      scores + (<usize> g << 4),
      f32x4.mul(f32x4.mul(f32x4.convert_i32x4_s(sum), v128.load(scales)), factor),
    );
  }
}

function scoresWide(
  from: usize,
  q: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
  scale: f32,
): void {
  const one = ones(), factor = f32x4.splat(scale);
  for (let g = first; g <= last; g++) {
    const place = <usize> (g & 15);
    const keys = from + place * (width << 2), scales = from + (width << 7) + (place << 4);
    let sum = v128.load(scales, 256), low = i32x4.splat(0);
    for (let d: usize = 0; d < width; d += 4) {
      const k = v128.load(keys + (d << 2));
      sum = dot(k, v128.load32_splat(q + d), sum, one);
      low = dot(k, v128.load32_splat(q + width + d), low, one);
    }
    sum = i32x4.add(i32x4.shl(sum, 7), low);
    v128.store(
      scores + (<usize> g << 4),
      f32x4.mul(f32x4.mul(f32x4.convert_i32x4_s(sum), v128.load(scales)), factor),
    );
  }
}

function scoresF32(
  from: usize,
  q: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
  scale: f32,
): void {
  for (let g = first; g <= last; g++) {
    let keys = from + <usize> (g & 15) * (width << 4);
    let sum = f32x4.splat(0);
    for (let d: usize = 0; d < width; d++) {
      sum = f32x4.add(sum, f32x4.mul(v128.load(keys), v128.load32_splat(q + (d << 2))));
      keys += 16;
    }
    v128.store(scores + (<usize> g << 4), f32x4.mul(sum, f32x4.splat(scale)));
  }
}

/** Adds a page's values: probabilities times the values' scales become numbers of 14 bits. */
function mixInt8(
  from: usize,
  work: usize,
  scores: usize,
  sums: usize,
  first: i32,
  last: i32,
  width: usize,
): void {
  const one = ones();
  const scales = from + (width << 7) + 512;
  let most = f32x4.splat(0);
  for (let g = first; g <= last; g++) {
    const p = f32x4.mul(
      v128.load(scores + (<usize> g << 4)),
      v128.load(scales + (<usize> (g & 15) << 4)),
    );
    v128.store(scores + (<usize> g << 4), p);
    most = f32x4.max(most, p);
  }
  const largest = maxLane(most);
  if (!(largest > 0)) return;
  const factor = f32x4.splat(<f32> 16383 / largest), seven = i32x4.splat(127);
  for (let g = first; g <= last; g++) {
    const p = i32x4.trunc_sat_f32x4_s(
      f32x4.nearest(f32x4.mul(v128.load(scores + (<usize> g << 4)), factor)),
    );
    const upper = i16x8.narrow_i32x4_s(i32x4.shr_u(p, 7), p),
      lower = i16x8.narrow_i32x4_s(v128.and(p, seven), p);
    const at = work + (<usize> (g & 15) << 2);
    v128.store32_lane(at, i8x16.narrow_i16x8_s(upper, upper), 0);
    v128.store32_lane(at, i8x16.narrow_i16x8_s(lower, lower), 0, 64);
  }
  const scale = f32x4.splat(largest / 16383);
  const step = width << 2;
  const begin = <usize> (first & 15), end = <usize> (last & 15);
  let d: usize = 0;
  for (; d + 8 <= width; d += 8) {
    let values = from + (width << 6) + begin * step + (d << 2);
    let u = i32x4.splat(0), l = u, u2 = u, l2 = u;
    for (let g = begin; g <= end; g++) {
      const high = v128.load32_splat(work + (g << 2)), low = v128.load32_splat(work + (g << 2), 64);
      const v = v128.load(values), w = v128.load(values, 16);
      u = dot(v, high, u, one);
      l = dot(v, low, l, one);
      u2 = dot(w, high, u2, one);
      l2 = dot(w, low, l2, one);
      values += step;
    }
    addTo(sums + (d << 2), u, l, scale);
    addTo(sums + (d << 2) + 16, u2, l2, scale);
  }
  for (; d < width; d += 4) {
    let values = from + (width << 6) + begin * step + (d << 2);
    let u = i32x4.splat(0), l = u;
    for (let g = begin; g <= end; g++) {
      const v = v128.load(values);
      u = dot(v, v128.load32_splat(work + (g << 2)), u, one);
      l = dot(v, v128.load32_splat(work + (g << 2), 64), l, one);
      values += step;
    }
    addTo(sums + (d << 2), u, l, scale);
  }
}

// @ts-ignore: decorator
@inline
function addTo(at: usize, upper: v128, lower: v128, scale: v128): void {
  const sum = i32x4.add(i32x4.shl(upper, 7), lower);
  v128.store(at, f32x4.add(v128.load(at), f32x4.mul(f32x4.convert_i32x4_s(sum), scale)));
}

function mixF32(
  from: usize,
  scores: usize,
  sums: usize,
  first: i32,
  last: i32,
  width: usize,
): void {
  const values = from + (width << 8);
  let d: usize = 0;
  for (; d + 4 <= width; d += 4) {
    let sum = v128.load(sums + (d << 2));
    for (let p = first; p <= last; p++) {
      const v = v128.load(values + ((<usize> (p & 63) * width + d) << 2));
      sum = f32x4.add(sum, f32x4.mul(v, v128.load32_splat(scores + (<usize> p << 2))));
    }
    v128.store(sums + (d << 2), sum);
  }
  for (; d < width; d++) {
    let sum = load<f32>(sums + (d << 2));
    for (let p = first; p <= last; p++) {
      sum += load<f32>(values + ((<usize> (p & 63) * width + d) << 2)) *
        load<f32>(scores + (<usize> p << 2));
    }
    store<f32>(sums + (d << 2), sum);
  }
}
