/**
 * From a file's formats to the layouts that kernels read, once, at load.
 *
 * A matrix is decoded four rows at a time into lists of columns and values, and written from those. The
 * formats are in `docs/format.md`, the layouts in `slots.ts`, `lists.ts` and `dense.ts`. What is read
 * may be damaged or made to do harm: a decoder goes nowhere beyond what the descriptor says is there.
 */
import { DENSE_INT8, LISTS_F16, SLOTS_ANY, SLOTS_ONE } from "./linear";
import { widenHalves } from "./simd";

/** Words of a descriptor; `layout.ts` beside this folder has them for JavaScript. */
const FORMAT: usize = 0, TYPE: usize = 4, ROWS: usize = 8, COLUMNS: usize = 12;
const VALUES: usize = 16, COUNT: usize = 20, INDICES: usize = 24;
const ROW_POINTERS: usize = 32, N: usize = 36, M: usize = 40, BITS: usize = 44;
/** Room for lists: `4 · columns · 6` bytes. */
const SCRATCH: usize = 48;
const KIND: usize = 52, SEGMENT: usize = 56, OUT: usize = 60, TABLE: usize = 64;
/** Scales and their group, where int8 becomes float32. */
const SCALES: usize = 68, GROUP: usize = 72;
/** Where a decoder is: entries read, and the position of the last. */
const ENTRY: usize = 76, PLACE: usize = 80;
/** Lengths of the four lists. */
const LENGTHS: usize = 96;
/** What {@link survey} finds: most weights of a row in a window of 16 inputs, and how many there are. */
const MOST: usize = 112, TOTAL: usize = 116;

const BITMAP = 0, CSR = 1; // and 2: N:M
const F32 = 0, F16 = 1, INT8 = 2;

/** What went wrong. */
const OK = 0,
  TOO_FEW = 1,
  TOO_MANY = 2,
  OUT_OF_ROW = 3,
  NOT_ASCENDING = 4,
  NOT_FINITE = 5,
  POINTERS = 6;
const PADDING = 7, GAP = 8, FIRST_VALUE = 9, LEAST_INT8 = 10;

/** Columns of list `i`, uint16. */
// @ts-ignore: decorator
@inline
function columnsOf(d: usize, i: i32): usize {
  return load<usize>(d, SCRATCH) + <usize> i * <usize> load<u32>(d, COLUMNS) * 2;
}

/** Values of list `i`, each in four bytes. */
// @ts-ignore: decorator
@inline
function valuesOf(d: usize, i: i32): usize {
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

/** Whether a float's bits are NaN or infinite. */
// @ts-ignore: decorator
@inline
function isNotFinite(type: i32, bits: u32): bool {
  return type == F16 ? (bits & 0x7c00) == 0x7c00 : (bits & 0x7f800000) == 0x7f800000;
}

// @ts-ignore: decorator
@inline
function length(d: usize, i: i32): i32 {
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
  const format = load<i32>(d, FORMAT), entry = load<u32>(d, ENTRY), count = load<u32>(d, COUNT);
  if (format == CSR) return entry == count ? OK : TOO_MANY;
  if (format != BITMAP) return checkCodes(d);
  if (entry + 1 != count) return TOO_MANY;
  const first = load<u32>(load<usize>(d, VALUES));
  const type = load<i32>(d, TYPE);
  // Stock runtimes fetch this one for every weight that is not there.
  const bits = type == INT8 ? first & 0xff : type == F16 ? first & 0x7fff : first & 0x7fffffff;
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
  store<u32>(d, 0, ENTRY);
  store<i32>(d, 0, PLACE);
  let most = 0;
  let total: u32 = 0;
  for (let row = 0; row < rows; row++) {
    const failure = decode(d, row, 0);
    if (failure != OK) return failure;
    const n = length(d, 0), cs = columnsOf(d, 0), vs = valuesOf(d, 0);
    total += n;
    for (let j = 0, k = 0; j < n;) {
      const window = load<u16>(cs + (<usize> j << 1)) >> 4;
      for (k = j + 1; k < n && load<u16>(cs + (<usize> k << 1)) >> 4 == window; k++) {}
      most = max(most, k - j);
      j = k;
    }
    for (let j = 0; j < n; j++) {
      const bits = load<u32>(vs + (<usize> j << 2));
      if (type == INT8) {
        if (<i32> bits == -128) return LEAST_INT8;
      } else if (isNotFinite(type, bits)) return NOT_FINITE;
    }
  }
  store<i32>(d, most, MOST);
  store<u32>(d, total, TOTAL);
  return checkEnd(d);
}

/** Bytes that {@link pack} will write for layouts whose rows have no common size. */
export function measure(d: usize): u32 {
  return packRows(d, false);
}

/** Writes a matrix in its layout; it must have been surveyed. */
export function pack(d: usize): u32 {
  return packRows(d, true);
}

function packRows(d: usize, isWritten: bool): u32 {
  const rows = (load<i32>(d, ROWS) + 15) & ~15, kind = load<i32>(d, KIND);
  const begin = load<usize>(d, OUT);
  store<u32>(d, 0, ENTRY);
  store<i32>(d, 0, PLACE);
  let out = begin;
  for (let row = 0; row < rows; row += 4) {
    decodeFour(d, row);
    if (kind <= SLOTS_ANY) {
      out = kind == SLOTS_ANY ? packAny(d, row, out, isWritten) : packRegular(d, out, kind);
    } else out = packLists(d, row, out, isWritten);
  }
  if (isWritten && kind > SLOTS_ANY) store<usize>(load<usize>(d, TABLE) + rows, out);
  return <u32> (out - begin);
}

/** -Σw of each segment of the four lists. */
function packSums(d: usize, out: usize, segments: i32, inputs: i32): void {
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i), n = length(d, i);
    let j = 0;
    for (let s = 0; s < segments; s++) {
      const end = (s + 1) * inputs;
      let sum = 0;
      for (; j < n && <i32> load<u16>(cs + (<usize> j << 1)) < end; j++) {
        sum += load<i32>(vs + (<usize> j << 2));
      }
      store<i16>(out + (<usize> s << 3) + (<usize> i << 1), -sum);
    }
  }
}

/** One or two slots for every window. */
function packRegular(d: usize, out: usize, kind: i32): usize {
  const windows = ((load<i32>(d, COLUMNS) + 31) >> 5) << 1, segment = load<i32>(d, SEGMENT);
  const segments = (windows + segment - 1) / segment;
  const head = ((<usize> segments << 3) + 15) & ~15;
  const size = head + <usize> windows * (kind == SLOTS_ONE ? 24 : 48);
  memory.fill(out, 0, size);
  packSums(d, out, segments, segment << 4);
  const body = out + head;
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i), n = length(d, i);
    let window = -1, k = 0;
    for (let j = 0; j < n; j++) {
      const column = <i32> load<u16>(cs + (<usize> j << 1));
      if (column >> 4 != window) {
        window = column >> 4;
        k = 0;
      }
      // The pair, the slot in it, and the lane's byte in the slot.
      const pair = body + (kind == SLOTS_ONE ? <usize> (window >> 1) * 48 : <usize> window * 48);
      const slot = kind == SLOTS_ONE ? window & 1 : k >> 2;
      const byte = <usize> ((i << 2) + (k & 3));
      store<i8>(pair + 16 + (<usize> slot << 4) + byte, load<i32>(vs + (<usize> j << 2)));
      const index = pair + byte;
      store<u8>(index, <i32> load<u8>(index) | (column & 15) << (slot << 2));
      k++;
    }
  }
  return out + size;
}

/** As many slots for each segment as it needs, their windows where they are needed. */
function packAny(d: usize, row: i32, out: usize, isWritten: bool): usize {
  const windows = ((load<i32>(d, COLUMNS) + 31) >> 5) << 1, segment = load<i32>(d, SEGMENT);
  const segments = (windows + segment - 1) / segment, inputs = segment << 4;
  const c0 = columnsOf(d, 0), c1 = columnsOf(d, 1), c2 = columnsOf(d, 2), c3 = columnsOf(d, 3);
  const n0 = length(d, 0), n1 = length(d, 1), n2 = length(d, 2), n3 = length(d, 3);
  // Columns and lengths of the lists in turn; how far each has been read.
  let j0 = 0, j1 = 0, j2 = 0, j3 = 0;
  const counts = out + (<usize> segments << 3), offsets = counts + segments;
  if (isWritten) packSums(d, out, segments, inputs);
  // First the number of slots, for pairs begin behind the offsets of all.
  let pairs = 0;
  for (let s = 0; s < segments; s++) {
    const end = (s + 1) * inputs;
    let slots = 0;
    for (;;) {
      const start = min(
        min(next(c0, j0, n0), next(c1, j1, n1)),
        min(next(c2, j2, n2), next(c3, j3, n3)),
      );
      if (start >= end) break;
      const stop = min(start + 16, end);
      j0 = skip(c0, j0, n0, stop);
      j1 = skip(c1, j1, n1, stop);
      j2 = skip(c2, j2, n2, stop);
      j3 = skip(c3, j3, n3, stop);
      if (isWritten) store<u8>(offsets + (<usize> pairs << 1) + slots, start - s * inputs);
      slots++;
    }
    if (isWritten) {
      if (slots & 1) store<u8>(offsets + (<usize> pairs << 1) + slots, 0);
      store<u8>(counts + s, (slots + 1) >> 1);
    }
    pairs += (slots + 1) >> 1;
  }
  const body = (offsets + (<usize> pairs << 1) + 15) & ~15;
  const end = body + <usize> pairs * 48;
  if (!isWritten) return end;

  const table = load<usize>(d, TABLE) + (<usize> row << 1);
  store<usize>(table, out);
  store<usize>(table, body, 4);
  memory.fill(body, 0, end - body);
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i), n = length(d, i);
    let j = 0, offset = offsets, pair = body;
    for (let s = 0; s < segments; s++) {
      const stop = (s + 1) * inputs;
      for (let p = <i32> load<u8>(counts + s); p > 0; p--) {
        for (let slot = 0; slot < 2; slot++) {
          const start = s * inputs + load<u8>(offset++);
          const last = min(start + 16, stop);
          for (let k = 0; k < 4 && j < n; k++, j++) {
            const column = <i32> load<u16>(cs + (<usize> j << 1));
            if (column >= last) break;
            const byte = <usize> ((i << 2) + k);
            store<i8>(pair + 16 + (<usize> slot << 4) + byte, load<i32>(vs + (<usize> j << 2)));
            const index = pair + byte;
            store<u8>(index, <i32> load<u8>(index) | (column - start) << (slot << 2));
          }
        }
        pair += 48;
      }
    }
  }
  return end;
}

// @ts-ignore: decorator
@inline
function next(columns: usize, j: i32, n: i32): i32 {
  return j < n ? <i32> load<u16>(columns + (<usize> j << 1)) : i32.MAX_VALUE;
}

/** After up to four entries before `stop`. */
// @ts-ignore: decorator
@inline
function skip(columns: usize, j: i32, n: i32, stop: i32): i32 {
  const most = min(n, j + 4);
  while (j < most && <i32> load<u16>(columns + (<usize> j << 1)) < stop) j++;
  return j;
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
  const perRow = type == INT8 ? (columns + group - 1) / group : 0;
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i);
    for (let j = 0; j < length(d, i); j++) {
      const at = out + <usize> j * (size + 8);
      const column = load<u16>(cs + (<usize> j << 1));
      const bits = load<u32>(vs + (<usize> j << 2));
      store<u16>(at + size + (<usize> i << 1), column);
      if (halves) store<u16>(at + (<usize> i << 1), bits);
      else if (type == INT8) {
        const scale = load<f32>(
          scales + (<usize> ((row + i) * perRow + <i32> column / group) << 2),
        );
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
  const kind = load<i32>(d, KIND);
  const values = load<usize>(d, VALUES);
  const windows = ((columns + 31) >> 5) << 1, segment = load<i32>(d, SEGMENT);
  const segments = (windows + segment - 1) / segment;
  let out = load<usize>(d, OUT);
  for (let first = 0; first < rows; first += 16) {
    const size: usize = kind == DENSE_INT8
      ? (<usize> segments << 5) + (<usize> windows << 8)
      : <usize> windows << (type == F16 ? 9 : 10);
    memory.fill(out, 0, size);
    for (let i = 0; i < 16 && first + i < rows; i++) {
      const row = <usize> (first + i) * <usize> columns;
      if (kind == DENSE_INT8) packDenseInt8(values + row, out, i, columns, segments, segment << 4);
      else {
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
    }
    out += size;
  }
  return OK;
}

function packDenseInt8(
  row: usize,
  out: usize,
  i: i32,
  columns: i32,
  segments: i32,
  inputs: i32,
): void {
  const body = out + (<usize> segments << 5) + (<usize> i << 2);
  let c = 0;
  for (let s = 0; s < segments; s++) {
    let sum = 0;
    for (const end = min(columns, (s + 1) * inputs); c < end; c++) {
      const v = load<i8>(row + <usize> c);
      sum += v;
      store<i8>(body + (<usize> (c >> 2) << 6) + (c & 3), v);
    }
    store<i16>(out + (<usize> s << 5) + (<usize> i << 1), -sum);
  }
}
