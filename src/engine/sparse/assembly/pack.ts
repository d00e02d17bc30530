/**
 * From a file's formats to the layouts that kernels read, once, at load.
 *
 * A matrix is decoded four rows at a time into lists of columns and values (`decode.ts`), and written from
 * those. The layouts are in `slots.ts`, `slots_any.ts`, `beside.ts`, `lists.ts` and `dense.ts`.
 */
import { BESIDE, BESIDE_COLUMN, BESIDE_ROW } from "./beside";
import {
  DENSE_INT4,
  DENSE_INT8,
  LISTS_F16,
  LISTS_F32,
  SEGMENT,
  SLOTS_ANY,
  SLOTS_ONE,
  SLOTS_ONE_INT4,
  SLOTS_TWO,
  SLOTS_TWO_INT4,
} from "./linear";
import {
  ANY_BYTES,
  BEYOND_ANY,
  BEYOND_ONE,
  BEYOND_TWO,
  checkEnd,
  CHUNKS,
  COLUMNS,
  columnsOf,
  COUNT,
  decodeFour,
  ENTRY,
  F16,
  F32,
  GROUP,
  INT4,
  INT8,
  isNotFinite,
  KIND,
  LEAST_INT8,
  length,
  LENGTHS,
  LISTS_OUT,
  NOT_FINITE,
  OK,
  OUT,
  PADDING,
  PLACE,
  ROWS,
  SCALE,
  SCALES,
  TABLE,
  TYPE,
  VALUES,
  valuesOf,
} from "./decode";
import { SEGMENT_BYTES } from "./dense";
import { denseBytes } from "./int4";
import { beginChunk, beyondSlots, chunkBytes, count, decide, fillChunk } from "./pack_any";
import { balance } from "./pack_balance";
import { countBits, isBitmap, packBits } from "./pack_bitmap";
import {
  isScaleDamaged,
  openDenseInt4,
  packDenseRowInt4,
  packIntoDenseInt4,
  packSlotsInt4,
  sizeOfEight,
} from "./pack_int4";
import { packBitsInt4 } from "./pack_bitmap_int4";
import { countCodes, isWindowedNm, packCodes } from "./pack_nm";
import { halfAt, sumOfLanes } from "./simd";
import { pairBytes, segmentBytes } from "./slots";

/** Goes through a matrix, checks it, and finds how dense it is. */
export function survey(d: usize): i32 {
  const rows = load<i32>(d, ROWS), type = load<i32>(d, TYPE);
  const columns = load<i32>(d, COLUMNS), windows = <usize> ((columns + 15) >> 4);
  rewind(d);
  if (type == INT8 && hasLeast(load<usize>(d, VALUES), <usize> load<u32>(d, COUNT))) {
    return LEAST_INT8;
  }
  if (type == INT4 && isScaleDamaged(d)) return SCALE;
  const room = roomOf(d), isWindowed = isBitmap(d) || isWindowedNm(d);
  let beyondOne: u32 = 0, beyondTwo: u32 = 0, beyondAny: u32 = 0, anyBytes: u32 = 0;
  for (let row = 0; row < (rows + 15 & ~15); row += 4) {
    let failure: i32;
    if (isWindowed) {
      memory.fill(room, 0, windows * 4);
      failure = isBitmap(d) ? countBits(d, row, room) : countCodes(d, row, room);
    } else {
      failure = decodeFour(d, row);
      if (failure == OK) failure = countFour(d, type);
    }
    if (failure != OK) return failure;
    for (let at = room; at < room + windows * 4; at++) {
      const n = <i32> load<u8>(at);
      beyondOne += max(0, n - 4);
      beyondTwo += max(0, n - 8);
    }
    decide(room, columns);
    beyondAny += beyondSlots();
    anyBytes += <u32> chunkBytes();
  }
  store<u32>(d, beyondOne, BEYOND_ONE);
  store<u32>(d, beyondTwo, BEYOND_TWO);
  store<u32>(d, beyondAny, BEYOND_ANY);
  store<u32>(d, anyBytes, ANY_BYTES);
  return checkEnd(d);
}

/** Whether one of `count` int8 numbers is -128. */
function hasLeast(values: usize, count: usize): bool {
  let e: usize = 0;
  for (; e + 16 <= count; e += 16) {
    if (v128.any_true(i8x16.eq(v128.load(values + e), i8x16.splat(-128)))) return true;
  }
  for (; e < count; e++) if (load<i8>(values + e) == -128) return true;
  return false;
}

/** Counts the weights of each window of four decoded rows; not where they hold NaN or infinity. */
function countFour(d: usize, type: i32): i32 {
  if (type != INT8 && type != INT4) {
    for (let i = 0; i < 4; i++) {
      const values = valuesOf(d, i), end = values + (<usize> length(d, i) << 2);
      for (let at = values; at < end; at += 4) {
        if (isNotFinite(type, load<u32>(at))) return NOT_FINITE;
      }
    }
  }
  count(
    roomOf(d),
    load<i32>(d, COLUMNS),
    columnsOf(d, 0),
    columnsOf(d, 1),
    columnsOf(d, 2),
    columnsOf(d, 3),
    d + LENGTHS,
  );
  return OK;
}

/** Room behind the four lists, for `pack_any.ts`. */
// @ts-ignore: decorator
@inline
function roomOf(d: usize): usize {
  return valuesOf(d, 4);
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
  const begin = load<usize>(d, LISTS_OUT), isWindowed = isBitmap(d) || isWindowedNm(d);
  const isInt8 = kind == SLOTS_ONE || kind == SLOTS_TWO;
  const isInt4 = kind == SLOTS_ONE_INT4 || kind == SLOTS_TWO_INT4;
  // Of eight rows in slots of equal number.
  const size = isInt4 ? sizeOfEight(d, kind, segments) : segments * segmentBytes(kind);
  rewind(d);
  let out = load<usize>(d, OUT), lists = begin;
  for (let row = 0; row < rows; row += 4) {
    if (isInt8 || isInt4) {
      if (isWritten && (row & 4) == 0) memory.fill(out, 0, size);
      if (!isWindowed) {
        decodeFour(d, row);
        if (isInt4) packSlotsInt4(d, row, out, kind, isWritten);
        else packSlots(d, row, out, kind, isWritten);
      } else if (isInt4) packBitsInt4(d, row, out, kind, isWritten);
      else if (isBitmap(d)) packBits(d, row, out, kind, isWritten);
      else packCodes(d, row, out, kind, isWritten);
      if (isWritten && kind == SLOTS_TWO) balance(out + ((row & 4) == 0 ? 0 : pairBytes(kind)), segments);
      if ((row & 4) != 0) out += size;
      lists = packLists(d, row, lists, isWritten);
      continue;
    }
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
    lists = packLists(d, row, lists, isWritten);
  }
  if (isWritten && kind != DENSE_INT8 && kind != DENSE_INT4) store<usize>(load<usize>(d, TABLE) + rows, lists);
  return <u32> (lists - begin);
}

/** As many slots for every window as it needs; what finds none stays in the lists. Returns the bytes. */
function packAny(d: usize, row: i32, out: usize, isWritten: bool): usize {
  const room = roomOf(d), columns = load<i32>(d, COLUMNS);
  countFour(d, load<i32>(d, TYPE));
  decide(room, columns);
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
function packSlots(d: usize, row: i32, out: usize, kind: i32, isWritten: bool): void {
  const most = kind == SLOTS_ONE ? 4 : 8;
  const second = <usize> ((row & 4) >> 2);
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
        // The pair, the slot in it, and the lane's byte in the slot.
        const pair = segment + second * pairBytes(kind) +
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

/** What is left of four rows as lists: of a matrix that is in lists, or of weights beside slots. */
function packLists(d: usize, row: i32, out: usize, isWritten: bool): usize {
  const kind = load<i32>(d, KIND);
  if (kind != LISTS_F32 && kind != LISTS_F16) return packBeside(d, row, out, isWritten);
  const halves = kind == LISTS_F16, type = load<i32>(d, TYPE);
  const size: usize = halves ? 8 : 16;
  const n = max(max(length(d, 0), length(d, 1)), max(length(d, 2), length(d, 3)));
  const end = out + <usize> n * (size + 8);
  if (!isWritten) return end;
  store<usize>(load<usize>(d, TABLE) + <usize> row, out);
  memory.fill(out, 0, end - out);
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i);
    for (let j = 0; j < length(d, i); j++) {
      const at = out + <usize> j * (size + 8);
      const column = load<u16>(cs + (<usize> j << 1));
      const bits = load<u32>(vs + (<usize> j << 2));
      store<u16>(at + size + (<usize> i << 1), column);
      if (halves) store<u16>(at + (<usize> i << 1), bits);
      else if (type == F16) {
        store<f32>(at + (<usize> i << 2), halfAt(vs + (<usize> j << 2)));
      } else if (type == INT8) store<f32>(at + (<usize> i << 2), <f32> <i32> bits * scaleOf(d, row + i, column));
      else store<u32>(at + (<usize> i << 2), bits);
    }
  }
  return end;
}

/** What a weight in lists is to be multiplied with: 1 where the scale of its row comes when all is summed. */
function scaleOf(d: usize, row: i32, column: u16): f32 {
  const scales = load<usize>(d, SCALES), group = load<i32>(d, GROUP);
  if (scales == 0) return 1;
  const at = <usize> (row * ((load<i32>(d, COLUMNS) + group - 1) / group) + <i32> column / group);
  if (load<i32>(d, TYPE) == INT8) return load<f32>(scales + (at << 2));
  return halfAt(scales + (at << 1));
}

/** Four rows' weights beside slots, as `beside.ts` has them. */
function packBeside(d: usize, row: i32, out: usize, isWritten: bool): usize {
  const count = length(d, 0) + length(d, 1) + length(d, 2) + length(d, 3), end = out + <usize> count * BESIDE;
  if (!isWritten) return end;
  store<usize>(load<usize>(d, TABLE) + <usize> row, out);
  for (let j = 0, at = out; at < end; j++) {
    for (let i = 0; i < 4; i++) {
      if (j >= length(d, i)) continue;
      const column = load<u16>(columnsOf(d, i) + (<usize> j << 1));
      const value = load<i32>(valuesOf(d, i) + (<usize> j << 2));
      store<f32>(at, <f32> value * scaleOf(d, row + i, column));
      store<u16>(at, column, BESIDE_COLUMN);
      store<u16>(at, <u16> (row + i), BESIDE_ROW);
      at += BESIDE;
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
  for (let s: usize = 0; s < segments; s++) {
    const segment = out + s * SEGMENT_BYTES, body = segment + 32 + (<usize> i << 2);
    const from = row + s * SEGMENT, count = min(SEGMENT, columns - <i32> s * SEGMENT);
    let sum = 0;
    if (count == SEGMENT) {
      const a = i16x8.extadd_pairwise_i8x16_s(v128.load(from));
      const b = i16x8.extadd_pairwise_i8x16_s(v128.load(from, 16));
      sum = sumOfLanes(i32x4.extadd_pairwise_i16x8_s(i16x8.add(a, b)));
      for (let g: usize = 0; g < 8; g++) store<u32>(body + (g << 6), load<u32>(from + (g << 2)));
    } else {
      for (let c = 0; c < count; c++) {
        const v = load<i8>(from + <usize> c);
        sum += v;
        store<i8>(body + (<usize> (c >> 2) << 6) + (c & 3), v);
      }
    }
    store<i16>(segment + (<usize> i << 1), -sum);
  }
}
