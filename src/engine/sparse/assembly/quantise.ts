/**
 * Vectors to integers: inputs of integer matrices, with a scale for each segment of 32.
 *
 * As all steps on vectors (`vectors.ts`): one for each token, whose output may be a copy for each thread.
 */
import { ZERO_POINTS } from "./control";
import { MOST_STEPS, SEGMENT, scalesOf, stepsOf, TILE_SEGMENT, TILE_WORDS } from "./linear";
import { PLUS_64, PLUS_8256, roundPlus } from "./math";
import { maxLane, maxOfFour, stepBits, sumLanes, sumOfLanes } from "./simd";
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
    for (let s = 0; s < width; s += 4 * SEGMENT) {
      const rest = width - s, count = min(4, (rest + SEGMENT - 1) / SEGMENT);
      const factors = choose(count, scale, step, wordToNext, unit), at = from + (<usize> s << 2);
      for (let i = 0; i < count; i++) {
        const numbers = min(SEGMENT, rest - i * SEGMENT), factor = laneOf(factors, i);
        const begin = at + (<usize> i * SEGMENT << 2), isWide = load<u8>(flag) != 0;
        if (isWide) wide(begin, to, low, numbers, factor);
        else {
          narrow(begin, to, numbers, factor);
          // Where the other tokens of the same four need theirs.
          if (isTiled) {
            v128.store(to + low, v128.load(ZERO_POINTS));
            v128.store(to + low, v128.load(ZERO_POINTS), 16);
          }
        }
        if (numbers < SEGMENT) {
          fillUp(to, numbers);
          if (isWide) fillUp(to + low, numbers);
        }
        if (sums != 0) {
          const times = -8 * <i32> load<u16>(step + <usize> i * wordToNext);
          store<i32>(sum, times * (sumOf(to, numbers) - 64 * numbers));
          store<i32>(sum, isWide ? times * (sumOf(to + low, numbers) - 64 * numbers) : 0, 4);
          sum += 8;
        }
        to += toNext;
        flag += 8;
      }
      step += wordToNext << 2;
      scale += wordToNext << 2;
    }
    // Behind the steps.
    store<f32>(step - wordToNext * <usize> (-segments & 3), unit);
  }
  if (isTiled && thread == threads - 1) fillFour(tokens, segments, scales, flags, steps);
}

/** Up to four words that lie `apart`; 0 for others. */
// @ts-ignore: decorator
@inline
function loadFew(count: i32, at: usize, apart: usize): v128 {
  if (count == 4 && apart == 4) return v128.load(at);
  let v = v128.load32_zero(at);
  if (count > 1) v = v128.load32_lane(at + apart, v, 1);
  if (count > 2) v = v128.load32_lane(at + 2 * apart, v, 2);
  if (count > 3) v = v128.load32_lane(at + 3 * apart, v, 3);
  return v;
}

/** Writes as many. */
// @ts-ignore: decorator
@inline
function storeFew(count: i32, at: usize, apart: usize, v: v128): void {
  if (count == 4 && apart == 4) return v128.store(at, v);
  v128.store32_lane(at, v, 0);
  if (count > 1) v128.store32_lane(at + apart, v, 1);
  if (count > 2) v128.store32_lane(at + 2 * apart, v, 2);
  if (count > 3) v128.store32_lane(at + 3 * apart, v, 3);
}

/** A lane of which only a loop knows the number. */
// @ts-ignore: decorator
@inline
function laneOf(v: v128, i: i32): f32 {
  if (i == 0) return f32x4.extract_lane(v, 0);
  if (i == 1) return f32x4.extract_lane(v, 1);
  return i == 2 ? f32x4.extract_lane(v, 2) : f32x4.extract_lane(v, 3);
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
  const most = f32x4.splat(ratio * sqrt<f32>(sizes(from, width, scales, toNext) / <f32> width));
  const ofNarrow = f32x4.splat(1 / NARROW_MOST), ofWide = f32x4.splat(1 / WIDE_MOST);
  let total = f32x4.splat(0), scale = scales, flag = flags;
  for (let s = 0; s < width; s += 4 * SEGMENT) {
    const count = min(4, (width - s + SEGMENT - 1) / SEGMENT);
    const size = loadFew(count, scale, toNext), isWide = f32x4.gt(size, most);
    const least = f32x4.mul(size, v128.bitselect(ofWide, ofNarrow, isWide));
    storeFew(count, scale, toNext, least);
    total = f32x4.add(total, least);
    const which = i32x4.bitmask(isWide);
    for (let i = 0; i < count; i++) store<u8>(flag + (<usize> i << 3), <u8> (which >> i & 1));
    scale += toNext << 2;
    flag += 32;
  }
  const all = sumLanes(total);
  return all < LEAST ? 0 : all;
}

/**
 * Writes the largest size of each segment.
 *
 * @returns The sum of all squares.
 */
function sizes(from: usize, width: i32, to: usize, toNext: usize): f32 {
  let squares = f32x4.splat(0), more: f32 = 0, at = from, out = to;
  for (let s = 0; s < width; s += 4 * SEGMENT) {
    const rest = width - s;
    if (rest >= 4 * SEGMENT) {
      const a = sizesOf(at), b = sizesOf(at + 128), c = sizesOf(at + 256), d = sizesOf(at + 384);
      storeFew(4, out, toNext, maxOfFour(a, b, c, d));
      const ab = f32x4.add(squaresOf(at), squaresOf(at + 128));
      squares = f32x4.add(squares, f32x4.add(ab, f32x4.add(squaresOf(at + 256), squaresOf(at + 384))));
    } else {
      for (let i = 0, o = out; i < rest; i += SEGMENT, o += toNext) {
        const begin = at + (<usize> i << 2), count = min(SEGMENT, rest - i);
        store<f32>(o, largest(begin, count));
        if (count == SEGMENT) squares = f32x4.add(squares, squaresOf(begin));
        else more += squaresOfFew(begin, count);
      }
    }
    at += 512;
    out += toNext << 2;
  }
  return sumLanes(squares) + more;
}

/** The least of a token's steps that gives each of up to four segments its scale; returns 1 / the scales. */
// @ts-ignore: decorator
@inline
function choose(count: i32, scales: usize, steps: usize, toNext: usize, unit: f32): v128 {
  const zero = f32x4.splat(0), unit4 = f32x4.splat(unit);
  const whole = f32x4.ceil(f32x4.div(loadFew(count, scales, toNext), unit4));
  // Not so where all is zero, or not finite.
  const isRight = v128.and(f32x4.ge(whole, zero), f32x4.le(whole, f32x4.splat(<f32> MOST_STEPS)));
  const number = i32x4.trunc_sat_f32x4_s(v128.and(whole, isRight));
  const used = f32x4.mul(f32x4.convert_i32x4_s(number), unit4);
  storeFew(count, steps, toNext, stepBits(number));
  storeFew(count, scales, toNext, used);
  return v128.and(f32x4.div(f32x4.splat(1), used), f32x4.gt(used, zero));
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

/**
 * Makes zeros of what fills a segment. Its weights are zeros, too; but kernels add inputs of seven bits that they have
 * picked (`slots_int4_one.ts`).
 */
function fillUp(to: usize, count: i32): void {
  for (let i = count; i < SEGMENT; i++) store<u8>(to + i, 64);
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

/** Sums of the squares of a segment, spread over lanes. */
// @ts-ignore: decorator
@inline
function squaresOf(from: usize): v128 {
  const a = f32x4.add(square(from), square(from + 16)), b = f32x4.add(square(from + 32), square(from + 48));
  const c = f32x4.add(square(from + 64), square(from + 80)), d = f32x4.add(square(from + 96), square(from + 112));
  return f32x4.add(f32x4.add(a, b), f32x4.add(c, d));
}

// @ts-ignore: decorator
@inline
function square(at: usize): v128 {
  const v = v128.load(at);
  return f32x4.mul(v, v);
}

function squaresOfFew(from: usize, count: i32): f32 {
  let sum: f32 = 0;
  for (let i = 0; i < count; i++) {
    const v = load<f32>(from + (<usize> i << 2));
    sum += v * v;
  }
  return sum;
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

/** The largest sizes of a segment, spread over lanes. */
// @ts-ignore: decorator
@inline
function sizesOf(from: usize): v128 {
  const a = larger(from, from + 16), b = larger(from + 32, from + 48);
  const c = larger(from + 64, from + 80), d = larger(from + 96, from + 112);
  return f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d));
}

/** Largest size of `count` numbers. */
// @ts-ignore: decorator
@inline
export function largest(from: usize, count: i32): f32 {
  let i = 0, one: f32 = 0;
  if (count == SEGMENT) {
    one = maxLane(sizesOf(from));
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
