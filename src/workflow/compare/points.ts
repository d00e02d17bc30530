/**
 * What both plots draw: perplexity against bytes, and against speed.
 * @module
 */
import { type Measured, sizeFrontier, speedFrontier } from "./frontier.ts";
import { type Scale, scaleFor } from "./scale.ts";

/** A variant that is drawn. */
export interface Plotted extends Measured {
  /** Part of the linears' weights that is 0. */
  readonly sparsity: number;
  readonly values: string;
}

/** One plot. */
export interface Panel<T extends Plotted = Plotted> {
  readonly title: string;
  /** With its unit. */
  readonly xLabel: string;
  readonly yLabel: string;
  readonly x: Scale;
  readonly y: Scale;
  readonly points: readonly { readonly item: T; readonly x: number; readonly y: number }[];
  /** On the frontier, in the order of the line. */
  readonly frontier: readonly T[];
}

/** The plots of some variants: none where there is nothing to draw. */
export function panelsOf<T extends Plotted>(variants: readonly T[]): Panel<T>[] {
  const drawable = variants.filter(({ bytes, perplexity }) =>
    Number.isFinite(bytes) && Number.isFinite(perplexity) && perplexity > 0
  );
  const timed = drawable.filter(({ tokensPerSecond }) => Number.isFinite(tokensPerSecond));
  return [
    ...panel("Perplexity by size", "megabytes of the model's files", drawable, {
      x: ({ bytes }) => bytes / 1e6,
      frontier: sizeFrontier(drawable),
    }),
    ...panel("Perplexity by speed", "tokens a second, one at a time", timed, {
      x: ({ tokensPerSecond }) => tokensPerSecond!,
      frontier: speedFrontier(timed),
    }),
  ];
}

function panel<T extends Plotted>(
  title: string,
  xLabel: string,
  items: readonly T[],
  { x, frontier }: { x: (item: T) => number; frontier: readonly T[] },
): Panel<T>[] {
  if (items.length === 0) return [];
  const y = scaleFor(items.map(({ perplexity }) => perplexity), { log: "auto" });
  return [{
    title,
    xLabel,
    yLabel: `perplexity${y.log ? ", logarithmic" : ""} (lower is better)`,
    x: scaleFor(items.map(x)),
    y,
    points: items.map((item) => ({ item, x: x(item), y: item.perplexity })),
    frontier,
  }];
}
