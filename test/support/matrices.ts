/**
 * Matrices for tests of pruning, and their inverses and losses by the definition.
 * @module
 */
import type { Matrix } from "../../src/prune/mod.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

/** Normally distributed numbers, more or less. */
export function matrix(rows: number, columns: number, seed: number): Matrix {
  const random = uniformNumbers(seed);
  const normal = () => random() + random() + random() - 1.5;
  return { data: Float32Array.from({ length: rows * columns }, normal), rows, columns };
}

/** XᵀX of `tokens` inputs that hang together. */
export function hessian(n: number, seed: number, tokens = 3 * n): Matrix {
  const x = matrix(tokens, n, seed);
  for (let t = 0; t < tokens; t++) {
    for (let c = 1; c < n; c++) x.data[t * n + c] += 0.6 * x.data[t * n + c - 1];
  }
  const h = new Float32Array(n * n);
  for (let a = 0; a < n; a++) {
    for (let b = 0; b < n; b++) {
      let sum = 0;
      for (let t = 0; t < tokens; t++) sum += x.data[t * n + a] * x.data[t * n + b];
      h[a * n + b] = sum;
    }
  }
  return { data: h, rows: n, columns: n };
}

/** The inverse by Gauss and Jordan, in float64. */
export function inverse(data: ArrayLike<number>, n: number, damping = 0): Float64Array {
  const a = Float64Array.from(data);
  const b = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    a[i * n + i] += damping;
    b[i * n + i] = 1;
  }
  for (let c = 0; c < n; c++) {
    const pivot = a[c * n + c];
    for (let k = 0; k < n; k++) {
      a[c * n + k] /= pivot;
      b[c * n + k] /= pivot;
    }
    for (let r = 0; r < n; r++) {
      const factor = a[r * n + c];
      if (r === c || factor === 0) continue;
      for (let k = 0; k < n; k++) {
        a[r * n + k] -= factor * a[c * n + k];
        b[r * n + k] -= factor * b[c * n + k];
      }
    }
  }
  return b;
}

/** Mean of the diagonal. */
export const meanOf = ({ data, rows }: Matrix) =>
  Array.from({ length: rows }, (_, i) => data[i * rows + i]).reduce((a, b) => a + b) / rows;

/** tr (V − W)·H·(V − W)ᵀ */
export function loss(
  values: ArrayLike<number>,
  { data, rows, columns }: Matrix,
  h: Matrix,
): number {
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    for (let a = 0; a < columns; a++) {
      for (let b = 0; b < columns; b++) {
        const [i, j] = [r * columns + a, r * columns + b];
        sum += (values[i] - data[i]) * h.data[a * columns + b] * (values[j] - data[j]);
      }
    }
  }
  return sum;
}
