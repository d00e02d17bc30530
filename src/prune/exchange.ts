/**
 * Exchange of kept and pruned weights: a better mask, given what the kept ones make up for.
 * @module
 */
import type { Matrix } from "./matrix.ts";
import { SLOT_COLUMNS } from "./slots.ts";
import type { Mask, Pattern } from "./types.ts";

/** Columns of a row among which weights change places, where the pattern says nothing. */
const RUN = 128;

/**
 * Columns among which a row's weights may change places so that a mask keeps its pattern: as many stay in
 * each run of so many. (In slots, each of the four rows of a window chooses for itself.)
 */
export function exchangeRun(pattern: Pattern): number {
  switch (pattern.kind) {
    case "unstructured":
      return RUN;
    case "nm":
    case "mixed":
      return pattern.m;
    case "slots":
      return SLOT_COLUMNS;
  }
}

/**
 * Exchanges weights where that brings V closer to W: each kept weight in turn with the pruned one of
 * its run that gains most, if any does.
 *
 * With R = (W − V)·H, taking weight i out and giving weight j its best value lowers
 * (V − W)·H·(V − W)ᵀ by (rⱼ + vᵢ·Hᵢⱼ)² / Hⱼⱼ − vᵢ²·Hᵢᵢ − 2·vᵢ·rᵢ.
 *
 * @param values V `[rows, columns]`, 0 where the mask is; changed in place.
 * @param mask 1 where a weight stays; changed in place.
 * @param rest R `[rows, columns]`; changed along.
 * @param hessian H `[columns, columns]`.
 * @param run Columns of a run; each keeps as many weights as it had.
 * @returns How many were exchanged.
 */
export function exchange(
  values: Matrix,
  mask: Mask,
  rest: Matrix,
  hessian: Matrix,
  run: number,
): number {
  const { rows, columns } = values;
  const h = hessian.data;
  const inverse = new Float64Array(columns);
  for (let c = 0; c < columns; c++) inverse[c] = 1 / h[c * columns + c];
  const pruned = new Int32Array(run);
  let exchanged = 0;
  for (let r = 0; r < rows; r++) {
    const v = values.data.subarray(r * columns, (r + 1) * columns);
    const left = rest.data.subarray(r * columns, (r + 1) * columns);
    const stays = mask.subarray(r * columns, (r + 1) * columns);
    for (let first = 0; first < columns; first += run) {
      const end = Math.min(first + run, columns);
      let count = 0;
      for (let c = first; c < end; c++) if (stays[c] === 0) pruned[count++] = c;
      for (let i = first; i < end; i++) {
        if (stays[i] === 0) continue;
        const line = i * columns;
        const value = v[i];
        let best = value * (value * h[line + i] + 2 * left[i]);
        let at = -1;
        for (let k = 0; k < count; k++) {
          const j = pruned[k];
          const pull = left[j] + value * h[line + j];
          const gain = pull * pull * inverse[j];
          if (gain > best) {
            best = gain;
            at = k;
          }
        }
        if (at < 0) continue;
        const j = pruned[at];
        change(left, h.subarray(line, line + columns), -value);
        const taken = left[j] * inverse[j];
        change(left, h.subarray(j * columns, (j + 1) * columns), taken);
        v[i] = 0;
        v[j] = taken;
        stays[i] = 0;
        stays[j] = 1;
        pruned[at] = i;
        exchanged++;
      }
    }
  }
  return exchanged;
}

/** Tells a row's R that a weight has changed: `line` is the weight's line of H. */
function change(left: Float32Array, line: Float32Array, by: number): void {
  for (let c = 0; c < left.length; c++) left[c] -= by * line[c];
}
