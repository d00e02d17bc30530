/**
 * Sparse matrices of floats, as lists: the exact path, and what slots have no room for.
 *
 * Four rows together: entry by entry, four values and the four columns they stand in (uint16). Rows
 * with fewer entries are filled with zeros at column 0. A table has the address of each four rows; its
 * end is the address of the next.
 */
import { widenHalves } from "./simd";
import {
  finish,
  finishAll,
  LISTS,
  LISTS_X,
  LISTS_X_COPY,
  LISTS_X_STRIDE,
  X,
  X_COPY,
  X_STRIDE,
} from "./linear";

/** Four rows times a vector. */
// @ts-ignore: decorator
@inline
function listTimes(begin: usize, end: usize, x: usize, halves: bool): v128 {
  const values: usize = halves ? 8 : 16;
  // Two sums, so that an addition need not wait for the one before.
  let f = f32x4.splat(0), g = f32x4.splat(0);
  for (let at = begin; at < end; at += values + 8) {
    const columns = load<u64>(at + values);
    let xs = v128.load32_zero(x + (<usize> (columns & 0xffff) << 2));
    xs = v128.load32_lane(x + (<usize> ((columns >> 16) & 0xffff) << 2), xs, 1);
    xs = v128.load32_lane(x + (<usize> ((columns >> 32) & 0xffff) << 2), xs, 2);
    xs = v128.load32_lane(x + (<usize> (columns >> 48) << 2), xs, 3);
    const w = halves ? widenHalves(v128.load16x4_u(at)) : v128.load(at);
    const sum = f32x4.add(g, f32x4.mul(w, xs));
    g = f;
    f = sum;
  }
  return f32x4.add(f, g);
}

/**
 * Rows whose lists one token is multiplied with at a time, before their slots. They lie one behind the other, so
 * they are read without a pause; each beside its rows, SmolLM2-135M at 70 % decoded at 0.95 of the speed.
 */
export const LISTED_ROWS: i32 = 256;

/** Bytes of their results. */
export const LISTED_BYTES: usize = LISTED_ROWS << 2;

/** What the only token has of the lists beside slots, of up to {@link LISTED_ROWS} rows from `row` on. */
export function timesLists(a: usize, row: i32, rows: i32, thread: i32, to: usize): void {
  if (load<usize>(a, LISTS) == 0) {
    memory.fill(to, 0, LISTED_BYTES);
    return;
  }
  const table = load<usize>(a, LISTS) + <usize> row;
  const x = load<usize>(a, LISTS_X) + <usize> thread * <usize> load<u32>(a, LISTS_X_COPY);
  let begin = load<usize>(table);
  for (let r: usize = 0; r < <usize> rows; r += 4) {
    const end = load<usize>(table + r, 4);
    v128.store(to + (r << 2), listTimes(begin, end, x, false));
    begin = end;
  }
}

/** Adds what the only token has of the lists beside slots, if there are any, and writes four rows' results. */
export function finishWithLists(a: usize, row: i32, sum: v128, thread: i32): void {
  let all = sum;
  if (load<usize>(a, LISTS) != 0) {
    const table = load<usize>(a, LISTS) + <usize> row;
    const begin = load<usize>(table), end = load<usize>(table, 4);
    const x = load<usize>(a, LISTS_X) + <usize> thread * <usize> load<u32>(a, LISTS_X_COPY);
    if (begin < end) all = f32x4.add(sum, listTimes(begin, end, x, false));
  }
  finish(a, row, 0, all);
}

/**
 * Adds what several tokens have of the lists beside slots, if there are any, and writes four rows' results.
 *
 * @param sums The tokens' sums one after the other, 16 bytes each.
 */
export function finishAllWithLists(a: usize, row: i32, tokens: i32, sums: usize): void {
  if (load<usize>(a, LISTS) != 0) {
    const table = load<usize>(a, LISTS) + <usize> row;
    const begin = load<usize>(table), end = load<usize>(table, 4);
    if (begin < end) {
      let x = load<usize>(a, LISTS_X);
      for (let at = sums, last = sums + (<usize> tokens << 4); at < last; at += 16) {
        v128.store(at, f32x4.add(v128.load(at), listTimes(begin, end, x, false)));
        x += <usize> load<u32>(a, LISTS_X_STRIDE);
      }
    }
  }
  finishAll(a, row, tokens, sums);
}

// @ts-ignore: decorator
@inline
function lists(a: usize, first: i32, last: i32, tokens: i32, thread: i32, halves: bool): void {
  const stride = <usize> load<u32>(a, X_STRIDE);
  const base = load<usize>(a, X) +
    (tokens == 1 ? <usize> thread * <usize> load<u32>(a, X_COPY) : 0);
  for (let row = first; row < last; row += 4) {
    const table = load<usize>(a, LISTS) + <usize> row;
    const begin = load<usize>(table), end = load<usize>(table, 4);
    for (let token = 0; token < tokens; token++) {
      finish(a, row, token, listTimes(begin, end, base + <usize> token * stride, halves));
    }
  }
}

export function listsF32(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  lists(a, first, last, tokens, thread, false);
}
export function listsF16(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  lists(a, first, last, tokens, thread, true);
}
