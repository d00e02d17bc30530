/**
 * What all products of a matrix with vectors share: their arguments, and what becomes of a sum.
 *
 * A matrix is in groups of 16 rows, so that threads and layouts agree on where to divide it; rows that
 * fill the last group are zeros. Vectors lie one after the other, `stride` bytes apart.
 *
 * Inputs of integer matrices are quantised, with a scale for each segment of 32. Most segments have 7
 * bits: from 1 to 127, with the zero at 64, which -64·Σw takes out again. A segment with an outlier
 * would lose all else in it that way, so it has 7 bits more, in a second vector, with the same zero; it is
 * flagged, and multiplied a second time.
 *
 * A scale is a whole number of steps of the token's unit, so that products of all segments can be summed
 * in integers. Quantised inputs of several tokens lie in tiles of eight: each segment of the first, of the
 * second and so on, then the next one; their scales and steps too. So a product needs one address for eight
 * tokens.
 */
import { activate, activateAll, NONE } from "./math";

/** Words of a linear step, in bytes from its beginning. `plan/encode.ts` writes them. */
export const KIND: usize = 8;
export const WEIGHTS: usize = 12;
/** Rows, a multiple of 16. */
export const ROWS: usize = 16;
/** Segments of 32 inputs. */
export const SEGMENTS: usize = 20;
/** Quantised inputs, or float32 ones. */
export const X: usize = 24;
/** Bytes from one token's inputs to the next one's. */
export const X_STRIDE: usize = 28;
/** Bytes from one thread's copy of the input to the next one's, when there is one token. */
export const X_COPY: usize = 32;
/** Scales of quantised inputs, `[token / 8, segment, 8 tokens]`; bytes between threads' copies. */
export const X_SCALES: usize = 36;
export const X_SCALES_COPY: usize = 40;
/** Bytes from the upper seven bits of inputs to the lower seven. */
export const X_LOW: usize = 44;
/** Flags `[token / 8, segment, 8 tokens]`, a byte each; bytes between threads' copies. */
export const X_FLAGS: usize = 48;
export const X_FLAGS_COPY: usize = 52;
export const OUT: usize = 56;
export const OUT_STRIDE: usize = 60;
/** Scale of each row, or 0. */
export const ROW_SCALES: usize = 64;
/** Scales `[rows / 4, segment, 4]`, or 0. */
export const GROUP_SCALES: usize = 68;
/** Added to the sum, or 0. */
export const BIAS: usize = 72;
export const ACTIVATION: usize = 76;
/** Vectors that the result is multiplied with, laid out like the output, or 0. */
export const TIMES: usize = 80;
/** Vectors that are added last, laid out like the output, or 0. */
export const PLUS: usize = 84;
/** Where the lists of each four rows begin: of all weights, or of those that slots have no room for; or 0. */
export const LISTS: usize = 88;
/** The float32 inputs of lists beside slots. */
export const LISTS_X: usize = 92;
export const LISTS_X_STRIDE: usize = 96;
export const LISTS_X_COPY: usize = 100;
/** Inputs, where those that fill the last segment must not be read. */
export const COLUMNS: usize = 104;

/** A thread's own room, and bytes of it: see {@link scratchOf}. */
export const SCRATCH: usize = 120, SCRATCH_BYTES: usize = 124;
/** Steps of scales, and units: see {@link stepsOf}. */
export const X_STEPS: usize = 128;
/** Which counter tells what is taken of the run of products that begins here. */
export const COUNTER: usize = 132;

/** Numbers of the kinds. */
export const SLOTS_ONE = 0, SLOTS_TWO = 1, DENSE_INT8 = 2;
export const LISTS_F32 = 3, LISTS_F16 = 4, DENSE_F32 = 5, DENSE_F16 = 6;
export const SLOTS_ANY = 7;
export const SLOTS_ONE_INT4 = 10, SLOTS_TWO_INT4 = 11, DENSE_INT4 = 12;
export const SKETCH = 13;

/** Inputs of a segment. */
export const SEGMENT = 32;
/**
 * A few tokens, at most: with more it is faster to unpack rows first, and to read weights a good piece at a time before
 * they are multiplied (`ahead.ts`).
 */
export const FEW_TOKENS = 12;
/** Bytes of a segment of a tile, of eight tokens: of their inputs, and of their scales or steps. */
export const TILE_SEGMENT: usize = 256, TILE_WORDS: usize = 32;

/**
 * What the steps of a token's scales add up to at most: sums of 32 products of -128 to 127 and -64 to 63
 * times a step each then fit 32 bits.
 */
export const MOST_STEPS = 8000;

/** What the lower seven bits are worth, in units of the upper ones. */
export const LOW_UNIT: f32 = 0.0078125;

/** Flags of a token, or of those in its tile of eight. */
// @ts-ignore: decorator
@inline
export function flagsOf(a: usize, token: i32, thread: i32, tokens: i32): usize {
  const flags = load<usize>(a, X_FLAGS);
  if (tokens == 1) return flags + <usize> thread * <usize> load<u32>(a, X_FLAGS_COPY);
  return flags + <usize> (token >> 3) * (<usize> load<u32>(a, SEGMENTS) << 3) + <usize> (token & 7);
}

/** A token's inputs, or those of lower bits, in their tile; with several tokens. */
// @ts-ignore: decorator
@inline
export function inputsOf(x: usize, stride: usize, token: usize): usize {
  return x + ((token >> 3) * stride << 3) + ((token & 7) << 5);
}

/** A token's scales in their tile; with several tokens. */
// @ts-ignore: decorator
@inline
export function scalesOf(scales: usize, segments: usize, token: usize): usize {
  return scales + (token >> 3) * segments * TILE_WORDS + ((token & 7) << 2);
}

/**
 * A token's steps of its scales, int32 as `stepBits` makes them, and behind those of the last segment its
 * unit; with several tokens they are in tiles.
 */
// @ts-ignore: decorator
@inline
export function stepsOf(steps: usize, segments: usize, token: i32, thread: i32, tokens: i32): usize {
  if (tokens == 1) return steps + (<usize> thread * (segments + 1) << 2);
  return scalesOf(steps, segments + 1, token);
}

/** Integer sums in a token's units, and those of lower seven bits, together. */
// @ts-ignore: decorator
@inline
export function inUnits(sum: v128, low: v128, unit: v128): v128 {
  return floatsInUnits(f32x4.convert_i32x4_s(sum), f32x4.convert_i32x4_s(low), unit);
}

/** The same of sums that have become float32, as those of groups do, which have scales of their own. */
// @ts-ignore: decorator
@inline
export function floatsInUnits(sum: v128, low: v128, unit: v128): v128 {
  return f32x4.add(f32x4.mul(sum, unit), f32x4.mul(low, f32x4.mul(unit, f32x4.splat(LOW_UNIT))));
}

/** A thread's own room. */
// @ts-ignore: decorator
@inline
export function scratchOf(a: usize, thread: i32): usize {
  return load<usize>(a, SCRATCH) + <usize> thread * <usize> load<u32>(a, SCRATCH_BYTES);
}

/** Bytes of a list of segments. */
// @ts-ignore: decorator
@inline
export function listBytes(segments: usize): usize {
  return (segments + 1) << 1;
}

/** What a list of segments ends with. */
export const LIST_END = 0xffff;

/**
 * For each four tokens the segments in which one of them is flagged, or those of the only token, as uint16,
 * with an end: all rows would look through the same flags again.
 *
 * @param to Room of a thread.
 * @returns What lies behind the lists.
 */
export function listFlagged(a: usize, tokens: i32, thread: i32, to: usize): usize {
  const segments = load<usize>(a, SEGMENTS), size = listBytes(segments);
  let list = to;
  for (let token = 0; token < tokens; token += 4) {
    const flags = flagsOf(a, token, thread, tokens);
    let at = list;
    for (let s: usize = 0; s < segments; s++) {
      const four = flags + (s << 3);
      store<u16>(at, <u16> s);
      at += (tokens == 1 ? <u32> load<u8>(four) : load<u32>(four)) != 0 ? 2 : 0;
    }
    store<u16>(at, LIST_END);
    list += size;
  }
  return (list + 15) & ~15;
}

/** Bytes of a thread's table of places, at the beginning of its room: see `runs.ts`. */
export const PLACES_BYTES: usize = 32;

/** The list of the only token's flagged segments, behind the places in a thread's room. */
export function listFlaggedOfOne(a: usize, thread: i32): usize {
  const list = scratchOf(a, thread) + PLACES_BYTES;
  listFlagged(a, 1, thread, list);
  return list;
}

/** Four rows' sums, with their scales and what is added to them. */
// @ts-ignore: decorator
@inline
function scaled(a: usize, row: i32, sum: v128): v128 {
  let v = sum;
  const scales = load<usize>(a, ROW_SCALES);
  if (scales != 0) v = f32x4.mul(v, v128.load(scales + (<usize> row << 2)));
  const bias = load<usize>(a, BIAS);
  if (bias != 0) v = f32x4.add(v, v128.load(bias + (<usize> row << 2)));
  return v;
}

/** Writes four rows' results for one token. */
// @ts-ignore: decorator
@inline
export function finish(a: usize, row: i32, token: i32, sum: v128): void {
  const at = <usize> token * <usize> load<u32>(a, OUT_STRIDE) + (<usize> row << 2);
  let v = scaled(a, row, sum);
  const kind = load<i32>(a, ACTIVATION);
  if (kind != NONE) v = activate(kind, v);
  const times = load<usize>(a, TIMES);
  if (times != 0) v = f32x4.mul(v, v128.load(times + at));
  const plus = load<usize>(a, PLUS);
  if (plus != 0) v = f32x4.add(v, v128.load(plus + at));
  v128.store(load<usize>(a, OUT) + at, v);
}

/**
 * Writes four rows' results for the only token, but for what {@link finishRows} does when more of them are there.
 *
 * What is added last may lie where the result is written, so that nothing is left for later then.
 */
// @ts-ignore: decorator
@inline
export function finishOne(a: usize, row: i32, sum: v128): void {
  if (load<usize>(a, PLUS) != 0) return finish(a, row, 0, sum);
  v128.store(load<usize>(a, OUT) + (<usize> row << 2), scaled(a, row, sum));
}

/** The same of sixteen rows. */
export function finishGroupOfOne(a: usize, row: i32, f0: v128, f1: v128, f2: v128, f3: v128): void {
  finishOne(a, row, f0);
  finishOne(a, row + 4, f1);
  finishOne(a, row + 8, f2);
  finishOne(a, row + 12, f3);
}

/**
 * The activation of some rows' results for the only token, and what they are multiplied with. An activation takes many
 * steps that wait for each other; those of many rows do not wait for those of others.
 */
export function finishRows(a: usize, row: i32, rows: i32): void {
  if (load<usize>(a, PLUS) != 0) return;
  const first = <usize> row << 2, out = load<usize>(a, OUT) + first, end = out + (<usize> rows << 2);
  activateAll(load<i32>(a, ACTIVATION), out, end);
  let times = load<usize>(a, TIMES);
  if (times == 0) return;
  times += first;
  for (let at = out; at < end; at += 16) {
    v128.store(at, f32x4.mul(v128.load(at), v128.load(times)));
    times += 16;
  }
}

/** Writes sixteen rows' results for one token. */
export function finishGroup(
  a: usize,
  row: i32,
  token: i32,
  f0: v128,
  f1: v128,
  f2: v128,
  f3: v128,
): void {
  finish(a, row, token, f0);
  finish(a, row + 4, token, f1);
  finish(a, row + 8, token, f2);
  finish(a, row + 12, token, f3);
}

/** sum + an integer part with its scale. */
// @ts-ignore: decorator
@inline
export function addScaled(sum: v128, part: v128, scale: v128): v128 {
  return f32x4.add(sum, f32x4.mul(f32x4.convert_i32x4_s(part), scale));
}
