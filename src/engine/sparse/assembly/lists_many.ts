/**
 * Sparse matrices of floats, as lists, times several tokens.
 *
 * Inputs of sixteen tokens are turned (`turned.ts`), so that a weight meets four of them at once, which lie together;
 * with one token four weights meet what is gathered from four places (`lists.ts`). Each sum is added to in
 * the same order: the same bits.
 */
import { COLUMNS, finish, LISTS, scratchOf, X, X_STRIDE } from "./linear";
import { halvesAt, turnFour } from "./simd";
import { turn } from "./turned";

/** Tokens whose inputs are turned together, as a shift; bytes of a column of them. */
const TILE_SHIFT = 4, TILE = 1 << TILE_SHIFT, COLUMN_SHIFT: usize = TILE_SHIFT + 2;
const COLUMN: usize = 1 << COLUMN_SHIFT;

/** Bytes of an entry of four rows: their weights as float32 or float16, and the columns of these. */
const ENTRY: usize = 24, HALVES_ENTRY: usize = 16, ENTRY_COLUMNS: usize = 16;

/** Makes float32 of the weights of a list. */
function widen(begin: usize, end: usize, to: usize): usize {
  let out = to;
  for (let at = begin; at < end; at += HALVES_ENTRY) {
    v128.store(out, halvesAt(at));
    store<u64>(out, load<u64>(at, 8), ENTRY_COLUMNS);
    out += ENTRY;
  }
  return out;
}

/** sum + a weight times four tokens' inputs. */
// @ts-ignore: decorator
@inline
function plus(sum: v128, w: v128, x: usize): v128 {
  return f32x4.add(sum, f32x4.mul(w, v128.load(x)));
}

/**
 * A row times the tokens of so many vectors.
 *
 * @param at Its weight in the first entry.
 * @param columns From a weight to its column.
 * @param end Behind the last entry.
 * @param to Where the sums go.
 */
// @ts-ignore: decorator
@inline
function rowTimes(vectors: i32, at: usize, columns: usize, end: usize, x: usize, to: usize): void {
  let f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
  let entry = at;
  for (; entry + ENTRY < end; entry += 2 * ENTRY) {
    // Every other entry has sums of its own, as with one token.
    let w = v128.load32_splat(entry), xs = x + (<usize> load<u16>(entry + columns) << COLUMN_SHIFT);
    f0 = plus(f0, w, xs);
    if (vectors > 1) f1 = plus(f1, w, xs + 16);
    if (vectors > 2) f2 = plus(f2, w, xs + 32), f3 = plus(f3, w, xs + 48);
    const next = entry + ENTRY;
    w = v128.load32_splat(next), xs = x + (<usize> load<u16>(next + columns) << COLUMN_SHIFT);
    g0 = plus(g0, w, xs);
    if (vectors > 1) g1 = plus(g1, w, xs + 16);
    if (vectors > 2) g2 = plus(g2, w, xs + 32), g3 = plus(g3, w, xs + 48);
  }
  if (entry < end) {
    const w = v128.load32_splat(entry), xs = x + (<usize> load<u16>(entry + columns) << COLUMN_SHIFT);
    f0 = plus(f0, w, xs), f1 = plus(f1, w, xs + 16);
    f2 = plus(f2, w, xs + 32), f3 = plus(f3, w, xs + 48);
  }
  v128.store(to, f32x4.add(f0, g0));
  if (vectors > 1) v128.store(to, f32x4.add(f1, g1), 16);
  if (vectors > 2) v128.store(to, f32x4.add(f2, g2), 32), v128.store(to, f32x4.add(f3, g3), 48);
}

/** Four rows times the tokens of so many vectors. */
// @ts-ignore: decorator
@inline
function rowsTimes(vectors: i32, begin: usize, end: usize, x: usize, to: usize): void {
  for (let row: usize = 0; row < 4; row++) {
    // Weights lie four bytes apart, and columns two.
    const at = begin + (row << 2), columns = ENTRY_COLUMNS - (row << 1);
    rowTimes(vectors, at, columns, end + (row << 2), x, to + row * COLUMN);
  }
}

/** Each in a function of its own: engines compile small functions better. */
function rowsTimesFour(begin: usize, end: usize, x: usize, to: usize): void {
  rowsTimes(1, begin, end, x, to);
}
function rowsTimesEight(begin: usize, end: usize, x: usize, to: usize): void {
  rowsTimes(2, begin, end, x, to);
}
function rowsTimesSixteen(begin: usize, end: usize, x: usize, to: usize): void {
  rowsTimes(4, begin, end, x, to);
}

/** y = W·x for rows `first` to `last`, multiples of 4, and several tokens. */
export function listsMany(a: usize, first: i32, last: i32, tokens: i32, thread: i32, halves: bool): void {
  const stride = <usize> load<u32>(a, X_STRIDE), columns = <usize> load<u32>(a, COLUMNS);
  const x = scratchOf(a, thread), sums = x + (columns << COLUMN_SHIFT), turned = sums + 4 * COLUMN;
  const room = turned + 4 * COLUMN;
  for (let token = 0; token < tokens; token += TILE) {
    const some = min(TILE, tokens - token);
    turn(load<usize>(a, X) + <usize> token * stride, stride, some, TILE, columns, x);
    for (let row = first; row < last; row += 4) {
      const table = load<usize>(a, LISTS) + <usize> row;
      let begin = load<usize>(table), end = load<usize>(table, 4);
      if (halves) end = widen(begin, end, room), begin = room;
      if (some > 8) rowsTimesSixteen(begin, end, x, sums);
      else if (some > 4) rowsTimesEight(begin, end, x, sums);
      else rowsTimesFour(begin, end, x, sums);
      for (let t = 0; t < some; t++) {
        if ((t & 3) == 0) {
          const at = sums + (<usize> t << 2);
          const v0 = v128.load(at), v1 = v128.load(at, COLUMN), v2 = v128.load(at, 2 * COLUMN);
          turnFour(v0, v1, v2, v128.load(at, 3 * COLUMN), turned, 16);
        }
        finish(a, row, token + t, v128.load(turned + (<usize> (t & 3) << 4)));
      }
    }
  }
}
