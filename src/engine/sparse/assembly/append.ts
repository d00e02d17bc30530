/**
 * Puts keys and values into the cache, and turns queries: what comes before attention.
 */
import {
  COSINES,
  DIM,
  headOf,
  HEADS,
  INTERLEAVED,
  IS_INT8,
  KEY_NORM,
  KEYS,
  KV_HEADS,
  partOf,
  positionOf,
  QUERIES,
  QUERY_NORM,
  SCALE,
  scratchOf,
  SINES,
  TURNED,
  VALUES,
} from "./attention_step";
import { appendKeyF32, appendValueF32 } from "./page";
import { appendKeyInt8, appendValueInt8, narrowQuery } from "./page_int8";
import { WORK } from "./probabilities";
import { turnHalves, turnNeighbours } from "./rotary";
import { spread, spreadGain } from "./spread";
import { normHead } from "./vectors";

/**
 * Turns queries in place, and puts turned keys, and values, into the cache, where there are any; queries and keys may
 * be normed on the way.
 *
 * Where the cache is int8, queries are quantised too, in their own place. Heads go to one thread after the other, those
 * of keys first, then those of values, which take the longest: so all threads have as many of each.
 */
export function append(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const heads = load<i32>(a, HEADS), kvHeads = load<i32>(a, KV_HEADS), dim = load<i32>(a, DIM);
  const isInt8 = load<i32>(a, IS_INT8) != 0;
  const turned = scratchOf(a, thread) + <usize> (heads / kvHeads) * WORK;
  const scale = load<f32>(a, SCALE) / <f32> spreadGain(dim);
  // Layers without keys attend to what others have put there.
  const kept = load<usize>(a, KEYS) == 0 ? 0 : 2 * kvHeads, units = heads + kept;
  for (let unit = thread; unit < units * tokens; unit += threads) {
    const token = unit / units, which = unit % units;
    const position = positionOf(token);
    if (which >= kept) {
      const q = headOf(a, QUERIES, token, which - kept);
      turn(a, q, q, position, dim);
      normTurned(a, QUERY_NORM, q, dim);
      if (!isInt8) continue;
      spread(q, dim);
      narrowQuery(q, dim, scale);
      continue;
    }
    const to = partOf(a, token, position >> 6, which % kvHeads), place = position & 63;
    if (which < kvHeads) {
      turn(a, headOf(a, KEYS, token, which), turned, position, dim);
      normTurned(a, KEY_NORM, turned, dim);
      if (isInt8) {
        spread(turned, dim);
        appendKeyInt8(turned, to, place, dim);
      } else appendKeyF32(turned, to, place, dim);
      continue;
    }
    const v = headOf(a, VALUES, token, which - kvHeads);
    if (isInt8) appendValueInt8(v, to, place, dim);
    else appendValueF32(v, to, place, dim);
  }
}

/** Rotary embedding of one head, or of its first elements; what is not turned is copied. */
function turn(a: usize, from: usize, to: usize, position: i32, dim: i32): void {
  const cosines = load<usize>(a, COSINES);
  if (cosines == 0) {
    if (from != to) memory.copy(to, from, <usize> dim << 2);
    return;
  }
  const turned = <usize> load<u32>(a, TURNED) << 2, half = turned >> 1;
  const rest = (<usize> dim << 2) - turned;
  if (from != to && rest != 0) memory.copy(to + turned, from + turned, rest);
  const c = cosines + <usize> position * half, s = load<usize>(a, SINES) + <usize> position * half;
  if (load<i32>(a, INTERLEAVED) != 0) return turnNeighbours(from, to, c, s, turned);
  turnHalves(from, to, c, s, half);
}

/** The RMS norm of a turned head, by the word that has the address of its weights: where there are any. */
function normTurned(a: usize, word: usize, head: usize, dim: i32): void {
  const weight = load<usize>(a + word);
  if (weight != 0) normHead(head, dim, weight, load<f32>(a + word, 4));
}
