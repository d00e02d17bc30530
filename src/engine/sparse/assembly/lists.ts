/**
 * Sparse matrices of floats, as lists: the exact path.
 *
 * Four rows together: entry by entry, four values and the four columns they stand in (uint16). Rows
 * with fewer entries are filled with zeros at column 0. A table has the address of each four rows; its
 * end is the address of the next.
 */
import { finish, LISTS, X, X_COPY } from "./linear";
import { halvesAt } from "./simd";

/** The inputs in four columns. */
// @ts-ignore: decorator
@inline
function inputsOf(columns: usize, x: usize): v128 {
  let xs = v128.load32_zero(x + (<usize> load<u16>(columns) << 2));
  xs = v128.load32_lane(x + (<usize> load<u16>(columns, 2) << 2), xs, 1);
  xs = v128.load32_lane(x + (<usize> load<u16>(columns, 4) << 2), xs, 2);
  return v128.load32_lane(x + (<usize> load<u16>(columns, 6) << 2), xs, 3);
}

/** sum + an entry's products. */
// @ts-ignore: decorator
@inline
function addEntry(sum: v128, entry: usize, x: usize, halves: bool): v128 {
  const w = halves ? halvesAt(entry) : v128.load(entry);
  return f32x4.add(sum, f32x4.mul(w, inputsOf(entry + (halves ? 8 : 16), x)));
}

/** Four rows times a vector. */
// @ts-ignore: decorator
@inline
function listTimes(begin: usize, end: usize, x: usize, halves: bool): v128 {
  const size: usize = halves ? 16 : 24;
  // Two sums, so that an addition need not wait for the one before.
  let f = f32x4.splat(0), g = f32x4.splat(0), at = begin;
  for (; at + size < end; at += 2 * size) {
    f = addEntry(f, at, x, halves);
    g = addEntry(g, at + size, x, halves);
  }
  if (at < end) f = addEntry(f, at, x, halves);
  return f32x4.add(f, g);
}

/** y = W·x for rows `first` to `last`, multiples of 4, and one token. */
// @ts-ignore: decorator
@inline
function lists(a: usize, first: i32, last: i32, thread: i32, halves: bool): void {
  const x = load<usize>(a, X) + <usize> thread * <usize> load<u32>(a, X_COPY);
  for (let row = first; row < last; row += 4) {
    const table = load<usize>(a, LISTS) + <usize> row;
    finish(a, row, 0, listTimes(load<usize>(table), load<usize>(table, 4), x, halves));
  }
}

export function listsF32One(a: usize, first: i32, last: i32, thread: i32): void {
  lists(a, first, last, thread, false);
}
export function listsF16One(a: usize, first: i32, last: i32, thread: i32): void {
  lists(a, first, last, thread, true);
}
