/**
 * Causal attention over a cache in pages of 64 positions.
 *
 * A page has room for all layers and key/value heads of a model; `page.ts` and
 * `page_int8.ts` have what one of these holds.
 *
 * Tokens of several sequences may be run at once, each with the pages of its own. What a token gets
 * depends on its position and on its sequence's cache alone, never on how many tokens are run at once or
 * by how many threads.
 */
import { AHEAD, touch } from "./ahead";
import { PAGES, POSITIONS } from "./control";
import { exp2OfNegative } from "./math";
import {
  appendKeyF32,
  appendValueF32,
  capScores,
  exponentials,
  headBytes,
  highestSeen,
  mixF32,
  scoresF32,
} from "./page";
import {
  appendKeyInt8,
  appendValueInt8,
  mixInt8,
  mixInt8OfTwo,
  narrowQuery,
  scoresInt8,
  scoresInt8OfTwo,
  touchInt8,
} from "./page_int8";
import { capInt8, chooseScales, highestInt8, narrowAll, PROBABILITIES, weigh, WORK } from "./probabilities";
import { turnHalves, turnNeighbours } from "./rotary";
import { spread, spreadGain } from "./spread";
import { normHead, share } from "./vectors";

/** Addresses of vectors; the word behind each is how many bytes tokens are apart. */
const QUERIES: usize = 8, KEYS: usize = 16, VALUES: usize = 24, OUT: usize = 32;
const HEADS: usize = 40, KV_HEADS: usize = 44, DIM: usize = 48;
/** Bytes from a page's beginning to this layer's part of it. */
const LAYER: usize = 52;
const COSINES: usize = 56, SINES: usize = 60;
/** Tokens that are seen; 0 is all. */
const WINDOW: usize = 64;
/** Factor of scores, log2 e in it: 2^x is cheaper than e^x. */
const SCALE: usize = 68;
/** Not 0: the cache is int8. */
const IS_INT8: usize = 72;
/** Room for a thread, and bytes of it: scores and probabilities of a page, then, of several tokens, partial results. */
const SCRATCH: usize = 76, SCRATCH_BYTES: usize = 80;

/** Elements of a head that are turned. */
const TURNED: usize = 84;
/** What scores are capped by, in their units; 0 is nothing. */
const CAP: usize = 88;
/** Not 0: neighbouring elements are turned together, not those of two halves. */
const INTERLEAVED: usize = 92;
/** Weights of the RMS norms of turned heads, each with its epsilon in the word behind it; 0 is no norm. */
const QUERY_NORM: usize = 96, KEY_NORM: usize = 104;
/** Room for the partial results of one token, of all heads, which threads fill together. */
const PARTIALS: usize = 112;
/** A score for each head that counts, and stands for nothing; 0 is none. */
const SINKS: usize = 116;

/** log2 e: sinks are scores of e^x. */
const LOG2E: f32 = 1.4426950408889634;

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
function headOf(a: usize, word: usize, token: i32, head: i32): usize {
  return load<usize>(a + word) + <usize> token * <usize> load<u32>(a + word, 4) +
    (<usize> head * <usize> load<u32>(a, DIM) << 2);
}

/** What a token's page `index` has of this layer and a key/value head. */
// @ts-ignore: decorator
@inline
function partOf(a: usize, token: i32, index: i32, group: i32): usize {
  const bytes = headBytes(<usize> load<u32>(a, DIM), load<i32>(a, IS_INT8) != 0);
  return page(token, index) + load<usize>(a, LAYER) + <usize> group * bytes;
}

/** Bytes at the beginning of a thread's room: scores of a page, probabilities, and a turned key. */
// @ts-ignore: decorator
@inline
function workBytes(dim: usize, perGroup: i32): usize {
  return <usize> perGroup * WORK + (dim << 2);
}

/** Bytes of a partial result: what a head makes of a page. Largest score, sum of 2^…, mixed values. */
// @ts-ignore: decorator
@inline
function partialBytes(dim: usize): usize {
  return (dim << 2) + 16;
}

// @ts-ignore: decorator
@inline
function scratchOf(a: usize, thread: i32): usize {
  return load<usize>(a, SCRATCH) + <usize> thread * <usize> load<u32>(a, SCRATCH_BYTES);
}

/**
 * Turns queries in place, and puts turned keys, and values, into the cache; queries and keys may be normed on the way.
 *
 * Where the cache is int8, queries are quantised too, in their own place. Heads go to one thread after the other, those
 * of keys first, then those of values, which take the longest: so all threads have as many of each.
 */
export function append(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const heads = load<i32>(a, HEADS), kvHeads = load<i32>(a, KV_HEADS), dim = load<i32>(a, DIM);
  const isInt8 = load<i32>(a, IS_INT8) != 0;
  const turned = scratchOf(a, thread) + <usize> (heads / kvHeads) * WORK;
  const scale = load<f32>(a, SCALE) / <f32> spreadGain(dim);
  const units = heads + 2 * kvHeads;
  for (let unit = thread; unit < units * tokens; unit += threads) {
    const token = unit / units, which = unit % units;
    const position = positionOf(token);
    if (which >= 2 * kvHeads) {
      const q = headOf(a, QUERIES, token, which - 2 * kvHeads);
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

/** First position that a token sees. */
// @ts-ignore: decorator
@inline
function firstSeen(a: usize, position: i32): i32 {
  const window = load<i32>(a, WINDOW);
  return window > 0 ? max(0, position - window + 1) : 0;
}

/** The first place that it sees in a page, and the last. */
// @ts-ignore: decorator
@inline
function firstIn(a: usize, position: i32, index: i32): i32 {
  return max(firstSeen(a, position) - (index << 6), 0);
}
// @ts-ignore: decorator
@inline
function lastIn(position: i32, index: i32): i32 {
  return min(position - (index << 6), 63);
}

/** How many pages a token sees. */
// @ts-ignore: decorator
@inline
function pagesSeen(a: usize, position: i32): i32 {
  return (position >> 6) - (firstSeen(a, position) >> 6) + 1;
}

/**
 * Attention page by page: all heads that share a page's keys meet it while it is in the nearest cache.
 * Each page gives a partial result, which {@link combine} puts together in the order of pages.
 *
 * One token: heads of pages are shared out among threads, to each those that follow one another. Several: tokens are,
 * and each is combined at once.
 */
export function attend(a: usize, tokens: i32, thread: i32, threads: i32): void {
  if (tokens == 1) return attendOne(a, thread, threads);
  const kvHeads = load<i32>(a, KV_HEADS), dim = <usize> load<u32>(a, DIM);
  const perGroup = load<i32>(a, HEADS) / kvHeads;
  const partials = scratchOf(a, thread) + workBytes(dim, perGroup);
  for (let unit = thread; unit < kvHeads * tokens; unit += threads) {
    const token = unit / kvHeads, head = unit % kvHeads * perGroup;
    const position = positionOf(token);
    const first = firstSeen(a, position) >> 6, pages = pagesSeen(a, position);
    for (let index = 0; index < pages; index++) {
      const to = partials + <usize> index * partialBytes(dim);
      attendPage(a, token, head, perGroup, first + index, to, <usize> pages * partialBytes(dim), thread);
    }
    for (let i = 0; i < perGroup; i++) {
      combineOne(a, token, head + i, partials + <usize> (i * pages) * partialBytes(dim), pages);
    }
  }
}

/** A thread's part of what the only token sees. */
function attendOne(a: usize, thread: i32, threads: i32): void {
  const heads = load<i32>(a, HEADS), dim = <usize> load<u32>(a, DIM), position = positionOf(0);
  const perGroup = heads / load<i32>(a, KV_HEADS);
  const first = firstSeen(a, position) >> 6, pages = pagesSeen(a, position);
  const partials = load<usize>(a, PARTIALS), apart = <usize> pages * partialBytes(dim);
  const end = firstUnit(a, thread + 1, threads);
  for (let unit = firstUnit(a, thread, threads), touched = 0; unit < end;) {
    const index = unit / heads, head = unit % heads;
    // Heads that share a page's keys, as far as they are the thread's.
    const behind = min(end, unit + perGroup - head % perGroup);
    if (unit >= touched) touched = touchPages(a, first, unit, end, thread);
    const to = partials + <usize> (head * pages + index) * partialBytes(dim);
    attendPage(a, 0, head, behind - unit, first + index, to, apart, thread);
    unit = behind;
  }
}

/**
 * The first unit, a head of a page, that is a thread's: each has as many sixteens of positions to go through, as near
 * as heads of pages allow. Of the first page and the last, not all may be seen.
 */
function firstUnit(a: usize, thread: i32, threads: i32): i32 {
  const heads = load<i32>(a, HEADS), position = positionOf(0);
  const first = firstSeen(a, position) >> 4, behind = (position >> 4) + 1;
  const before = share(heads * (behind - first), thread, threads), index = first + before / heads >> 2;
  const begin = max(first, index << 2), count = min(behind, index + 1 << 2) - begin;
  const units = (index - (first >> 2)) * heads;
  // Behind the last page there is nothing.
  return count > 0 ? units + (before - (begin - first) * heads + count - 1) / count : units;
}

/**
 * Reads what the only token will meet of the cache from `unit` on, a word of each line: to multiply with it takes so
 * many instructions that a processor looks no more than a few lines ahead, and pages lie far apart.
 *
 * @param first The first page that it sees.
 * @param end Behind the thread's last unit, a head of a page.
 * @returns Behind the last unit that was read.
 */
function touchPages(a: usize, first: i32, unit: i32, end: i32, thread: i32): i32 {
  const kvHeads = load<i32>(a, KV_HEADS), dim = <usize> load<u32>(a, DIM), isInt8 = load<i32>(a, IS_INT8) != 0;
  const perGroup = load<i32>(a, HEADS) / kvHeads, size = headBytes(dim, isInt8), position = positionOf(0);
  let part = unit / perGroup, touched = 0, from: usize = 0, to: usize = 0;
  const behind = min((end + perGroup - 1) / perGroup, part + max(1, <i32> (AHEAD / size)));
  for (; part < behind; part++) {
    const index = first + part / kvHeads, at = partOf(a, 0, index, part % kvHeads);
    const begin = firstIn(a, position, index), last = lastIn(position, index);
    if (isInt8 && (begin > 0 || last < 63)) touched |= touchInt8(at, begin, last, dim);
    else {
      // What lies together is one piece: the end of each is foreseen by no processor, and holds up what comes next.
      if (at != to) {
        touched |= touch(from, to);
        from = at;
      }
      to = at + size;
    }
  }
  touched |= touch(from, to);
  store<i32>(scratchOf(a, thread), touched);
  return behind * perGroup;
}

/** Puts the partial results of one token together. */
export function combine(a: usize, tokens: i32, thread: i32, threads: i32): void {
  if (tokens > 1) return;
  const dim = <usize> load<u32>(a, DIM), position = positionOf(0);
  const pages = pagesSeen(a, position), partials = load<usize>(a, PARTIALS);
  for (let head = thread; head < load<i32>(a, HEADS); head += threads) {
    combineOne(a, 0, head, partials + <usize> (head * pages) * partialBytes(dim), pages);
  }
}

function combineOne(a: usize, token: i32, head: i32, partials: usize, pages: i32): void {
  const dim = <usize> load<u32>(a, DIM), size = partialBytes(dim);
  const out = headOf(a, OUT, token, head), end = partials + <usize> pages * size;
  let highest: f32 = -Infinity;
  for (let at = partials; at < end; at += size) highest = max(highest, load<f32>(at));
  let total: f32 = 0;
  const sinks = load<usize>(a, SINKS);
  if (sinks != 0) {
    const sink = load<f32>(sinks + (<usize> head << 2)) * LOG2E;
    highest = max(highest, sink);
    total = f32x4.extract_lane(exp2OfNegative(f32x4.splat(sink - highest)), 0);
  }
  for (let at = partials; at < end; at += size) {
    const weights = exp2OfNegative(f32x4.splat(load<f32>(at) - highest)), weight = f32x4.extract_lane(weights, 0);
    total += load<f32>(at, 4) * weight;
    // In the place of the largest score, which nobody reads any more.
    store<f32>(at, weight);
  }
  const factor: f32 = 1 / total, factors = f32x4.splat(factor), zero = f32x4.splat(0);
  let d: usize = 0;
  // Four vectors, so that an addition need not wait for the one before.
  for (; d + 16 <= dim; d += 16) {
    let s0 = zero, s1 = zero, s2 = zero, s3 = zero, values = partials + (d << 2);
    for (let at = partials; at < end; at += size, values += size) {
      const weight = v128.load32_splat(at);
      s0 = f32x4.add(s0, f32x4.mul(v128.load(values, 16), weight));
      s1 = f32x4.add(s1, f32x4.mul(v128.load(values, 32), weight));
      s2 = f32x4.add(s2, f32x4.mul(v128.load(values, 48), weight));
      s3 = f32x4.add(s3, f32x4.mul(v128.load(values, 64), weight));
    }
    const to = out + (d << 2);
    v128.store(to, f32x4.mul(s0, factors));
    v128.store(to, f32x4.mul(s1, factors), 16);
    v128.store(to, f32x4.mul(s2, factors), 32);
    v128.store(to, f32x4.mul(s3, factors), 48);
  }
  for (; d + 4 <= dim; d += 4) {
    let sum = f32x4.splat(0);
    for (let at = partials; at < end; at += size) {
      sum = f32x4.add(sum, f32x4.mul(v128.load(at + (d << 2), 16), v128.load32_splat(at)));
    }
    v128.store(out + (d << 2), f32x4.mul(sum, factors));
  }
  for (; d < dim; d++) {
    let sum: f32 = 0;
    for (let at = partials; at < end; at += size) sum += load<f32>(at + (d << 2), 16) * load<f32>(at);
    store<f32>(out + (d << 2), sum * factor);
  }
}

/** What heads that share its keys make of a page, from one on; the results are `apart` bytes from each other. */
function attendPage(
  a: usize,
  token: i32,
  head: i32,
  heads: i32,
  index: i32,
  to: usize,
  apart: usize,
  thread: i32,
): void {
  const width = <usize> load<u32>(a, DIM), isInt8 = load<i32>(a, IS_INT8) != 0;
  const perGroup = load<i32>(a, HEADS) / load<i32>(a, KV_HEADS);
  const position = positionOf(token);
  const first = firstIn(a, position, index), last = lastIn(position, index);
  const scores = scratchOf(a, thread), from = partOf(a, token, index, head / perGroup);
  let q = headOf(a, QUERIES, token, head);
  if (isInt8) {
    attendInt8(from, q, scores, to, apart, first, last, width, heads, load<f32>(a, CAP));
    return;
  }
  for (let i = 0; i < heads; i++) {
    scoresF32(from, q, scores, first, last, width, load<f32>(a, SCALE));
    if (load<f32>(a, CAP) != 0) capScores(scores, first, last, load<f32>(a, CAP));
    const highest = highestSeen(scores, first, last);
    store<f32>(to, highest);
    store<f32>(to, exponentials(scores, first, last, highest), 4);
    mixF32(from, scores, to + 16, first, last, width);
    to += apart;
    q += width << 2;
  }
}

/** What heads make of an int8 page: step by step for all of them, so that none waits for what another one does. */
function attendInt8(
  from: usize,
  q: usize,
  scores: usize,
  to: usize,
  apart: usize,
  first: i32,
  last: i32,
  width: usize,
  heads: i32,
  cap: f32,
): void {
  const end = scores + <usize> heads * WORK;
  let at = scores, query = q;
  for (; at + WORK < end; at += 2 * WORK) {
    scoresInt8OfTwo(from, query, at, at + WORK, first, last, width);
    query += width << 3;
  }
  if (at < end) scoresInt8(from, query, at, first, last, width);
  if (cap != 0) { for (at = scores; at < end; at += WORK) capInt8(at, first, last, cap); }
  let out = to;
  for (at = scores; at < end; at += WORK) {
    store<f32>(out, highestInt8(at, first, last));
    out += apart;
  }
  out = to;
  for (at = scores; at < end; at += WORK) {
    store<f32>(out, weigh(from, at, first, last, width, load<f32>(out)), 4);
    out += apart;
  }
  for (at = scores; at < end; at += WORK) chooseScales(at);
  for (at = scores; at < end; at += WORK) narrowAll(at, first, last);
  out = to + 16;
  for (at = scores + PROBABILITIES; at + WORK < end; at += 2 * WORK) {
    mixInt8OfTwo(from, at, at + WORK, out, apart, first, last, width);
    out += apart << 1;
  }
  if (at < end) mixInt8(from, at, out, first, last, width);
}
