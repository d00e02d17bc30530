/**
 * One rule for every combination of method and pattern.
 * @module
 */
import { magnitudeMask, nmMask, wandaMask } from "./mask.ts";
import { slotShares, slotsMaskOf, slotsOf } from "./slots.ts";
import type { Mask, MaskMethod, MendingMethod, Method, Pattern, Weight } from "./types.ts";

/** Whether a method changes the weights that stay. */
export function mends(method: Method): method is MendingMethod {
  return method === "sparsegpt" || method === "espalier";
}

/** How much of a block stays. */
export interface Share {
  /** Fraction of weights kept, for unstructured pruning. */
  readonly density: number;
  /** Weights kept of every M, for N:M patterns. */
  readonly kept?: number;
}

/** How much of a linear stays. */
export interface LinearShare extends Share {
  /** Slots of each four rows; without them all rows get as many. */
  readonly slots?: ArrayLike<number>;
}

/**
 * The shares of a block's linears.
 *
 * @param weights The linears.
 * @param method What decides which weights go first.
 * @param pattern Which sets may stay.
 * @param share How much of the block stays.
 * @returns One for each linear.
 * @throws {PatternError} When the pattern does not fit one of them.
 */
export function sharesOfLinears(
  weights: readonly Weight[],
  method: MaskMethod,
  pattern: Pattern,
  share: Share,
): LinearShare[] {
  if (pattern.kind !== "slots") return weights.map(() => share);
  return slotShares(weights, method, share.density).map((slots) => ({ ...share, slots }));
}

/**
 * The mask of one linear.
 *
 * @param weight The matrix with the statistics of its input.
 * @param method What decides which weights go first.
 * @param pattern Which sets may stay.
 * @param share How much of it stays.
 * @throws {PatternError} When the pattern does not fit the matrix.
 */
export function maskOf(
  weight: Weight,
  method: MaskMethod,
  pattern: Pattern,
  share: LinearShare,
): Mask {
  switch (pattern.kind) {
    case "nm":
      return nmMask(weight, pattern.n, pattern.m, method);
    case "mixed":
      return nmMask(weight, share.kept ?? Math.round(share.density * pattern.m), pattern.m, method);
    case "slots":
      return slotsMaskOf(
        weight,
        method,
        share.slots ?? Math.round(share.density * slotsOf(weight)),
      );
    case "unstructured":
      return method === "wanda"
        ? wandaMask(weight, 1 - share.density)
        : magnitudeMask(weight, 1 - share.density);
  }
}
