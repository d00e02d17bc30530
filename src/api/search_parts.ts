/**
 * What `--allocation search` gives densities to: blocks, or single linears.
 * @module
 */
import type { StagedModel } from "../engine/ort/staged.ts";
import type { Linear } from "../onnx/sections.ts";
import type { Share } from "../prune/block.ts";
import { type Margins, slopeOf } from "../prune/margins.ts";
import type { Pattern } from "../prune/types.ts";
import { sharesByLinear, sharesOf } from "./allocate.ts";

/** Parts of a model whose densities are searched. */
export interface Parts {
  /** The pruned linears of each. */
  readonly linears: readonly (readonly Linear[])[];
  /** Density of each to start from. */
  readonly start: Float64Array;
  /** What each block keeps at some densities of the parts. */
  shares(densities: Float64Array): Share[];
  /** How steeply the loss falls with each part's density. */
  slopes(margins: readonly (readonly Margins[])[]): Float64Array;
}

/**
 * Single linears where masks can have any density. Patterns that count weights, or share a block's out among
 * its linears themselves, have a density a block.
 *
 * @param start Densities of the blocks to start from.
 * @param skipped Whether a weight of that name is left dense.
 */
export function partsOf(
  pattern: Pattern,
  model: StagedModel,
  start: ArrayLike<number>,
  skipped: (name: string) => boolean,
): Parts {
  const blocks = model.blocks.map(({ linears }) =>
    linears.filter(({ weight }) => !skipped(weight))
  );
  if (pattern.kind === "unstructured") {
    return {
      linears: blocks.flatMap((linears) => linears.map((linear) => [linear])),
      start: Float64Array.from(blocks.flatMap((linears, b) => linears.map(() => start[b]))),
      shares: (densities) => sharesByLinear(densities, blocks),
      slopes: (margins) => Float64Array.from(margins.flat(), (each) => slopeOf([each])),
    };
  }
  const all = sharesOf(start, pattern).map(({ density }) => density);
  // A block that is left dense as a whole has nothing to give.
  const moved = blocks.flatMap((linears, b) => linears.length > 0 ? [b] : []);
  return {
    linears: moved.map((b) => blocks[b]),
    start: Float64Array.from(moved, (b) => all[b]),
    shares: (densities) => {
      const changed = [...all];
      moved.forEach((b, i) => changed[b] = densities[i]);
      return sharesOf(changed, pattern);
    },
    slopes: (margins) => Float64Array.from(moved, (b) => slopeOf(margins[b])),
  };
}

/** Weights of some linears together. */
export function weightsIn(linears: readonly Linear[]): number {
  return linears.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
}
