/**
 * Zeros among weights as they are stored.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import type { Steps } from "../platform/steps.ts";
import { countZeros } from "../prune/mask.ts";

/** Elements that are read at once. */
const PIECE = 1 << 20;

/** Counts the zeros of one linear's weight, with a step for each part of it. */
export function* zerosOf(
  checkpoint: Checkpoint,
  { weight, rows, columns }: {
    readonly weight: string;
    readonly rows: number;
    readonly columns: number;
  },
): Steps<number> {
  const size = rows * columns;
  const buffer = new Float32Array(Math.min(PIECE, size));
  let zeros = 0;
  for (let first = 0; first < size; first += PIECE) {
    const values = buffer.subarray(0, Math.min(PIECE, size - first));
    checkpoint.readFloats(weight, values, first);
    zeros += countZeros(values);
    yield;
  }
  return zeros;
}
