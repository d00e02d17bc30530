/**
 * Reading a file's formats: the columns and values of a row, from N:M, CSR, bitmap or slots.
 *
 * The formats are in `docs/format.md`. What is read may be damaged or made to do harm: a decoder goes
 * nowhere beyond what the descriptor says is there.
 */
import { levelAt } from "./pack_int4";

/** Words of a descriptor; `layout.ts` beside this folder has them for JavaScript. */
export const FORMAT: usize = 0, TYPE: usize = 4;
export const ROWS: usize = 8, COLUMNS: usize = 12, VALUES: usize = 16;
export const COUNT: usize = 20, INDICES: usize = 24;
const ROW_POINTERS: usize = 32;
export const N: usize = 36, M: usize = 40, BITS: usize = 44;
/** Room for lists: `4 · columns · 6` bytes. */
export const SCRATCH: usize = 48;
export const KIND: usize = 52, OUT: usize = 56;
/** Where lists go, and the table of their places. */
export const LISTS_OUT: usize = 60, TABLE: usize = 64;
/** Scales that lists of int8 are multiplied with, or 0; and their group. */
export const SCALES: usize = 68, GROUP: usize = 72;
/** Where a decoder is: entries read, and the position of the last. */
export const ENTRY: usize = 76, PLACE: usize = 80;
/** Lengths of the four lists. */
export const LENGTHS: usize = 96;
/** What `survey` in `pack.ts` finds: how many weights have no slot when each window has one, or two. */
export const BEYOND_ONE: usize = 112, BEYOND_TWO: usize = 116;
/** And with as many as it needs: bytes of all chunks, and what has no slot. */
export const ANY_BYTES: usize = 120, BEYOND_ANY: usize = 124;
/** Table of the chunks. */
export const CHUNKS: usize = 128;
/** Windows whose bits the format of slots has; `ROW_POINTERS` is where. */
const MASKS: usize = 132;

export const BITMAP = 0, NM = 2;
const CSR = 1, SLOTS = 3;
export const F32 = 0, F16 = 1, INT8 = 2, INT4 = 3;

/** What went wrong. */
export const OK = 0,
  TOO_FEW = 1,
  TOO_MANY = 2,
  OUT_OF_ROW = 3,
  NOT_ASCENDING = 4,
  NOT_FINITE = 5,
  POINTERS = 6;
export const PADDING = 7, GAP = 8, FIRST_VALUE = 9, LEAST_INT8 = 10;
export const MANY_SLOTS = 11, OTHER_BITS = 12, FIRST_BITS = 13, SCALE = 14;

/** Columns of list `i`, uint16. */
// @ts-ignore: decorator
@inline
export function columnsOf(d: usize, i: i32): usize {
  return load<usize>(d, SCRATCH) + <usize> i * <usize> load<u32>(d, COLUMNS) * 2;
}

/** Values of list `i`, each in four bytes. */
// @ts-ignore: decorator
@inline
export function valuesOf(d: usize, i: i32): usize {
  const columns = <usize> load<u32>(d, COLUMNS);
  return load<usize>(d, SCRATCH) + ((columns * 8 + 15) & ~15) + <usize> i * columns * 4;
}

/** Puts element `e` into a list at `n`; returns the list's new length: zeros are left out. */
// @ts-ignore: decorator
@inline
function put(
  values: usize,
  type: i32,
  e: usize,
  column: i32,
  columns: usize,
  list: usize,
  n: i32,
): i32 {
  store<u16>(columns + (<usize> n << 1), column);
  let isKept: bool;
  if (type == INT8) {
    const v = load<i8>(values + e);
    store<i32>(list + (<usize> n << 2), v);
    isKept = v != 0;
  } else if (type == INT4) {
    const v = levelAt(values, e);
    store<i32>(list + (<usize> n << 2), v);
    isKept = v != 0;
  } else if (type == F16) {
    const v = load<u16>(values + (e << 1));
    store<u32>(list + (<usize> n << 2), v);
    isKept = (v & 0x7fff) != 0;
  } else {
    const v = load<u32>(values + (e << 2));
    store<u32>(list + (<usize> n << 2), v);
    isKept = (v & 0x7fffffff) != 0;
  }
  return n + <i32> isKept;
}

/** Decodes row `row` into list `i`. Rows must come in order. */
function decode(d: usize, row: i32, i: i32): i32 {
  const format = load<i32>(d, FORMAT);
  store<i32>(d + (<usize> i << 2), 0, LENGTHS);
  if (row >= load<i32>(d, ROWS)) return OK;
  if (format == BITMAP) return decodeBitmap(d, row, i);
  if (format == CSR) return decodeCsr(d, row, i);
  if (format == SLOTS) return decodeSlots(d, row, i);
  return decodeNm(d, row, i);
}

function decodeBitmap(d: usize, row: i32, i: i32): i32 {
  const columns = load<i32>(d, COLUMNS), type = load<i32>(d, TYPE);
  const values = load<usize>(d, VALUES), count = load<u32>(d, COUNT);
  const perRow = (columns + 7) >> 3;
  const bits = load<usize>(d, INDICES) + <usize> row * <usize> perRow;
  const cs = columnsOf(d, i), vs = valuesOf(d, i);
  let e = load<u32>(d, ENTRY), n = 0;
  for (let b = 0; b < perRow; b++) {
    let byte = <i32> load<u8>(bits + b);
    if (b == perRow - 1 && (columns & 7) != 0 && byte >> (columns & 7) != 0) return PADDING;
    while (byte != 0) {
      // The first value is no weight.
      if (++e >= count) return TOO_FEW;
      n = put(values, type, e, (b << 3) + ctz(byte), cs, vs, n);
      byte &= byte - 1;
    }
  }
  store<u32>(d, e, ENTRY);
  store<i32>(d + (<usize> i << 2), n, LENGTHS);
  return OK;
}

function decodeCsr(d: usize, row: i32, i: i32): i32 {
  const columns = load<i32>(d, COLUMNS), type = load<i32>(d, TYPE);
  const values = load<usize>(d, VALUES), count = load<u32>(d, COUNT);
  const gaps = load<usize>(d, INDICES);
  const pointers = load<usize>(d, ROW_POINTERS) + (<usize> row << 2);
  const first = load<u32>(pointers), end = load<u32>(pointers, 4);
  if (first != load<u32>(d, ENTRY) || end < first || end > count) return POINTERS;
  const cs = columnsOf(d, i), vs = valuesOf(d, i);
  const rowStart = <i64> row * columns;
  let place = <i64> load<i32>(d, PLACE), n = 0;
  for (let e = first; e < end; e++) {
    const gap = load<u8>(gaps + <usize> e);
    if (gap == 0 && e > 0) return GAP;
    place += gap;
    const column = place - rowStart;
    if (column < 0 || column >= columns) return OUT_OF_ROW;
    n = put(values, type, e, <i32> column, cs, vs, n);
  }
  store<u32>(d, end, ENTRY);
  store<i32>(d, <i32> place, PLACE);
  store<i32>(d + (<usize> i << 2), n, LENGTHS);
  return OK;
}

function decodeNm(d: usize, row: i32, i: i32): i32 {
  const type = load<i32>(d, TYPE), rows = <usize> load<u32>(d, ROWS);
  const values = load<usize>(d, VALUES), codes = load<usize>(d, INDICES);
  const n = load<i32>(d, N), m = load<i32>(d, M), bits = load<i32>(d, BITS);
  const groups = load<i32>(d, COLUMNS) / m;
  const perRow = (rows * <usize> bits + 7) >> 3;
  const byte = <usize> (row * bits) >> 3, shift = (row * bits) & 7, mask = (1 << bits) - 1;
  const cs = columnsOf(d, i), vs = valuesOf(d, i);
  let length = 0;
  let e: usize = row, at = codes + byte;
  for (let g = 0, start = 0; g < groups; g++, start += m) {
    let last = -1;
    for (let j = 0; j < n; j++) {
      const code = (<i32> load<u8>(at) >> shift) & mask;
      if (code <= last) return NOT_ASCENDING;
      if (code >= m) return OUT_OF_ROW;
      last = code;
      length = put(values, type, e, start + code, cs, vs, length);
      e += rows;
      at += perRow;
    }
  }
  store<i32>(d + (<usize> i << 2), length, LENGTHS);
  return OK;
}

/** A row of windows; all rows of a window are read from the same slots and bits on. */
function decodeSlots(d: usize, row: i32, i: i32): i32 {
  const type = load<i32>(d, TYPE), windows = load<i32>(d, COLUMNS) >> 4;
  const values = load<usize>(d, VALUES), masks = load<usize>(d, ROW_POINTERS);
  const slots = load<u32>(d, COUNT) >> 4, most = load<u32>(d, MASKS);
  const perGroup = (windows + 1) >> 1;
  const counts = load<usize>(d, INDICES) + <usize> (row >> 2) * <usize> perGroup;
  const cs = columnsOf(d, i), vs = valuesOf(d, i), lane = row & 3;
  // Before the windows' own stand a slot of zeros, and two windows' bits.
  let slot = load<u32>(d, ENTRY) + 1, mask = load<u32>(d, PLACE) + 2, length = 0;
  for (let w = 0; w < windows; w++) {
    const n = <u32> (load<u8>(counts + <usize> (w >> 1)) >> <u8> ((w & 1) << 2)) & 15;
    if (n == 0) continue;
    if (n > 4) return MANY_SLOTS;
    if (slots < n || slot > slots - n) return TOO_FEW;
    let bits: u32 = 0xffff;
    if (n < 4) {
      if (mask >= most) return TOO_FEW;
      bits = load<u16>(masks + (<usize> mask << 3) + (<usize> lane << 1));
      if (popcnt<u32>(bits) != n << 2) return OTHER_BITS;
      mask++;
    }
    const e = (<usize> slot << 4) + (<usize> lane << 2);
    for (let k: usize = 0; bits != 0; k++) {
      const from = e + (k >> 2 << 4) + (k & 3);
      length = put(values, type, from, (w << 4) + <i32> ctz<u32>(bits), cs, vs, length);
      bits &= bits - 1;
    }
    slot += n;
  }
  if ((windows & 1) != 0 && load<u8>(counts + <usize> perGroup - 1) >> 4 != 0) return PADDING;
  if (lane == 3) {
    store<u32>(d, slot - 1, ENTRY);
    store<u32>(d, mask - 2, PLACE);
  }
  store<i32>(d + (<usize> i << 2), length, LENGTHS);
  return OK;
}

/** Whether all slots and bits were read, and those before the windows' own are what they must be. */
function checkSlots(d: usize): i32 {
  const slots = load<u32>(d, COUNT) >> 4, masks = load<usize>(d, ROW_POINTERS);
  if (load<u32>(d, ENTRY) + 1 != slots || load<u32>(d, PLACE) + 2 != load<u32>(d, MASKS)) {
    return TOO_MANY;
  }
  if (load<u64>(masks) != 0 || load<u64>(masks, 8) != u64.MAX_VALUE) return FIRST_BITS;
  const type = load<i32>(d, TYPE), values = load<usize>(d, VALUES);
  for (let e: usize = 0; e < 16; e++) {
    const bits = type == INT4
      ? <u32> levelAt(values, e)
      : type == INT8
      ? <u32> load<u8>(values + e)
      : type == F16
      ? <u32> load<u16>(values + (e << 1)) & 0x7fff
      : load<u32>(values + (e << 2)) & 0x7fffffff;
    if (bits != 0) return FIRST_VALUE;
  }
  return OK;
}

/** Whether a float's bits are NaN or infinite. */
// @ts-ignore: decorator
@inline
export function isNotFinite(type: i32, bits: u32): bool {
  return type == F16 ? (bits & 0x7c00) == 0x7c00 : (bits & 0x7f800000) == 0x7f800000;
}

// @ts-ignore: decorator
@inline
export function length(d: usize, i: i32): i32 {
  return load<i32>(d + (<usize> i << 2), LENGTHS);
}

/** Decodes rows `row` to `row + 3`. */
export function decodeFour(d: usize, row: i32): i32 {
  for (let i = 0; i < 4; i++) {
    const failure = decode(d, row + i, i);
    if (failure != OK) return failure;
  }
  return OK;
}

/** Whether all elements were read, and nothing lies between them that should not. */
export function checkEnd(d: usize): i32 {
  const format = load<i32>(d, FORMAT), entry = load<u32>(d, ENTRY);
  let count = load<u32>(d, COUNT);
  if (load<i32>(d, TYPE) == INT4) {
    // A bitmap's tensor has room for an even number of values: its bits tell how many there are.
    if (format == BITMAP && entry + 2 == count) count--;
    if ((count & 1) != 0 && load<u8>(load<usize>(d, VALUES) + <usize> (count >> 1)) >> 4 != 0) {
      return PADDING;
    }
  }
  if (format == CSR) return entry == count ? OK : TOO_MANY;
  if (format == SLOTS) return checkSlots(d);
  if (format != BITMAP) return checkCodes(d);
  if (entry + 1 != count) return TOO_MANY;
  const first = load<u32>(load<usize>(d, VALUES));
  const type = load<i32>(d, TYPE);
  // Stock runtimes fetch this one for every weight that is not there.
  const bits = type == INT4 ? first & 15 : type == INT8 ? first & 0xff : type == F16 ? first & 0x7fff : first & 0x7fffffff;
  return bits == 0 ? OK : FIRST_VALUE;
}

/** Whether bits behind the codes of the last row are 0. */
function checkCodes(d: usize): i32 {
  const used = load<i32>(d, ROWS) * load<i32>(d, BITS);
  if ((used & 7) == 0) return OK;
  const perRow = <usize> (used + 7) >> 3;
  const slots = load<i32>(d, COLUMNS) / load<i32>(d, M) * load<i32>(d, N);
  let last = load<usize>(d, INDICES) + perRow - 1;
  for (let i = 0; i < slots; i++) {
    if (load<u8>(last) >> <u8> (used & 7) != 0) return PADDING;
    last += perRow;
  }
  return OK;
}
