/**
 * Sparse matrices of floats, as lists: the exact path.
 *
 * Four rows together: entry by entry, four values and the four columns they stand in (uint16). Rows
 * with fewer entries are filled with zeros at column 0. A table has the address of each four rows; its
 * end is the address of the next.
 */
import { widenHalves } from "./simd";
import { finish, LISTS, X, X_COPY, X_STRIDE } from "./linear";

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
