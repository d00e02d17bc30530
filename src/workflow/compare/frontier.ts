/**
 * What is worth having: no other is better in one thing and as good in the other.
 * @module
 */

/** A variant as far as its worth goes. */
export interface Measured {
  readonly name: string;
  /** Bytes of the compiled model's files. */
  readonly bytes: number;
  readonly perplexity: number;
  /** Of decoding, one token at a time; undefined where the context is too short. */
  readonly tokensPerSecond?: number;
}

/**
 * The Pareto frontier for two things of which little is good.
 *
 * @param items What there is.
 * @param cost First and second of an item; an item with one that is not finite is on no frontier.
 * @returns Those that no other beats, in ascending order of the first. Of equals the first one stays.
 */
export function paretoFrontier<T>(
  items: readonly T[],
  cost: (item: T) => readonly [first: number, second: number],
): T[] {
  const sorted = items
    .map((item) => ({ item, cost: cost(item) }))
    .filter(({ cost }) => cost.every(Number.isFinite))
    .sort((a, b) => a.cost[0] - b.cost[0] || a.cost[1] - b.cost[1]);
  const frontier: T[] = [];
  let least = Infinity;
  for (const { item, cost: [, second] } of sorted) {
    if (second >= least) continue;
    least = second;
    frontier.push(item);
  }
  return frontier;
}

/** Those with the lowest perplexity for their bytes, the smallest first. */
export function sizeFrontier<T extends Measured>(variants: readonly T[]): T[] {
  return paretoFrontier(variants, ({ bytes, perplexity }) => [bytes, perplexity]);
}

/** Those with the lowest perplexity for their speed, the fastest first. */
export function speedFrontier<T extends Measured>(variants: readonly T[]): T[] {
  return paretoFrontier(
    variants,
    ({ tokensPerSecond, perplexity }) => [-(tokensPerSecond ?? -Infinity), perplexity],
  );
}

/** What there is for a size. */
export interface BestAt {
  /** Most bytes. */
  readonly bytes: number;
  /** The variant of the lowest perplexity that fits, whatever it is. */
  readonly best?: string;
  /** The best of those that are pruned, and the best of those that are dense. */
  readonly sparse?: string;
  readonly dense?: string;
}

/** The best variants that have at most so many bytes. */
export function bestAt(
  bytes: number,
  variants: readonly (Measured & { readonly sparsity: number })[],
): BestAt {
  const best = (some: typeof variants) =>
    some.filter((variant) => variant.bytes <= bytes && Number.isFinite(variant.perplexity))
      .reduce<typeof some[number] | undefined>(
        (best, next) => !best || next.perplexity < best.perplexity ? next : best,
        undefined,
      )?.name;
  return {
    bytes,
    best: best(variants),
    sparse: best(variants.filter(({ sparsity }) => sparsity > 0)),
    dense: best(variants.filter(({ sparsity }) => sparsity === 0)),
  };
}
