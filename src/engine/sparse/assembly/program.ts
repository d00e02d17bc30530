/**
 * Runs a program: every thread goes through all steps and does a part of each.
 *
 * A step is a row of 32-bit words: its operation, its size in words, its arguments. `plan/encode.ts`
 * writes them.
 */
import { append } from "./append";
import { attend } from "./attention";
import { forgetTurned, turnInputs } from "./beside";
import { combine } from "./combine";
import {
  areSharesWhole,
  barrier,
  CHUNKS_OF_ONE,
  EPOCH,
  LEAD,
  LED,
  LOGITS,
  PROGRAM,
  PROGRESS,
  QUIT,
  SPINS,
  TAKEN,
  TAKEN_BYTES,
  THREADS,
  TOKENS,
} from "./control";
import { convolve } from "./convolve";
import { delta } from "./delta";
import { denseF16, denseF32 } from "./dense_floats";
import { denseInt4Many } from "./dense_int4_many";
import { denseInt8Many } from "./dense_many";
import {
  COUNTER,
  DENSE_F16,
  DENSE_F32,
  DENSE_INT4,
  DENSE_INT8,
  FEW_TOKENS,
  GROUP_SCALES,
  KIND,
  LISTS_F16,
  LISTS_F32,
  SKETCH,
  SLOTS_ANY,
  SLOTS_ONE_INT4,
  SLOTS_TWO_INT4,
} from "./linear";
import { listsF16One, listsF32One } from "./lists";
import { listsMany } from "./lists_many";
import { quantise } from "./quantise";
import { computeRun, isOfRuns } from "./one_token";
import { endOfRun, firstRow, lastRow, next, pairsOf } from "./runs";
import { beginSketch, computeBest, computeWithin, isSketched, sketch } from "./sketch";
import { slotsAnyMany } from "./slots_any_many";
import { slotsAnyOne } from "./slots_any_one";
import { slotsInt4Many } from "./slots_int4";
import { slotsInt4Few } from "./slots_int4_few";
import { slotsFew } from "./slots_few";
import { slotsOneGrouped } from "./slots_grouped";
import { slotsMany } from "./slots_many";
import { elementwise, embed, norm, select, share } from "./vectors";

const END = 0, BARRIER = 1, EMBED = 2, NORM = 3, QUANTISE = 4, LINEAR = 5, ELEMENTWISE = 6;
const APPEND = 7, ATTEND = 8, SELECT = 9, COMBINE = 10, SKETCHED = 11, ENOUGH = 12;
const CONVOLVE = 13, DELTA = 14;

/** When a barrier is needed. */
const ALWAYS = 0, FOR_MANY = 1; // and 2: for one token

/** One thread's part of a run; false when another thread was lost. */
function runShare(thread: i32): bool {
  const threads = load<i32>(THREADS), logits = load<i32>(LOGITS);
  let tokens = load<i32>(TOKENS);
  let a = load<usize>(PROGRAM);
  for (;;) {
    const op = load<i32>(a);
    if (thread == 0) store<i32>(PROGRESS, load<i32>(PROGRESS) + 1);
    if (op == LINEAR) {
      a = products(a, tokens, thread, threads);
      continue;
    }
    if (op == SKETCHED) {
      const sketch = a;
      a = next(a);
      if (!isSketched(tokens)) continue;
      // In place of the product behind it.
      if (!largest(sketch, a, thread, threads)) return false;
      a = next(a);
      continue;
    }
    if (op == BARRIER) {
      // Some are needed only where threads share out the tokens, and some only where they do not.
      const when = load<i32>(a, 8);
      if (when == ALWAYS || (when == FOR_MANY) == (tokens > 1)) {
        if (!barrier(thread, threads)) return false;
      }
    } else if (op == QUANTISE) quantise(a, tokens, thread, threads);
    else if (op == NORM) norm(a, tokens, thread, threads);
    else if (op == APPEND) append(a, tokens, thread, threads);
    else if (op == ATTEND) attend(a, tokens, thread, threads);
    else if (op == COMBINE) combine(a, tokens, thread, threads);
    else if (op == ELEMENTWISE) elementwise(a, tokens, thread, threads);
    else if (op == CONVOLVE) convolve(a, tokens, thread, threads);
    else if (op == DELTA) delta(a, tokens, thread, threads);
    else if (op == EMBED) embed(a, tokens, thread, threads);
    else if (op == SELECT) {
      if (logits == 0) break;
      if (tokens > logits) {
        // All that moves is there, and nobody reads it before it has moved.
        if (!barrier(thread, threads)) return false;
        select(a, next(a), logits, thread, threads);
        if (!barrier(thread, threads)) return false;
      }
      tokens = logits;
    } else if (op == ENOUGH) {
      // What is in the cache is all that was wanted.
      if (logits == 0) break;
    } else break;
    a = next(a);
  }
  return barrier(thread, threads);
}

/** The largest logits, by a sketch of the head; false when another thread was lost. */
function largest(a: usize, product: usize, thread: i32, threads: i32): bool {
  beginSketch(a, thread);
  shareOut(a, product, 1, thread, threads);
  computeBest(a, product, thread);
  if (!barrier(thread, threads)) return false;
  computeWithin(a, product, thread, threads);
  return true;
}

/** Chunks of each thread's share of a run of products with several tokens, and 32s of rows of a chunk of large ones. */
const CHUNKS = 4, CHUNK_PAIRS = 8;

/** The products from `a` on that follow one another; returns what comes behind them. */
function products(a: usize, tokens: i32, thread: i32, threads: i32): usize {
  let end = next(a);
  while (load<i32>(end) == LINEAR) end = next(end);
  forgetTurned();
  shareOut(a, end, tokens, thread, threads);
  return end;
}

/**
 * The products from `a` to `end`, whose rows threads divide in chunks: each thread takes those of its own
 * share, then what others have not come to. A processor that is slower, or computes for somebody else for a
 * while, is not waited for longer than a chunk takes. But what fetches memory ahead begins anew with each product of
 * each chunk: with one token JavaScript says how many there are to be.
 *
 * A chunk is of all these products, one after the other: so rows that one reads of another's are there.
 */
function shareOut(a: usize, end: usize, tokens: i32, thread: i32, threads: i32): void {
  if (threads == 1 || areSharesWhole(tokens)) return chunk(a, end, thread, threads, tokens, thread);
  let pairs = 0;
  for (let step = a; step < end; step = next(step)) pairs = max(pairs, pairsOf(step));
  const each = tokens == 1 ? load<i32>(CHUNKS_OF_ONE) : CHUNKS;
  const chunks = min(pairs, max(threads * each, pairs / CHUNK_PAIRS));
  const counters = load<usize>(TAKEN) + (load<usize>(a, COUNTER) << 2);
  for (let i = 0; i < threads; i++) {
    const whose = (thread + i) % threads, first = share(chunks, whose, threads);
    const count = share(chunks, whose + 1, threads) - first;
    const counter = counters + <usize> whose * TAKEN_BYTES;
    while (atomic.load<i32>(counter) < count) {
      const taken = atomic.add<i32>(counter, 1);
      if (taken < count) chunk(a, end, first + taken, chunks, tokens, thread);
    }
  }
}

/** A chunk of each product from `a` to `end`. */
function chunk(a: usize, end: usize, which: i32, chunks: i32, tokens: i32, thread: i32): void {
  for (let step = a; step < end;) {
    if (tokens == 1 && isOfRuns(step)) {
      const behind = endOfRun(step, end);
      computeRun(step, behind, which, chunks, thread);
      step = behind;
      continue;
    }
    const first = firstRow(step, which, chunks), last = lastRow(step, which, chunks);
    if (first < last) linear(step, first, last, tokens, thread);
    step = next(step);
  }
}

/** Rows `first` to `last` of a product, multiples of 16; with one token not those of {@link computeRun}. */
function linear(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  const kind = load<i32>(a, KIND);
  if (tokens > 1) turnInputs(a, tokens, thread);
  if (kind < DENSE_INT8) {
    const isGrouped = load<usize>(a, GROUP_SCALES) != 0;
    if (tokens == 1) slotsOneGrouped(kind, a, first, last, thread);
    else if (tokens > FEW_TOKENS || isGrouped) slotsMany(kind, a, first, last, tokens, thread);
    else slotsFew(kind, a, first, last, tokens, thread);
  } else if (kind == SLOTS_ANY) {
    if (tokens == 1) slotsAnyOne(a, first, last, thread);
    else slotsAnyMany(a, first, last, tokens, thread);
  } else if (kind == DENSE_INT8) denseInt8Many(a, first, last, tokens, thread);
  else if (kind == SLOTS_ONE_INT4 || kind == SLOTS_TWO_INT4) {
    if (tokens > FEW_TOKENS) slotsInt4Many(kind, a, first, last, tokens, thread);
    else slotsInt4Few(kind, a, first, last, tokens, thread);
  } else if (kind == SKETCH) sketch(a, first, last, thread);
  else if (kind == DENSE_INT4) denseInt4Many(a, first, last, tokens, thread);
  else if (kind == LISTS_F32 || kind == LISTS_F16) {
    if (tokens > 1) listsMany(a, first, last, tokens, thread, kind == LISTS_F16);
    else if (kind == LISTS_F32) listsF32One(a, first, last, thread);
    else listsF16One(a, first, last, thread);
  } else if (kind == DENSE_F32) denseF32(a, first, last, tokens, thread);
  else if (kind == DENSE_F16) denseF16(a, first, last, tokens, thread);
}

/** A run of a caller that computes with the others, as the first thread. 0: done; 1: a thread was lost. */
export function run(): i32 {
  if (load<i32>(THREADS) > 1) {
    atomic.add<i32>(EPOCH, 1);
    atomic.notify(EPOCH, -1);
  }
  return runShare(0) ? 0 : 1;
}

/**
 * The next run of the first thread where the caller only waits: the caller bumps the epoch. 0: done;
 * 1: a thread was lost; -1: it is to quit.
 */
export function lead(): i32 {
  // It looks for long enough to see the end of what the caller does between tokens.
  const epoch = nextEpoch(LEAD, load<i32>(LED), load<i32>(SPINS));
  store<i32>(LED, epoch);
  if (atomic.load<i32>(QUIT) != 0) return -1;
  return runShare(0) ? 0 : 1;
}

/** Another thread's life: waits for runs until it is told to quit. */
export function work(thread: i32): void {
  let seen = 0;
  for (;;) {
    seen = nextEpoch(EPOCH, seen, load<i32>(SPINS));
    if (atomic.load<i32>(QUIT) != 0) return;
    if (!runShare(thread)) return;
  }
}

/** Waits for the epoch after one: looks so many times, then sleeps. */
function nextEpoch(word: usize, seen: i32, spins: i32): i32 {
  let epoch = atomic.load<i32>(word);
  for (let i = 0; i < spins && epoch == seen; i++) epoch = atomic.load<i32>(word);
  while (epoch == seen) {
    atomic.wait<i32>(word, seen, -1);
    epoch = atomic.load<i32>(word);
  }
  return epoch;
}
