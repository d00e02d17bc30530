/**
 * Outliers of several tokens: which segments have them, and what their lower bits add to the sums of slots.
 *
 * Few segments have any: of SmolLM2's inputs one in eighteen, and then often those of many tokens. So lower
 * bits are multiplied apart, each segment's weights loaded once for all tokens that want them. Sums are
 * integers: their order does not matter.
 *
 * A list has for each segment where its entries begin, which is where those of the one before end. An entry
 * is what a product needs of a token: where its inputs are, their step, where its sums are, and the segment.
 */
import {
  flagsOf,
  inputsOf,
  SEGMENTS,
  SLOTS_ONE,
  SLOTS_TWO,
  stepsOf,
  TILE_SEGMENT,
  TILE_WORDS,
  X,
  X_LOW,
  X_STEPS,
  X_STRIDE,
} from "./linear";
import { secondBeginning, twoSlots, UNPACKED } from "./pairs";
import { addTimes, WIDE_PARTS } from "./simd";
import { unpackedBytes } from "./slots";
import { SUMS } from "./sums";

/** Bytes of an entry. */
export const ENTRY: usize = 16;

/** Where a token's inputs of lower bits are. */
// @ts-ignore: decorator
@inline
export function entryInputs(entry: usize): usize {
  return load<usize>(entry);
}

/** Their step, in all lanes. */
// @ts-ignore: decorator
@inline
export function entryStep(entry: usize): v128 {
  return v128.load32_splat(entry, 4);
}

/** Where the token's sums of lower bits are, of sixteen rows. */
// @ts-ignore: decorator
@inline
export function sumsOf(entry: usize): usize {
  return load<usize>(entry, 8);
}

/** Which segment it is. */
// @ts-ignore: decorator
@inline
export function entrySegment(entry: usize): usize {
  return load<usize>(entry, 12);
}

/** Where the entries of segment `s` begin in a list. */
// @ts-ignore: decorator
@inline
export function beginOf(list: usize, s: usize): usize {
  return load<usize>(list + (s << 2));
}

/** Where they end. */
// @ts-ignore: decorator
@inline
export function endOf(list: usize, s: usize): usize {
  return load<usize>(list + (s << 2), 4);
}

/**
 * Lists the outliers of several tokens: all rows would look through the same flags again.
 *
 * @param lows Where the sums of lower bits will be.
 * @param to Room of a thread.
 * @returns What lies behind the list.
 */
export function listOutliers(a: usize, tokens: i32, lows: usize, to: usize): usize {
  const segments = load<usize>(a, SEGMENTS), stride = <usize> load<u32>(a, X_STRIDE);
  const x = load<usize>(a, X) + <usize> load<u32>(a, X_LOW), steps = load<usize>(a, X_STEPS);
  let at = to + ((segments + 1) << 2);
  for (let s: usize = 0; s < segments; s++) {
    store<usize>(to + (s << 2), at);
    for (let token = 0; token < tokens; token += 4) {
      let four = load<u32>(flagsOf(a, token, 0, tokens) + (s << 3));
      for (; four != 0; four &= four - 1) {
        const t = token + (<i32> ctz<u32>(four) >> 3);
        const step = stepsOf(steps, segments, t, 0, tokens) + s * TILE_WORDS;
        store<usize>(at, inputsOf(x, stride, t) + s * TILE_SEGMENT);
        store<u32>(at, load<u32>(step), 4);
        store<usize>(at, lows + <usize> t * SUMS, 8);
        store<usize>(at, s, 12);
        at += ENTRY;
      }
    }
  }
  store<usize>(to + (segments << 2), at);
  return (at + 15) & ~15;
}

/** Adds all that a list has, times four unpacked rows. */
// @ts-ignore: decorator
@inline
function addAll(kind: i32, segments: usize, weights: usize, list: usize, place: usize): void {
  let w = weights, at = beginOf(list, 0);
  for (let s: usize = 0; s < segments; s++, w += unpackedBytes(kind)) {
    const end = endOf(list, s);
    if (at == end) continue;
    const begin = v128.load(w);
    const v0 = v128.load(w, 16), v1 = v128.load(w, 32), i0 = v128.load(w, 48), i1 = v128.load(w, 64);
    const second = w + (kind == SLOTS_ONE ? 0 : UNPACKED);
    const v2 = v128.load(second, 16), v3 = v128.load(second, 32);
    const i2 = v128.load(second, 48), i3 = v128.load(second, 64);
    for (; at < end; at += ENTRY) {
      const x = entryInputs(at), step = entryStep(at), to = sumsOf(at) + place;
      const y = v128.load(x), z = v128.load(x, 16);
      let sum = v128.load(to);
      if (kind == SLOTS_ONE) sum = addTimes(sum, twoSlots(begin, v0, v1, i0, i1, y, z), step);
      else {
        const first = twoSlots(begin, v0, v1, i0, i1, y, y);
        if (!WIDE_PARTS) sum = addTimes(sum, first, step);
        sum = addTimes(sum, twoSlots(secondBeginning(first, w), v2, v3, i2, i3, z, z), step);
      }
      v128.store(to, sum);
    }
  }
}

/** Each in a function of its own: engines compile small functions better. */
function addAllOfOne(segments: usize, weights: usize, list: usize, place: usize): void {
  addAll(SLOTS_ONE, segments, weights, list, place);
}
function addAllOfTwo(segments: usize, weights: usize, list: usize, place: usize): void {
  addAll(SLOTS_TWO, segments, weights, list, place);
}

/**
 * Adds the lower bits of all tokens' outliers in a list, times four unpacked rows, to their sums.
 *
 * @param place Where the sums of these rows are in those of a token.
 */
export function addOutliers(kind: i32, segments: usize, weights: usize, list: usize, place: usize): void {
  if (kind == SLOTS_ONE) addAllOfOne(segments, weights, list, place);
  else addAllOfTwo(segments, weights, list, place);
}
