/**
 * What becomes of a head's scores of an int8 page: probabilities, as integers of 7 bits with a scale for every 16
 * positions.
 *
 * All of it lies in a thread's room: the scores, behind them the integers and their scales, and for each chunk a vector
 * of its largest scores, later of its largest probabilities.
 */
import { exp2OfNegative, PLUS_0, roundPlus } from "./math";
import { capScores, highestSeen } from "./page";
import { LEAST } from "./quantise";
import { maxLane, maxOfFour, sumLanes } from "./simd";

/** Positions whose probabilities share a scale. */
const CHUNK = 16;
/**
 * Behind a head's scores of a page: its probabilities as integers with a scale for each chunk, and for each chunk a
 * vector of largest scores, then of largest probabilities.
 */
export const PROBABILITIES: usize = 256;
export const LARGEST: usize = PROBABILITIES + 96;
/** Bytes of all these. */
export const WORK: usize = 512;

/** Caps the scores of positions that are seen, and what is the largest of each chunk's fourths. */
export function capInt8(scores: usize, first: i32, last: i32, cap: f32): void {
  capScores(scores, first, last, cap);
  capScores(scores + LARGEST, 0, 15, cap);
}

/** The highest of the scores that are seen, as `highestSeen` says it. */
export function highestInt8(scores: usize, first: i32, last: i32): f32 {
  if (first > 0 || last < 63) return highestSeen(scores, first, last);
  const ab = f32x4.pmax(v128.load(scores, LARGEST), v128.load(scores, LARGEST + 16));
  return maxLane(f32x4.pmax(ab, f32x4.pmax(v128.load(scores, LARGEST + 32), v128.load(scores, LARGEST + 48))));
}

/** The largest lanes of four vectors, one after the other. */
// @ts-ignore: decorator
@inline
function maxLanes(at: usize): v128 {
  return maxOfFour(v128.load(at), v128.load(at, 16), v128.load(at, 32), v128.load(at, 48));
}

/** 2^(score - highest): as near as rounding to 7 bits asks for. */
// @ts-ignore: decorator
@inline
function weightOf(scores: v128, highest: v128): v128 {
  return exp2OfNegative(f32x4.sub(scores, highest), true);
}

/** Which of four positions from `begin` on are seen, of `first` to `last`: all bits of their lanes. */
// @ts-ignore: decorator
@inline
function areSeen(begin: i32, first: i32, last: i32): v128 {
  const position = i32x4.add(i32x4.splat(begin), i32x4(0, 1, 2, 3));
  return v128.and(i32x4.ge_s(position, i32x4.splat(first)), i32x4.le_s(position, i32x4.splat(last)));
}

/**
 * Makes of scores probabilities times the scales of their values. What is not seen has a probability of 0. Returns the
 * sum of probabilities.
 */
export function weigh(
  from: usize,
  scores: usize,
  first: i32,
  last: i32,
  width: usize,
  highest: f32,
): f32 {
  const most = f32x4.splat(highest), none = f32x4.splat(0);
  const sizes = scores + LARGEST;
  let total = none;
  for (let chunk = first >> 4; chunk <= last >> 4; chunk++) {
    const at = scores + (<usize> chunk << 6), scales = from + (width << 7) + 256 + (<usize> chunk << 6);
    const begin = chunk * CHUNK;
    let a = none, b = none, c = none, d = none;
    // Groups of four of which some position is seen: as a rule all of them.
    if (begin + 3 >= first && begin + 12 <= last) {
      a = weightOf(v128.load(at), most);
      b = weightOf(v128.load(at, 16), most);
      c = weightOf(v128.load(at, 32), most);
      d = weightOf(v128.load(at, 48), most);
    } else {
      if (begin + 3 >= first && begin <= last) a = weightOf(v128.load(at), most);
      if (begin + 7 >= first && begin + 4 <= last) b = weightOf(v128.load(at, 16), most);
      if (begin + 11 >= first && begin + 8 <= last) c = weightOf(v128.load(at, 32), most);
      if (begin + 15 >= first && begin + 12 <= last) d = weightOf(v128.load(at, 48), most);
    }
    total = f32x4.add(f32x4.add(f32x4.add(f32x4.add(total, a), b), c), d);
    a = f32x4.mul(a, v128.load(scales));
    b = f32x4.mul(b, v128.load(scales, 16));
    c = f32x4.mul(c, v128.load(scales, 32));
    d = f32x4.mul(d, v128.load(scales, 48));
    if (begin < first || begin + CHUNK - 1 > last) {
      // Scales of what is not seen are whatever a former sequence has left.
      a = v128.and(a, areSeen(begin, first, last));
      b = v128.and(b, areSeen(begin + 4, first, last));
      c = v128.and(c, areSeen(begin + 8, first, last));
      d = v128.and(d, areSeen(begin + 12, first, last));
    }
    v128.store(at, a);
    v128.store(at, b, 16);
    v128.store(at, c, 32);
    v128.store(at, d, 48);
    v128.store(sizes + (<usize> chunk << 4), f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d)));
  }
  return sumLanes(total);
}

/**
 * The scales by which each chunk of what {@link weigh} leaves has 7 bits. What is said of chunks that are not seen is
 * not read.
 */
export function chooseScales(scores: usize): void {
  const sizes = scores + LARGEST, size = maxLanes(sizes);
  v128.store(scores + PROBABILITIES, f32x4.mul(size, f32x4.splat(1.0 / 127.0)), 64);
  v128.store(sizes, v128.and(f32x4.div(f32x4.splat(127), size), f32x4.gt(size, f32x4.splat(LEAST))));
}
/** Rounds to the integers of 7 bits, behind scores. */
export function narrowAll(scores: usize, first: i32, last: i32): void {
  const work = scores + PROBABILITIES, sizes = scores + LARGEST;
  for (let chunk = <usize> (first >> 4); chunk <= <usize> (last >> 4); chunk++) {
    const at = scores + (chunk << 6), factor = v128.load32_splat(sizes + (chunk << 2));
    const a = roundPlus(f32x4.mul(v128.load(at), factor), PLUS_0);
    const b = roundPlus(f32x4.mul(v128.load(at, 16), factor), PLUS_0);
    const c = roundPlus(f32x4.mul(v128.load(at, 32), factor), PLUS_0);
    const d = roundPlus(f32x4.mul(v128.load(at, 48), factor), PLUS_0);
    v128.store(
      work + (chunk << 4),
      i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d)),
    );
  }
}
