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
  /** Densities of its pruned linears in their order, where they differ; unstructured pruning only. */
  readonly linears?: readonly number[];
}

/** How much of a linear stays. */
export interface LinearShare extends Omit<Share, "linears"> {
  /** Slots of each four rows; without them all rows get as many. */
  readonly slots?: ArrayLike<number>;
}

/**
 * The share of one of a block's pruned linears, as far as it does not depend on their weights.
 *
 * @param share How much of the block stays.
 * @param linear Which of its pruned linears.
 */
export function shareOfLinear({ density, kept, linears }: Share, linear: number): LinearShare {
  return { density: linears?.[linear] ?? density, kept };
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
  const shares = weights.map((_, linear) => shareOfLinear(share, linear));
  if (pattern.kind !== "slots") return shares;
  const slots = slotShares(weights, method, share.density);
  return shares.map((each, linear) => ({ ...each, slots: slots[linear] }));
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
