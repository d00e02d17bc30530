/**
 * Bitmap: one bit a weight, and the weights whose bit is set.
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
  type PackedBitmap,
  type Shape,
  type ValueOptions,
} from "./types.ts";

/**
 * Packs a matrix.
 *
 * @param matrix The matrix; not changed.
 * @param options How weights are stored.
 * @throws {FormatUnfitError} When the value type does not hold the matrix, or it is too large.
 * @throws {NotFiniteError} When a weight is NaN or infinite.
 */
export function encodeBitmap(matrix: Matrix, options: ValueOptions): PackedBitmap {
  const { name, values: weights, rows, columns } = matrix;
  const narrowed = narrow(matrix, options);
  const length = 1 + countNonzeros(weights);
  // One more, for pruned weights after the last that is kept: see below.
  const values = roomLike(narrowed, length + 1);
  const weightBits = bitsOf(weights);
  const source = narrowed.data;
  const target = values.data;
  const bits = new Uint8Array(rows * Math.ceil(columns / 8));
  let byte = 0;
  let kept = 1;
  for (let row = 0; row < rows; row++) {
    const rowEnd = (row + 1) * columns;
    for (let start = row * columns; start < rowEnd; start += 8) {
      const end = Math.min(start + 8, rowEnd);
      let set = 0;
      for (let i = start; i < end; i++) {
        // Every weight is written; the next one takes its place unless it is kept.
        target[kept] = source[i];
        const bit = nonzero(weightBits[i]);
        set |= bit << (i - start);
        kept += bit;
      }
      bits[byte++] = set;
    }
  }
  return { name, rows, columns, values: firstOf(values, length), bits };
}

/**
 * Unpacks a matrix.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @returns Its weights, `[rows, columns]`.
 * @throws {PackedFormatError} As {@linkcode validateBitmap}.
 */
export function decodeBitmap(packed: PackedBitmap): Float32Array {
  validateBitmap(packed);
  const { rows, columns, values, bits } = packed;
  const dense = newDense(packed);
  const elements = elementsOf(values);
  const bitRow = Math.ceil(columns / 8);
  let kept = 1;
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < columns; c++) {
      const set = bits[row * bitRow + (c >> 3)] >> (c & 7) & 1;
      if (set === 1) dense[row * columns + c] = elements[kept++];
    }
  }
  applyScales(dense, values, packed);
  return dense;
}

/**
 * Checks a packed matrix. It reads nothing outside the tensors, whatever is in them.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @throws {PackedFormatError} When a tensor has the wrong length, a row is padded with other bits than
 * 0, the bits that are set are not as many as the values, a value is not finite, or the first is not 0.
 */
export function validateBitmap(packed: PackedBitmap): void {
  checkShape(packed);
  const { rows, columns, values, bits } = packed;
  const bitRow = Math.ceil(columns / 8);
  checkLength(packed, "bits", bits.length, rows * bitRow);
  let set = 0;
  for (let byte = 0; byte < bits.length; byte++) {
    let pairs = bits[byte];
    pairs -= pairs >> 1 & 0x55;
    const nibbles = (pairs & 0x33) + (pairs >> 2 & 0x33);
    set += (nibbles + (nibbles >> 4)) & 15;
  }
  const padding = columns & 7;
  if (padding > 0) {
    for (let row = 0; row < rows; row++) {
      if (bits[(row + 1) * bitRow - 1] >> padding !== 0) {
        throw damaged(packed, "bits", `go on after the last column at row ${row}`);
      }
    }
  }
  checkValues(packed, 1 + set);
  if (values.data[0] !== 0) throw damaged(packed, "values", "do not begin with 0");
}

/**
 * Bytes of a packed matrix.
 *
 * @param shape The matrix's shape.
 * @param nonzeros Weights that are not 0.
 * @param options How weights are stored.
 */
export function bytesOfBitmap(shape: Shape, nonzeros: number, options: ValueOptions): number {
  return bytesOfValues(shape, options, 1 + nonzeros) + shape.rows * Math.ceil(shape.columns / 8);
}
