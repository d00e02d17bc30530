/**
 * The triangular factor of a Hessian's inverse, which SparseGPT walks through column by column.
 * @module
 */
import { type Algebra, type Matrix, meanDiagonal, part, putAt, subtractAt } from "./matrix.ts";

/** Columns that are factored at a time in plain JavaScript; the rest is products. */
const STRETCH = 64;

/** A factor, and what it took to get it. */
export interface InverseFactor {
  /** Upper triangular U `[n, n]` with (H + damping·I)⁻¹ = UᵀU. */
  readonly upper: Matrix;
  /** What was added to the diagonal. */
  readonly damping: number;
  /** How often the damping had to be made ten times as large before the matrix was positive definite. */
  readonly raised: number;
}

/**
 * Factors the inverse of a damped Hessian: `cholesky(cholesky_inverse(cholesky(H)), upper)` of the
 * released code (`lib/sparsegpt.py`), in one step.
 *
 * With R upper triangular and H = R·Rᵀ, H⁻¹ = R⁻ᵀ·R⁻¹, so U = R⁻¹. R is the Cholesky factor that is
 * found from the last column to the first. Factor and inverse are made in stretches of 64 columns:
 * inside a stretch in float64, between them by products.
 *
 * @param hessian Symmetric `[n, n]`; not changed.
 * @param fraction Damping as a fraction of the mean of the diagonal.
 * @param algebra Where products are made.
 * @param tries How often the damping may be made ten times as large.
 * @returns Nothing when the matrix is not positive definite with any of them: it is damaged.
 */
export async function inverseFactor(
  hessian: Matrix,
  fraction: number,
  algebra: Algebra,
  tries = 4,
): Promise<InverseFactor | undefined> {
  const mean = meanDiagonal(hessian);
  for (let raised = 0; raised <= tries; raised++) {
    const damping = fraction * 10 ** raised * mean;
    const upper = await tryFactor(hessian, damping, algebra);
    if (upper) return { upper, damping, raised };
  }
  return undefined;
}

async function tryFactor(
  { data, rows: n }: Matrix,
  damping: number,
  algebra: Algebra,
): Promise<Matrix | undefined> {
  // What of H is not factored yet is its upper left corner; it shrinks.
  let rest: Matrix = { data: data.slice(), rows: n, columns: n };
  for (let i = 0; i < n; i++) rest.data[i * n + i] += damping;
  const upper: Matrix = { data: new Float32Array(n * n), rows: n, columns: n };
  // Columns of R above each stretch, from the last stretch to the first.
  for (let end = n; end > 0;) {
    const start = Math.floor((end - 1) / STRETCH) * STRETCH;
    const width = end - start;
    const inverse = invertedCorner(part(rest, start, start, width, width));
    if (!inverse) return undefined;
    // U's rows of this stretch but for the stretch itself: those of the columns behind it are there.
    putAt(upper, inverse, start, start);
    if (start === 0) break;
    const above = part(rest, 0, start, start, width);
    const column = await algebra.product(above, inverse, { transposeB: true });
    const square = await algebra.product(column, column, { transposeB: true });
    rest = part(rest, 0, 0, start, start);
    subtractAt(rest, square, 0, 0);
    // Kept where U's zeros are, until the stretches are joined below.
    putAt(upper, column, 0, start);
    end = start;
  }
  await invertUpper(upper, algebra);
  return upper.data.every(Number.isFinite) ? upper : undefined;
}

/**
 * R⁻¹, given R with its diagonal stretches inverted already, in place.
 *
 * Row by row of stretches from the last: U[i, i+1…] = −R[i, i]⁻¹ · R[i, i+1…] · U[i+1…, i+1…].
 */
async function invertUpper(matrix: Matrix, algebra: Algebra): Promise<void> {
  const n = matrix.rows;
  const stretches = Math.ceil(n / STRETCH);
  for (let i = stretches - 2; i >= 0; i--) {
    const start = i * STRETCH;
    const next = start + STRETCH;
    const right = n - next;
    const inverse = part(matrix, start, start, STRETCH, STRETCH);
    const row = part(matrix, start, next, STRETCH, right);
    const behind = part(matrix, next, next, right, right);
    const product = await algebra.product(inverse, await algebra.product(row, behind));
    for (let k = 0; k < product.data.length; k++) product.data[k] = -product.data[k];
    putAt(matrix, product, start, next);
  }
}

/**
 * Factors a small matrix C = R·Rᵀ, R upper, and inverts R, in float64.
 *
 * @returns R⁻¹, or nothing when a pivot is not positive.
 */
function invertedCorner({ data, rows: n }: Matrix): Matrix | undefined {
  const r = Float64Array.from(data);
  for (let j = n - 1; j >= 0; j--) {
    let pivot = r[j * n + j];
    for (let k = j + 1; k < n; k++) pivot -= r[j * n + k] ** 2;
    if (!(pivot > 0)) return undefined;
    pivot = Math.sqrt(pivot);
    r[j * n + j] = pivot;
    for (let i = 0; i < j; i++) {
      let sum = r[i * n + j];
      for (let k = j + 1; k < n; k++) sum -= r[i * n + k] * r[j * n + k];
      r[i * n + j] = sum / pivot;
    }
  }
  const inverse = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    inverse[j * n + j] = 1 / r[j * n + j];
    for (let i = j - 1; i >= 0; i--) {
      let sum = 0;
      for (let k = i + 1; k <= j; k++) sum += r[i * n + k] * inverse[k * n + j];
      inverse[i * n + j] = -sum / r[i * n + i];
    }
  }
  return { data: Float32Array.from(inverse), rows: n, columns: n };
}
