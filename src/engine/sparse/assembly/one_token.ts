/**
 * One token's products with matrices whose kernels read several places: those that are read as one (`runs.ts`), in as
 * many places as are worth it.
 */
import { denseInt4One, denseInt4Size } from "./dense_int4";
import { denseInt8One, denseInt8Size } from "./dense";
import {
  DENSE_INT4,
  DENSE_INT8,
  finishRows,
  GROUP_SCALES,
  KIND,
  SLOTS_ONE,
  SLOTS_ONE_INT4,
  SLOTS_TWO,
  SLOTS_TWO_INT4,
} from "./linear";
import { partOf, placesOf } from "./places";
import { findPlaces, productAt, rowAt, rowsOfRun } from "./runs";
import { slotsInt4One, slotsInt4Size } from "./slots_int4_one";
import { slotsOne, slotsSize } from "./slots_one";

/** Whether a product is one of these. */
export function isOfRuns(a: usize): bool {
  const kind = load<i32>(a, KIND);
  if (kind == SLOTS_ONE || kind == SLOTS_TWO) return load<usize>(a, GROUP_SCALES) == 0;
  return kind == SLOTS_ONE_INT4 || kind == SLOTS_TWO_INT4 || kind == DENSE_INT8 || kind == DENSE_INT4;
}

/** Rows that lie together. */
function groupOf(kind: i32): i32 {
  return kind == DENSE_INT8 || kind == DENSE_INT4 ? 16 : 8;
}

/** Bytes of these. */
function sizeOf(kind: i32, a: usize): usize {
  if (kind == DENSE_INT8) return denseInt8Size(a);
  if (kind == DENSE_INT4) return denseInt4Size(a);
  return kind == SLOTS_ONE || kind == SLOTS_TWO ? slotsSize(kind, a) : slotsInt4Size(kind, a);
}

/** So many rows of each place of a thread's table; `a` is any of their products. */
function compute(kind: i32, places: i32, a: usize, rows: i32, thread: i32): void {
  if (kind == DENSE_INT8) denseInt8One(places, a, rows, thread);
  else if (kind == DENSE_INT4) denseInt4One(places, a, rows, thread);
  else if (kind == SLOTS_ONE || kind == SLOTS_TWO) slotsOne(kind, places, a, rows, thread);
  else slotsInt4One(kind, places, a, rows, thread);
  // In their order: the second of two products is multiplied with the first's results.
  for (let i = 0; i < places; i++) finishRows(productAt(a, thread, i), rowAt(a, thread, i), rows);
}

/** y = W·x for a chunk of the products from `a` to `end`, which are read as one, and one token. */
export function computeRun(a: usize, end: usize, which: i32, chunks: i32, thread: i32): void {
  const kind = load<i32>(a, KIND), group = groupOf(kind), rows = rowsOfRun(a, end, which, chunks);
  const places = placesOf(rows, group, sizeOf(kind, a)), part = partOf(rows, places, group);
  for (let row = 0; row < part;) {
    const some = findPlaces(a, thread, places, row, part, part - row, which, chunks);
    compute(kind, places, a, some, thread);
    row += some;
  }
  // What fills no place evenly.
  for (let row = places * part; row < rows;) {
    const some = findPlaces(a, thread, 1, row, 0, rows - row, which, chunks);
    compute(kind, 1, a, some, thread);
    row += some;
  }
}
