/**
 * From the blocks' importance and the options to each block's share.
 * @module
 */
import type { Importance } from "../calibrate/passes.ts";
import { AllocationError, PatternError, UsageError } from "../errors.ts";
import { atp, dlp, owl, uniform, wholeNumbersOf } from "../prune/allocation.ts";
import type { Share } from "../prune/block.ts";
import { checkSlots } from "../prune/slots.ts";
import type { AllocationName, Pattern } from "../prune/types.ts";
import { readAllocation } from "./allocation_file.ts";
import type { PruneSettings } from "./options.ts";

/** The allocations, in the order in which they are tried and shown. */
export const ALLOCATIONS: readonly AllocationName[] = ["uniform", "dlp", "owl", "atp"];

/** Parameters of the allocations. */
export interface AllocationSettings {
  readonly sparsity: number;
  readonly alpha: number;
  readonly lambda: number;
  readonly beta?: number;
}

/** ATP's step where none is given: from first to last block the span that DLP's default alpha has. */
const ATP_SPAN = 0.3;

/** Whether an allocation needs to see the model run. */
export function needsImportance(allocation: PruneSettings["allocation"]): boolean {
  return allocation === "dlp" || allocation === "owl";
}

/** The blocks of a model. */
export interface Blocks {
  /** How many there are. */
  readonly blocks: number;
  /** Those with a linear that is pruned, by number. */
  readonly pruned: readonly number[];
}

/**
 * Density of each block. A block of which nothing is pruned keeps all, and has no part in what the others
 * share.
 *
 * @param importance What the judging pass found; needed for `dlp` and `owl`.
 * @throws {AllocationError} When the parameters leave nothing of a block, or all blocks look alike.
 */
export function densitiesOf(
  allocation: AllocationName,
  { blocks, pruned }: Blocks,
  settings: AllocationSettings,
  importance: Importance | undefined,
): Float64Array {
  const densities = new Float64Array(blocks).fill(1);
  // Where nothing is to go, no block has anything to give to another.
  if (settings.sparsity === 0) return densities;
  const shared = sharedOut(allocation, pruned, settings, importance);
  pruned.forEach((block, i) => densities[block] = shared[i]);
  return densities;
}

/** Densities of the blocks of which something is pruned. */
function sharedOut(
  allocation: AllocationName,
  pruned: readonly number[],
  { sparsity, alpha, lambda, beta }: AllocationSettings,
  importance: Importance | undefined,
): Float64Array {
  const count = pruned.length;
  const of = (values: Float64Array) => pruned.map((block) => values[block]);
  switch (allocation) {
    case "uniform":
      return uniform(count, sparsity);
    case "atp":
      return atp(count, sparsity, beta ?? ATP_SPAN / Math.max(1, count - 1), pruned);
    case "dlp":
      return dlp(of(importance!.scores!), sparsity, alpha, pruned);
    case "owl":
      return owl(of(importance!.outliers!), sparsity, lambda, pruned);
  }
}

/** What each block keeps under a pattern. */
export function sharesOf(densities: ArrayLike<number>, pattern: Pattern): Share[] {
  switch (pattern.kind) {
    case "unstructured":
    case "slots":
      return Array.from(densities, (density) => ({ density }));
    case "nm":
      // A block that is left dense as a whole keeps all here, too.
      return Array.from(densities, (density) => {
        const kept = density === 1 ? pattern.m : pattern.n;
        return { density: kept / pattern.m, kept };
      });
    case "mixed":
      return wholeNumbersOf(densities, pattern.m).map((kept) => ({
        density: kept / pattern.m,
        kept,
      }));
  }
}

/** The shape of a matrix. */
interface Shape {
  readonly rows: number;
  readonly columns: number;
}

/**
 * What each block keeps where each of its linears has a density of its own.
 *
 * @param densities Of all pruned linears, block by block.
 * @param linears Shapes of the pruned linears of each block.
 */
export function sharesByLinear(
  densities: ArrayLike<number>,
  linears: readonly (readonly Shape[])[],
): Share[] {
  let next = 0;
  return linears.map((block) => {
    const own = block.map(() => densities[next++]);
    return { density: meanDensity(own, block), linears: own };
  });
}

/** Mean over all weights; 1 where there are none. */
function meanDensity(densities: readonly number[], linears: readonly Shape[]): number {
  const sizes = linears.map(({ rows, columns }) => rows * columns);
  const size = sizes.reduce((a, b) => a + b, 0);
  return size === 0 ? 1 : densities.reduce((sum, density, i) => sum + density * sizes[i], 0) / size;
}

/**
 * The sparsity that shares come to together, by the weights of what is pruned.
 *
 * @param linears Shapes of the pruned linears of each block.
 */
export function sparsityOfShares(
  shares: readonly Share[],
  linears: readonly (readonly Shape[])[],
): number {
  const densities = shares.flatMap(({ density }, block) => linears[block].map(() => density));
  return 1 - meanDensity(densities, linears.flat());
}

/**
 * Lowers all densities by the same amount until no more weights stay than under a reference. Masks keep whole
 * weights, rounded up in every row: allocations of equal means differ by some thousandths in what they keep,
 * and a search would find those that keep more.
 *
 * @param densities Of each part: a block, or a linear.
 * @param reference Densities of the same mean.
 * @param linears Shapes of the pruned linears of each part.
 */
export function levelled(
  densities: Float64Array,
  reference: Float64Array,
  linears: readonly (readonly Shape[])[],
): Float64Array {
  const kept = (of: Float64Array) =>
    linears.reduce((sum, part, i) =>
      sum + part.reduce((all, { rows, columns }) =>
        // As `wandaMask` counts.
        all + rows * (columns - Math.floor(columns * (1 - of[i]) + 1e-7)), 0), 0);
  const lowered = (by: number) => densities.map((density) => Math.max(density - by, 1e-3));
  const most = kept(reference);
  if (kept(densities) <= most) return densities;
  let low = 0;
  let high = 0.5;
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (kept(lowered(middle)) > most) low = middle;
    else high = middle;
  }
  return lowered(high);
}

/**
 * The sparsity to aim at: what the caller asked for, or what N:M says.
 *
 * @throws {UsageError} When the two disagree.
 */
export function sparsityFor(pattern: Pattern, asked: number | undefined): number {
  if (pattern.kind !== "nm") return asked ?? 0.7;
  const { n, m } = pattern;
  if (n === m) throw new UsageError(`pattern ${n}:${m} prunes nothing`);
  const sparsity = 1 - n / m;
  if (asked !== undefined && Math.abs(asked - sparsity) > 1e-6) {
    throw new UsageError(
      `pattern ${n}:${m} has a sparsity of ${sparsity}; leave --sparsity ${asked} out, or use mixed:${m}`,
    );
  }
  return sparsity;
}

/**
 * What each block keeps, given by the caller: densities of the blocks, or a file with them, or with what a
 * run wrote down of itself.
 *
 * @param given A list; or a file with one, with `{"densities": […]}`, with the report of a run, or with the
 *   record in a pruned checkpoint.
 * @param pattern Which sets may stay.
 * @param linears The linears to prune, of each block.
 * @returns The shares, and what that run left dense: who gives densities says by `skip` what is left so now.
 * @throws {AllocationFileError} When they are not that.
 * @throws {AllocationError} When they are not of these blocks and linears.
 */
export function givenShares(
  given: string | readonly number[],
  pattern: Pattern,
  linears: readonly (readonly (Shape & { readonly name: string })[])[],
): { readonly shares: Share[]; readonly skip: readonly string[] } {
  const { shares, linears: named, skip } = readAllocation(given);
  if (shares.length !== linears.length) {
    throw new AllocationError(
      `${shares.length} densities were given, the model has ${linears.length} blocks`,
    );
  }
  if (!named || pattern.kind !== "unstructured") {
    // A block of which nothing is pruned keeps all, whatever is said of it.
    const densities = shares.map(({ density }, b) => linears[b].length === 0 ? 1 : density);
    return { shares: sharesOf(densities, pattern), skip };
  }
  const densities = linears.flatMap((block, b) =>
    block.map(({ name }) => {
      if (Object.hasOwn(named[b], name)) return named[b][name];
      throw new AllocationError(
        `${given}: block ${b} has no density for ${name}, which is to be pruned: leave it dense with --skip`,
      );
    })
  );
  return { shares: sharesByLinear(densities, linears), skip };
}

/**
 * Checks that a pattern fits every linear before any work is done.
 *
 * @throws {PatternError} Naming the first linear that it does not fit.
 */
export function checkPattern(
  pattern: Pattern,
  linears: readonly { readonly weight: string; readonly rows: number; readonly columns: number }[],
): void {
  if (pattern.kind === "unstructured") return;
  if (pattern.kind === "slots") {
    for (const { weight, rows, columns } of linears) checkSlots({ name: weight, rows, columns });
    return;
  }
  const misfit = linears.find(({ columns }) => columns % pattern.m !== 0);
  if (misfit) {
    throw new PatternError(
      `M = ${pattern.m} does not divide the rows of ${misfit.weight}, which have ${misfit.columns} weights: ` +
        `choose another M, or leave it dense with --skip`,
    );
  }
}
