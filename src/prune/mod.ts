/**
 * The pure core of Espalier: importance, allocations and masks on typed arrays.
 *
 * No I/O and no runtime globals: it runs in Deno, Bun, Node and browsers.
 *
 * @example
 * ```ts
 * import { blockScore, dlp, InputNorms, wandaMask } from "espalier/prune";
 *
 * const input = new InputNorms(4);
 * input.add(Float32Array.of(4, 1, 9, 16)); // squares of each column, summed over a window's tokens
 * const weight = { name: "q_proj", values: Float32Array.of(1, -2, 3, -4, 4, 3, 2, 1), rows: 2, columns: 4, norms: input.norms() };
 * const densities = dlp([blockScore([weight], "median"), 2.5], 0.5, 0.15);
 * const mask = wandaMask(weight, 1 - densities[0]); // 1 where a weight stays
 * ```
 * @module
 */
export { adamStep, type KeptWeights, packKept, unpackKept } from "./adam.ts";
export { atp, dlp, owl, uniform, wholeNumbersOf } from "./allocation.ts";
export {
  type LinearShare,
  maskOf,
  mends,
  type Share,
  shareOfLinear,
  sharesOfLinears,
} from "./block.ts";
export { blockScore, InputNorms, outlierPercent, rowScores } from "./importance.ts";
export { type InverseFactor, inverseFactor } from "./cholesky.ts";
export { type Algebra, type Matrix, plainAlgebra, type ProductOptions } from "./matrix.ts";
export { penalised, penaltyOf, ridge, solveOnMask } from "./repair.ts";
export { espalier, type EspalierRequest, pullOf } from "./espalier.ts";
export { exchange, exchangeRun } from "./exchange.ts";
export { descendOnGrid } from "./grid_descent.ts";
export { Margins, marginsOf, slopeOf } from "./margins.ts";
export { applyMask, applyPackedMask, magnitudeMask, nmMask, packMask, wandaMask } from "./mask.ts";
export {
  type Answer,
  DensitySearch,
  LEAST_DENSITY,
  type Measured,
  type Question,
  type SearchSettings,
  withMean,
} from "./search.ts";
export { selectRank, Threshold } from "./select.ts";
export { slotGains, slotShares, slotsMask, slotsOf } from "./slots.ts";
export {
  type Reconstructed,
  type Rounding,
  sparseGpt,
  type SparseGptRequest,
} from "./sparsegpt.ts";
export { standingMask } from "./standing.ts";
export type {
  AllocationName,
  Mask,
  MaskMethod,
  MendingMethod,
  Method,
  Pattern,
  Reducer,
  Weight,
} from "./types.ts";
export { AllocationError, EspalierError, PatternError } from "../errors.ts";
