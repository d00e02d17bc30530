/**
 * Makes the sketch of a head: its weights in 4 bits, by which `sketch.ts` tells which rows cannot be the
 * largest.
 *
 * Sixteen columns stay as they are, in int8: those of the largest mean. A few inputs of a head have most of
 * their squares (outlier features; of SmolLM2-135M these sixteen of 576 have 55 to 70 %), and they are inputs
 * whose weights are much the same in all rows. What an error is multiplied with is the rest.
 *
 * Each block of 64 of the other weights of a row is multiplied with a Hadamard matrix, as `spread` does it with
 * inputs: weights are then nearly normal, which four bits serve well. And what all rows have in common is
 * taken out of them, the mean of some. What is lost is a tenth of a row's norm.
 *
 * Rounding loses most where a row is largest, so what is lost is not without regard to inputs: those that go the row's
 * way, as those of the largest logit do, find it too small. A level is therefore worth as much as makes the sketch
 * exact for the row itself as input; what is lost is at right angles to it, and favours no inputs that differ from
 * it by chance. Where it has more of the row's way in some blocks, and less in others, more is counted.
 *
 * Layout, for each four rows: what a level is worth, `[4]`; the error's standard deviation for inputs of norm
 * 1, `[4]`; the rows' scales, `[4]`; for each segment of 32 columns `[4 rows, 16 bytes]`, a column of the first
 * sixteen in the low half of a byte and one of the others in the high half; the columns of outliers,
 * `[4 rows, 16]` int8. Level n stands for n - 7.5. Outliers count as 0 among the levels. The mean is `[columns]`
 * int16, and the numbers of the columns of outliers, `[16]` uint16, lie behind it.
 */
import { SEGMENT_BYTES } from "./dense";
import { COLUMNS, LISTS_OUT, OUT, ROWS, SCALES, SCRATCH, VALUES } from "./decode";
import { SEGMENT } from "./linear";
import { maxLane, sumLanes } from "./simd";
import { spread } from "./spread";

/** Columns that are spread together, and bytes of them in 16 bits. */
export const BLOCK = 64;
const BLOCK_BYTES: usize = 128;
/** Bytes before the segments of four rows, and those of one segment. */
export const SKETCH_HEAD: usize = 48, SKETCH_SEGMENT: usize = 64;
/** Columns of outliers, and bytes of their weights in four rows. */
export const OUTLIERS: usize = 16;
export const OUTLIER_BYTES: usize = 4 * OUTLIERS;

/** Bytes of four rows of so many segments. */
// @ts-ignore: decorator
@inline
export function sketchBytes(segments: usize): usize {
  return SKETCH_HEAD + segments * SKETCH_SEGMENT + OUTLIER_BYTES;
}

/** Normal weights lose least in sixteen levels that reach this many times their root mean square. */
const REACH: f32 = 2.6;
/**
 * Part of a row's squared norm that counts as error at least, spread over its columns; half of what is usual.
 * `sketch.ts` counts on it for the rounding of inputs.
 */
export const LEAST_ERROR: f32 = 0.006;

/**
 * How many times as large as the others' root mean square a weight's error is usually at most, of a row as it is spread
 * and as it was before. Sixteen levels leave what is far out off by so much; an error before is a sum of 64.
 */
const USUAL_SPREAD: f32 = 14, USUAL: f32 = 7;
/** Standard deviations that an error may have; of normal ones, one in 10^12 has more. */
export const DEVIATIONS: f32 = 7;

/** Rows of which the mean is taken: as many as are sure to be like the others. */
const SAMPLE = 4096;

/**
 * The mean of rows, spread, and the columns of outliers, to `LISTS_OUT`. Arguments as of {@link packSketch},
 * with all rows; at `SCRATCH` there is room for int32.
 */
export function sketchMean(d: usize): void {
  const rows = load<i32>(d, ROWS), columns = load<i32>(d, COLUMNS);
  const sums = load<usize>(d, SCRATCH), end = sums + (<usize> columns << 2);
  memory.fill(sums, 0, <usize> columns << 2);
  const step = max(1, rows / SAMPLE);
  let count = 0;
  for (let row = 0; row < rows; row += step) {
    let from = rowAt(d, row);
    for (let to = sums; to < end; to += 128) {
      for (let i: usize = 0; i < 4; i++) addEight(to + (i << 5), eight(from, i << 7));
      from += SEGMENT_BYTES;
    }
    count++;
  }
  for (let at = sums; at < end; at += 16) v128.store(at, f32x4.convert_i32x4_s(v128.load(at)));
  let to = load<usize>(d, LISTS_OUT);
  takeOutliers(sums, columns, to + (<usize> columns << 1));
  for (let at = sums; at < end; at += BLOCK << 2) spread(at, BLOCK);
  for (let at = sums; at < end; at += 4) {
    store<i16>(to, <i16> (load<f32>(at) / <f32> count));
    to += 2;
  }
}

/** Adds eight int16 to int32. */
// @ts-ignore: decorator
@inline
function addEight(to: usize, v: v128): void {
  v128.store(to, i32x4.add(v128.load(to), i32x4.extend_low_i16x8_s(v)));
  v128.store(to, i32x4.add(v128.load(to, 16), i32x4.extend_high_i16x8_s(v)), 16);
}

/** Writes the numbers of the columns of the largest sums, and clears these. */
function takeOutliers(sums: usize, columns: i32, to: usize): void {
  for (let i: usize = 0; i < OUTLIERS; i++) {
    let largest: f32 = -1, column = 0;
    for (let c = 0; c < columns; c++) {
      const size = abs<f32>(load<f32>(sums + (<usize> c << 2)));
      if (size > largest) {
        largest = size;
        column = c;
      }
    }
    store<u16>(to + (i << 1), <u16> column);
    // What is no number is no larger.
    store<f32>(sums + (<usize> column << 2), NaN);
  }
  for (let i: usize = 0; i < OUTLIERS; i++) store<f32>(sums + (<usize> load<u16>(to + (i << 1)) << 2), 0);
}

/**
 * The sketch of rows of dense int8 at `VALUES`, a multiple of 16 in `ROWS`, with `SCALES`, to `OUT`; what
 * {@link sketchMean} wrote is at `LISTS_OUT`. `COLUMNS` is a multiple of 64; at `SCRATCH` there is room for twice
 * as many int16, and a block of float32.
 */
export function packSketch(d: usize): void {
  const rows = load<i32>(d, ROWS), columns = load<i32>(d, COLUMNS), room = load<usize>(d, SCRATCH);
  const size = sketchBytes(<usize> (columns / SEGMENT)), mask = room + (<usize> columns << 1);
  const scales = load<usize>(d, SCALES), mean = load<usize>(d, LISTS_OUT);
  const outliers = mean + (<usize> columns << 1);
  memory.fill(mask, 0xff, <usize> columns << 1);
  for (let i: usize = 0; i < OUTLIERS; i++) store<u16>(mask + (<usize> load<u16>(outliers + (i << 1)) << 1), 0);
  for (let row = 0, four = load<usize>(d, OUT); row < rows; row++) {
    const lane = <usize> (row & 3) << 2, from = rowAt(d, row);
    spreadRow(from, columns, mask, room);
    const norm = lessMean(room, mean, columns);
    // Half a level, in whole numbers: so is what weights are off by, then.
    const half = max(1, <i32> nearest<f32>(REACH / 15 * sqrt<f32>(norm / <f32> columns)));
    const errors = packRow(room, columns, half, four + SKETCH_HEAD + (lane << 2));
    // Products of what is spread are 64 times what they were.
    const unit = load<f32>(scales + (<usize> row << 2)) / <f32> BLOCK;
    const kept = norm - along, gain: f32 = kept > 0 ? norm / kept : 1;
    store<f32>(four + lane, 2 * <f32> half * unit * gain);
    // What is lost of the row, less what the gain makes up for: |v - gain q|², with v q = kept.
    const across = max(errors, gain * gain * (kept - along + errors) - norm);
    const deviation = sqrt<f32>(max(across, LEAST_ERROR * norm) / <f32> columns);
    // Of that, what goes each block's own way: ((v - gain q) v)² / v², over all blocks.
    const less: f32 = 1 - gain;
    const blocks: f32 = less * (less * norm + 2 * gain * along) + gain * gain * alongBlocks;
    const counted = max(deviation * lumpiness(room, columns, deviation), sqrt<f32>(max(blocks, 0)) / DEVIATIONS);
    store<f32>(four + lane, counted * unit, 16);
    store<f32>(four + lane, unit, 32);
    copyOutliers(from, outliers, four + size - OUTLIER_BYTES + (lane << 2));
    if (lane == 12) four += size;
  }
}

/** A row's weights in the columns of outliers. */
function copyOutliers(from: usize, columns: usize, to: usize): void {
  for (let i: usize = 0; i < OUTLIERS; i++) {
    const column = <usize> load<u16>(columns + (i << 1)), inside = column & (SEGMENT - 1);
    const at = from + (column >> 5) * SEGMENT_BYTES + (inside >> 2 << 6) + (inside & 3);
    store<u8>(to + i, load<u8>(at));
  }
}

/** Where a row begins, in its group of sixteen. */
// @ts-ignore: decorator
@inline
function rowAt(d: usize, row: i32): usize {
  const segments = <usize> (load<i32>(d, COLUMNS) / SEGMENT);
  return load<usize>(d, VALUES) + <usize> (row >> 4) * segments * SEGMENT_BYTES + 32 + (<usize> (row & 15) << 2);
}

/**
 * A row out of its group of sixteen, spread, as int16: what is 64 times an int8 fits.
 *
 * @param mask 0 where a column counts as 0, else -1; int16.
 */
function spreadRow(from: usize, columns: i32, mask: usize, room: usize): void {
  let at = from, to = room, m = mask;
  for (let c = 0; c < columns; c += BLOCK) {
    // The upper three bits of a column's place in its block.
    let v0 = v128.and(eight(at, 0), v128.load(m)), v1 = v128.and(eight(at, 128), v128.load(m, 16));
    let v2 = v128.and(eight(at, 256), v128.load(m, 32)), v3 = v128.and(eight(at, 384), v128.load(m, 48));
    at += SEGMENT_BYTES;
    let v4 = v128.and(eight(at, 0), v128.load(m, 64)), v5 = v128.and(eight(at, 128), v128.load(m, 80));
    let v6 = v128.and(eight(at, 256), v128.load(m, 96)), v7 = v128.and(eight(at, 384), v128.load(m, 112));
    let a = v0, b = v1, c = v2, d = v3;
    v0 = i16x8.add(a, v4);
    v1 = i16x8.add(b, v5);
    v2 = i16x8.add(c, v6);
    v3 = i16x8.add(d, v7);
    v4 = i16x8.sub(a, v4);
    v5 = i16x8.sub(b, v5);
    v6 = i16x8.sub(c, v6);
    v7 = i16x8.sub(d, v7);
    a = v0, b = v1, c = v4, d = v5;
    v0 = i16x8.add(a, v2);
    v1 = i16x8.add(b, v3);
    v2 = i16x8.sub(a, v2);
    v3 = i16x8.sub(b, v3);
    v4 = i16x8.add(c, v6);
    v5 = i16x8.add(d, v7);
    v6 = i16x8.sub(c, v6);
    v7 = i16x8.sub(d, v7);
    putTwo(to, v0, v1);
    putTwo(to + 32, v2, v3);
    putTwo(to + 64, v4, v5);
    putTwo(to + 96, v6, v7);
    at += SEGMENT_BYTES;
    m += BLOCK_BYTES;
    to += BLOCK_BYTES;
  }
}

/** Takes the mean out of a row; its squared norm. */
function lessMean(room: usize, mean: usize, columns: i32): f32 {
  let squares = f32x4.splat(0), from = mean;
  for (let at = room, end = room + (<usize> columns << 1); at < end; at += 16) {
    const v = i16x8.sub(v128.load(at), v128.load(from));
    v128.store(at, v);
    squares = f32x4.add(squares, f32x4.convert_i32x4_s(i32x4.dot_i16x8_s(v, v)));
    from += 16;
  }
  return sumLanes(squares);
}

/** Eight weights of a row, of two fours of columns that lie 64 bytes apart. */
// @ts-ignore: decorator
@inline
function eight(at: usize, offset: usize): v128 {
  const four = v128.load32_zero(at + offset);
  return i16x8.extend_low_i8x16_s(v128.load32_lane(at + offset + 64, four, 1));
}

/** Spreads two eights over each other and in themselves, and writes them. */
// @ts-ignore: decorator
@inline
function putTwo(to: usize, a: v128, b: v128): void {
  v128.store(to, inItself(i16x8.add(a, b)));
  v128.store(to, inItself(i16x8.sub(a, b)), 16);
}

/** Eight numbers, spread: the lower three bits. */
// @ts-ignore: decorator
@inline
function inItself(v: v128): v128 {
  const w = i16x8.add(
    i16x8.mul(v, i16x8(1, -1, 1, -1, 1, -1, 1, -1)),
    i16x8.shuffle(v, v, 1, 0, 3, 2, 5, 4, 7, 6),
  );
  const x = i16x8.add(
    i16x8.mul(w, i16x8(1, 1, -1, -1, 1, 1, -1, -1)),
    i32x4.shuffle(w, w, 1, 0, 3, 2),
  );
  return i16x8.add(
    i16x8.mul(x, i16x8(1, 1, 1, 1, -1, -1, -1, -1)),
    i32x4.shuffle(x, x, 2, 3, 0, 1),
  );
}

/** Of the last row, what its weights are off by times what they are; and that squared, over the squares, by blocks. */
let along: f32 = 0, alongBlocks: f32 = 0;

/**
 * Writes the levels of a row, and leaves in its room what its weights are off by.
 *
 * @param half Half of what a level is worth.
 * @param to Where its first segment is written.
 * @returns What its weights are off by, squared, together.
 */
function packRow(room: usize, columns: i32, half: i32, to: usize): f32 {
  const halves = i16x8.splat(<i16> half);
  // q15mulr rounds: half a level less makes that the level below.
  const inverse = i16x8.splat(<i16> min(32767, 16384 / half));
  let errors = f32x4.splat(0), out = to;
  let products = i32x4.splat(0), norms = f32x4.splat(0);
  along = 0;
  alongBlocks = 0;
  for (let at = room, end = room + (<usize> columns << 1); at < end; at += SEGMENT << 1) {
    const a = v128.load(at), b = v128.load(at, 16), c = v128.load(at, 32), d = v128.load(at, 48);
    const k = levelsOf(a, halves, inverse), l = levelsOf(b, halves, inverse);
    const m = levelsOf(c, halves, inverse), n = levelsOf(d, halves, inverse);
    const e = offBy(a, k, halves), f = offBy(b, l, halves), g = offBy(c, m, halves), h = offBy(d, n, halves);
    products = i32x4.add(products, i32x4.add(i32x4.dot_i16x8_s(e, a), i32x4.dot_i16x8_s(f, b)));
    products = i32x4.add(products, i32x4.add(i32x4.dot_i16x8_s(g, c), i32x4.dot_i16x8_s(h, d)));
    let own = i32x4.add(i32x4.dot_i16x8_s(a, a), i32x4.dot_i16x8_s(b, b));
    own = i32x4.add(own, i32x4.add(i32x4.dot_i16x8_s(c, c), i32x4.dot_i16x8_s(d, d)));
    norms = f32x4.add(norms, f32x4.convert_i32x4_s(own));
    // Two segments are a block.
    if ((at - room & BLOCK) != 0) {
      const product = sumLanes(f32x4.convert_i32x4_s(products)), block = sumLanes(norms);
      along += product;
      if (block > 0) alongBlocks += product * product / block;
      products = i32x4.splat(0);
      norms = f32x4.splat(0);
    }
    v128.store(at, e);
    v128.store(at, f, 16);
    v128.store(at, g, 32);
    v128.store(at, h, 48);
    let squares = i32x4.add(i32x4.dot_i16x8_s(e, e), i32x4.dot_i16x8_s(f, f));
    squares = i32x4.add(squares, i32x4.add(i32x4.dot_i16x8_s(g, g), i32x4.dot_i16x8_s(h, h)));
    errors = f32x4.add(errors, f32x4.convert_i32x4_s(squares));
    const low = i8x16.narrow_i16x8_u(k, l), high = i8x16.narrow_i16x8_u(m, n);
    v128.store(out, v128.or(low, i16x8.shl(high, 4)));
    out += SKETCH_SEGMENT;
  }
  return sumLanes(errors);
}

/** The levels, 0 to 15, that are nearest to eight weights, or next to that. */
// @ts-ignore: decorator
@inline
function levelsOf(v: v128, halves: v128, inverse: v128): v128 {
  const n = i16x8.add(i16x8.q15mulr_sat_s(i16x8.sub(v, halves), inverse), i16x8.splat(8));
  return i16x8.max_s(i16x8.min_s(n, i16x8.splat(15)), i16x8.splat(0));
}

/** What eight weights are off by. */
// @ts-ignore: decorator
@inline
function offBy(v: v128, levels: v128, halves: v128): v128 {
  return i16x8.sub(v, i16x8.mul(i16x8.sub(i16x8.shl(levels, 1), i16x8.splat(15)), halves));
}

/**
 * How many times its standard deviation a row's error is to be counted: 1, but where few weights have most of it. It
 * is no sum of many then, and inputs that have most of their norm there, too, make it larger than chance does.
 *
 * @param room What the row's weights are off by, int16; behind as many more there is room for a block of float32.
 */
function lumpiness(room: usize, columns: i32, deviation: f32): f32 {
  const block = room + (<usize> columns << 2);
  let spreadOut = f32x4.splat(0), before = f32x4.splat(0);
  for (let at = room, end = room + (<usize> columns << 1); at < end; at += BLOCK_BYTES) {
    for (let i: usize = 0; i < <usize> BLOCK; i += 4) {
      const v = f32x4.convert_i32x4_s(v128.load16x4_s(at + (i << 1)));
      spreadOut = f32x4.pmax(spreadOut, f32x4.abs(v));
      v128.store(block + (i << 2), v);
    }
    spread(block, BLOCK);
    for (let i: usize = 0; i < <usize> BLOCK; i += 4) {
      before = f32x4.pmax(before, f32x4.abs(v128.load(block + (i << 2))));
    }
  }
  // Spread twice they are 64 times what they were, and lengths 8 times.
  const far = maxLane(spreadOut) / deviation, back = maxLane(before) / (8 * deviation);
  let times: f32 = 1;
  // All that is in the largest, and half of what is counted usually for the others.
  if (far > USUAL_SPREAD) times = far / DEVIATIONS + 0.5;
  if (back > USUAL) times = max(times, back / DEVIATIONS + 0.5);
  return times;
}
