/**
 * Vectors to integers: inputs of integer matrices, with a scale for each segment of 32.
 *
 * As all steps on vectors (`vectors.ts`): one for each token, whose output may be a copy for each thread.
 */
import { ZERO_POINTS } from "./control";
import { MOST_STEPS, SEGMENT, scalesOf, stepsOf, TILE_SEGMENT, TILE_WORDS } from "./linear";
import { PLUS_64, PLUS_8256, roundPlus } from "./math";
import { maxLane, stepBits, sumLanes, sumOfLanes } from "./simd";
import { firstToken, input, lastToken, output, OUT_STRIDE, WIDTH } from "./vectors";

/**
 * Inputs to 7 bits with the zero at 64, a scale for each segment; to 14, in two parts with that zero, in
 * segments whose largest number is more than `ratio` times the root of the mean square of all.
 *
 * Upper seven bits (or all) go to the output, lower seven `low` bytes behind it. A scale is the least that
 * serves which is a whole number of steps of the token's unit. Where a dense int4 matrix reads them, the sums
 * that it needs are written too (`int4.ts`).
 */
export function quantise(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const low = <usize> load<u32>(a, 36),
    scales = load<usize>(a, 40),
    scalesCopy = <usize> load<u32>(a, 44);
  const flags = load<usize>(a, 48), flagsCopy = <usize> load<u32>(a, 52), ratio = load<f32>(a, 56);
  const sums = load<usize>(a, 60), sumsCopy = <usize> load<u32>(a, 64);
  const steps = load<usize>(a, 68), width = load<i32>(a, WIDTH);
  const segments = <usize> ((width + SEGMENT - 1) / SEGMENT);
  // Each segment's are rounded up, by less than one. The loader takes no matrix of more than 2,048 segments.
  const inverseSteps = <f32> 1 / <f32> (MOST_STEPS - <i32> segments);
  const isTiled = tokens > 1;
  for (
    let t = firstToken(a, tokens, thread, threads);
    t < lastToken(tokens, thread, threads);
    t++
  ) {
    const from = input(a, t, tokens, thread);
    let to = output(a, t, tokens, thread), scale = scales, flag = flags, sum = sums;
    let step = stepsOf(steps, segments, t, thread, tokens);
    if (isTiled) {
      to += (<usize> (t & 7) << 5) - <usize> (t & 7) * <usize> load<u32>(a, OUT_STRIDE);
      scale = scalesOf(scales, segments, t);
      sum += <usize> t * (segments << 3);
      flag += <usize> (t >> 3) * (segments << 3) + <usize> (t & 7);
    } else {
      scale += <usize> thread * scalesCopy;
      flag += <usize> thread * flagsCopy;
      sum += <usize> thread * sumsCopy;
    }
    const toNext: usize = isTiled ? TILE_SEGMENT : SEGMENT, wordToNext: usize = isTiled ? TILE_WORDS : 4;
    const unit = measure(from, width, ratio, scale, wordToNext, flag) * inverseSteps;
    for (let s = 0; s < width; s += SEGMENT) {
      const at = from + (<usize> s << 2), count = min(SEGMENT, width - s);
      const isWide = load<u8>(flag) != 0, whole = ceil<f32>(load<f32>(scale) / unit);
      // Not so where all is zero, or not finite.
      const number = whole >= 0 && whole <= <f32> MOST_STEPS ? <i32> whole : 0;
      const used = <f32> number * unit, factor = used > 0 ? <f32> 1 / used : 0;
      store<i32>(step, stepBits(number));
      store<f32>(scale, used);
      if (isWide) wide(at, to, low, count, factor);
      else {
        narrow(at, to, count, factor);
        // Where the other tokens of the same four need theirs.
        if (isTiled) {
          v128.store(to + low, v128.load(ZERO_POINTS));
          v128.store(to + low, v128.load(ZERO_POINTS), 16);
        }
      }
      if (sums != 0) {
        store<i32>(sum, -8 * (sumOf(to, count) - 64 * count));
        store<i32>(sum, isWide ? -8 * (sumOf(to + low, count) - 64 * count) : 0, 4);
        sum += 8;
      }
      to += toNext;
      step += wordToNext;
      scale += wordToNext;
      flag += 8;
    }
    // Behind the steps.
    store<f32>(step, unit);
  }
  if (isTiled && thread == threads - 1) fillFour(tokens, segments, scales, flags, steps);
}

/**
 * Finds which segments have outliers, and the least scale that serves each.
 *
 * @returns The sum of all scales; 0 for numbers so small that they count as zeros.
 */
function measure(
  from: usize,
  width: i32,
  ratio: f32,
  scales: usize,
  toNext: usize,
  flags: usize,
): f32 {
  const most = ratio * rootMeanSquare(from, width);
  let total: f32 = 0, scale = scales, flag = flags;
  for (let s = 0; s < width; s += SEGMENT) {
    const size = largest(from + (<usize> s << 2), min(SEGMENT, width - s)), isWide = size > most;
    const least = isWide ? size * (1 / WIDE_MOST) : size * (1 / NARROW_MOST);
    store<u8>(flag, <u8> isWide);
    store<f32>(scale, least);
    total += least;
    scale += toNext;
    flag += 8;
  }
  return total < LEAST ? 0 : total;
}

/**
 * Products compute four tokens together. Where the last four are not whole, what was left in the others'
 * places must cost nothing: flags would have outliers computed, and scales may be numbers so small that
 * processors are slow with them.
 */
function fillFour(
  tokens: i32,
  segments: usize,
  scales: usize,
  flags: usize,
  steps: usize,
): void {
  for (let t = <usize> tokens; (t & 3) != 0; t++) {
    const scale = scalesOf(scales, segments, t);
    const flag = flags + (t >> 3) * (segments << 3) + (t & 7);
    const step = stepsOf(steps, segments, <i32> t, 0, tokens);
    for (let s: usize = 0; s < segments; s++) {
      store<u8>(flag + (s << 3), 0);
      store<i32>(step + s * TILE_WORDS, 0);
      store<f32>(scale + s * TILE_WORDS, 0);
    }
    store<f32>(step + segments * TILE_WORDS, 0);
  }
}

/** Sum of `count` bytes. */
// @ts-ignore: decorator
@inline
function sumOf(at: usize, count: i32): i32 {
  if (count == SEGMENT) {
    const a = i16x8.extadd_pairwise_i8x16_u(v128.load(at));
    const b = i16x8.extadd_pairwise_i8x16_u(v128.load(at, 16));
    const v = i32x4.extadd_pairwise_i16x8_u(i16x8.add(a, b));
    return sumOfLanes(v);
  }
  let sum = 0;
  for (let i = 0; i < count; i++) sum += <i32> load<u8>(at + i);
  return sum;
}

function rootMeanSquare(from: usize, width: i32): f32 {
  // Four sums, so that an addition need not wait for the one before.
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  let i = 0;
  for (; i + 16 <= width; i += 16) {
    const at = from + (<usize> i << 2);
    const v0 = v128.load(at), v1 = v128.load(at, 16);
    const v2 = v128.load(at, 32), v3 = v128.load(at, 48);
    s0 = f32x4.add(s0, f32x4.mul(v0, v0));
    s1 = f32x4.add(s1, f32x4.mul(v1, v1));
    s2 = f32x4.add(s2, f32x4.mul(v2, v2));
    s3 = f32x4.add(s3, f32x4.mul(v3, v3));
  }
  let total = sumLanes(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  for (; i < width; i++) {
    const v = load<f32>(from + (<usize> i << 2));
    total += v * v;
  }
  return sqrt<f32>(total / <f32> width);
}

/** Numbers below count as zeros: their inverse would be infinite. */
export const LEAST: f32 = 1e-30;

/** The largest inputs in units of their scale: of seven bits, and of fourteen in those of the upper ones. */
export const NARROW_MOST: f32 = 63, WIDE_MOST: f32 = 8127.0 / 128;

/** The larger sizes of two times four numbers. */
// @ts-ignore: decorator
@inline
function larger(a: usize, b: usize): v128 {
  return f32x4.pmax(f32x4.abs(v128.load(a)), f32x4.abs(v128.load(b)));
}

/** Largest size of `count` numbers. */
// @ts-ignore: decorator
@inline
export function largest(from: usize, count: i32): f32 {
  let i = 0, one: f32 = 0;
  if (count == SEGMENT) {
    const a = larger(from, from + 16), b = larger(from + 32, from + 48);
    const c = larger(from + 64, from + 80), d = larger(from + 96, from + 112);
    one = maxLane(f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d)));
    i = SEGMENT;
  } else {
    let most = f32x4.splat(0);
    for (; i + 4 <= count; i += 4) {
      most = f32x4.pmax(most, f32x4.abs(v128.load(from + (<usize> i << 2))));
    }
    one = maxLane(most);
  }
  // What lies behind them may be anything.
  for (; i < count; i++) {
    const size = abs<f32>(load<f32>(from + (<usize> i << 2)));
    if (size > one) one = size;
  }
  return one;
}

/**
 * To 1 … 127, with the zero at 64.
 *
 * @param by 1 / the scale.
 */
// @ts-ignore: decorator
@inline
export function narrow(from: usize, to: usize, count: i32, by: f32): void {
  const factor = f32x4.splat(by);
  let i = 0;
  for (; i + 16 <= count; i += 16) {
    const at = from + (<usize> i << 2);
    const v0 = scaled(v128.load(at), factor, PLUS_64);
    const v1 = scaled(v128.load(at, 16), factor, PLUS_64);
    const v2 = scaled(v128.load(at, 32), factor, PLUS_64);
    const v3 = scaled(v128.load(at, 48), factor, PLUS_64);
    v128.store(
      to + i,
      i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(v0, v1), i16x8.narrow_i32x4_s(v2, v3)),
    );
  }
  for (; i < count; i += 4) {
    const v = scaled(v128.load(from + (<usize> i << 2)), factor, PLUS_64);
    const halves = i16x8.narrow_i32x4_s(v, v);
    v128.store32_lane(to + i, i8x16.narrow_i16x8_s(halves, halves), 0);
  }
}

/**
 * To 129 … 16383 in two parts, x = 128 · (upper - 64) + (lower - 64), both from 0 to 127.
 *
 * @param by 1 / the scale of the upper one.
 */
// @ts-ignore: decorator
@inline
function wide(from: usize, to: usize, low: usize, count: i32, by: f32): void {
  const factor = f32x4.splat(by * 128), seven = i32x4.splat(127);
  for (let i = 0; i < count; i += 4) {
    const v = scaled(v128.load(from + (<usize> i << 2)), factor, PLUS_8256);
    const upper = i16x8.narrow_i32x4_s(i32x4.shr_u(v, 7), v);
    const lower = i16x8.narrow_i32x4_s(v128.and(v, seven), v);
    v128.store32_lane(to + i, i8x16.narrow_i16x8_s(upper, upper), 0);
    v128.store32_lane(to + i + low, i8x16.narrow_i16x8_s(lower, lower), 0);
  }
}

// @ts-ignore: decorator
@inline
function scaled(v: v128, factor: v128, zero: usize): v128 {
  return roundPlus(f32x4.mul(v, factor), zero);
}
