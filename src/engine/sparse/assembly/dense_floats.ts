/**
 * Dense matrices of floats, 16 rows together: `[column, 16 rows]`. `vectors.ts` reads rows out of the same layout,
 * where a head is tied to a table.
 *
 * Sums are added to column by column, for one token and for several: the same bits.
 */
import {
  COLUMNS,
  finishGroup,
  scratchOf,
  SEGMENTS,
  WEIGHTS,
  X,
  X_COPY,
  X_STRIDE,
} from "./linear";
import { halvesAt, lane } from "./simd";
import { finishSums, SUM_ROWS, SUMS, sumsBytes } from "./sums";

/** Bytes of a column of sixteen rows of float32. */
const COLUMN: usize = 64;

/** Four weights as float32. */
// @ts-ignore: decorator
@inline
function weightsAt(at: usize, halves: bool): v128 {
  return halves ? halvesAt(at) : v128.load(at);
}

/** sum + w·x. */
// @ts-ignore: decorator
@inline
function plus(sum: v128, w: v128, x: v128): v128 {
  return f32x4.add(sum, f32x4.mul(w, x));
}

/** One token and sixteen rows. */
// @ts-ignore: decorator
@inline
function one(a: usize, row: i32, weights: usize, x: usize, halves: bool): void {
  const quarter: usize = halves ? 8 : 16;
  let w = weights, f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0;
  for (let xp = x, end = x + (<usize> load<u32>(a, COLUMNS) << 2); xp < end; xp += 4) {
    const xs = v128.load32_splat(xp);
    f0 = plus(f0, weightsAt(w, halves), xs);
    f1 = plus(f1, weightsAt(w + quarter, halves), xs);
    f2 = plus(f2, weightsAt(w + 2 * quarter, halves), xs);
    f3 = plus(f3, weightsAt(w + 3 * quarter, halves), xs);
    w += 4 * quarter;
  }
  finishGroup(a, row, 0, f0, f1, f2, f3);
}

/** The sums of sixteen rows of float32 with two tokens, which are `apart`. */
function sumTwo(weights: usize, x: usize, apart: usize, columns: usize, to: usize): void {
  let w = weights, xp = x, f0 = f32x4.splat(0), f1 = f0, f2 = f0, f3 = f0, g0 = f0, g1 = f0, g2 = f0, g3 = f0;
  // Two columns at a time: with more, sums do not stay in registers.
  for (const end = x + (columns >> 1 << 3); xp < end; xp += 8) {
    const y01 = v128.load64_zero(xp), z01 = v128.load64_zero(xp + apart);
    let y = lane(y01, 0), z = lane(z01, 0), v = v128.load(w);
    f0 = plus(f0, v, y), g0 = plus(g0, v, z);
    v = v128.load(w, 16), f1 = plus(f1, v, y), g1 = plus(g1, v, z);
    v = v128.load(w, 32), f2 = plus(f2, v, y), g2 = plus(g2, v, z);
    v = v128.load(w, 48), f3 = plus(f3, v, y), g3 = plus(g3, v, z);
    y = lane(y01, 1), z = lane(z01, 1);
    v = v128.load(w, 64), f0 = plus(f0, v, y), g0 = plus(g0, v, z);
    v = v128.load(w, 80), f1 = plus(f1, v, y), g1 = plus(g1, v, z);
    v = v128.load(w, 96), f2 = plus(f2, v, y), g2 = plus(g2, v, z);
    v = v128.load(w, 112), f3 = plus(f3, v, y), g3 = plus(g3, v, z);
    w += 2 * COLUMN;
  }
  if ((columns & 1) != 0) {
    const y = v128.load32_splat(xp), z = v128.load32_splat(xp + apart);
    f0 = plus(f0, v128.load(w), y), g0 = plus(g0, v128.load(w), z);
    f1 = plus(f1, v128.load(w, 16), y), g1 = plus(g1, v128.load(w, 16), z);
    f2 = plus(f2, v128.load(w, 32), y), g2 = plus(g2, v128.load(w, 32), z);
    f3 = plus(f3, v128.load(w, 48), y), g3 = plus(g3, v128.load(w, 48), z);
  }
  v128.store(to, f0), v128.store(to, f1, 16), v128.store(to, f2, 32), v128.store(to, f3, 48);
  v128.store(to, g0, SUMS), v128.store(to, g1, SUMS + 16), v128.store(to, g2, SUMS + 32), v128.store(to, g3, SUMS + 48);
}

/** Makes float32 of sixteen rows. */
function unpack(from: usize, columns: usize, to: usize): void {
  let out = to;
  for (let w = from, end = from + (columns << 5); w < end; w += 8) {
    v128.store(out, halvesAt(w));
    out += 16;
  }
}

/** y = W·x for rows `first` to `last`, multiples of 16. */
// @ts-ignore: decorator
@inline
function floats(a: usize, first: i32, last: i32, tokens: i32, thread: i32, halves: bool): void {
  const columns = <usize> load<u32>(a, COLUMNS), stride = <usize> load<u32>(a, X_STRIDE);
  const size = (load<usize>(a, SEGMENTS) << 5) * (halves ? COLUMN >> 1 : COLUMN), x = load<usize>(a, X);
  const sums = scratchOf(a, thread), unpacked = sums + sumsBytes(tokens);
  let at = load<usize>(a, WEIGHTS) + (<usize> first >> 4) * size;
  for (let row = first; row < last; row += SUM_ROWS, at += size) {
    if (tokens == 1) {
      one(a, row, at, x + <usize> thread * <usize> load<u32>(a, X_COPY), halves);
      continue;
    }
    if (halves) unpack(at, columns, unpacked);
    for (let token = 0; token < tokens; token += 2) {
      // The last of an odd number is computed twice.
      const apart = token + 1 < tokens ? stride : 0;
      sumTwo(halves ? unpacked : at, x + <usize> token * stride, apart, columns, sums + <usize> token * SUMS);
    }
    finishSums(a, row, tokens, sums, sums);
  }
}

export function denseF32(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  floats(a, first, last, tokens, thread, false);
}
export function denseF16(a: usize, first: i32, last: i32, tokens: i32, thread: i32): void {
  floats(a, first, last, tokens, thread, true);
}
