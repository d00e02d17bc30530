/**
 * CSR: entries in row-major order, each with its distance from the one before, and the first entry
 * of each row.
 * @module
 */
import {
  applyScales,
  bitsOf,
  bytesOfValues,
  countNonzeros,
  elementsOf,
  firstOf,
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
  type PackedCsr,
  type Shape,
  type ValueOptions,
} from "./types.ts";

/** The greatest distance between two entries; where it is more, entries of value 0 lie between. */
const GREATEST_GAP = 255;

/**
 * Packs a matrix.
 *
 * @param matrix The matrix; not changed.
 * @param options How weights are stored.
 * @returns At least one entry: a matrix of zeros has one of value 0, since an empty tensor would be a
 * special case everywhere.
 * @throws {FormatUnfitError} When the value type does not hold the matrix, or it is too large.
 * @throws {NotFiniteError} When a weight is NaN or infinite.
 */
export function encodeCsr(matrix: Matrix, options: ValueOptions): PackedCsr {
  const { name, values: weights, rows, columns } = matrix;
  const narrowed = narrow(matrix, options);
  const most = countNonzeros(weights) + Math.ceil(weights.length / GREATEST_GAP);
  const values = roomLike(narrowed, most);
  const weightBits = bitsOf(weights);
  const source = narrowed.data;
  const target = values.data;
  const gaps = new Uint8Array(most);
  const rowPointers = new Int32Array(rows + 1);
  const end = endOf(weights);
  let entries = 0;
  let position = 0;
  for (let row = 0; row < rows; row++) {
    rowPointers[row] = entries;
    const rowEnd = Math.min((row + 1) * columns, end);
    for (let i = row * columns; i < rowEnd; i++) {
      // Every weight is written; the next one takes its place unless it is kept.
      const gap = i - position;
      gaps[entries] = gap;
      target[entries] = source[i];
      let kept = nonzero(weightBits[i]);
      if (gap === GREATEST_GAP && kept === 0) {
        target[entries] = 0; // It may be -0.
        kept = 1;
      }
      entries += kept;
      position += gap & -kept;
    }
  }
  if (entries === 0) {
    entries = 1;
    rowPointers.fill(1, 1);
  }
  rowPointers[rows] = entries;
  return {
    name,
    rows,
    columns,
    values: firstOf(values, entries),
    gaps: gaps.slice(0, entries),
    rowPointers,
  };
}

/**
 * Unpacks a matrix.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @returns Its weights, `[rows, columns]`.
 * @throws {PackedFormatError} As {@linkcode validateCsr}.
 */
export function decodeCsr(packed: PackedCsr): Float32Array {
  validateCsr(packed);
  const { values, gaps } = packed;
  const dense = newDense(packed);
  const elements = elementsOf(values);
  let position = 0;
  for (let entry = 0; entry < gaps.length; entry++) {
    position += gaps[entry];
    dense[position] = elements[entry];
  }
  applyScales(dense, values, packed);
  return dense;
}

/**
 * Checks a packed matrix. It reads nothing outside the tensors, whatever is in them.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @throws {PackedFormatError} When there is no entry, a tensor has the wrong length, a value is not
 * finite, a gap after the first is 0, an entry lies outside the matrix, or row pointers do not ascend
 * from 0 to the number of entries or disagree with where entries lie.
 */
export function validateCsr(packed: PackedCsr): void {
  checkShape(packed);
  const { rows, columns, gaps, rowPointers } = packed;
  if (gaps.length === 0) throw damaged(packed, "gaps", "are empty; there is at least one entry");
  checkValues(packed, gaps.length);
  checkLength(packed, "row pointers", rowPointers.length, rows + 1);
  if (rowPointers[0] !== 0) {
    throw damaged(packed, "row pointers", `start at ${rowPointers[0]}, not at 0`);
  }
  for (let row = 0; row < rows; row++) {
    if (rowPointers[row + 1] < rowPointers[row]) {
      throw damaged(
        packed,
        "row pointers",
        `fall from ${rowPointers[row]} to ${rowPointers[row + 1]} at row ${row}`,
      );
    }
  }
  if (rowPointers[rows] !== gaps.length) {
    throw damaged(
      packed,
      "row pointers",
      `end at ${rowPointers[rows]}, but there are ${gaps.length} entries`,
    );
  }
  let position = 0;
  let entry = 0;
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    const end = start + columns;
    for (; entry < rowPointers[row + 1]; entry++) {
      if (gaps[entry] === 0 && entry > 0) {
        throw damaged(packed, "gaps", `are 0 at entry ${entry}: two entries at one place`);
      }
      position += gaps[entry];
      if (position >= start && position < end) continue;
      throw position < rows * columns
        ? damaged(
          packed,
          "row pointers",
          `count entry ${entry} to row ${row}, but it lies in row ${
            Math.floor(position / columns)
          }`,
        )
        : damaged(packed, "gaps", `lead out of the matrix at entry ${entry}`);
    }
  }
}

/**
 * Bytes of a packed matrix.
 *
 * @param shape The matrix's shape.
 * @param entries As {@linkcode countEntries} counts them.
 * @param options How weights are stored.
 */
export function bytesOfCsr(shape: Shape, entries: number, options: ValueOptions): number {
  return bytesOfValues(shape, options, entries) + entries + 4 * (shape.rows + 1);
}

/** How many entries a matrix takes: its nonzero weights, and the zeros inserted between them. */
export function countEntries(values: Float32Array): number {
  const bits = bitsOf(values);
  const end = endOf(values);
  let entries = 0;
  let position = 0;
  for (let i = 0; i < end; i++) {
    const gap = i - position;
    const kept = gap === GREATEST_GAP ? 1 : nonzero(bits[i]);
    entries += kept;
    position += gap & -kept;
  }
  return Math.max(1, entries);
}

/** The position after the last nonzero weight. */
function endOf(values: Float32Array): number {
  let end = values.length;
  while (end > 0 && values[end - 1] === 0) end--;
  return end;
}
