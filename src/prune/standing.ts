/**
 * What stays of a matrix that is as sparse as it is to become.
 * @module
 */
import type { LinearShare } from "./block.ts";
import type { Mask, Pattern } from "./types.ts";

/** How many of each `m` neighbours may stay, where a pattern says so. */
export function groupOf(
  pattern: Pattern,
  share: LinearShare,
): { n: number; m: number } | undefined {
  if (pattern.kind === "nm") return pattern;
  if (pattern.kind !== "mixed") return undefined;
  const { m } = pattern;
  return { n: share.kept ?? Math.round(share.density * m), m };
}

/**
 * The mask of a matrix that has zeros already, and at least as many as it is to have: another run or another tool
 * has pruned it. Methods that change the weights which stay would make something of these zeros, and leave more
 * weights than came.
 *
 * @param values The matrix, row-major; with N:M, rows are multiples of M.
 * @param pattern Which sets may stay.
 * @param share How much of it is to stay.
 * @returns 1 where a weight is not 0; nothing where the matrix has no zeros, or is to lose weights. Of slots, which
 * are not looked for, it is told only where all is to stay.
 */
export function standingMask(
  values: Float32Array,
  pattern: Pattern,
  share: LinearShare,
): Mask | undefined {
  const mask = new Uint8Array(values.length);
  let kept = 0;
  for (let i = 0; i < values.length; i++) kept += mask[i] = values[i] === 0 ? 0 : 1;
  if (kept === values.length || !isWithin(mask, kept, pattern, share)) return undefined;
  return mask;
}

function isWithin(mask: Mask, kept: number, pattern: Pattern, share: LinearShare): boolean {
  if (share.density >= 1) return true;
  if (pattern.kind === "unstructured") return kept <= share.density * mask.length;
  const group = groupOf(pattern, share);
  return group !== undefined && isGrouped(mask, group.n, group.m);
}

/** Whether no group of `m` has more than `n`. */
function isGrouped(mask: Mask, n: number, m: number): boolean {
  for (let start = 0; start < mask.length; start += m) {
    let kept = 0;
    for (let i = start; i < start + m; i++) kept += mask[i];
    if (kept > n) return false;
  }
  return true;
}
