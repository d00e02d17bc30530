/**
 * Makes the sketch of a head: its weights in 4 bits, by which `sketch.ts` tells which rows cannot be the
 * largest.
 *
 * Each block of 64 weights of a row is multiplied with a Hadamard matrix first, as `spread` does it with
 * inputs: weights are then nearly normal, which four bits serve well. And what all rows have in common is
 * taken out of them, the mean of some: nearly half of the squared weights of SmolLM2-135M. What is lost is
 * 8 % of a row's norm (16 % without both), and it favours no inputs.
 *
 * Layout, for each four rows: what a level is worth, `[4]`; the error's standard deviation for inputs of norm
 * 1, `[4]`; the rows' scales, `[4]`; for each segment of 32 columns `[4 rows, 16 bytes]`, a column of the first
 * sixteen in the low half of a byte and one of the others in the high half. Level n stands for n - 7.5. The
 * mean is `[columns]` int16.
 */
import { SEGMENT_BYTES } from "./dense";
import { COLUMNS, LISTS_OUT, OUT, ROWS, SCALES, SCRATCH, VALUES } from "./decode";
import { SEGMENT } from "./linear";
import { sumLanes } from "./simd";

/** Columns that are spread together, and bytes of them in 16 bits. */
export const BLOCK = 64;
const BLOCK_BYTES: usize = 128;
/** Bytes before the segments of four rows, and those of one segment. */
export const SKETCH_HEAD: usize = 48, SKETCH_SEGMENT: usize = 64;

/** Normal weights lose least in sixteen levels that reach this many times their root mean square. */
const REACH: f32 = 2.6;
/**
 * Part of a row's squared norm that counts as error at least, spread over its columns; half of what is usual.
 * `sketch.ts` counts on it for the rounding of inputs.
 */
export const LEAST_ERROR: f32 = 0.006;

/** Rows of which the mean is taken: as many as are sure to be like the others. */
const SAMPLE = 4096;

/**
 * The mean of rows, spread, to `LISTS_OUT`. Arguments as of {@link packSketch}, with all rows; at `SCRATCH` there
 * is room for int32 beside int16.
 */
export function sketchMean(d: usize): void {
  const rows = load<i32>(d, ROWS), columns = load<i32>(d, COLUMNS);
  const room = load<usize>(d, SCRATCH), sums = room + (<usize> columns << 1), mean = load<usize>(d, LISTS_OUT);
  const end = sums + (<usize> columns << 2);
  memory.fill(sums, 0, <usize> columns << 2);
  const step = max(1, rows / SAMPLE);
  let count = 0;
  for (let row = 0; row < rows; row += step) {
    spreadRow(rowAt(d, row), columns, room);
    let from = room;
    for (let at = sums; at < end; at += 16) {
      v128.store(at, i32x4.add(v128.load(at), v128.load16x4_s(from)));
      from += 8;
    }
    count++;
  }
  let to = mean;
  for (let at = sums; at < end; at += 4) {
    store<i16>(to, <i16> (load<i32>(at) / count));
    to += 2;
  }
}

/**
 * The sketch of rows of dense int8 at `VALUES`, a multiple of 16 in `ROWS`, with `SCALES`, to `OUT`; their mean is
 * at `LISTS_OUT`. `COLUMNS` is a multiple of 64; at `SCRATCH` there is room for as many int16.
 */
export function packSketch(d: usize): void {
  const rows = load<i32>(d, ROWS), columns = load<i32>(d, COLUMNS), room = load<usize>(d, SCRATCH);
  const ofFour = SKETCH_HEAD + <usize> (columns / SEGMENT) * SKETCH_SEGMENT;
  const scales = load<usize>(d, SCALES), out = load<usize>(d, OUT), mean = load<usize>(d, LISTS_OUT);
  for (let row = 0; row < rows; row++) {
    const lane = <usize> (row & 3) << 2, four = out + <usize> (row >> 2) * ofFour;
    spreadRow(rowAt(d, row), columns, room);
    const norm = lessMean(room, mean, columns);
    // Half a level, in whole numbers: so is what weights are off by, then.
    const half = max(1, <i32> nearest<f32>(REACH / 15 * sqrt<f32>(norm / <f32> columns)));
    const errors = packRow(room, columns, half, four + SKETCH_HEAD + (lane << 2));
    // Products of what is spread are 64 times what they were.
    const unit = load<f32>(scales + (<usize> row << 2)) / <f32> BLOCK;
    store<f32>(four + lane, 2 * <f32> half * unit);
    store<f32>(four + lane, sqrt<f32>(max(errors, LEAST_ERROR * norm) / <f32> columns) * unit, 16);
    store<f32>(four + lane, unit, 32);
  }
}

/** Where a row begins, in its group of sixteen. */
// @ts-ignore: decorator
@inline
function rowAt(d: usize, row: i32): usize {
  const segments = <usize> (load<i32>(d, COLUMNS) / SEGMENT);
  return load<usize>(d, VALUES) + <usize> (row >> 4) * segments * SEGMENT_BYTES + 32 + (<usize> (row & 15) << 2);
}

/** A row out of its group of sixteen, spread, as int16: what is 64 times an int8 fits. */
function spreadRow(from: usize, columns: i32, room: usize): void {
  let at = from, to = room;
  for (let c = 0; c < columns; c += BLOCK) {
    // The upper three bits of a column's place in its block.
    let v0 = eight(at, 0), v1 = eight(at, 128), v2 = eight(at, 256), v3 = eight(at, 384);
    let v4 = eight(at, SEGMENT_BYTES), v5 = eight(at, SEGMENT_BYTES + 128);
    let v6 = eight(at, SEGMENT_BYTES + 256), v7 = eight(at, SEGMENT_BYTES + 384);
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
    at += 2 * SEGMENT_BYTES;
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

/**
 * Writes the levels of a row.
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
  for (let at = room, end = room + (<usize> columns << 1); at < end; at += SEGMENT << 1) {
    const a = v128.load(at), b = v128.load(at, 16), c = v128.load(at, 32), d = v128.load(at, 48);
    const k = levelsOf(a, halves, inverse), l = levelsOf(b, halves, inverse);
    const m = levelsOf(c, halves, inverse), n = levelsOf(d, halves, inverse);
    let off = i32x4.add(squareOff(a, k, halves), squareOff(b, l, halves));
    off = i32x4.add(off, i32x4.add(squareOff(c, m, halves), squareOff(d, n, halves)));
    errors = f32x4.add(errors, f32x4.convert_i32x4_s(off));
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

/** What eight weights are off by, squared, in pairs. */
// @ts-ignore: decorator
@inline
function squareOff(v: v128, levels: v128, halves: v128): v128 {
  const off = i16x8.sub(v, i16x8.mul(i16x8.sub(i16x8.shl(levels, 1), i16x8.splat(15)), halves));
  return i32x4.dot_i16x8_s(off, off);
}
