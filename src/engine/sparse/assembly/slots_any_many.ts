/**
 * Sparse int8 matrices with any number of slots a window, times several tokens.
 *
 * Four rows are unpacked once, and meet all tokens before the next four are read.
 */
import { NIBBLES, ZERO_POINTS } from "./control";
import {
  addScaled,
  flagsOf,
  GROUP_SCALES,
  inputsOf,
  LOW_UNIT,
  scalesOf,
  scratchOf,
  SEGMENTS,
  stepsOf,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_LOW,
  X_SCALES,
  X_STEPS,
  X_STRIDE,
} from "./linear";
import {
  beginOf,
  endOf,
  ENTRY,
  entryInputs,
  entryStep,
  listOutliers,
  sumsOf,
} from "./outliers";
import { UNPACKED, unpackedPart, unpackPair, unpackTwoPairs } from "./pairs";
import {
  addTimes,
  addToPart,
  beginning,
  lane,
  LOADS_MATTER,
  ones,
  partSum,
  pick,
  upper,
  WIDE_PARTS,
} from "./simd";
import { addUnpacked, unpackedSum } from "./slots";
import { addNarrowTile, HEAD } from "./slots_sorted";
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
import { clear, finishSteps, finishSums, isLast, placeOf, storeSums, SUM_ROWS, SUMS, sumsBytes } from "./sums";

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
 * What products with streams have in common, at the beginning of a thread's room: where the inputs, the steps
 * and the sums of a tile are, its flags and its scales, the scales of groups, the lower bits, the list of
 * outliers, and where the sums of four rows are in those of a token.
 */
const TILE_X: usize = 0, TILE_STEPS: usize = 4, TILE_SUMS: usize = 8, TILE_FLAGS: usize = 12;
const TILE_SCALES: usize = 16, GROUPS: usize = 20, LOW: usize = 24, OUTLIERS: usize = 28, PLACE: usize = 32;
/** Bytes of that. */
const COMMON_BYTES: usize = 48;

/** Where the inputs of a tile begin that are those of input `c` of a token. */
// @ts-ignore: decorator
@inline
function inTile(c: usize): usize {
  return (c >> 5) * TILE_SEGMENT + (c & 31);
}

/** Adds a stream of `count` unpacked entries to the sums of a tile's first four tokens, or of all eight. */
// @ts-ignore: decorator
@inline
function addTile(stream: i32, isEight: bool, w: usize, places: usize, count: usize, f: usize): void {
  const x = load<usize>(f, TILE_X), steps = load<usize>(f, TILE_STEPS), to = load<usize>(f, TILE_SUMS);
  let f0 = v128.load(to), f1 = v128.load(to, SUMS), f2 = v128.load(to, 2 * SUMS), f3 = v128.load(to, 3 * SUMS);
  let f4 = f0, f5 = f0, f6 = f0, f7 = f0;
  if (isEight) {
    f4 = v128.load(to, 4 * SUMS), f5 = v128.load(to, 5 * SUMS);
    f6 = v128.load(to, 6 * SUMS), f7 = v128.load(to, 7 * SUMS);
  }
  let from = w, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const c = <usize> load<u16>(at), xs = x + inTile(c), step = steps + (c >> 5) * TILE_WORDS;
    const s = v128.load(step);
    f0 = addEntry(stream, from, xs, f0, lane(s, 0));
    f1 = addEntry(stream, from, xs + 32, f1, lane(s, 1));
    f2 = addEntry(stream, from, xs + 64, f2, lane(s, 2));
    f3 = addEntry(stream, from, xs + 96, f3, lane(s, 3));
    if (isEight) {
      const t = v128.load(step, 16);
      f4 = addEntry(stream, from, xs + 128, f4, lane(t, 0));
      f5 = addEntry(stream, from, xs + 160, f5, lane(t, 1));
      f6 = addEntry(stream, from, xs + 192, f6, lane(t, 2));
      f7 = addEntry(stream, from, xs + 224, f7, lane(t, 3));
    }
    from += unpackedBytes(stream);
  }
  storeSums(isEight, to, f0, f1, f2, f3, f4, f5, f6, f7);
}

/** The same of quads whose parts have 32 bits, with eight tokens: no sum is in a register (see `slots_sorted.ts`). */
// @ts-ignore: decorator
@inline
function addQuads(w: usize, places: usize, count: usize, f: usize): void {
  const x = load<usize>(f, TILE_X), steps = load<usize>(f, TILE_STEPS), to = load<usize>(f, TILE_SUMS);
  // A segment there has a head.
  let from = w - HEAD, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const s = <usize> load<u16>(at) >> 5;
    addNarrowTile(true, to, x + s * TILE_SEGMENT, steps + s * TILE_WORDS, from);
    from += unpackedBytes(QUAD);
  }
}

/** Adds what a stream of `count` unpacked entries has of outliers' lower bits to the sums of their tokens. */
// @ts-ignore: decorator
@inline
function addLows(stream: i32, w: usize, places: usize, count: usize, f: usize): void {
  const list = load<usize>(f, OUTLIERS), place = load<usize>(f, PLACE);
  let from = w, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const c = <usize> load<u16>(at), s = c >> 5, last = endOf(list, s);
    for (let entry = beginOf(list, s); entry < last; entry += ENTRY) {
      const to = sumsOf(entry) + place, x = entryInputs(entry) + (c & 31);
      v128.store(to, addEntry(stream, from, x, v128.load(to), entryStep(entry)));
    }
    from += unpackedBytes(stream);
  }
}

/** The same as {@link addTile} of four tokens, where groups of inputs have scales, with lower bits. */
// @ts-ignore: decorator
@inline
function addGrouped(stream: i32, w: usize, places: usize, count: usize, f: usize): void {
  const x = load<usize>(f, TILE_X), low = load<usize>(f, LOW), sums = load<usize>(f, TILE_SUMS);
  const flags = load<usize>(f, TILE_FLAGS), gs = load<usize>(f, GROUPS);
  const scales = load<usize>(f, TILE_SCALES), one_ = ones();
  let from = w, at = places;
  for (const end = places + (count << 1); at < end; at += 2) {
    const c = <usize> load<u16>(at), s = c >> 5, isFlagged = load<u32>(flags + (s << 3)) != 0;
    const group = v128.load(gs + (s << 4));
    for (let t: usize = 0; t < 4; t++) {
      const xs = x + inTile(c) + (t << 5), to = sums + t * SUMS;
      const scale = f32x4.mul(v128.load32_splat(scales + s * TILE_WORDS + (t << 2)), group);
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
const FOUR = 0, EIGHT = 1, GROUPED = 2, LOWS = 3;

/** Each in a function of its own: engines compile small functions better. */
function quads(w: usize, at: usize, count: usize, f: usize): void {
  addTile(QUAD, false, w, at, count, f);
}
function quadsOfEight(w: usize, at: usize, count: usize, f: usize): void {
  if (WIDE_PARTS) addQuads(w, at, count, f);
  else addTile(QUAD, true, w, at, count, f);
}
function quadsGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addGrouped(QUAD, w, at, count, f);
}
function quadsLows(w: usize, at: usize, count: usize, f: usize): void {
  addLows(QUAD, w, at, count, f);
}
function doubles(w: usize, at: usize, count: usize, f: usize): void {
  addTile(DOUBLE, false, w, at, count, f);
}
function doublesOfEight(w: usize, at: usize, count: usize, f: usize): void {
  addTile(DOUBLE, true, w, at, count, f);
}
function doublesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addGrouped(DOUBLE, w, at, count, f);
}
function doublesLows(w: usize, at: usize, count: usize, f: usize): void {
  addLows(DOUBLE, w, at, count, f);
}
function couples(w: usize, at: usize, count: usize, f: usize): void {
  addTile(COUPLE, false, w, at, count, f);
}
function couplesOfEight(w: usize, at: usize, count: usize, f: usize): void {
  addTile(COUPLE, true, w, at, count, f);
}
function couplesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addGrouped(COUPLE, w, at, count, f);
}
function couplesLows(w: usize, at: usize, count: usize, f: usize): void {
  addLows(COUPLE, w, at, count, f);
}
function singles(w: usize, at: usize, count: usize, f: usize): void {
  addTile(SINGLE, false, w, at, count, f);
}
function singlesOfEight(w: usize, at: usize, count: usize, f: usize): void {
  addTile(SINGLE, true, w, at, count, f);
}
function singlesGrouped(w: usize, at: usize, count: usize, f: usize): void {
  addGrouped(SINGLE, w, at, count, f);
}
function singlesLows(w: usize, at: usize, count: usize, f: usize): void {
  addLows(SINGLE, w, at, count, f);
}

/** Adds all streams of an unpacked chunk. */
// @ts-ignore: decorator
@inline
function addStreams(how: i32, chunk: usize, unpacked: usize, f: usize): void {
  let at = chunk + 16, w = unpacked, count = <usize> load<u32>(chunk);
  if (how == FOUR) quads(w, at, count, f);
  else if (how == EIGHT) quadsOfEight(w, at, count, f);
  else if (how == GROUPED) quadsGrouped(w, at, count, f);
  else quadsLows(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(QUAD);
  count = <usize> load<u32>(chunk, 4);
  if (how == FOUR) doubles(w, at, count, f);
  else if (how == EIGHT) doublesOfEight(w, at, count, f);
  else if (how == GROUPED) doublesGrouped(w, at, count, f);
  else doublesLows(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(DOUBLE);
  count = <usize> load<u32>(chunk, 8);
  if (how == FOUR) couples(w, at, count, f);
  else if (how == EIGHT) couplesOfEight(w, at, count, f);
  else if (how == GROUPED) couplesGrouped(w, at, count, f);
  else couplesLows(w, at, count, f);
  at += count << 1;
  w += count * unpackedBytes(COUPLE);
  count = <usize> load<u32>(chunk, 12) << 1;
  if (how == FOUR) singles(w, at, count, f);
  else if (how == EIGHT) singlesOfEight(w, at, count, f);
  else if (how == GROUPED) singlesGrouped(w, at, count, f);
  else singlesLows(w, at, count, f);
}

/** Says where the things of the tile of `token` are, whose sums are at `sums`. */
function describeTile(a: usize, token: i32, tokens: i32, sums: usize, f: usize): void {
  const segments = load<usize>(a, SEGMENTS);
  store<usize>(f, inputsOf(load<usize>(a, X), load<u32>(a, X_STRIDE), token), TILE_X);
  store<usize>(f, stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens), TILE_STEPS);
  store<usize>(f, sums, TILE_SUMS);
  store<usize>(f, flagsOf(a, token, 0, tokens), TILE_FLAGS);
  store<usize>(f, scalesOf(load<usize>(a, X_SCALES), segments, token), TILE_SCALES);
}

/** y = W·x for rows `first` to `last`, multiples of 16, and two tokens or more. */
export function slotsAnyMany(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const groups = load<usize>(a, GROUP_SCALES), isGrouped = groups != 0;
  const table = load<usize>(a, WEIGHTS), f = scratchOf(a, thread), sums = f + COMMON_BYTES;
  const segments = load<usize>(a, SEGMENTS);
  const lows = sums + sumsBytes(tokens), list = lows + sumsBytes(tokens);
  const unpacked = isGrouped ? list : listOutliers(a, tokens, lows, list);
  store<usize>(f, <usize> load<u32>(a, X_LOW), LOW);
  store<usize>(f, list, OUTLIERS);
  // Each four rows meet all tokens before the next four are read.
  for (let row = first; row < last; row += 4) {
    const chunk = load<usize>(table + <usize> row), place = placeOf(row), group = row + 4 - SUM_ROWS;
    store<usize>(f, groups + (<usize> (row >> 2) * segments << 4), GROUPS);
    store<usize>(f, place, PLACE);
    unpack(chunk, unpacked);
    if (place == 0) {
      clear(sums, tokens);
      clear(lows, tokens);
    }
    for (let token = 0; token < tokens;) {
      const isEight = LOADS_MATTER && !isGrouped && tokens - token > 4;
      describeTile(a, token, tokens, sums + place + <usize> token * SUMS, f);
      if (isGrouped) addStreams(GROUPED, chunk, unpacked, f);
      else if (isEight) addStreams(EIGHT, chunk, unpacked, f);
      else addStreams(FOUR, chunk, unpacked, f);
      token += isEight ? 8 : 4;
    }
    if (!isGrouped) addStreams(LOWS, chunk, unpacked, f);
    if (!isLast(row)) continue;
    if (isGrouped) finishSums(a, group, tokens, sums, lows);
    else finishSteps(a, group, tokens, sums, lows);
  }
}
