/**
 * Margins: the weights of a linear that would go next were it sparser, and come back next were it denser.
 * With the gradient of a loss they tell how steeply it falls with the density, to first order: a weight
 * that comes back changes the loss by its value times the gradient by it.
 * @module
 */
import { maskOf, type Share, sharesOfLinears } from "./block.ts";
import type { Mask, MaskMethod, Pattern, Weight } from "./types.ts";

/** How far a margin reaches on either side, in units of density: many weights, whose chance evens out. */
const REACH = 0.05;

/** One side of a linear's margins. */
interface Side {
  /** Places of its weights in the matrix, and their values. */
  readonly places: Uint32Array;
  readonly values: Float32Array;
  /** Σ gradient · value so far. */
  sum: number;
}

/** The margins of a linear; {@linkcode add} takes gradients. */
export class Margins {
  /** Weights of the linear. */
  readonly size: number;
  readonly #sides: readonly Side[];

  /**
   * @param values The matrix with all its weights.
   * @param sparser What would stay of it with less density, now, and with more; each in the next.
   */
  constructor(values: Float32Array, sparser: Mask, now: Mask, denser: Mask) {
    this.size = values.length;
    this.#sides = [between(values, sparser, now), between(values, now, denser)];
  }

  /**
   * Takes a gradient by the matrix, or a part of it (a batch's).
   *
   * @param gradient By each weight, the pruned ones included, as if they were there and 0.
   */
  add(gradient: Float32Array): void {
    for (const side of this.#sides) {
      const { places, values } = side;
      for (let i = 0; i < places.length; i++) side.sum += gradient[places[i]] * values[i];
    }
  }

  /** For each side, the change of the loss by its weights together, and their number. */
  get sides(): { readonly change: number; readonly weights: number }[] {
    return this.#sides.map(({ sum, places }) => ({ change: sum, weights: places.length }));
  }
}

/**
 * How much a loss falls for a unit of density more of some linears: mean of what both sides say. Near
 * the edge the two differ, as what is there is fitted to its neighbours and what is not is not; the losses
 * of models that are a step sparser and denser show the mean.
 *
 * @param margins Of the linears, all gradients added.
 */
export function slopeOf(margins: readonly Margins[]): number {
  const size = margins.reduce((sum, each) => sum + each.size, 0);
  const slopes: number[] = [];
  for (const side of [0, 1]) {
    const own = margins.map(({ sides }) => sides[side]);
    const weights = own.reduce((sum, each) => sum + each.weights, 0);
    const change = own.reduce((sum, each) => sum + each.change, 0);
    if (weights > 0) slopes.push(-change * size / weights);
  }
  return slopes.reduce((a, b) => a + b, 0) / Math.max(1, slopes.length);
}

/**
 * The margins of a block's linears, and their masks.
 *
 * @param weights The linears, dense.
 * @param method What decides which weights go first.
 * @param pattern Which sets may stay.
 * @param share How much of the block stays.
 */
export function marginsOf(
  weights: readonly Weight[],
  method: MaskMethod,
  pattern: Pattern,
  share: Share,
): { margins: Margins; mask: Mask }[] {
  const shares = [-1, 0, 1].map((side) =>
    sharesOfLinears(weights, method, pattern, shifted(share, pattern, side))
  );
  return weights.map((weight, i) => {
    const [sparser, mask, denser] = shares.map((of) => maskOf(weight, method, pattern, of[i]));
    return { margins: new Margins(weight.values, sparser, mask, denser), mask };
  });
}

/** A share that is a margin sparser (−1) or denser (1). */
function shifted(share: Share, pattern: Pattern, side: number): Share {
  if (side === 0) return share;
  if (pattern.kind === "mixed") {
    const { m } = pattern;
    const kept = (share.kept ?? Math.round(share.density * m)) + side;
    return { density: share.density, kept: Math.min(m, Math.max(1, kept)) };
  }
  const by = (density: number) => Math.min(1, Math.max(0, density + side * REACH));
  return { density: by(share.density), linears: share.linears?.map(by) };
}

/** The weights that the second mask keeps and the first does not. */
function between(values: Float32Array, less: Mask, more: Mask): Side {
  const places: number[] = [];
  for (let i = 0; i < values.length; i++) if (more[i] > less[i]) places.push(i);
  const own = Uint32Array.from(places);
  return { places: own, values: Float32Array.from(own, (place) => values[place]), sum: 0 };
}
