/**
 * Sums of sixteen rows of a matrix in slots with several tokens: where they lie, and what becomes of them.
 *
 * Each four rows are multiplied with all tokens before the next four. Sums lie like the results, token by token, so
 * that what becomes of them is done with four vectors at a time, and results are written by whole lines.
 */
import { addLists } from "./beside";
import {
  ACTIVATION,
  BIAS,
  floatsInUnits,
  inUnits,
  LISTS,
  OUT,
  OUT_STRIDE,
  PLUS,
  ROW_SCALES,
  scalesOf,
  SEGMENTS,
  TILE_WORDS,
  TIMES,
  X_STEPS,
} from "./linear";
import { activateAll, NONE } from "./math";

/** Rows that are finished together, and bytes of a token's sums of them. */
export const SUM_ROWS = 16;
export const SUMS: usize = SUM_ROWS << 2;

/** Bytes of the sums of so many tokens: of whole tiles. */
// @ts-ignore: decorator
@inline
export function sumsBytes(tokens: i32): usize {
  return <usize> ((tokens + 7) & ~7) * SUMS;
}

/** Where a row's sum is in those of a token. */
// @ts-ignore: decorator
@inline
export function placeOf(row: i32): usize {
  return <usize> (row & SUM_ROWS - 1) << 2;
}

/** Whether the four rows from `row` on are the last whose sums lie together. */
// @ts-ignore: decorator
@inline
export function isLast(row: i32): bool {
  return (row & SUM_ROWS - 1) == SUM_ROWS - 4;
}

/** Sets sums to zero. */
export function clear(sums: usize, tokens: i32): void {
  // `memory.fill` leaves WebAssembly in some engines, which takes longer.
  const zero = i32x4.splat(0);
  for (let at = sums, end = sums + <usize> tokens * SUMS; at < end; at += SUMS) {
    v128.store(at, zero);
    v128.store(at, zero, 16);
    v128.store(at, zero, 32);
    v128.store(at, zero, 48);
  }
}

/** Writes the sums of four rows with a tile of four tokens, or of eight. */
// @ts-ignore: decorator
@inline
export function storeSums(
  isEight: bool,
  to: usize,
  f0: v128,
  f1: v128,
  f2: v128,
  f3: v128,
  f4: v128,
  f5: v128,
  f6: v128,
  f7: v128,
): void {
  v128.store(to, f0);
  v128.store(to, f1, SUMS);
  v128.store(to, f2, 2 * SUMS);
  v128.store(to, f3, 3 * SUMS);
  if (!isEight) return;
  v128.store(to, f4, 4 * SUMS);
  v128.store(to, f5, 5 * SUMS);
  v128.store(to, f6, 6 * SUMS);
  v128.store(to, f7, 7 * SUMS);
}

/**
 * Writes sixteen rows' results for all tokens, of sums in float32, or in steps with those of lower bits.
 *
 * @param begins Whether sums are to be scaled, and have the bias added.
 * @param ends Whether what comes behind activations is done, and results are written; else they stay where sums are.
 */
// @ts-ignore: decorator
@inline
function write(
  begins: bool,
  ends: bool,
  inSteps: bool,
  a: usize,
  row: i32,
  tokens: i32,
  sums: usize,
  lows: usize,
): void {
  const column = <usize> row << 2, stride = <usize> load<u32>(a, OUT_STRIDE), out = load<usize>(a, OUT);
  const isScaled = load<usize>(a, ROW_SCALES) != 0, scales = load<usize>(a, ROW_SCALES) + column;
  const isBiased = load<usize>(a, BIAS) != 0, bias = load<usize>(a, BIAS) + column;
  const times = load<usize>(a, TIMES), plus = load<usize>(a, PLUS);
  const segments = load<usize>(a, SEGMENTS), steps = load<usize>(a, X_STEPS);
  let at = sums, low = lows, line = column;
  for (let token = 0; token < tokens; token++, line += stride, at += SUMS) {
    let v0 = v128.load(at), v1 = v128.load(at, 16), v2 = v128.load(at, 32), v3 = v128.load(at, 48);
    if (begins && inSteps) {
      const unit = v128.load32_splat(unitOf(steps, segments, token));
      v0 = inUnits(v0, v128.load(low), unit);
      v1 = inUnits(v1, v128.load(low, 16), unit);
      v2 = inUnits(v2, v128.load(low, 32), unit);
      v3 = inUnits(v3, v128.load(low, 48), unit);
      low += SUMS;
    }
    if (begins && isScaled) {
      v0 = f32x4.mul(v0, v128.load(scales));
      v1 = f32x4.mul(v1, v128.load(scales, 16));
      v2 = f32x4.mul(v2, v128.load(scales, 32));
      v3 = f32x4.mul(v3, v128.load(scales, 48));
    }
    if (begins && isBiased) {
      v0 = f32x4.add(v0, v128.load(bias));
      v1 = f32x4.add(v1, v128.load(bias, 16));
      v2 = f32x4.add(v2, v128.load(bias, 32));
      v3 = f32x4.add(v3, v128.load(bias, 48));
    }
    if (ends && times != 0) {
      const from = times + line;
      v0 = f32x4.mul(v0, v128.load(from));
      v1 = f32x4.mul(v1, v128.load(from, 16));
      v2 = f32x4.mul(v2, v128.load(from, 32));
      v3 = f32x4.mul(v3, v128.load(from, 48));
    }
    if (ends && plus != 0) {
      const from = plus + line;
      v0 = f32x4.add(v0, v128.load(from));
      v1 = f32x4.add(v1, v128.load(from, 16));
      v2 = f32x4.add(v2, v128.load(from, 32));
      v3 = f32x4.add(v3, v128.load(from, 48));
    }
    const to = ends ? out + line : at;
    v128.store(to, v0);
    v128.store(to, v1, 16);
    v128.store(to, v2, 32);
    v128.store(to, v3, 48);
  }
}

/** Where a token's unit is, in steps with those of several tokens. */
// @ts-ignore: decorator
@inline
function unitOf(steps: usize, segments: usize, token: i32): usize {
  return scalesOf(steps, segments + 1, token) + segments * TILE_WORDS;
}

/** Each in a function of its own: engines compile small functions better. */
function writeSteps(a: usize, row: i32, tokens: i32, sums: usize, lows: usize): void {
  write(true, true, true, a, row, tokens, sums, lows);
}
function scaleSteps(a: usize, row: i32, tokens: i32, sums: usize, lows: usize): void {
  write(true, false, true, a, row, tokens, sums, lows);
}
function writeFloats(a: usize, row: i32, tokens: i32, sums: usize): void {
  write(true, true, false, a, row, tokens, sums, sums);
}
function scaleFloats(a: usize, row: i32, tokens: i32, sums: usize): void {
  write(true, false, false, a, row, tokens, sums, sums);
}
function writeScaled(a: usize, row: i32, tokens: i32, sums: usize): void {
  write(false, true, false, a, row, tokens, sums, sums);
}

/** Writes results of sums that have been scaled, after the activation: that of all tokens, so that none waits. */
function writeActivated(a: usize, row: i32, tokens: i32, sums: usize): void {
  activateAll(load<i32>(a, ACTIVATION), sums, sums + <usize> tokens * SUMS);
  writeScaled(a, row, tokens, sums);
}

/**
 * Makes sums in units of sums in steps, and of those of lower bits.
 *
 * @param areIntegers Whether they are, or have become float32.
 */
// @ts-ignore: decorator
@inline
function toUnits(areIntegers: bool, a: usize, tokens: i32, sums: usize, lows: usize): void {
  const segments = load<usize>(a, SEGMENTS), steps = load<usize>(a, X_STEPS);
  let at = sums, low = lows;
  for (let token = 0; token < tokens; token++) {
    const unit = v128.load32_splat(unitOf(steps, segments, token));
    for (const end = at + SUMS; at < end; at += 16, low += 16) {
      const sum = v128.load(at), more = v128.load(low);
      v128.store(at, areIntegers ? inUnits(sum, more, unit) : floatsInUnits(sum, more, unit));
    }
  }
}

/** Writes sixteen rows' results, of integer sums in steps, and of those of lower bits, with what lists have. */
export function finishSteps(a: usize, row: i32, tokens: i32, sums: usize, lows: usize): void {
  if (load<usize>(a, LISTS) == 0) {
    if (load<i32>(a, ACTIVATION) == NONE) return writeSteps(a, row, tokens, sums, lows);
    scaleSteps(a, row, tokens, sums, lows);
    return writeActivated(a, row, tokens, sums);
  }
  toUnits(true, a, tokens, sums, lows);
  finishSums(a, row, tokens, sums, lows);
}

/** The same of sums in steps that have become float32. */
export function finishFloatSteps(a: usize, row: i32, tokens: i32, sums: usize, lows: usize): void {
  toUnits(false, a, tokens, sums, lows);
  finishSums(a, row, tokens, sums, lows);
}

/**
 * Writes sixteen rows' results, of sums in float32, with what lists have.
 *
 * @param room As many bytes as sums have.
 */
export function finishSums(a: usize, row: i32, tokens: i32, sums: usize, room: usize): void {
  addLists(a, row, tokens, sums, room);
  if (load<i32>(a, ACTIVATION) == NONE) return writeFloats(a, row, tokens, sums);
  scaleFloats(a, row, tokens, sums);
  writeActivated(a, row, tokens, sums);
}
