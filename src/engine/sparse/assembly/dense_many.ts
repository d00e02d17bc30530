/**
 * Dense int8 matrices, times several tokens.
 *
 * Sixteen rows meet all tokens, two at a time, before the next sixteen are read. Their sums are in steps, as those of
 * slots are, and in memory: registers have those of a segment.
 */
import { fetch } from "./ahead";
import { addPart, addSegment, begin, denseInt8Size, SEGMENT_BYTES } from "./dense";
import {
  FEW_TOKENS,
  inputsOf,
  scratchOf,
  SEGMENTS,
  stepsOf,
  TILE_SEGMENT,
  TILE_WORDS,
  WEIGHTS,
  X,
  X_STEPS,
  X_STRIDE,
} from "./linear";
import { beginOf, ENTRY, entryInputs, entrySegment, entryStep, listOutliers, sumsOf } from "./outliers";
import { dot, lane, ones, wholeStep } from "./simd";
import { clear, finishSteps, SUM_ROWS, SUMS, sumsBytes } from "./sums";

/** The sums of sixteen rows with two tokens. */
function sumTwo(x: usize, steps: usize, segments: usize, weights: usize, to: usize): void {
  const one = ones();
  clear(to, 2);
  let xp = x, step = steps, w = weights;
  for (const last = x + segments * TILE_SEGMENT; xp < last;) {
    let p0 = begin(w), p1 = begin(w + 8), p2 = begin(w + 16), p3 = begin(w + 24);
    let q0 = p0, q1 = p1, q2 = p2, q3 = p3;
    // Eight columns at a time: with more, sums do not stay in registers.
    for (const end = xp + 32; xp < end; xp += 8) {
      const y01 = v128.load64_zero(xp), z01 = v128.load64_zero(xp, 32);
      let y = lane(y01, 0), z = lane(z01, 0), v = v128.load(w, 32);
      p0 = dot(v, y, p0, one), q0 = dot(v, z, q0, one);
      v = v128.load(w, 48), p1 = dot(v, y, p1, one), q1 = dot(v, z, q1, one);
      v = v128.load(w, 64), p2 = dot(v, y, p2, one), q2 = dot(v, z, q2, one);
      v = v128.load(w, 80), p3 = dot(v, y, p3, one), q3 = dot(v, z, q3, one);
      y = lane(y01, 1), z = lane(z01, 1);
      v = v128.load(w, 96), p0 = dot(v, y, p0, one), q0 = dot(v, z, q0, one);
      v = v128.load(w, 112), p1 = dot(v, y, p1, one), q1 = dot(v, z, q1, one);
      v = v128.load(w, 128), p2 = dot(v, y, p2, one), q2 = dot(v, z, q2, one);
      v = v128.load(w, 144), p3 = dot(v, y, p3, one), q3 = dot(v, z, q3, one);
      w += 128;
    }
    let t = wholeStep(v128.load32_splat(step));
    addPart(to, p0, t), addPart(to + 16, p1, t);
    addPart(to + 32, p2, t), addPart(to + 48, p3, t);
    t = wholeStep(v128.load32_splat(step, 4));
    addPart(to + SUMS, q0, t), addPart(to + SUMS + 16, q1, t);
    addPart(to + SUMS + 32, q2, t), addPart(to + SUMS + 48, q3, t);
    xp += TILE_SEGMENT - 32;
    step += TILE_WORDS;
    w += 32;
  }
}

/** Adds the lower bits of all tokens' outliers in a list, times sixteen rows at `w`, to their sums. */
function addLows(w: usize, segments: usize, list: usize): void {
  for (let at = beginOf(list, 0), end = beginOf(list, segments); at < end; at += ENTRY) {
    addSegment(w + entrySegment(at) * SEGMENT_BYTES, entryInputs(at), wholeStep(entryStep(at)), sumsOf(at));
  }
}

/** y = W·x of int8 for rows `first` to `last`, multiples of 16, and several tokens. */
export function denseInt8Many(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const segments = load<usize>(a, SEGMENTS), size = denseInt8Size(a), stride = <usize> load<u32>(a, X_STRIDE);
  const sums = scratchOf(a, thread), lows = sums + sumsBytes(tokens), list = lows + sumsBytes(tokens);
  listOutliers(a, tokens, lows, list);
  const weights = load<usize>(a, WEIGHTS), end = weights + (<usize> last >> 4) * size;
  let at = weights + (<usize> first >> 4) * size, fetched: usize = 0;
  for (let row = first; row < last; row += SUM_ROWS) {
    if (tokens > FEW_TOKENS && at >= fetched) fetched = fetch(at, end, sums);
    for (let token = 0; token < tokens; token += 2) {
      const x = inputsOf(load<usize>(a, X), stride, token);
      const steps = stepsOf(load<usize>(a, X_STEPS), segments, token, 0, tokens);
      sumTwo(x, steps, segments, at, sums + <usize> token * SUMS);
    }
    clear(lows, tokens);
    addLows(at, segments, list);
    finishSteps(a, row, tokens, sums, lows);
    at += size;
  }
}
