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
  scratchOf,
  SEGMENTS,
  WEIGHTS,
  X,
  X_LOW,
  X_SCALES,
  X_STRIDE,
} from "./linear";
import { addUnpackedPair, addZeros, unpackPair, UNPACKED_PAIR } from "./pairs";
import { dot, ones, upper } from "./simd";
import {
  bytesOf,
  COUPLE,
  DOUBLE,
  headBytes,
  lowScaleOf,
  QUAD,
  scaleOf,
  SINGLE,
  single,
  UNIT,
} from "./slots_any";

/** Bytes of unpacked entries: what their sums begin with, then values and indices a byte each. */
// @ts-ignore: decorator
@inline
function unpackedBytes(stream: i32): usize {
  return stream == QUAD ? 16 + 2 * UNPACKED_PAIR : 16 + UNPACKED_PAIR;
}
const UNPACKED_SINGLE: usize = 48;

/** Unpacks a stream of `count` entries at `w`; returns where the next one goes. */
// @ts-ignore: decorator
@inline
function unpackStream(stream: i32, w: usize, count: usize, to: usize): usize {
  const nibbles = v128.load(NIBBLES), one_ = ones(), zeros = v128.load(ZERO_POINTS);
  let out = to;
  for (let from = w, end = w + count * bytesOf(stream); from < end; from += bytesOf(stream)) {
    let sum = addZeros(from, i32x4.splat(0), one_, zeros);
    unpackPair(from, out + 16, nibbles);
    if (stream == QUAD) {
      sum = addZeros(from + UNIT, sum, one_, zeros);
      unpackPair(from + UNIT, out + 16 + UNPACKED_PAIR, nibbles);
    }
    v128.store(out, i32x4.neg(sum));
    out += unpackedBytes(stream);
  }
  return out;
}

/** Unpacks a slot: its values and its indices. */
// @ts-ignore: decorator
@inline
function unpackSingle(v: v128, i: v128, to: usize): void {
  const sum = dot(v, v128.load(ZERO_POINTS), i32x4.splat(0), ones());
  v128.store(to, i32x4.neg(sum));
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

/** sum + an unpacked entry times a token's inputs at `x`. */
// @ts-ignore: decorator
@inline
function addUnpacked(stream: i32, w: usize, x: usize, sum: v128, one_: v128): v128 {
  if (stream == SINGLE) return single(v128.load(w, 16), v128.load(w, 32), x, sum, one_);
  const y = v128.load(x);
  if (stream == COUPLE) return addUnpackedPair(w + 16, y, v128.load(x, 16), sum, one_);
  const first = addUnpackedPair(w + 16, y, y, sum, one_);
  if (stream == DOUBLE) return first;
  const z = v128.load(x, 16);
  return addUnpackedPair(w + 16 + UNPACKED_PAIR, z, z, first, one_);
}

/** What four tokens have in common, at the beginning of a thread's room: their sums, and where things are. */
const FOUR_X: usize = 64, FOUR_STRIDE: usize = 68, FOUR_LOW: usize = 72;
const FOUR_SCALES: usize = 76, FOUR_NEXT: usize = 80, FOUR_FLAGS: usize = 84;
const FOUR_GROUPS: usize = 88;
/** Bytes of that. */
const FOUR_BYTES: usize = 96;

/** Adds a stream of `count` unpacked entries to the sums of four tokens at `f`. */
// @ts-ignore: decorator
@inline
function addFour(
  stream: i32,
  isGrouped: bool,
  w: usize,
  places: usize,
  count: usize,
  f: usize,
): void {
  if (count == 0) return;
  const x = load<usize>(f, FOUR_X), stride = load<usize>(f, FOUR_STRIDE);
  const low = load<usize>(f, FOUR_LOW), flags = load<usize>(f, FOUR_FLAGS);
  const scales = load<usize>(f, FOUR_SCALES), next = load<usize>(f, FOUR_NEXT);
  const gs = load<usize>(f, FOUR_GROUPS);
  const one_ = ones(), zero = i32x4.splat(0);
  const x1 = x + stride, x2 = x1 + stride, x3 = x2 + stride;
  const s1 = scales + next, s2 = s1 + next, s3 = s2 + next;
  let f0 = v128.load(f), f1 = v128.load(f, 16), f2 = v128.load(f, 32), f3 = v128.load(f, 48);
  let from = w, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const c = <usize> load<u16>(at), b = v128.load(from);
    f0 = addScaled(
      f0,
      addUnpacked(stream, from, x + c, b, one_),
      scaleOf(scales, gs, c, isGrouped),
    );
    f1 = addScaled(f1, addUnpacked(stream, from, x1 + c, b, one_), scaleOf(s1, gs, c, isGrouped));
    f2 = addScaled(f2, addUnpacked(stream, from, x2 + c, b, one_), scaleOf(s2, gs, c, isGrouped));
    f3 = addScaled(f3, addUnpacked(stream, from, x3 + c, b, one_), scaleOf(s3, gs, c, isGrouped));
    if (load<u32>(flags + (c >> 5 << 3)) != 0) {
      const l = low + c;
      f0 = addScaled(
        f0,
        addUnpacked(stream, from, x + l, zero, one_),
        lowScaleOf(scales, gs, c, isGrouped),
      );
      f1 = addScaled(
        f1,
        addUnpacked(stream, from, x1 + l, zero, one_),
        lowScaleOf(s1, gs, c, isGrouped),
      );
      f2 = addScaled(
        f2,
        addUnpacked(stream, from, x2 + l, zero, one_),
        lowScaleOf(s2, gs, c, isGrouped),
      );
      f3 = addScaled(
        f3,
        addUnpacked(stream, from, x3 + l, zero, one_),
        lowScaleOf(s3, gs, c, isGrouped),
      );
    }
    from += stream == SINGLE ? UNPACKED_SINGLE : unpackedBytes(stream);
  }
  v128.store(f, f0);
  v128.store(f, f1, 16);
  v128.store(f, f2, 32);
  v128.store(f, f3, 48);
}

/**
 * Up to four tokens from `token` on, each in the order of one.
 *
 * @param f The thread's room, in which the unpacked chunk lies behind what the tokens have in common.
 */
// @ts-ignore: decorator
@inline
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
  const stride = <usize> load<u32>(a, X_STRIDE);
  memory.fill(f, 0, 64);
  store<usize>(f, load<usize>(a, X) + <usize> token * stride, FOUR_X);
  store<usize>(f, stride, FOUR_STRIDE);
  store<usize>(f, <usize> load<u32>(a, X_LOW), FOUR_LOW);
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
  finishFourWithLists(a, row, token, tokens, f0, f1, f2, f3);
}

/** Each in a function of its own: engines compile small functions better. */
function quads(w: usize, at: usize, count: usize, f: usize): void {
  addFour(QUAD, false, w, at, count, f);
}
function quadsGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addFour(QUAD, true, w, at, count, f);
}
function doubles(w: usize, at: usize, count: usize, f: usize): void {
  addFour(DOUBLE, false, w, at, count, f);
}
function doublesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addFour(DOUBLE, true, w, at, count, f);
}
function couples(w: usize, at: usize, count: usize, f: usize): void {
  addFour(COUPLE, false, w, at, count, f);
}
function couplesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addFour(COUPLE, true, w, at, count, f);
}
function singles(w: usize, at: usize, count: usize, f: usize): void {
  addFour(SINGLE, false, w, at, count, f);
}
function singlesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addFour(SINGLE, true, w, at, count, f);
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
