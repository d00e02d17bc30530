/**
 * Steps on vectors, one for each token: embedding, norms, activations, sums; `quantise.ts` has one more.
 *
 * With one token, a step whose output is `private` is done by every thread for itself, into a copy of
 * its own: that is cheaper than a barrier. Otherwise threads share the tokens out, and one token is the
 * first thread's.
 */
import { activate } from "./math";
import { halfAt, sumLanes } from "./simd";
import { SEGMENT_BYTES } from "./dense";
import { rowOfInt4 } from "./dense_int4";
import { DENSE_F32, DENSE_INT4, DENSE_INT8 } from "./linear";
import { IDS, LOGITS_OF, PAGES, POSITIONS } from "./control";

/** Words that all these steps begin with. */
const IN: usize = 8, IN_STRIDE: usize = 12, IN_COPY: usize = 16;
const OUT: usize = 20, OUT_COPY: usize = 28;
export const OUT_STRIDE: usize = 24, WIDTH: usize = 32;

/** First of a thread's share of `count`. */
// @ts-ignore: decorator
@inline
export function share(count: i32, thread: i32, threads: i32): i32 {
  return <i32> (<i64> count * thread / threads);
}

/** A token's vector, by the word that has the address; the word behind says how many bytes tokens are apart. */
// @ts-ignore: decorator
@inline
export function vectorOf(a: usize, word: usize, token: i32): usize {
  return load<usize>(a + word) + <usize> token * <usize> load<u32>(a + word, 4);
}

/** First token of a thread's share. */
// @ts-ignore: decorator
@inline
export function firstToken(a: usize, tokens: i32, thread: i32, threads: i32): i32 {
  if (tokens == 1) return load<u32>(a, OUT_COPY) != 0 || thread == 0 ? 0 : 1;
  return share(tokens, thread, threads);
}

/** What its last one is followed by. */
// @ts-ignore: decorator
@inline
export function lastToken(tokens: i32, thread: i32, threads: i32): i32 {
  return tokens == 1 ? 1 : share(tokens, thread + 1, threads);
}

/** Where a token's input is. */
// @ts-ignore: decorator
@inline
export function input(a: usize, token: i32, tokens: i32, thread: i32): usize {
  if (tokens == 1) return load<usize>(a, IN) + <usize> thread * <usize> load<u32>(a, IN_COPY);
  return load<usize>(a, IN) + <usize> token * <usize> load<u32>(a, IN_STRIDE);
}

/** Where its output is; with one token, the thread's copy. */
// @ts-ignore: decorator
@inline
export function output(a: usize, token: i32, tokens: i32, thread: i32): usize {
  if (tokens == 1) return load<usize>(a, OUT) + <usize> thread * <usize> load<u32>(a, OUT_COPY);
  return load<usize>(a, OUT) + <usize> token * <usize> load<u32>(a, OUT_STRIDE);
}

/** Rows of a table in one of the dense layouts. */
export function embed(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const table = load<usize>(a, 36), kind = load<i32>(a, 40), segments = load<usize>(a, 44);
  const scales = load<usize>(a, 48);
  const ofPositions = load<i32>(a, 52), offset = load<i32>(a, 56);
  const width = load<i32>(a, WIDTH);
  for (
    let t = firstToken(a, tokens, thread, threads);
    t < lastToken(tokens, thread, threads);
    t++
  ) {
    const row = ofPositions != 0
      ? load<i32>(load<usize>(POSITIONS) + (<usize> t << 2)) + offset
      : load<i32>(load<usize>(IDS) + (<usize> t << 2));
    const out = output(a, t, tokens, thread);
    const group = <usize> (row >> 4), lane = <usize> (row & 15);
    if (kind == DENSE_INT4) {
      rowOfInt4(table, segments, load<usize>(a, 60), row, width, out);
    } else if (kind == DENSE_INT8) {
      const scale = f32x4.splat(load<f32>(scales + (<usize> row << 2)));
      for (let i = 0; i < width; i += 4) {
        const at = table + (group * segments + <usize> (i >> 5)) * SEGMENT_BYTES + 32 +
          (<usize> (i & 31) << 4) + (lane << 2);
        const v = i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(v128.load32_zero(at)));
        v128.store(out + (<usize> i << 2), f32x4.mul(f32x4.convert_i32x4_s(v), scale));
      }
    } else if (kind == DENSE_F32) {
      const at = table + group * (segments << 11) + (lane << 2);
      for (let i = 0; i < width; i++) {
        store<f32>(
          out + (<usize> i << 2),
          load<f32>(at + (<usize> i << 6)),
        );
      }
    } else {
      const at = table + group * (segments << 10) + (lane << 1);
      for (let i = 0; i < width; i++) {
        store<f32>(out + (<usize> i << 2), halfAt(at + (<usize> i << 5)));
      }
    }
  }
}

/** RMS norm, or layer norm, of each of `groups` equal parts. */
export function norm(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const groups = load<i32>(a, 36), weight = load<usize>(a, 40), bias = load<usize>(a, 44);
  const epsilon = load<f32>(a, 48), isLayer = load<i32>(a, 52) != 0;
  const part = load<i32>(a, WIDTH) / groups;
  for (
    let t = firstToken(a, tokens, thread, threads);
    t < lastToken(tokens, thread, threads);
    t++
  ) {
    const from = input(a, t, tokens, thread), to = output(a, t, tokens, thread);
    for (let g = 0; g < groups; g++) {
      const at = <usize> (g * part) << 2;
      if (part & 3) slowNorm(from + at, to + at, part, weight, bias, epsilon, isLayer);
      else fastNorm(from + at, to + at, part, weight, bias, epsilon, isLayer);
    }
  }
}

/** The RMS norm of one head, in its place. */
export function normHead(at: usize, width: i32, weight: usize, epsilon: f32): void {
  if (width & 3) slowNorm(at, at, width, weight, 0, epsilon, false);
  else fastNorm(at, at, width, weight, 0, epsilon, false);
}

function fastNorm(
  from: usize,
  to: usize,
  width: i32,
  weight: usize,
  bias: usize,
  epsilon: f32,
  isLayer: bool,
): void {
  const bytes = <usize> width << 2;
  let mean = f32x4.splat(0);
  if (isLayer) {
    let sum = f32x4.splat(0);
    for (let i: usize = 0; i < bytes; i += 16) sum = f32x4.add(sum, v128.load(from + i));
    mean = f32x4.splat(sumLanes(sum) / <f32> width);
  }
  const squares = sumLanes(squaresFrom(from, bytes, mean));
  const factor = f32x4.splat(1 / sqrt<f32>(squares / <f32> width + epsilon));
  for (let i: usize = 0; i < bytes; i += 16) {
    let v = v128.load(from + i);
    if (isLayer) v = f32x4.sub(v, mean);
    v = f32x4.mul(v, factor);
    if (weight != 0) v = f32x4.mul(v, v128.load(weight + i));
    if (bias != 0) v = f32x4.add(v, v128.load(bias + i));
    v128.store(to + i, v);
  }
}

/** Sums of squares of what numbers are above a mean, spread over lanes. */
// @ts-ignore: decorator
@inline
function squaresFrom(from: usize, bytes: usize, mean: v128): v128 {
  // Four, so that an addition need not wait for the one before.
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0, i: usize = 0;
  for (; i + 64 <= bytes; i += 64) {
    s0 = addSquare(s0, f32x4.sub(v128.load(from + i), mean));
    s1 = addSquare(s1, f32x4.sub(v128.load(from + i, 16), mean));
    s2 = addSquare(s2, f32x4.sub(v128.load(from + i, 32), mean));
    s3 = addSquare(s3, f32x4.sub(v128.load(from + i, 48), mean));
  }
  for (; i < bytes; i += 16) s0 = addSquare(s0, f32x4.sub(v128.load(from + i), mean));
  return f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3));
}

// @ts-ignore: decorator
@inline
function addSquare(sum: v128, v: v128): v128 {
  return f32x4.add(sum, f32x4.mul(v, v));
}

/** For widths that are no multiple of 4. */
function slowNorm(
  from: usize,
  to: usize,
  width: i32,
  weight: usize,
  bias: usize,
  epsilon: f32,
  isLayer: bool,
): void {
  const bytes = <usize> width << 2;
  let mean: f32 = 0;
  if (isLayer) {
    for (let i: usize = 0; i < bytes; i += 4) mean += load<f32>(from + i);
    mean /= <f32> width;
  }
  let squares: f32 = 0;
  for (let i: usize = 0; i < bytes; i += 4) {
    const v = load<f32>(from + i) - mean;
    squares += v * v;
  }
  const factor: f32 = 1 / sqrt<f32>(squares / <f32> width + epsilon);
  for (let i: usize = 0; i < bytes; i += 4) {
    let v = (load<f32>(from + i) - mean) * factor;
    if (weight != 0) v *= load<f32>(weight + i);
    if (bias != 0) v += load<f32>(bias + i);
    store<f32>(to + i, v);
  }
}

/** What {@link elementwise} does with two vectors. */
const ADD = 0, MULTIPLY = 1, COPY = 2, PART = 3, SPREAD = 4;

/** Each of the numbers at `from` in so many bytes from `to` on. */
function spread(from: usize, to: usize, bytes: usize, end: usize): void {
  for (let at = to, next = from; at < end; next += 4) {
    const stop = at + bytes, all = v128.load32_splat(next);
    for (; at + 16 <= stop; at += 16) v128.store(at, all);
    for (; at < stop; at += 4) store<f32>(at, load<f32>(next));
  }
}

/**
 * Activation of f · a + b, f · a · b, or f · a, times a gain; or a part of a, or of each of its heads. Of one token, each
 * thread has some elements.
 */
export function elementwise(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const kind = load<i32>(a, 36), other = load<usize>(a, 40), otherStride = load<u32>(a, 44);
  const activation = load<i32>(a, 48), factor = v128.load32_splat(a, 52), gain = v128.load32_splat(a, 56);
  const bytes = ((<usize> load<i32>(a, WIDTH) << 2) + 15) & ~15, lines = <i32> ((bytes + 63) >> 6);
  const isOne = tokens == 1 && kind < PART;
  const begin = isOne ? <usize> share(lines, thread, threads) << 6 : 0;
  const end = isOne ? min(<usize> share(lines, thread + 1, threads) << 6, bytes) : bytes;
  for (
    let t = isOne ? 0 : firstToken(a, tokens, thread, threads);
    t < lastToken(tokens, thread, threads);
    t++
  ) {
    const from = input(a, t, tokens, thread), to = output(a, t, tokens, thread);
    if (kind == SPREAD) {
      const times = (<usize> load<u32>(a, WIDTH) << 2) / load<u32>(a, 60);
      spread(from, to, times, to + (<usize> load<u32>(a, WIDTH) << 2));
      continue;
    }
    if (kind == PART) {
      // Not a byte more: behind it, other numbers follow.
      const heads = load<u32>(a, 60), apart = load<usize>(a, 64), some = (<usize> load<u32>(a, WIDTH) << 2) / heads;
      for (let h: usize = 0; h < heads; h++) memory.copy(to + h * some, from + h * apart, some);
      continue;
    }
    const second = other + <usize> t * <usize> otherStride;
    for (let i = begin; i < end; i += 16) {
      let v = f32x4.mul(v128.load(from + i), factor);
      if (kind == ADD) v = f32x4.add(v, v128.load(second + i));
      else if (kind == MULTIPLY) v = f32x4.mul(v, v128.load(second + i));
      v128.store(to + i, f32x4.mul(activate(activation, v), gain));
    }
  }
}

/** Words of a selection, for each of its values. */
const VALUE: usize = 8, VALUE_STRIDE: usize = 12, VALUE_COPY: usize = 16, VALUE_BYTES: usize = 12;

/**
 * Moves the vectors of those tokens whose logits are wanted to the beginning; that of one to each thread's copy. And
 * where these tokens are, and the pages that they see: attention may follow.
 *
 * Each thread moves a part of all vectors, in the order of tokens: so nothing is written over that has still to move.
 */
export function select(a: usize, end: usize, wanted: i32, thread: i32, threads: i32): void {
  if (thread == 0) {
    const positions = load<usize>(POSITIONS), pages = load<usize>(PAGES);
    for (let t: usize = 0, behind = <usize> wanted << 2; t < behind; t += 4) {
      const token = <usize> load<u32>(load<usize>(LOGITS_OF) + t) << 2;
      store<i32>(positions + t, load<i32>(positions + token));
      store<usize>(pages + t, load<usize>(pages + token));
    }
  }
  for (let v = a; v + VALUE < end; v += VALUE_BYTES) {
    const stride = load<u32>(v, VALUE_STRIDE), units = <i32> (stride >> 4);
    const first = <usize> share(units, thread, threads) << 4, behind = <usize> share(units, thread + 1, threads) << 4;
    const at = load<usize>(v, VALUE) + first, bytes = behind - first;
    for (let t = 0; t < wanted; t++) {
      const token = load<u32>(load<usize>(LOGITS_OF) + (<usize> t << 2));
      memory.copy(at + <usize> t * <usize> stride, at + <usize> token * <usize> stride, bytes);
    }
    const copy = <usize> load<u32>(v, VALUE_COPY);
    if (wanted > 1 || copy == 0) continue;
    for (let i = 1; i < threads; i++) memory.copy(at + <usize> i * copy, at, bytes);
  }
}
