/**
 * The shapes of packed sparse matrices, and what all of their formats check alike.
 *
 * `docs/format.md` describes every format byte by byte. The modules of this folder import nothing of
 * the project but `errors.ts`, `half.ts` and the grid of `src/prune`: encoders run where models are compiled, decoders and
 * validators where they are loaded.
 * @module
 */
import { quote } from "../../src/checks.ts";
import { FormatUnfitError, NotFiniteError, PackedFormatError } from "../../src/errors.ts";

/** Most weights of a matrix: their indices must fit a signed 32-bit number. */
export const MOST_WEIGHTS = 2 ** 31 - 1;

/** Greatest M of an N:M pattern. */
export const GREATEST_M = 32;

/** Greatest scale of int8 values: 127 times it is still a finite float32. */
export const GREATEST_SCALE = 2 ** 121;

/** Rows are outputs of a linear, columns its inputs. */
export interface Shape {
  readonly rows: number;
  readonly columns: number;
}

/** A matrix to be packed. A weight is pruned if and only if it is 0. */
export interface Matrix extends Shape {
  /** Its name in the model, for messages. */
  readonly name: string;
  /** Row-major `[rows, columns]`, i.e. `[out, in]`. */
  readonly values: Float32Array;
}

/** How a weight is stored. */
export type ValueType = "f32" | "f16" | "int8" | "int4";

/** How weights are to be stored. */
export interface ValueOptions {
  readonly type: ValueType;
  /**
   * Neighbours in a row that share a scale. For int8 the whole row when left out; for int4 32, 64 or 128,
   * and what `int4Columns` (`int4.ts`) says when left out.
   */
  readonly group?: number;
}

/** Stored weights: a weight is its element, for int8 times the scale of its row and group. */
export type Values =
  | { readonly type: "f32"; readonly data: Float32Array }
  /** Bits of float16 numbers. */
  | { readonly type: "f16"; readonly data: Uint16Array }
  | {
    readonly type: "int8";
    /** From -127 to 127. */
    readonly data: Int8Array;
    /** `[rows, ⌈columns / group⌉]`. */
    readonly scales: Float32Array;
    /** Columns that share a scale, from 1 to `columns`. */
    readonly group: number;
  }
  | {
    readonly type: "int4";
    /** From -8 to 7, one an element; two a byte only in files. */
    readonly data: Int8Array;
    /** Bits of float16 numbers, `[rows, ⌈columns / group⌉]`. */
    readonly scales: Uint16Array;
    /** Columns that share a scale: 32, 64 or 128. */
    readonly group: number;
  };

/** A matrix of which `n` of every `m` neighbours in a row are stored, in G = columns / m groups. */
export interface PackedNm extends Shape {
  readonly name: string;
  readonly n: number;
  readonly m: number;
  /** `[G, n, rows]`. */
  readonly values: Values;
  /** `[G, n, ⌈rows · b / 8⌉]`: positions in the group, b bits each; see `codeBits` (`nm.ts`). */
  readonly codes: Uint8Array;
}

/** A matrix stored as entries in row-major order, each with its distance from the entry before. */
export interface PackedCsr extends Shape {
  readonly name: string;
  /** `[entries]`. */
  readonly values: Values;
  /** `[entries]`. */
  readonly gaps: Uint8Array;
  /** `[rows + 1]`: the first entry of each row, and the number of entries. */
  readonly rowPointers: Int32Array;
}

/** A matrix stored as one bit a weight, and the weights whose bit is set. */
export interface PackedBitmap extends Shape {
  readonly name: string;
  /** `[1 + weights kept]`: a zero, then the weights in row-major order. */
  readonly values: Values;
  /** `[rows, ⌈columns / 8⌉]`. */
  readonly bits: Uint8Array;
}

/** N of every M. */
export interface NmPattern {
  readonly n: number;
  readonly m: number;
}

/**
 * Checks that a matrix can be packed at all.
 *
 * @param matrix The matrix.
 * @throws {FormatUnfitError} When its shape is empty, too large, or not that of its values.
 * @throws {NotFiniteError} When a weight is NaN or infinite.
 */
export function checkMatrix(matrix: Matrix): void {
  const { name, rows, columns, values } = matrix;
  if (!isShape(matrix)) {
    throw new FormatUnfitError(
      `${quote(name)} is ${rows} × ${columns}: packed formats hold 1 to ${MOST_WEIGHTS} weights; ` +
        `leave it dense`,
    );
  }
  if (values.length !== rows * columns) {
    throw new FormatUnfitError(
      `${quote(name)} is ${rows} × ${columns} but has ${values.length} weights: ` +
        `give it the shape of its values`,
    );
  }
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i] & 0x7f800000) === 0x7f800000) {
      throw new NotFiniteError(
        `${quote(name)} has ${values[i]} at ${
          placeOf(i, columns)
        }: check the checkpoint it is from`,
      );
    }
  }
}

/**
 * Checks a packed matrix's shape.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @throws {PackedFormatError} When it has no rows or columns, or more than can be indexed.
 */
export function checkShape(packed: Shape & { readonly name: string }): void {
  if (isShape(packed)) return;
  throw damaged(
    packed,
    "shape",
    `${packed.rows} × ${packed.columns} is not of 1 to ${MOST_WEIGHTS} weights`,
  );
}

/**
 * Checks a tensor's length.
 *
 * @param packed The matrix it belongs to.
 * @param tensor Its name.
 * @param actual Elements it has.
 * @param expected Elements that it must have.
 * @throws {PackedFormatError} When the two differ.
 */
export function checkLength(
  packed: { readonly name: string },
  tensor: string,
  actual: number,
  expected: number,
): void {
  if (actual === expected) return;
  throw damaged(packed, tensor, `has ${actual} elements, not ${expected}`);
}

/**
 * Checks stored values: their number, that all are finite, and the scales of int8.
 *
 * @param packed The matrix that they belong to; its shape has been checked.
 * @param length Elements that there must be.
 * @throws {PackedFormatError} When something of that does not hold.
 */
export function checkValues(
  packed: Shape & { readonly name: string; readonly values: Values },
  length: number,
): void {
  const { values, rows, columns } = packed;
  checkLength(packed, "values", values.data.length, length);
  switch (values.type) {
    case "f32": {
      const { data } = values;
      const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
      for (let i = 0; i < bits.length; i++) {
        if ((bits[i] & 0x7f800000) === 0x7f800000) throw badValue(packed, i, "is not finite");
      }
      return;
    }
    case "f16": {
      const { data } = values;
      for (let i = 0; i < data.length; i++) {
        if ((data[i] & 0x7c00) === 0x7c00) throw badValue(packed, i, "is not finite");
      }
      return;
    }
    case "int8": {
      const { data, scales, group } = values;
      if (!(Number.isInteger(group) && 1 <= group && group <= columns)) {
        throw damaged(packed, "scales", `are for groups of ${group} of ${columns} columns`);
      }
      const perRow = Math.ceil(columns / group);
      checkLength(packed, "scales", scales.length, rows * perRow);
      for (let i = 0; i < scales.length; i++) {
        // Written so that NaN fails it.
        if (!(scales[i] > 0 && scales[i] <= GREATEST_SCALE)) {
          throw damaged(
            packed,
            "scales",
            `has ${scales[i]} at row ${Math.floor(i / perRow)}, group ${i % perRow}; ` +
              `a scale is above 0 and at most 2^121`,
          );
        }
      }
      for (let i = 0; i < data.length; i++) {
        if (data[i] === -128) throw badValue(packed, i, "is -128; the least is -127");
      }
      return;
    }
    case "int4": {
      const { data, scales, group } = values;
      if (![32, 64, 128].includes(group)) {
        throw damaged(packed, "scales", `are for groups of ${group} columns, not 32, 64 or 128`);
      }
      const perRow = Math.ceil(columns / group);
      checkLength(packed, "scales", scales.length, rows * perRow);
      for (let i = 0; i < scales.length; i++) {
        if ((scales[i] & 0x7fff) === 0 || (scales[i] & 0x7c00) === 0x7c00) {
          const at = `row ${Math.floor(i / perRow)}, group ${i % perRow}`;
          throw damaged(packed, "scales", `has one at ${at} that is 0 or not finite`);
        }
      }
      for (let i = 0; i < data.length; i++) {
        if (data[i] < -8 || data[i] > 7) throw badValue(packed, i, "is not from -8 to 7");
      }
      return;
    }
    default:
      throw damaged(packed, "values", `are of the unknown type ${quote(String(values["type"]))}`);
  }
}

/**
 * The error for a packed matrix that breaks a rule of its format.
 *
 * @param packed The matrix.
 * @param tensor Which of its tensors.
 * @param what What that tensor does wrong, and where.
 */
export function damaged(
  packed: { readonly name: string },
  tensor: string,
  what: string,
): PackedFormatError {
  return new PackedFormatError(
    `${quote(packed.name)}: ${tensor} ${what}: the file is damaged, or not written by Espalier; ` +
      `compile the model again`,
  );
}

/**
 * Where a dense matrix of packed ones is put: all zeros.
 *
 * @param packed The matrix; its shape has been checked.
 * @throws {PackedFormatError} When there is no memory for it: a few bytes can claim a large shape.
 */
export function newDense(packed: Shape & { readonly name: string }): Float32Array<ArrayBuffer> {
  try {
    return new Float32Array(packed.rows * packed.columns);
  } catch {
    throw damaged(
      packed,
      "shape",
      `${packed.rows} × ${packed.columns} is more than there is memory for`,
    );
  }
}

/** Row and column of a weight, for messages. */
export function placeOf(index: number, columns: number): string {
  return `row ${Math.floor(index / columns)}, column ${index % columns}`;
}

function isShape({ rows, columns }: Shape): boolean {
  return Number.isInteger(rows) && Number.isInteger(columns) && rows >= 1 && columns >= 1 &&
    rows * columns <= MOST_WEIGHTS;
}

function badValue(packed: { readonly name: string }, index: number, what: string) {
  return damaged(packed, "values", `element ${index} ${what}`);
}
