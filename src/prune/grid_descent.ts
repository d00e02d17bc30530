/**
 * Weights on a grid, made better where they lie: one level after the other to the best there is while
 * all others stand still (coordinate descent, as QuantEase does for dense weights, arXiv 2309.01885).
 * @module
 */
import type { Matrix } from "./matrix.ts";
import type { Rounding } from "./sparsegpt.ts";
import type { Mask } from "./types.ts";

/** Times that all levels of a row are looked at, at most. */
const SWEEPS = 8;

/**
 * Lowers (V − W)·H·(V − W)ᵀ of each row over the grids that V lies on.
 *
 * The walk that rounds column by column lets only columns to come make up for an error; here every
 * kept weight may. No move is made that does not lower the error.
 *
 * @param values V `[rows, columns]`, on grids and 0 where the mask is; changed in place.
 * @param mask 1 where a weight may be other than 0.
 * @param pull (W − V)·H `[rows, columns]`; not changed.
 * @param hessian H `[columns, columns]`.
 * @param rounding The grid.
 */
export function descendOnGrid(
  values: Matrix,
  mask: Mask,
  pull: Matrix,
  hessian: Matrix,
  rounding: Rounding,
): void {
  const { rows, columns } = values;
  const h = hessian.data;
  // Of the kept weights alone: where they are, their pulls, and the scales of their grids.
  const kept = new Int32Array(columns);
  const pulls = new Float64Array(columns);
  const scales = new Float64Array(columns);
  const group = new Float32Array(rounding.columns);
  for (let r = 0; r < rows; r++) {
    const row = r * columns;
    let count = 0;
    for (let first = 0; first < columns; first += rounding.columns) {
      const end = Math.min(first + rounding.columns, columns);
      const start = count;
      for (let c = first; c < end; c++) {
        if (mask[row + c] === 0) continue;
        group[count - start] = values.data[row + c];
        pulls[count] = pull.data[row + c];
        kept[count++] = c;
      }
      scales.fill(rounding.scale(group, count - start), start, count);
    }
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      let moved = false;
      for (let k = 0; k < count; k++) {
        const c = kept[k];
        const line = c * columns;
        const from = values.data[row + c];
        const to = rounding.round(from + pulls[k] / h[line + c], scales[k]);
        const by = to - from;
        if (by === 0) continue;
        values.data[row + c] = to;
        for (let i = 0; i < count; i++) pulls[i] -= by * h[line + kept[i]];
        moved = true;
      }
      if (!moved) break;
    }
  }
}
