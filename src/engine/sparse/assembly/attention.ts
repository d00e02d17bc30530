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
import {
  CAP,
  DIM,
  firstIn,
  firstSeen,
  headOf,
  HEADS,
  IS_INT8,
  KV_HEADS,
  lastIn,
  pagesSeen,
  partialBytes,
  PARTIALS,
  partOf,
  positionOf,
  QUERIES,
  SCALE,
  scratchOf,
  workBytes,
} from "./attention_step";
import { combineOne } from "./combine";
import { capScores, exponentials, headBytes, highestSeen, mixF32, scoresF32 } from "./page";
import { mixInt8, mixInt8OfTwo, scoresInt8, scoresInt8OfTwo, touchInt8 } from "./page_int8";
import { capInt8, chooseScales, highestInt8, narrowAll, PROBABILITIES, weigh, WORK } from "./probabilities";
import { share } from "./vectors";

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
