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
  LOW_UNIT,
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
import { UNPACKED, unpackedPart, unpackPair, unpackTwoPairs } from "./pairs";
import {
  addTimes,
  addToPart,
  beginning,
  LOADS_MATTER,
  ones,
  partSum,
  pick,
  upper,
} from "./simd";
import { addUnpacked, finishTile, SUMS_LOW, unpackedSum } from "./slots";
import {
  bytesOf,
  COUPLE,
  DOUBLE,
  headBytes,
  kindOf,
  QUAD,
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

/** The part of an unpacked double or single times a token's inputs at `x`. */
// @ts-ignore: decorator
@inline
function windowPart(stream: i32, w: usize, x: usize): v128 {
  const y = v128.load(x);
  if (stream == DOUBLE) return unpackedPart(v128.load(w), w, y, y);
  return addToPart(v128.load(w), v128.load(w, 16), pick(y, v128.load(w, 32)));
}

/** sum + an unpacked entry times a token's inputs at `x`, times their step. */
// @ts-ignore: decorator
@inline
function addEntry(stream: i32, w: usize, x: usize, sum: v128, step: v128): v128 {
  if (stream == QUAD || stream == COUPLE) return addUnpacked(kindOf(stream), w, x, sum, step);
  return addTimes(sum, windowPart(stream, w, x), step);
}

/** The same product alone. */
// @ts-ignore: decorator
@inline
function entrySum(stream: i32, w: usize, x: usize, one_: v128): v128 {
  if (stream == QUAD || stream == COUPLE) return unpackedSum(kindOf(stream), w, x, one_);
  return partSum(windowPart(stream, w, x), one_);
}

/**
 * What the tokens of up to two tiles have in common, at the beginning of a thread's room: their sums, those
 * of their lower bits, and where the things of each tile are.
 */
const SHARED_LOW: usize = 256, SHARED_GROUPS: usize = 260;
const TILE_X: usize = 264, TILE_STEPS: usize = 272, TILE_FLAGS: usize = 280, TILE_SCALES: usize = 288;
/** Bytes of that; what is a tile's has two words, one after the other. */
const SHARED_BYTES: usize = 304;

/** Where the inputs of a tile begin that are those of input `c` of a token. */
// @ts-ignore: decorator
@inline
function inTile(c: usize): usize {
  return (c >> 5) * TILE_SEGMENT + (c & 31);
}

/** Adds an entry to the sums of a tile's lower bits at `lows`, if one of its tokens is flagged. */
// @ts-ignore: decorator
@inline
function addLows(stream: i32, from: usize, xs: usize, step: usize, flags: usize, lows: usize): void {
  if (load<u32>(flags) == 0) return;
  for (let t: usize = 0; t < 4; t++) {
    const l = lows + (t << 4), s = v128.load32_splat(step + (t << 2));
    v128.store(l, addEntry(stream, from, xs + (t << 5), v128.load(l), s));
  }
}

/** Adds a stream of `count` unpacked entries to the sums of one or two tiles. */
// @ts-ignore: decorator
@inline
function addTiles(stream: i32, isTwo: bool, w: usize, places: usize, count: usize, f: usize): void {
  const x = load<usize>(f, TILE_X), y = load<usize>(f, TILE_X + 4), low = load<usize>(f, SHARED_LOW);
  const steps = load<usize>(f, TILE_STEPS), more = load<usize>(f, TILE_STEPS + 4);
  const flags = load<usize>(f, TILE_FLAGS), others = load<usize>(f, TILE_FLAGS + 4);
  let f0 = v128.load(f), f1 = v128.load(f, 16), f2 = v128.load(f, 32), f3 = v128.load(f, 48);
  let f4 = f0, f5 = f0, f6 = f0, f7 = f0;
  if (isTwo) f4 = v128.load(f, 64), f5 = v128.load(f, 80), f6 = v128.load(f, 96), f7 = v128.load(f, 112);
  let from = w, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const c = <usize> load<u16>(at), s = c >> 5, xs = x + inTile(c), step = steps + (s << 4);
    f0 = addEntry(stream, from, xs, f0, v128.load32_splat(step));
    f1 = addEntry(stream, from, xs + 32, f1, v128.load32_splat(step, 4));
    f2 = addEntry(stream, from, xs + 64, f2, v128.load32_splat(step, 8));
    f3 = addEntry(stream, from, xs + 96, f3, v128.load32_splat(step, 12));
    addLows(stream, from, xs + low, step, flags + (s << 3), f + SUMS_LOW);
    if (isTwo) {
      const ys = y + inTile(c), next = more + (s << 4);
      f4 = addEntry(stream, from, ys, f4, v128.load32_splat(next));
      f5 = addEntry(stream, from, ys + 32, f5, v128.load32_splat(next, 4));
      f6 = addEntry(stream, from, ys + 64, f6, v128.load32_splat(next, 8));
      f7 = addEntry(stream, from, ys + 96, f7, v128.load32_splat(next, 12));
      addLows(stream, from, ys + low, next, others + (s << 3), f + SUMS_LOW + 64);
    }
    from += unpackedBytes(stream);
  }
  v128.store(f, f0);
  v128.store(f, f1, 16);
  v128.store(f, f2, 32);
  v128.store(f, f3, 48);
  if (isTwo) {
    v128.store(f, f4, 64);
    v128.store(f, f5, 80);
    v128.store(f, f6, 96);
    v128.store(f, f7, 112);
  }
}

/** The same of one tile, where groups of inputs have scales. */
// @ts-ignore: decorator
@inline
function addGrouped(stream: i32, w: usize, places: usize, count: usize, f: usize): void {
  const x = load<usize>(f, TILE_X), low = load<usize>(f, SHARED_LOW);
  const flags = load<usize>(f, TILE_FLAGS), gs = load<usize>(f, SHARED_GROUPS);
  const scales = load<usize>(f, TILE_SCALES), one_ = ones();
  let from = w, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const c = <usize> load<u16>(at), s = c >> 5, isFlagged = load<u32>(flags + (s << 3)) != 0;
    const group = v128.load(gs + (s << 4));
    for (let t: usize = 0; t < 4; t++) {
      const xs = x + inTile(c) + (t << 5), to = f + (t << 4);
      const scale = f32x4.mul(v128.load32_splat(scales + (s << 4) + (t << 2)), group);
      let sum = addScaled(v128.load(to), entrySum(stream, from, xs, one_), scale);
      if (isFlagged) {
        const unit = f32x4.mul(scale, f32x4.splat(LOW_UNIT));
        sum = addScaled(sum, entrySum(stream, from, xs + low, one_), unit);
      }
      v128.store(to, sum);
    }
    from += unpackedBytes(stream);
  }
}

/** What is done with the streams of a chunk. */
const TILE = 0, TWO_TILES = 1, GROUPED = 2;

/** Each in a function of its own: engines compile small functions better. */
function quads(w: usize, at: usize, count: usize, f: usize): void {
  addTiles(QUAD, false, w, at, count, f);
}
function quadsOfTwo(w: usize, at: usize, count: usize, f: usize): void {
  addTiles(QUAD, true, w, at, count, f);
}
function quadsGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addGrouped(QUAD, w, at, count, f);
}
function doubles(w: usize, at: usize, count: usize, f: usize): void {
  addTiles(DOUBLE, false, w, at, count, f);
}
function doublesOfTwo(w: usize, at: usize, count: usize, f: usize): void {
  addTiles(DOUBLE, true, w, at, count, f);
}
function doublesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addGrouped(DOUBLE, w, at, count, f);
}
function couples(w: usize, at: usize, count: usize, f: usize): void {
  addTiles(COUPLE, false, w, at, count, f);
}
function couplesOfTwo(w: usize, at: usize, count: usize, f: usize): void {
  addTiles(COUPLE, true, w, at, count, f);
}
function couplesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addGrouped(COUPLE, w, at, count, f);
}
function singles(w: usize, at: usize, count: usize, f: usize): void {
  addTiles(SINGLE, false, w, at, count, f);
}
function singlesOfTwo(w: usize, at: usize, count: usize, f: usize): void {
  addTiles(SINGLE, true, w, at, count, f);
}
function singlesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addGrouped(SINGLE, w, at, count, f);
}

/** Says where the things of the tile of `token` are. */
function describeTile(a: usize, token: i32, tokens: i32, f: usize, tile: usize): void {
  const segments = load<usize>(a, SEGMENTS), at = f + (tile << 2);
  store<usize>(at, load<usize>(a, X) + <usize> token * <usize> load<u32>(a, X_STRIDE), TILE_X);
  store<usize>(at, stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens), TILE_STEPS);
  store<usize>(at, flagsOf(a, token, 0, tokens), TILE_FLAGS);
  store<usize>(at, load<usize>(a, X_SCALES) + <usize> token * (segments << 2), TILE_SCALES);
}

/** Adds all streams of an unpacked chunk to the sums of what has been described. */
// @ts-ignore: decorator
@inline
function addStreams(how: i32, chunk: usize, f: usize): void {
  let at = chunk + 16, w = f + SHARED_BYTES, count = <usize> load<u32>(chunk);
  if (how == GROUPED) quadsGrouped(w, at, count, f);
  else if (how == TWO_TILES) quadsOfTwo(w, at, count, f);
  else quads(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(QUAD);
  count = <usize> load<u32>(chunk, 4);
  if (how == GROUPED) doublesGrouped(w, at, count, f);
  else if (how == TWO_TILES) doublesOfTwo(w, at, count, f);
  else doubles(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(DOUBLE);
  count = <usize> load<u32>(chunk, 8);
  if (how == GROUPED) couplesGrouped(w, at, count, f);
  else if (how == TWO_TILES) couplesOfTwo(w, at, count, f);
  else couples(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(COUPLE);
  count = <usize> load<u32>(chunk, 12) << 1;
  if (how == GROUPED) singlesGrouped(w, at, count, f);
  else if (how == TWO_TILES) singlesOfTwo(w, at, count, f);
  else singles(w, at, count, f);
}

/** Where the units of a tile that has been described are: behind its steps. */
// @ts-ignore: decorator
@inline
function unitsOf(f: usize, segments: usize, tile: usize): usize {
  return load<usize>(f + (tile << 2), TILE_STEPS) + (segments << 4);
}

/** y = W·x for rows `first` to `last`, multiples of 4, and two tokens or more. */
export function slotsAnyMany(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const groups = load<usize>(a, GROUP_SCALES), isGrouped = groups != 0;
  const table = load<usize>(a, WEIGHTS), room = scratchOf(a, thread);
  const segments = load<usize>(a, SEGMENTS);
  store<usize>(room, <usize> load<u32>(a, X_LOW), SHARED_LOW);
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const chunk = load<usize>(table + <usize> row);
    store<usize>(room, groups + (<usize> (row >> 2) * segments << 4), SHARED_GROUPS);
    unpack(chunk, room + SHARED_BYTES);
    for (let token = 0; token < tokens;) {
      memory.fill(room, 0, SHARED_LOW);
      describeTile(a, token, tokens, room, 0);
      if (LOADS_MATTER && !isGrouped && tokens - token > 4) {
        describeTile(a, token + 4, tokens, room, 1);
        addStreams(TWO_TILES, chunk, room);
        finishTile(a, row, token, tokens, room, unitsOf(room, segments, 0));
        finishTile(a, row, token + 4, tokens, room + 64, unitsOf(room, segments, 1));
        token += 8;
        continue;
      }
      if (isGrouped) {
        addStreams(GROUPED, chunk, room);
        const f0 = v128.load(room), f1 = v128.load(room, 16);
        finishFourWithLists(a, row, token, tokens, f0, f1, v128.load(room, 32), v128.load(room, 48));
      } else {
        addStreams(TILE, chunk, room);
        finishTile(a, row, token, tokens, room, unitsOf(room, segments, 0));
      }
      token += 4;
    }
  }
}
