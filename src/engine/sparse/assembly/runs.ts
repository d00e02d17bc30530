/**
 * Products of the same inputs that follow one another: one token's rows of all of them are read as those of one.
 *
 * What fetches memory ahead takes a microsecond or two to get going, and begins anew in each place (`places.ts`) of
 * each product. Queries, keys and values together, or a gate and what is multiplied with it, are half as many
 * beginnings, and as long as two places are worth.
 */
import { GROUP_SEGMENTS } from "./int4";
import {
  GROUP_SCALES,
  KIND,
  OUT,
  PLUS,
  ROWS,
  scratchOf,
  SEGMENTS,
  TIMES,
  WEIGHTS,
  X,
} from "./linear";
import { share } from "./vectors";

/** What comes behind a step. */
// @ts-ignore: decorator
@inline
export function next(a: usize): usize {
  return a + (<usize> load<u32>(a, 4) << 2);
}

/** How often a product has twice sixteen rows, by which they are divided: they may be read in two places. */
// @ts-ignore: decorator
@inline
export function pairsOf(a: usize): i32 {
  return (load<i32>(a, ROWS) + 31) >> 5;
}

/** Rows of a product that are in chunk `which` of so many. */
export function firstRow(a: usize, which: i32, chunks: i32): i32 {
  return share(pairsOf(a), which, chunks) << 5;
}
export function lastRow(a: usize, which: i32, chunks: i32): i32 {
  return min(firstRow(a, which + 1, chunks), load<i32>(a, ROWS));
}

// @ts-ignore: decorator
@inline
function count(a: usize, which: i32, chunks: i32): i32 {
  return lastRow(a, which, chunks) - firstRow(a, which, chunks);
}

/** Rows of a chunk of all products from `a` to `end`. */
export function rowsOfRun(a: usize, end: usize, which: i32, chunks: i32): i32 {
  let rows = 0;
  for (let step = a; step < end; step = next(step)) rows += count(step, which, chunks);
  return rows;
}

/** Behind the last of the products from `a` on that are read as one; before `end`. */
export function endOfRun(a: usize, end: usize): usize {
  let step = next(a);
  while (step < end && isLike(a, step) && (!isMadeOf(a, step) || isSecondOfTwo(a, step))) {
    // Nothing joins two of which the second waits for the first.
    if (isMadeOf(a, step)) return next(step);
    step = next(step);
  }
  return step;
}

/** Whether two products have the same inputs, in the same layout. */
function isLike(a: usize, b: usize): bool {
  return load<i32>(a, KIND) == load<i32>(b, KIND) && load<usize>(a, X) == load<usize>(b, X) &&
    load<usize>(a, SEGMENTS) == load<usize>(b, SEGMENTS) &&
    load<usize>(a, GROUP_SCALES) == load<usize>(b, GROUP_SCALES) &&
    load<usize>(a, GROUP_SEGMENTS) == load<usize>(b, GROUP_SEGMENTS);
}

/** Whether the result of one from `a` on is in the result of `b`. */
function isMadeOf(a: usize, b: usize): bool {
  const times = load<usize>(b, TIMES), plus = load<usize>(b, PLUS);
  for (let step = a; step < b; step = next(step)) {
    const out = load<usize>(step, OUT);
    if (out == times || out == plus) return true;
  }
  return false;
}

/**
 * Whether two products' rows go side by side: the first's half of the places is never behind the second's, which is
 * multiplied with the first's when some rows of both are there (`one_token.ts`).
 */
function isSecondOfTwo(a: usize, b: usize): bool {
  const rows = load<i32>(a, ROWS);
  return next(a) == b && load<usize>(b, PLUS) == 0 && load<i32>(b, ROWS) == rows && (rows & 31) == 0;
}

/** The product that a place is in, by the table in a thread's room. */
// @ts-ignore: decorator
@inline
export function productAt(a: usize, thread: i32, place: i32): usize {
  return load<usize>(scratchOf(a, thread) + (<usize> place << 3));
}

/** The row of it that comes next. */
// @ts-ignore: decorator
@inline
export function rowAt(a: usize, thread: i32, place: i32): i32 {
  return load<i32>(scratchOf(a, thread) + (<usize> place << 3), 4);
}

/** Where its weights begin, of rows that lie together in groups of 2^`log2` with `size` bytes. */
// @ts-ignore: decorator
@inline
export function weightsAt(a: usize, thread: i32, place: i32, log2: i32, size: usize): usize {
  const group = <usize> (rowAt(a, thread, place) >> log2);
  return load<usize>(productAt(a, thread, place), WEIGHTS) + group * size;
}

/** Writes where a place is. */
// @ts-ignore: decorator
@inline
export function setPlace(a: usize, thread: i32, place: i32, product: usize, row: i32): void {
  const at = scratchOf(a, thread) + (<usize> place << 3);
  store<usize>(at, product);
  store<i32>(at, row, 4);
}

/**
 * Writes where places are that lie `apart` rows of the run apart, the first at its row `row`.
 *
 * @param left Rows that they have left.
 * @returns How many of them they go side by side, until one comes to the end of its product.
 */
export function findPlaces(
  a: usize,
  thread: i32,
  places: i32,
  row: i32,
  apart: i32,
  left: i32,
  which: i32,
  chunks: i32,
): i32 {
  let rows = left, step = a, before = 0;
  for (let i = 0, at = row; i < places; i++) {
    while (at - before >= count(step, which, chunks)) {
      before += count(step, which, chunks);
      step = next(step);
    }
    setPlace(a, thread, i, step, firstRow(step, which, chunks) + at - before);
    rows = min(rows, before + count(step, which, chunks) - at);
    at += apart;
  }
  return rows;
}
