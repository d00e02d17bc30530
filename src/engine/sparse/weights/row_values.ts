/**
 * Bytes of a dense matrix's row, as they are in a file, to float32: the numbers that kernels would give.
 * @module
 */
import { halves } from "../../../onnx/half.ts";

/**
 * Fills `target` with the numbers of a row.
 *
 * @returns What is wrong with it, where it holds what weights are not: for a message that begins with the matrix.
 */
export type Widen = (target: Float32Array) => string | undefined;

const NOT_FINITE = "holds NaN or infinity";

/** Rows of float32. */
export function widenF32(row: Uint8Array<ArrayBuffer>): Widen {
  const floats = new Float32Array(row.buffer);
  return (target) => {
    target.set(floats);
    return floats.every(Number.isFinite) ? undefined : NOT_FINITE;
  };
}

/** Rows of float16. */
export function widenF16(row: Uint8Array<ArrayBuffer>): Widen {
  const bits = new Uint16Array(row.buffer), wide = halves();
  return (target) => {
    for (let i = 0; i < bits.length; i++) target[i] = wide[bits[i]];
    return target.every(Number.isFinite) ? undefined : NOT_FINITE;
  };
}

/** Rows of int8. @param scale Of the row that is there. */
export function widenInt8(row: Uint8Array<ArrayBuffer>, scale: () => number): Widen {
  const values = new Int8Array(row.buffer);
  return (target) => {
    const factor = scale();
    for (let i = 0; i < values.length; i++) target[i] = values[i] * factor;
    return undefined;
  };
}

/**
 * Rows of int4, two weights a byte.
 *
 * @param places Of the row: for each `group` columns, where its scale is in `scales`.
 */
export function widenInt4(
  row: Uint8Array<ArrayBuffer>,
  places: Uint8Array,
  scales: Float32Array,
  { columns, group }: { readonly columns: number; readonly group: number },
): Widen {
  return (target) => {
    for (let start = 0, next = 0; start < columns; start += group, next++) {
      const scale = scales[places[next]];
      if (!Number.isFinite(scale) || scale === 0) return "has a scale that is 0 or not finite";
      const end = Math.min(start + group, columns);
      for (let i = start; i < end; i++) {
        target[i] = (row[i >> 1] >> ((i & 1) << 2) << 28 >> 28) * scale;
      }
    }
    const isOver = columns % 2 !== 0 && row[row.length - 1] >> 4 !== 0;
    return isOver ? "has bits behind its last row or column" : undefined;
  };
}
