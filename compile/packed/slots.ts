/**
 * Slots: windows of 4 rows × 16 columns, each with as many slots of 4 weights a row as it needs.
 * @module
 */
import { quote } from "../../src/checks.ts";
import { FormatUnfitError } from "../../src/errors.ts";
import {
  applyScales,
  bitsOf,
  bytesOfValues,
  elementsOf,
  narrow,
  nonzero,
  roomLike,
} from "./quantize.ts";
import {
  checkLength,
  checkShape,
  checkValues,
  damaged,
  type Matrix,
  newDense,
  type Shape,
  type ValueOptions,
  type Values,
} from "./types.ts";

/** Rows of a window. */
export const SLOT_ROWS = 4;
/** Columns of a window. */
export const SLOT_COLUMNS = 16;
/** Weights of each row in a slot. */
export const SLOT_DEPTH = 4;
/** Weights in a slot. */
const SLOT_WEIGHTS = SLOT_ROWS * SLOT_DEPTH;
/** Slots of a window that is stored whole. */
export const MOST_SLOTS = SLOT_COLUMNS / SLOT_DEPTH;
/** Bytes of a window's bits: two a row. */
const MASK_BYTES = SLOT_ROWS * SLOT_COLUMNS / 8;
/** Windows at the head of `masks` that belong to no window of the matrix: none and all of 64 bits. */
const FIXED_MASKS = 2;
/** Slots at the head of `values` that belong to no window: one of zeros. */
const FIXED_SLOTS = 1;

/** A matrix whose windows of 4 rows × 16 columns have from 0 to 4 slots; see `docs/format.md`. */
export interface PackedSlots extends Shape {
  readonly name: string;
  /** `[1 + slots, 4 rows, 4]`: a slot of zeros, then the slots of the windows in their order. */
  readonly values: Values;
  /** `[rows / 4, ⌈columns / 32⌉]`: slots of each window, four bits each. */
  readonly counts: Uint8Array;
  /** `[2 + windows of 1 to 3 slots, 4 rows, 2]`: no bit, all bits, then those windows' bits. */
  readonly masks: Uint8Array;
}

/** What the slots of a matrix take. */
export interface SlotCounts {
  /** Slots of all windows. */
  readonly slots: number;
  /** Windows with 1 to 3 slots: those whose bits are stored. */
  readonly partial: number;
}

/** Whether the rows and columns of a matrix can be cut into windows. */
export function fitsSlots({ rows, columns }: Shape): boolean {
  return rows % SLOT_ROWS === 0 && columns % SLOT_COLUMNS === 0;
}

/**
 * Counts the slots that a matrix needs.
 *
 * @param matrix The matrix; {@linkcode fitsSlots} holds for it.
 */
export function countSlots(matrix: Pick<Matrix, "values" | "rows" | "columns">): SlotCounts {
  const bits = bitsOf(matrix.values);
  const windows = matrix.columns / SLOT_COLUMNS;
  let slots = 0;
  let partial = 0;
  for (let group = 0; group < matrix.rows / SLOT_ROWS; group++) {
    for (let window = 0; window < windows; window++) {
      const count = slotsOf(bits, matrix.columns, group, window);
      slots += count;
      partial += count > 0 && count < MOST_SLOTS ? 1 : 0;
    }
  }
  return { slots, partial };
}

/**
 * Packs a matrix, whatever its zeros: a window gets a slot for every four nonzero weights, begun, of the
 * row that has most of them. Rows that have fewer store zeros: their first ones.
 *
 * @param matrix The matrix; not changed.
 * @param options How weights are stored.
 * @throws {FormatUnfitError} When 4 does not divide its rows or 16 its columns, or the value type does
 * not hold it.
 * @throws {NotFiniteError} When a weight is NaN or infinite.
 */
export function encodeSlots(matrix: Matrix, options: ValueOptions): PackedSlots {
  const { name, rows, columns } = matrix;
  const narrowed = narrow(matrix, options);
  if (!fitsSlots(matrix)) throw unfit(matrix);
  const found = countSlots(matrix);
  const values = roomLike(narrowed, (FIXED_SLOTS + found.slots) * SLOT_WEIGHTS);
  const masks = new Uint8Array((FIXED_MASKS + found.partial) * MASK_BYTES);
  masks.fill(0xff, MASK_BYTES, 2 * MASK_BYTES);
  const windows = columns / SLOT_COLUMNS;
  const countRow = Math.ceil(windows / 2);
  const counts = new Uint8Array(rows / SLOT_ROWS * countRow);
  const bits = bitsOf(matrix.values);
  const source = narrowed.data;
  const target = values.data;
  let slot = FIXED_SLOTS;
  let mask = FIXED_MASKS;
  for (let group = 0; group < rows / SLOT_ROWS; group++) {
    for (let window = 0; window < windows; window++) {
      const count = slotsOf(bits, columns, group, window);
      counts[group * countRow + (window >> 1)] |= count << (window & 1) * 4;
      if (count === 0) continue;
      const isPartial = count < MOST_SLOTS;
      for (let row = 0; row < SLOT_ROWS; row++) {
        const start = (group * SLOT_ROWS + row) * columns + window * SLOT_COLUMNS;
        const nonzeros = nonzerosOf(bits, start);
        let stored = nonzeros;
        for (let n = ones(stored); n < count * SLOT_DEPTH; n++) stored |= stored + 1; // The lowest 0.
        if (isPartial) {
          masks[mask * MASK_BYTES + row * 2] = stored & 0xff;
          masks[mask * MASK_BYTES + row * 2 + 1] = stored >> 8;
        }
        for (let n = 0; stored !== 0; n++, stored &= stored - 1) {
          const c = 31 - Math.clz32(stored & -stored);
          // A zero that only fills its place may be -0.
          target[placeIn(slot, row, n)] = nonzeros >> c & 1 ? source[start + c] : 0;
        }
      }
      slot += count;
      mask += isPartial ? 1 : 0;
    }
  }
  return { name, rows, columns, values, counts, masks };
}

/**
 * Unpacks a matrix.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @returns Its weights, `[rows, columns]`.
 * @throws {PackedFormatError} As {@linkcode validateSlots}.
 */
export function decodeSlots(packed: PackedSlots): Float32Array {
  validateSlots(packed);
  const { rows, columns, values, counts, masks } = packed;
  const dense = newDense(packed);
  const elements = elementsOf(values);
  const windows = columns / SLOT_COLUMNS;
  const countRow = Math.ceil(windows / 2);
  let slot = FIXED_SLOTS;
  let partial = FIXED_MASKS;
  for (let group = 0; group < rows / SLOT_ROWS; group++) {
    for (let window = 0; window < windows; window++) {
      const count = counts[group * countRow + (window >> 1)] >> (window & 1) * 4 & 15;
      if (count === 0) continue;
      const mask = count === MOST_SLOTS ? 1 : partial++;
      for (let row = 0; row < SLOT_ROWS; row++) {
        const start = (group * SLOT_ROWS + row) * columns + window * SLOT_COLUMNS;
        for (let c = 0, n = 0; c < SLOT_COLUMNS; c++) {
          const bit = masks[mask * MASK_BYTES + row * 2 + (c >> 3)] >> (c & 7) & 1;
          if (bit === 1) dense[start + c] = elements[placeIn(slot, row, n++)];
        }
      }
      slot += count;
    }
  }
  applyScales(dense, values, packed);
  return dense;
}

/**
 * Checks a packed matrix. It reads nothing outside the tensors, whatever is in them.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @throws {PackedFormatError} When its shape has no windows, a tensor has the wrong length, a window
 * has more than 4 slots or other bits than its slots have weights, the slots and bits are not as many as
 * the windows say, what stands before them is not what must stand there, or a value is not finite.
 */
export function validateSlots(packed: PackedSlots): void {
  checkShape(packed);
  const { rows, columns, values, counts, masks } = packed;
  if (!fitsSlots(packed)) {
    throw damaged(packed, "shape", `${rows} × ${columns} has no windows of 4 × 16`);
  }
  const windows = columns / SLOT_COLUMNS;
  const countRow = Math.ceil(windows / 2);
  checkLength(packed, "counts", counts.length, rows / SLOT_ROWS * countRow);
  const place = (group: number, window: number) => `at rows ${group * 4} …, window ${window}`;
  let slots = 0;
  const partial: number[] = [];
  for (let group = 0; group < rows / SLOT_ROWS; group++) {
    for (let window = 0; window < countRow * 2; window++) {
      const count = counts[group * countRow + (window >> 1)] >> (window & 1) * 4 & 15;
      if (count > (window < windows ? MOST_SLOTS : 0)) {
        throw damaged(packed, "counts", `have ${count} slots ${place(group, window)}`);
      }
      slots += count;
      if (count > 0 && count < MOST_SLOTS) partial.push(count);
    }
  }
  checkValues(packed, (FIXED_SLOTS + slots) * SLOT_WEIGHTS);
  checkLength(packed, "masks", masks.length, (FIXED_MASKS + partial.length) * MASK_BYTES);
  if (!values.data.subarray(0, SLOT_WEIGHTS).every((value) => value === 0)) {
    throw damaged(packed, "values", "do not begin with a slot of zeros");
  }
  for (let i = 0; i < FIXED_MASKS * MASK_BYTES; i++) {
    if (masks[i] !== (i < MASK_BYTES ? 0 : 0xff)) {
      throw damaged(packed, "masks", "do not begin with none and all of the bits");
    }
  }
  for (let at = FIXED_MASKS * MASK_BYTES; at < masks.length; at += 2) {
    const mask = Math.floor(at / MASK_BYTES) - FIXED_MASKS;
    const found = ones(masks[at] | masks[at + 1] << 8);
    const wanted = SLOT_DEPTH * partial[mask];
    if (found !== wanted) {
      throw damaged(
        packed,
        "masks",
        `have ${found} bits, not ${wanted}, in row ${(at % MASK_BYTES) / 2} of the ` +
          `${mask + 1}th window that has some`,
      );
    }
  }
}

/**
 * Bytes of a packed matrix.
 *
 * @param shape The matrix's shape; {@linkcode fitsSlots} holds for it.
 * @param counts What its slots take.
 * @param options How weights are stored.
 */
export function bytesOfSlots(shape: Shape, counts: SlotCounts, options: ValueOptions): number {
  return bytesOfValues(shape, options, (FIXED_SLOTS + counts.slots) * SLOT_WEIGHTS) +
    (FIXED_MASKS + counts.partial) * MASK_BYTES +
    shape.rows / SLOT_ROWS * Math.ceil(shape.columns / SLOT_COLUMNS / 2);
}

/** Where the `n`-th stored weight of a window's row lies. */
function placeIn(slot: number, row: number, n: number): number {
  return (slot + (n >> 2)) * SLOT_WEIGHTS + row * SLOT_DEPTH + (n & 3);
}

/** Slots that a window needs: for the row with most nonzero weights. */
function slotsOf(bits: Int32Array, columns: number, group: number, window: number): number {
  let most = 0;
  for (let row = 0; row < SLOT_ROWS; row++) {
    const start = (group * SLOT_ROWS + row) * columns + window * SLOT_COLUMNS;
    let count = 0;
    for (let i = start; i < start + SLOT_COLUMNS; i++) count += nonzero(bits[i]);
    if (count > most) most = count;
  }
  return (most + SLOT_DEPTH - 1) >> 2;
}

/** Bit c: whether weight c of 16 is not 0. */
function nonzerosOf(bits: Int32Array, start: number): number {
  let set = 0;
  for (let c = 0; c < SLOT_COLUMNS; c++) set |= nonzero(bits[start + c]) << c;
  return set;
}

/** Bits that are 1, of 16. */
function ones(bits: number): number {
  const pairs = bits - (bits >> 1 & 0x5555);
  const fours = (pairs & 0x3333) + (pairs >> 2 & 0x3333);
  const eights = (fours + (fours >> 4)) & 0x0f0f;
  return (eights + (eights >> 8)) & 31;
}

function unfit({ name, rows, columns }: Matrix): FormatUnfitError {
  return new FormatUnfitError(
    `${
      quote(name)
    } cannot be stored in slots: they are for rows in fours and columns in sixteens, ` +
      `and it is ${rows} × ${columns}; bitmap and csr take any shape`,
  );
}
