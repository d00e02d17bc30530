/**
 * One rule for every combination of method and pattern.
 * @module
 */
import { magnitudeMask, nmMask, wandaMask } from "./mask.ts";
import type { Mask, MaskMethod, Pattern, Weight } from "./types.ts";

/** How much of a block stays. */
export interface Share {
  /** Fraction of weights kept, for unstructured pruning. */
  readonly density: number;
  /** Weights kept of every M, for N:M patterns. */
  readonly kept?: number;
}

/**
 * The mask of one linear.
 *
 * @param weight The matrix with the statistics of its input.
 * @param method What decides which weights go first.
 * @param pattern Which sets may stay.
 * @param share How much of its block stays.
 * @throws {PatternError} When the pattern does not fit the matrix.
 */
export function maskOf(weight: Weight, method: MaskMethod, pattern: Pattern, share: Share): Mask {
  switch (pattern.kind) {
    case "nm":
      return nmMask(weight, pattern.n, pattern.m, method);
    case "mixed":
      return nmMask(weight, share.kept ?? Math.round(share.density * pattern.m), pattern.m, method);
    case "unstructured":
      return method === "wanda"
        ? wandaMask(weight, 1 - share.density)
        : magnitudeMask(weight, 1 - share.density);
  }
}
