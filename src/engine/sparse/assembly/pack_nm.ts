/**
 * int8 matrices of N:M whose groups fit windows of 16 inputs (M of 2, 4, 8 or 16), straight into slots.
 *
 * In the file the k-th weights of a group lie side by side for all rows, and so do their codes: here four
 * rows advance together, where `decode.ts` and `pack.ts` go row by row and weight by weight.
 */
import {
  BITS,
  COLUMNS,
  columnsOf,
  FORMAT,
  INDICES,
  INT8,
  LENGTHS,
  M,
  N,
  NM,
  NOT_ASCENDING,
  OK,
  OUT_OF_ROW,
  ROWS,
  TYPE,
  VALUES,
  valuesOf,
} from "./decode";
import { SLOTS_ONE } from "./linear";
import { PAIR } from "./pairs";
import { pairBytes, segmentBytes } from "./slots";

/** Whether a matrix is one of those. */
export function isWindowedNm(d: usize): bool {
  return load<i32>(d, FORMAT) == NM && load<i32>(d, TYPE) == INT8 && load<i32>(d, M) <= 16 &&
    16 % load<i32>(d, M) == 0;
}

/** Codes of four rows, side by side, that begin at bit `bit` of a row of codes. */
// @ts-ignore: decorator
@inline
function codesAt(codes: usize, bit: usize): u32 {
  return load<u32>(codes + (bit >> 3)) >> (<u32> bit & 7);
}

/**
 * Checks the codes of four rows, and counts the weights of each window, those that are 0 left out.
 *
 * @param counts A byte for each window and row, `[windows, 4]`.
 */
export function countCodes(d: usize, first: i32, counts: usize): i32 {
  const rows = <usize> load<u32>(d, ROWS), n = load<i32>(d, N), m = load<i32>(d, M);
  const bits = load<u32>(d, BITS), mask: u32 = (1 << bits) - 1;
  const groups = load<i32>(d, COLUMNS) / m, perRow = (rows * <usize> bits + 7) >> 3;
  const bit = <usize> first * <usize> bits, alive = min(4, <i32> rows - first);
  let codes = load<usize>(d, INDICES), values = load<usize>(d, VALUES) + <usize> first;
  for (let g = 0; g < groups; g++) {
    const window = counts + <usize> (g * m >> 4 << 2);
    let l0 = -1, l1 = -1, l2 = -1, l3 = -1;
    for (let j = 0; j < n; j++) {
      const c = codesAt(codes, bit);
      const c0 = <i32> (c & mask), c1 = <i32> (c >> bits & mask);
      const c2 = <i32> (c >> 2 * bits & mask), c3 = <i32> (c >> 3 * bits & mask);
      if (c0 <= l0 && alive > 0 || c1 <= l1 && alive > 1) return NOT_ASCENDING;
      if (c2 <= l2 && alive > 2 || c3 <= l3 && alive > 3) return NOT_ASCENDING;
      if (c0 >= m && alive > 0 || c1 >= m && alive > 1) return OUT_OF_ROW;
      if (c2 >= m && alive > 2 || c3 >= m && alive > 3) return OUT_OF_ROW;
      l0 = c0;
      l1 = c1;
      l2 = c2;
      l3 = c3;
      for (let i = 0; i < alive; i++) {
        const at = window + i;
        store<u8>(at, load<u8>(at) + <u8> (load<u8>(values + i) != 0));
      }
      codes += perRow;
      values += rows;
    }
  }
  return OK;
}

/** Whether one of four bytes is 0. */
// @ts-ignore: decorator
@inline
function hasZero(four: u32): bool {
  return ((four - 0x01010101) & ~four & 0x80808080) != 0;
}

/**
 * Four rows into one or two slots for every window; what finds none goes to the lists.
 *
 * @param out Where the eight rows begin, of which these are the first or the last four.
 * @param isWritten Whether they are written, or only their lists filled.
 */
export function packCodes(d: usize, first: i32, out: usize, kind: i32, isWritten: bool): void {
  const rows = <usize> load<u32>(d, ROWS), n = load<i32>(d, N), m = load<i32>(d, M);
  const bits = load<u32>(d, BITS), perRow = (rows * <usize> bits + 7) >> 3;
  const groups = load<i32>(d, COLUMNS) / m, perWindow = 16 / m;
  const bit = <usize> first * <usize> bits, alive = min(4, <i32> rows - first);
  const most = kind == SLOTS_ONE ? 4 : 8;
  const half = out + <usize> ((first & 4) >> 2) * pairBytes(kind);
  memory.fill(d + LENGTHS, 0, 16);
  let codes = load<usize>(d, INDICES), values = load<usize>(d, VALUES) + <usize> first;
  for (let g = 0, w: usize = 0; g < groups; g += perWindow, w++) {
    const count = n * min(perWindow, groups - g);
    const pair = half + (w >> 1) * segmentBytes(kind) + (kind == SLOTS_ONE ? 0 : (w & 1) * PAIR);
    const slot: u32 = kind == SLOTS_ONE ? <u32> (w & 1) : 0;
    let isPlain = alive == 4 && count <= most;
    for (let k = 0; k < count && isPlain; k++) {
      isPlain = !hasZero(load<u32>(values + <usize> k * rows));
    }
    if (!isPlain) {
      for (let i = 0; i < alive; i++) {
        packRow(d, i, pair, slot, <i32> w, codes, values, bit, count, most, isWritten);
      }
    } else if (isWritten) {
      const mask: u32 = (1 << bits) - 1;
      for (let k = 0; k < count; k++) {
        const v = load<u32>(values + <usize> k * rows), base = k / n * m;
        const c = codesAt(codes + <usize> k * perRow, bit);
        const s = slot + <u32> (k >> 2), at = pair + <usize> (k & 3), to = at + 16 + (<usize> s << 4);
        put(at, s, base + <i32> (c & mask));
        put(at + 4, s, base + <i32> (c >> bits & mask));
        put(at + 8, s, base + <i32> (c >> 2 * bits & mask));
        put(at + 12, s, base + <i32> (c >> 3 * bits & mask));
        store<u8>(to, v);
        store<u8>(to, v >> 8, 4);
        store<u8>(to, v >> 16, 8);
        store<u8>(to, v >> 24, 12);
      }
    }
    codes += <usize> count * perRow;
    values += <usize> count * rows;
  }
}

/** An index of a slot, into its half of a byte that is 0 there. */
// @ts-ignore: decorator
@inline
function put(at: usize, slot: u32, index: i32): void {
  store<u8>(at, <i32> load<u8>(at) | index << (slot << 2));
}

/** A window of row `i`, weight by weight: zeros take no slot, and what has none goes to the lists. */
function packRow(
  d: usize,
  i: i32,
  pair: usize,
  slot: u32,
  window: i32,
  codes: usize,
  values: usize,
  bit: usize,
  count: i32,
  most: i32,
  isWritten: bool,
): void {
  const rows = <usize> load<u32>(d, ROWS), n = load<i32>(d, N), m = load<i32>(d, M);
  const bits = load<u32>(d, BITS), perRow = (rows * <usize> bits + 7) >> 3;
  const lane = pair + (<usize> i << 2);
  let k = 0, left = load<i32>(d + (<usize> i << 2), LENGTHS);
  for (let e = 0; e < count; e++) {
    const value = <i32> load<i8>(values + <usize> e * rows + <usize> i);
    if (value == 0) continue;
    const code = codesAt(codes + <usize> e * perRow, bit) >> <u32> i * bits & ((1 << bits) - 1);
    const column = e / n * m + <i32> code;
    if (k == most) {
      store<u16>(columnsOf(d, i) + (<usize> left << 1), <u16> ((window << 4) + column));
      store<i32>(valuesOf(d, i) + (<usize> left << 2), value);
      left++;
      continue;
    }
    if (isWritten) {
      const s = slot + <u32> (k >> 2), at = lane + <usize> (k & 3);
      put(at, s, column);
      store<i8>(at + 16 + (<usize> s << 4), <i8> value);
    }
    k++;
  }
  store<i32>(d + (<usize> i << 2), left, LENGTHS);
}
