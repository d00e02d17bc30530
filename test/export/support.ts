/**
 * What the tests of `export` share: allocations in every form that it reads.
 * @module
 */

/** A density for each block, none of them like another. */
export const DENSITIES = [0.35, 0.45, 0.44, 0.25, 0.18, 0.15];

/** What `prune --json` prints, as much of it as is read. */
export interface ReportLike {
  pattern: string;
  skip: string[];
  blocks: { index: number; density: number; kept?: number }[];
  [more: string]: unknown;
}

/** A report of unstructured pruning. */
export function unstructured(densities: readonly number[] = DENSITIES): ReportLike {
  return {
    model: "tiny",
    allocation: "dlp",
    pattern: "unstructured",
    skip: [],
    blocks: densities.map((density, index) => ({ index, density, score: 1 - density })),
  };
}

/** A report of an N:M pattern, or of a mixed one where N are given. */
export function structured(pattern: string, kept: readonly number[], m: number): ReportLike {
  return {
    pattern,
    skip: [],
    blocks: kept.map((n, index) => ({ index, density: n / m, kept: n })),
  };
}

/** The same as `espalier.json` has it. */
export function record({ pattern, skip, blocks }: ReportLike): object {
  return { format: 1, espalier: "0.1.0", options: { pattern, skip, sparsity: 0.7 }, blocks };
}
