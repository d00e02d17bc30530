/**
 * From a file's formats to the layouts that kernels read, once, at load.
 *
 * A matrix is decoded four rows at a time into lists of columns and values, and written from those. The
 * formats are in `docs/format.md`, the layouts in `slots.ts`, `lists.ts` and `dense.ts`. What is read
 * may be damaged or made to do harm: a decoder goes nowhere beyond what the descriptor says is there.
 */
import {
  DENSE_INT4,
  DENSE_INT8,
  LISTS_F16,
  SEGMENT,
  SLOTS_ANY,
  SLOTS_ONE,
  SLOTS_ONE_INT4,
} from "./linear";
import { SEGMENT_BYTES } from "./dense";
import { denseBytes } from "./int4";
import { beginChunk, beyondSlots, chunkBytes, count, fillChunk } from "./pack_any";
import {
  isScaleDamaged,
  levelAt,
  openDenseInt4,
  packDenseRowInt4,
  packIntoDenseInt4,
  packSlotsInt4,
  sizeOfEight,
} from "./pack_int4";
import { widenHalves } from "./simd";
import { pairBytes, segmentBytes } from "./slots";

/** Words of a descriptor; `layout.ts` beside this folder has them for JavaScript. */
const FORMAT: usize = 0, TYPE: usize = 4;
export const ROWS: usize = 8, COLUMNS: usize = 12, VALUES: usize = 16;
const COUNT: usize = 20, INDICES: usize = 24;
const ROW_POINTERS: usize = 32, N: usize = 36, M: usize = 40, BITS: usize = 44;
/** Room for lists: `4 · columns · 6` bytes. */
const SCRATCH: usize = 48;
const KIND: usize = 52, OUT: usize = 56;
/** Where lists go, and the table of their places. */
const LISTS_OUT: usize = 60, TABLE: usize = 64;
/** Scales that lists of int8 are multiplied with, or 0; and their group. */
export const SCALES: usize = 68, GROUP: usize = 72;
/** Where a decoder is: entries read, and the position of the last. */
const ENTRY: usize = 76, PLACE: usize = 80;
/** Lengths of the four lists. */
export const LENGTHS: usize = 96;
/** What {@link survey} finds: how many weights have no slot when each window has one, or two. */
const BEYOND_ONE: usize = 112, BEYOND_TWO: usize = 116;
/** And with as many as it needs: bytes of all chunks, and what has no slot. */
const ANY_BYTES: usize = 120, BEYOND_ANY: usize = 124;
/** Table of the chunks. */
const CHUNKS: usize = 128;
/** Windows whose bits the format of slots has; `ROW_POINTERS` is where. */
const MASKS: usize = 132;

const BITMAP = 0, CSR = 1, SLOTS = 3; // and 2: N:M
const F32 = 0, F16 = 1, INT8 = 2, INT4 = 3;

/** What went wrong. */
const OK = 0,
  TOO_FEW = 1,
  TOO_MANY = 2,
  OUT_OF_ROW = 3,
  NOT_ASCENDING = 4,
  NOT_FINITE = 5,
  POINTERS = 6;
const PADDING = 7, GAP = 8, FIRST_VALUE = 9, LEAST_INT8 = 10;
const MANY_SLOTS = 11, OTHER_BITS = 12, FIRST_BITS = 13, SCALE = 14;

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
function isNotFinite(type: i32, bits: u32): bool {
  return type == F16 ? (bits & 0x7c00) == 0x7c00 : (bits & 0x7f800000) == 0x7f800000;
}

// @ts-ignore: decorator
@inline
export function length(d: usize, i: i32): i32 {
  return load<i32>(d + (<usize> i << 2), LENGTHS);
}

/** Decodes rows `row` to `row + 3`. */
function decodeFour(d: usize, row: i32): i32 {
  for (let i = 0; i < 4; i++) {
    const failure = decode(d, row + i, i);
    if (failure != OK) return failure;
  }
  return OK;
}

/** Whether all elements were read, and nothing lies between them that should not. */
function checkEnd(d: usize): i32 {
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

/** Goes through a matrix, checks it, and finds how dense it is. */
export function survey(d: usize): i32 {
  const rows = load<i32>(d, ROWS), type = load<i32>(d, TYPE);
  rewind(d);
  if (type == INT8) {
    const values = load<usize>(d, VALUES), count = <usize> load<u32>(d, COUNT);
    for (let e: usize = 0; e < count; e++) if (load<i8>(values + e) == -128) return LEAST_INT8;
  }
  if (type == INT4 && isScaleDamaged(d)) return SCALE;
  store<u32>(d, 0, BEYOND_ONE);
  store<u32>(d, 0, BEYOND_TWO);
  let beyondAny: u32 = 0, anyBytes: u32 = 0;
  const columns = load<i32>(d, COLUMNS);
  for (let row = 0; row < (rows + 15 & ~15); row += 4) {
    const failure = decodeFour(d, row);
    if (failure != OK) return failure;
    for (let i = 0; i < 4; i++) if (!surveyRow(d, i, type)) return NOT_FINITE;
    countFour(d);
    beyondAny += beyondSlots();
    anyBytes += <u32> chunkBytes();
  }
  store<u32>(d, beyondAny, BEYOND_ANY);
  store<u32>(d, anyBytes, ANY_BYTES);
  return checkEnd(d);
}

/** Counts what list `i` has beyond one and two slots; false where it holds NaN or infinity. */
function surveyRow(d: usize, i: i32, type: i32): bool {
  const n = length(d, i), cs = columnsOf(d, i), vs = valuesOf(d, i);
  let beyondOne: u32 = 0, beyondTwo: u32 = 0;
  for (let j = 0, k = 0; j < n; j = k) {
    const window = load<u16>(cs + (<usize> j << 1)) >> 4;
    for (k = j + 1; k < n && load<u16>(cs + (<usize> k << 1)) >> 4 == window;) k++;
    beyondOne += max(0, k - j - 4);
    beyondTwo += max(0, k - j - 8);
  }
  store<u32>(d, load<u32>(d, BEYOND_ONE) + beyondOne, BEYOND_ONE);
  store<u32>(d, load<u32>(d, BEYOND_TWO) + beyondTwo, BEYOND_TWO);
  if (type == INT8 || type == INT4) return true;
  for (let j = 0; j < n; j++) {
    if (isNotFinite(type, load<u32>(vs + (<usize> j << 2)))) return false;
  }
  return true;
}

/** Room behind the four lists, for `pack_any.ts`. */
// @ts-ignore: decorator
@inline
function roomOf(d: usize): usize {
  return valuesOf(d, 4);
}

/** Decides how many slots the windows of four decoded rows get. */
function countFour(d: usize): void {
  count(
    roomOf(d),
    load<i32>(d, COLUMNS),
    columnsOf(d, 0),
    columnsOf(d, 1),
    columnsOf(d, 2),
    columnsOf(d, 3),
    d + LENGTHS,
  );
}

function rewind(d: usize): void {
  store<u32>(d, 0, ENTRY);
  store<i32>(d, 0, PLACE);
}

/** Bytes of lists that {@link pack} will write. */
export function measure(d: usize): u32 {
  return packRows(d, false);
}

/** Writes a matrix in its layout; it must have been surveyed. Returns the bytes of its lists. */
export function pack(d: usize): u32 {
  return packRows(d, true);
}

function packRows(d: usize, isWritten: bool): u32 {
  const rows = (load<i32>(d, ROWS) + 15) & ~15, kind = load<i32>(d, KIND);
  const segments = <usize> ((load<i32>(d, COLUMNS) + SEGMENT - 1) / SEGMENT);
  const begin = load<usize>(d, LISTS_OUT);
  rewind(d);
  let out = load<usize>(d, OUT), lists = begin;
  for (let row = 0; row < rows; row += 4) {
    decodeFour(d, row);
    if (kind == DENSE_INT8) {
      if ((row & 15) == 0) {
        if (row > 0) out += segments * SEGMENT_BYTES;
        memory.fill(out, 0, segments * SEGMENT_BYTES);
      }
      packIntoDense(d, row, out);
      continue;
    }
    if (kind == DENSE_INT4) {
      if ((row & 15) == 0) {
        if (row > 0) out += denseBytes(segments, <usize> load<i32>(d, GROUP) / SEGMENT);
        openDenseInt4(d, row, out);
      }
      packIntoDenseInt4(d, row, out);
      continue;
    }
    if (kind == SLOTS_ANY) out += packAny(d, row, out, isWritten);
    else if (kind >= SLOTS_ONE_INT4) {
      packSlotsInt4(d, row, out, kind, segments, isWritten);
      if ((row & 4) != 0) out += sizeOfEight(d, kind, segments);
    } else if (kind < DENSE_INT8) {
      packSlots(d, row, out, kind, segments, isWritten);
      if ((row & 4) != 0) out += segments * segmentBytes(kind);
    }
    lists = packLists(d, row, lists, isWritten);
  }
  if (isWritten && kind != DENSE_INT8 && kind != DENSE_INT4) store<usize>(load<usize>(d, TABLE) + rows, lists);
  return <u32> (lists - begin);
}

/** As many slots for every window as it needs; what finds none stays in the lists. Returns the bytes. */
function packAny(d: usize, row: i32, out: usize, isWritten: bool): usize {
  const room = roomOf(d), columns = load<i32>(d, COLUMNS);
  countFour(d);
  if (isWritten) {
    store<usize>(load<usize>(d, CHUNKS) + <usize> row, out);
    beginChunk(out, room, columns);
  }
  for (let i = 0; i < 4; i++) {
    const left = fillChunk(
      out,
      room,
      columns,
      i,
      columnsOf(d, i),
      valuesOf(d, i),
      length(d, i),
      isWritten,
    );
    store<i32>(d + (<usize> i << 2), left, LENGTHS);
  }
  return chunkBytes();
}

/** One or two slots for every window; what finds none stays in the lists. */
function packSlots(
  d: usize,
  row: i32,
  out: usize,
  kind: i32,
  segments: usize,
  isWritten: bool,
): void {
  const most = kind == SLOTS_ONE ? 4 : 8;
  const second = <usize> ((row & 4) >> 2);
  if (isWritten && second == 0) memory.fill(out, 0, segments * segmentBytes(kind));
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i), n = length(d, i);
    let window = -1, k = 0, left = 0;
    for (let j = 0; j < n; j++) {
      const column = <i32> load<u16>(cs + (<usize> j << 1)),
        value = load<i32>(vs + (<usize> j << 2));
      if (column >> 4 != window) {
        window = column >> 4;
        k = 0;
      }
      if (k == most) {
        store<u16>(cs + (<usize> left << 1), column);
        store<i32>(vs + (<usize> left << 2), value);
        left++;
        continue;
      }
      if (isWritten) {
        const segment = out + <usize> (window >> 1) * segmentBytes(kind);
        const sum = segment + (second << 3) + (<usize> i << 1);
        store<i16>(sum, load<i16>(sum) - value);
        // The pair, the slot in it, and the lane's byte in the slot.
        const pair = segment + 16 + second * pairBytes(kind) +
          (kind == SLOTS_ONE ? 0 : <usize> (window & 1) * 48);
        const slot = kind == SLOTS_ONE ? window & 1 : k >> 2;
        const index = pair + <usize> ((i << 2) + (k & 3));
        store<i8>(index + 16 + (<usize> slot << 4), value);
        store<u8>(index, <i32> load<u8>(index) | (column & 15) << (slot << 2));
      }
      k++;
    }
    store<i32>(d + (<usize> i << 2), left, LENGTHS);
  }
}

/** A matrix that is hardly sparse, into the dense layout. */
function packIntoDense(d: usize, row: i32, out: usize): void {
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i), n = length(d, i);
    const lane = <usize> ((row + i) & 15);
    for (let j = 0; j < n; j++) {
      const column = <usize> load<u16>(cs + (<usize> j << 1)),
        value = load<i32>(vs + (<usize> j << 2));
      const segment = out + column / SEGMENT * SEGMENT_BYTES;
      const sum = segment + (lane << 1);
      store<i16>(sum, load<i16>(sum) - value);
      store<i8>(segment + 32 + ((column % SEGMENT >> 2) << 6) + (lane << 2) + (column & 3), value);
    }
  }
}

/** Lists of floats, the four rows beside each other. */
function packLists(d: usize, row: i32, out: usize, isWritten: bool): usize {
  const halves = load<i32>(d, KIND) == LISTS_F16, type = load<i32>(d, TYPE);
  const size: usize = halves ? 8 : 16;
  const n = max(max(length(d, 0), length(d, 1)), max(length(d, 2), length(d, 3)));
  const end = out + <usize> n * (size + 8);
  if (!isWritten) return end;
  store<usize>(load<usize>(d, TABLE) + <usize> row, out);
  memory.fill(out, 0, end - out);
  const columns = load<i32>(d, COLUMNS), group = load<i32>(d, GROUP);
  const scales = load<usize>(d, SCALES);
  const perRow = scales != 0 ? (columns + group - 1) / group : 0;
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i);
    for (let j = 0; j < length(d, i); j++) {
      const at = out + <usize> j * (size + 8);
      const column = load<u16>(cs + (<usize> j << 1));
      const bits = load<u32>(vs + (<usize> j << 2));
      store<u16>(at + size + (<usize> i << 1), column);
      if (halves) store<u16>(at + (<usize> i << 1), bits);
      else if (type == INT8) {
        // Beside slots the scale of a row comes when all is summed.
        const scale: f32 = scales == 0 ? 1 : load<f32>(
          scales + (<usize> ((row + i) * perRow + <i32> column / group) << 2),
        );
        store<f32>(at + (<usize> i << 2), <f32> <i32> bits * scale);
      } else if (type == INT4) {
        const half = load<u16>(scales + (<usize> ((row + i) * perRow + <i32> column / group) << 1));
        const scale = f32x4.extract_lane(widenHalves(i32x4.splat(half)), 0);
        store<f32>(at + (<usize> i << 2), <f32> <i32> bits * scale);
      } else if (type == F16) {
        store<f32>(at + (<usize> i << 2), f32x4.extract_lane(widenHalves(i32x4.splat(bits)), 0));
      } else store<u32>(at + (<usize> i << 2), bits);
    }
  }
  return end;
}

/**
 * Dense rows, 16 at a time, into the layouts of `dense.ts`. `VALUES` is `[ROWS, COLUMNS]`; rows that
 * fill the last group are zeros.
 */
export function packDense(d: usize): i32 {
  const rows = load<i32>(d, ROWS), columns = load<i32>(d, COLUMNS), type = load<i32>(d, TYPE);
  const values = load<usize>(d, VALUES);
  const segments = <usize> ((columns + SEGMENT - 1) / SEGMENT);
  const size: usize = type == INT4
    ? denseBytes(segments, <usize> load<i32>(d, GROUP) / SEGMENT)
    : type == INT8
    ? segments * SEGMENT_BYTES
    : segments << (type == F16 ? 10 : 11);
  if (type == INT4 && isScaleDamaged(d)) return SCALE;
  let out = load<usize>(d, OUT);
  for (let first = 0; first < rows; first += 16) {
    memory.fill(out, 0, size);
    if (type == INT4) openDenseInt4(d, first, out);
    for (let i = 0; i < 16 && first + i < rows; i++) {
      const row = <usize> (first + i) * <usize> columns;
      if (type == INT4) {
        if (!packDenseRowInt4(d, first + i, out)) return PADDING;
        continue;
      }
      if (type == INT8) {
        packDenseInt8(values + row, out, i, columns, segments);
        continue;
      }
      for (let c = 0; c < columns; c++) {
        if (type == F16) {
          const bits = load<u16>(values + ((row + c) << 1));
          if (isNotFinite(F16, bits)) return NOT_FINITE;
          store<u16>(out + (<usize> c << 5) + (<usize> i << 1), bits);
        } else {
          const bits = load<u32>(values + ((row + c) << 2));
          if (isNotFinite(F32, bits)) return NOT_FINITE;
          store<u32>(out + (<usize> c << 6) + (<usize> i << 2), bits);
        }
      }
    }
    out += size;
  }
  return OK;
}

function packDenseInt8(row: usize, out: usize, i: i32, columns: i32, segments: usize): void {
  let c = 0;
  for (let s: usize = 0; s < segments; s++) {
    const segment = out + s * SEGMENT_BYTES, body = segment + 32 + (<usize> i << 2);
    let sum = 0;
    for (const end = min(columns, c + SEGMENT); c < end; c++) {
      const v = load<i8>(row + <usize> c);
      sum += v;
      store<i8>(body + (<usize> (c % SEGMENT >> 2) << 6) + (c & 3), v);
    }
    store<i16>(segment + (<usize> i << 1), -sum);
  }
}
