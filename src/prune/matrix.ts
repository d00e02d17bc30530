/**
 * Matrices, and where they are multiplied.
 * @module
 */

/** A dense matrix, row-major. */
export interface Matrix {
  readonly data: Float32Array;
  readonly rows: number;
  readonly columns: number;
}

/** Which factors of a product are transposed before it. */
export interface ProductOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
}

/**
 * Whatever multiplies matrices fast here. Nearly all work of SparseGPT and of the repair is products,
 * so they are left to a library; what stays in this folder is linear in the matrices' sizes.
 */
export interface Algebra {
  /** `A · B`, each transposed where that is asked for, in float32. */
  product(a: Matrix, b: Matrix, options?: ProductOptions): Promise<Matrix>;
}

/** The same in plain JavaScript, for small matrices and to compare with. */
export const plainAlgebra: Algebra = {
  product(a, b, { transposeA = false, transposeB = false } = {}) {
    const rows = transposeA ? a.columns : a.rows;
    const inner = transposeA ? a.rows : a.columns;
    const columns = transposeB ? b.rows : b.columns;
    const [stepRow, stepInner] = transposeA ? [1, a.columns] : [a.columns, 1];
    const [jumpInner, jumpColumn] = transposeB ? [1, b.columns] : [b.columns, 1];
    const data = new Float32Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        let sum = 0;
        for (let i = 0; i < inner; i++) {
          sum += a.data[r * stepRow + i * stepInner] * b.data[i * jumpInner + c * jumpColumn];
        }
        data[r * columns + c] = sum;
      }
    }
    return Promise.resolve({ data, rows, columns });
  },
};

/**
 * Copies a part of a matrix.
 *
 * @param row First row.
 * @param column First column.
 */
export function part(
  { data, columns: width }: Matrix,
  row: number,
  column: number,
  rows: number,
  columns: number,
): Matrix {
  const copy = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    const from = (row + r) * width + column;
    copy.set(data.subarray(from, from + columns), r * columns);
  }
  return { data: copy, rows, columns };
}

/** Subtracts `sub` from the part of `from` that begins at `row` and `column`, in place. */
export function subtractAt(from: Matrix, sub: Matrix, row: number, column: number): void {
  for (let r = 0; r < sub.rows; r++) {
    const target = (row + r) * from.columns + column;
    const source = r * sub.columns;
    for (let c = 0; c < sub.columns; c++) from.data[target + c] -= sub.data[source + c];
  }
}

/** Puts `source` into `target` from `row` and `column` on. */
export function putAt(target: Matrix, source: Matrix, row: number, column: number): void {
  for (let r = 0; r < source.rows; r++) {
    const line = source.data.subarray(r * source.columns, (r + 1) * source.columns);
    target.data.set(line, (row + r) * target.columns + column);
  }
}

/** Mean of a square matrix's diagonal. */
export function meanDiagonal({ data, rows }: Matrix): number {
  let sum = 0;
  for (let i = 0; i < rows; i++) sum += data[i * rows + i];
  return sum / rows;
}
