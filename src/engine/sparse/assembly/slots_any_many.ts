/**
 * Sparse int8 matrices with any number of slots a window, times several tokens.
 *
 * Four rows are unpacked once, and meet all tokens before the next four are read.
 */
import { NIBBLES, ZERO_POINTS } from "./control";
import { finishFourWithLists } from "./lists";
import {
  addScaled,
  flagsOf,
  GROUP_SCALES,
  inUnits,
  scratchOf,
  SEGMENTS,
  stepsOf,
  TILE_SEGMENT,
  WEIGHTS,
  X,
  X_LOW,
  X_SCALES,
  X_STEPS,
  X_STRIDE,
} from "./linear";
import {
  secondBeginning,
  twoPartsSum,
  UNPACKED,
  unpackedPart,
  unpackPair,
  unpackTwoPairs,
} from "./pairs";
import { addTimes, addToPart, beginning, ones, partSum, pick, upper, WIDE_PARTS } from "./simd";
import {
  bytesOf,
  COUPLE,
  DOUBLE,
  headBytes,
  lowScaleOf,
  QUAD,
  scaleOf,
  SINGLE,
  UNIT,
} from "./slots_any";

/** Bytes of an unpacked entry; a single has what its sums begin with, values and indices. */
// @ts-ignore: decorator
@inline
function unpackedBytes(stream: i32): usize {
  if (stream == SINGLE) return UNPACKED_SINGLE;
  return stream == QUAD ? 2 * UNPACKED : UNPACKED;
}
const UNPACKED_SINGLE: usize = 48;

/** Unpacks a stream of `count` entries at `w`; returns where the next one goes. */
// @ts-ignore: decorator
@inline
function unpackStream(stream: i32, w: usize, count: usize, to: usize): usize {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  let out = to;
  for (let from = w, end = w + count * bytesOf(stream); from < end; from += bytesOf(stream)) {
    if (stream == QUAD) unpackTwoPairs(from, out, nibbles, one_, zeros);
    else unpackPair(from, out, nibbles, one_, zeros);
    out += unpackedBytes(stream);
  }
  return out;
}

/** Unpacks a slot: its values and its indices. */
// @ts-ignore: decorator
@inline
function unpackSingle(v: v128, i: v128, to: usize): void {
  v128.store(to, beginning(v, i8x16.splat(0), ones(), v128.load(ZERO_POINTS)));
  v128.store(to, v, 16);
  v128.store(to, i, 32);
}

/** Unpacks a chunk, stream by stream: pairs of singles become two entries. */
function unpack(chunk: usize, to: usize): void {
  const nibbles = v128.load(NIBBLES);
  const quads = <usize> load<u32>(chunk), doubles = <usize> load<u32>(chunk, 4);
  const couples = <usize> load<u32>(chunk, 8), pairs = <usize> load<u32>(chunk, 12);
  let w = chunk + headBytes(quads + doubles + couples + 2 * pairs);
  let out = unpackStream(QUAD, w, quads, to);
  w += quads * 2 * UNIT;
  out = unpackStream(COUPLE, w, doubles + couples, out);
  w += (doubles + couples) * UNIT;
  for (const end = w + pairs * UNIT; w < end; w += UNIT) {
    const i = v128.load(w);
    unpackSingle(v128.load(w, 16), v128.and(i, nibbles), out);
    unpackSingle(v128.load(w, 32), upper(i, nibbles), out + UNPACKED_SINGLE);
    out += 2 * UNPACKED_SINGLE;
  }
}

/** The last part of an unpacked entry times a token's inputs at `x`; `first` is that before it, of a quad. */
// @ts-ignore: decorator
@inline
function lastPart(stream: i32, w: usize, x: usize, first: v128): v128 {
  if (stream == SINGLE) {
    return addToPart(v128.load(w), v128.load(w, 16), pick(v128.load(x), v128.load(w, 32)));
  }
  const y = v128.load(x), z = stream == DOUBLE ? y : v128.load(x, 16);
  if (stream != QUAD) return unpackedPart(v128.load(w), w, y, z);
  return unpackedPart(secondBeginning(first, w), w + UNPACKED, z, z);
}

/** The first part of an unpacked quad. */
// @ts-ignore: decorator
@inline
function firstPart(w: usize, x: usize): v128 {
  const y = v128.load(x);
  return unpackedPart(v128.load(w), w, y, y);
}

/** sum + an unpacked entry times a token's inputs at `x`, times their step. */
// @ts-ignore: decorator
@inline
function addUnpacked(stream: i32, w: usize, x: usize, sum: v128, step: v128): v128 {
  if (stream != QUAD) return addTimes(sum, lastPart(stream, w, x, sum), step);
  const first = firstPart(w, x), last = lastPart(stream, w, x, first);
  return addTimes(WIDE_PARTS ? sum : addTimes(sum, first, step), last, step);
}

/** The same product alone. */
// @ts-ignore: decorator
@inline
function unpackedSum(stream: i32, w: usize, x: usize, one_: v128): v128 {
  if (stream != QUAD) return partSum(lastPart(stream, w, x, one_), one_);
  const first = firstPart(w, x), last = lastPart(stream, w, x, first);
  return WIDE_PARTS ? last : twoPartsSum(first, last, one_);
}

/**
 * What four tokens have in common, at the beginning of a thread's room: their sums, those of their lower
 * bits, and where things are.
 */
const FOUR_LOWS: usize = 64, FOUR_X: usize = 128, FOUR_LOW: usize = 132, FOUR_STEPS: usize = 136;
const FOUR_SCALES: usize = 140, FOUR_NEXT: usize = 144, FOUR_FLAGS: usize = 148;
const FOUR_GROUPS: usize = 152;
/** Bytes of that. */
const FOUR_BYTES: usize = 160;

/** Where the inputs of a tile begin that are those of input `c` of a token. */
// @ts-ignore: decorator
@inline
function inTile(c: usize): usize {
  return (c >> 5) * TILE_SEGMENT + (c & 31);
}

/** Adds a stream of `count` unpacked entries to the sums of four tokens at `f`. */
// @ts-ignore: decorator
@inline
function addFour(stream: i32, w: usize, places: usize, count: usize, f: usize): void {
  const x = load<usize>(f, FOUR_X), low = load<usize>(f, FOUR_LOW);
  const flags = load<usize>(f, FOUR_FLAGS), steps = load<usize>(f, FOUR_STEPS);
  let f0 = v128.load(f), f1 = v128.load(f, 16), f2 = v128.load(f, 32), f3 = v128.load(f, 48);
  let from = w, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const c = <usize> load<u16>(at), xs = x + inTile(c), step = steps + (c >> 5 << 4);
    f0 = addUnpacked(stream, from, xs, f0, v128.load32_splat(step));
    f1 = addUnpacked(stream, from, xs + 32, f1, v128.load32_splat(step, 4));
    f2 = addUnpacked(stream, from, xs + 64, f2, v128.load32_splat(step, 8));
    f3 = addUnpacked(stream, from, xs + 96, f3, v128.load32_splat(step, 12));
    if (load<u32>(flags + (c >> 5 << 3)) != 0) {
      for (let t: usize = 0; t < 4; t++) {
        const l = f + FOUR_LOWS + (t << 4), s = v128.load32_splat(step + (t << 2));
        v128.store(l, addUnpacked(stream, from, xs + low + (t << 5), v128.load(l), s));
      }
    }
    from += unpackedBytes(stream);
  }
  v128.store(f, f0);
  v128.store(f, f1, 16);
  v128.store(f, f2, 32);
  v128.store(f, f3, 48);
}

/** The same where groups of inputs have scales. */
// @ts-ignore: decorator
@inline
function addFourGrouped(stream: i32, w: usize, places: usize, count: usize, f: usize): void {
  const x = load<usize>(f, FOUR_X), low = load<usize>(f, FOUR_LOW);
  const flags = load<usize>(f, FOUR_FLAGS), gs = load<usize>(f, FOUR_GROUPS);
  const scales = load<usize>(f, FOUR_SCALES), next = load<usize>(f, FOUR_NEXT);
  const one_ = ones();
  let from = w, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const c = <usize> load<u16>(at), isFlagged = load<u32>(flags + (c >> 5 << 3)) != 0;
    for (let t: usize = 0; t < 4; t++) {
      const xs = x + inTile(c) + (t << 5), s = scales + t * next, to = f + (t << 4);
      let sum = addScaled(v128.load(to), unpackedSum(stream, from, xs, one_), scaleOf(s, gs, c));
      if (isFlagged) {
        sum = addScaled(sum, unpackedSum(stream, from, xs + low, one_), lowScaleOf(s, gs, c));
      }
      v128.store(to, sum);
    }
    from += unpackedBytes(stream);
  }
}

/** Each in a function of its own: engines compile small functions better. */
function quads(w: usize, at: usize, count: usize, f: usize): void {
  addFour(QUAD, w, at, count, f);
}
function quadsGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addFourGrouped(QUAD, w, at, count, f);
}
function doubles(w: usize, at: usize, count: usize, f: usize): void {
  addFour(DOUBLE, w, at, count, f);
}
function doublesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addFourGrouped(DOUBLE, w, at, count, f);
}
function couples(w: usize, at: usize, count: usize, f: usize): void {
  addFour(COUPLE, w, at, count, f);
}
function couplesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addFourGrouped(COUPLE, w, at, count, f);
}
function singles(w: usize, at: usize, count: usize, f: usize): void {
  addFour(SINGLE, w, at, count, f);
}
function singlesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addFourGrouped(SINGLE, w, at, count, f);
}

/**
 * Up to four tokens from `token` on, each in the order of one.
 *
 * @param f The thread's room, in which the unpacked chunk lies behind what the tokens have in common.
 */
function four(
  a: usize,
  row: i32,
  token: i32,
  tokens: i32,
  chunk: usize,
  f: usize,
  isGrouped: bool,
): void {
  const segments = load<usize>(a, SEGMENTS), next = segments << 2;
  const steps = stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens);
  memory.fill(f, 0, FOUR_X);
  store<usize>(f, load<usize>(a, X) + <usize> token * <usize> load<u32>(a, X_STRIDE), FOUR_X);
  store<usize>(f, <usize> load<u32>(a, X_LOW), FOUR_LOW);
  store<usize>(f, steps, FOUR_STEPS);
  store<usize>(f, load<usize>(a, X_SCALES) + <usize> token * next, FOUR_SCALES);
  store<usize>(f, next, FOUR_NEXT);
  store<usize>(f, flagsOf(a, token, 0, tokens), FOUR_FLAGS);
  store<usize>(f, load<usize>(a, GROUP_SCALES) + (<usize> (row >> 2) * segments << 4), FOUR_GROUPS);
  let at = chunk + 16, w = f + FOUR_BYTES, count = <usize> load<u32>(chunk);
  if (isGrouped) quadsGrouped(w, at, count, f);
  else quads(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(QUAD);
  count = <usize> load<u32>(chunk, 4);
  if (isGrouped) doublesGrouped(w, at, count, f);
  else doubles(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(DOUBLE);
  count = <usize> load<u32>(chunk, 8);
  if (isGrouped) couplesGrouped(w, at, count, f);
  else couples(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(COUPLE);
  count = <usize> load<u32>(chunk, 12) << 1;
  if (isGrouped) singlesGrouped(w, at, count, f);
  else singles(w, at, count, f);
  let f0 = v128.load(f), f1 = v128.load(f, 16), f2 = v128.load(f, 32), f3 = v128.load(f, 48);
  if (!isGrouped) {
    const units = steps + (segments << 4);
    f0 = inUnits(f0, v128.load(f, FOUR_LOWS), v128.load32_splat(units));
    f1 = inUnits(f1, v128.load(f, FOUR_LOWS + 16), v128.load32_splat(units, 4));
    f2 = inUnits(f2, v128.load(f, FOUR_LOWS + 32), v128.load32_splat(units, 8));
    f3 = inUnits(f3, v128.load(f, FOUR_LOWS + 48), v128.load32_splat(units, 12));
  }
  finishFourWithLists(a, row, token, tokens, f0, f1, f2, f3);
}

/** y = W·x for rows `first` to `last`, multiples of 4, and two tokens or more. */
export function slotsAnyMany(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const isGrouped = load<usize>(a, GROUP_SCALES) != 0;
  const table = load<usize>(a, WEIGHTS), room = scratchOf(a, thread);
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const chunk = load<usize>(table + <usize> row);
    unpack(chunk, room + FOUR_BYTES);
    for (let token = 0; token < tokens; token += 4) {
      four(a, row, token, tokens, chunk, room, isGrouped);
    }
  }
}
