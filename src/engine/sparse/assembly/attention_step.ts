/**
 * What the steps of attention share: what their words mean, where a token's vectors and its part of a page are, and
 * which positions it sees.
 */
import { PAGES, POSITIONS } from "./control";
import { headBytes } from "./page";
import { WORK } from "./probabilities";

/** Addresses of vectors; the word behind each is how many bytes tokens are apart. */
export const QUERIES: usize = 8, KEYS: usize = 16, VALUES: usize = 24, OUT: usize = 32;
export const HEADS: usize = 40, KV_HEADS: usize = 44, DIM: usize = 48;
/** Bytes from a page's beginning to this layer's part of it. */
const LAYER: usize = 52;
export const COSINES: usize = 56, SINES: usize = 60;
/** Tokens that are seen; 0 is all. */
const WINDOW: usize = 64;
/** Factor of scores, log2 e in it: 2^x is cheaper than e^x. */
export const SCALE: usize = 68;
/** Not 0: the cache is int8. */
export const IS_INT8: usize = 72;
/** Room for a thread, and bytes of it: scores and probabilities of a page, then, of several tokens, partial results. */
const SCRATCH: usize = 76, SCRATCH_BYTES: usize = 80;

/** Elements of a head that are turned. */
export const TURNED: usize = 84;
/** What scores are capped by, in their units; 0 is nothing. */
export const CAP: usize = 88;
/** Not 0: neighbouring elements are turned together, not those of two halves. */
export const INTERLEAVED: usize = 92;
/** Weights of the RMS norms of turned heads, each with its epsilon in the word behind it; 0 is no norm. */
export const QUERY_NORM: usize = 96, KEY_NORM: usize = 104;
/** Room for the partial results of one token, of all heads, which threads fill together. */
export const PARTIALS: usize = 112;
/** A score for each head that counts, and stands for nothing; 0 is none. */
export const SINKS: usize = 116;

/** Where a page of a token's sequence begins. */
// @ts-ignore: decorator
@inline
export function page(token: i32, index: i32): usize {
  const pages = load<usize>(load<usize>(PAGES) + (<usize> token << 2));
  return load<usize>(pages + (<usize> index << 2));
}

/** A token's position in its sequence. */
// @ts-ignore: decorator
@inline
export function positionOf(token: i32): i32 {
  return load<i32>(load<usize>(POSITIONS) + (<usize> token << 2));
}

/** A token's vector of one head, of queries, keys, values or results: by the word that has their address. */
// @ts-ignore: decorator
@inline
export function headOf(a: usize, word: usize, token: i32, head: i32): usize {
  return load<usize>(a + word) + <usize> token * <usize> load<u32>(a + word, 4) +
    (<usize> head * <usize> load<u32>(a, DIM) << 2);
}

/** What a token's page `index` has of this layer and a key/value head. */
// @ts-ignore: decorator
@inline
export function partOf(a: usize, token: i32, index: i32, group: i32): usize {
  const bytes = headBytes(<usize> load<u32>(a, DIM), load<i32>(a, IS_INT8) != 0);
  return page(token, index) + load<usize>(a, LAYER) + <usize> group * bytes;
}

/** Bytes at the beginning of a thread's room: scores of a page, probabilities, and a turned key. */
// @ts-ignore: decorator
@inline
export function workBytes(dim: usize, perGroup: i32): usize {
  return <usize> perGroup * WORK + (dim << 2);
}

/** Bytes of a partial result: what a head makes of a page. Largest score, sum of 2^…, mixed values. */
// @ts-ignore: decorator
@inline
export function partialBytes(dim: usize): usize {
  return (dim << 2) + 16;
}

// @ts-ignore: decorator
@inline
export function scratchOf(a: usize, thread: i32): usize {
  return load<usize>(a, SCRATCH) + <usize> thread * <usize> load<u32>(a, SCRATCH_BYTES);
}

/** First position that a token sees. */
// @ts-ignore: decorator
@inline
export function firstSeen(a: usize, position: i32): i32 {
  const window = load<i32>(a, WINDOW);
  return window > 0 ? max(0, position - window + 1) : 0;
}

/** The first place that it sees in a page, and the last. */
// @ts-ignore: decorator
@inline
export function firstIn(a: usize, position: i32, index: i32): i32 {
  return max(firstSeen(a, position) - (index << 6), 0);
}
// @ts-ignore: decorator
@inline
export function lastIn(position: i32, index: i32): i32 {
  return min(position - (index << 6), 63);
}

/** How many pages a token sees. */
// @ts-ignore: decorator
@inline
export function pagesSeen(a: usize, position: i32): i32 {
  return (position >> 6) - (firstSeen(a, position) >> 6) + 1;
}
