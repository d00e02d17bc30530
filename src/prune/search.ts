/**
 * Search: densities of a model's parts, blocks or single linears, by measured loss, where a rule can only
 * guess them.
 *
 * What the loss is, and how fast it falls with the density of each part, is asked of the caller. Where a
 * part's share of the loss falls like a·exp(−k·d) with one k for all parts, the optimum has equal slopes a
 * weight, and lies in the direction of the slopes' logarithms (for how a budget of bits is shared out by
 * slopes, see Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988). How
 * far is measured. From there slopes are taken anew, as long as it helps. From the best a (1+1) evolution
 * strategy goes on: density moves between two parts, the candidate becomes the parent when its loss is
 * lower, and the step follows the successes (Rechenberg's rule of one in five).
 *
 * What comes next depends only on the start, the random numbers and the answers so far: told the same
 * again, a search is where it was.
 * @module
 */

/** A part keeps no less than this: an empty block cuts the model in two. */
export const LEAST_DENSITY = 0.02;

/** How far the first move goes, as a part of the mean density or sparsity. */
const FIRST_MOVE = 0.2;
/** Lengths of a move that are measured at most. */
const LENGTHS = 4;
/** A slope below this part of the mean slope is taken for it: its measurement is noise by then. */
const LEAST_SLOPE = 0.25;
/** The evolution's first step, as a part of the mean density or sparsity. */
const FIRST_STEP = 0.15;
/** Factor of the step after a success; four failures undo it. */
const GROWTH = 1.5;

/** What a search goes by. */
export interface SearchSettings {
  /** Random numbers in [0, 1). */
  readonly random: () => number;
  /** Densities are whole multiples of it, where the pattern counts weights (1/M); any where left out. */
  readonly quantum?: number;
  /** Weights of each part; as many in each where left out. Not with a quantum. */
  readonly sizes?: ArrayLike<number>;
}

/** What a search wants to know of some densities. */
export interface Question {
  /** Density of each part. */
  readonly densities: Float64Array;
  /**
   * What is asked: of `slopes`, which are asked of the best densities so far, how much the loss falls for a
   * unit of density more of each part; of all others the loss.
   */
  readonly kind: "start" | "slopes" | "move" | "mutation";
}

/** The loss, or the slopes. */
export type Answer = number | Float64Array;

/** Densities and their measured loss. */
export interface Measured {
  readonly densities: Float64Array;
  readonly loss: number;
}

/** A search: {@linkcode next} says what to measure, {@linkcode tell} takes the answer. */
export class DensitySearch {
  readonly #start: Float64Array;
  readonly #random: () => number;
  readonly #quantum: number | undefined;
  /** Of each part, beside their mean. */
  readonly #sizes: Float64Array;
  readonly #least: number;
  readonly #steps: Generator<Question, never, Answer>;
  #current: Question | undefined;
  #best: Measured | undefined;
  #told = 0;

  /**
   * @param start Densities to start from; the mean over all weights is kept. With a quantum, multiples of it.
   * @param settings Where chance comes from, the grid, and the parts' sizes.
   */
  constructor(start: ArrayLike<number>, settings: SearchSettings) {
    this.#start = Float64Array.from(start);
    this.#random = settings.random;
    this.#quantum = settings.quantum;
    const sizes = settings.sizes && Float64Array.from(settings.sizes);
    this.#sizes = sizes ? sizes.map((size) => size / average(sizes)) : this.#start.map(() => 1);
    // A start below the bound stays possible.
    const least = settings.quantum ?? LEAST_DENSITY;
    this.#least = this.#start.reduce((a, b) => Math.min(a, b), least);
    this.#steps = this.#run();
  }

  /** What is wanted; the same until it is told. */
  next(): Question {
    this.#current ??= this.#steps.next(0).value;
    return this.#current;
  }

  /**
   * Takes the answer to the question that {@linkcode next} gave.
   *
   * @param answer The loss in nats, infinite where it could not be computed; of `slopes` one a part.
   * @returns Whether these densities are the best so far.
   */
  tell(answer: Answer): boolean {
    const { densities, kind } = this.next();
    const isLoss = typeof answer === "number";
    if (isLoss === (kind === "slopes")) {
      throw new TypeError(`asked for ${isLoss ? "slopes, told a loss" : "a loss, told slopes"}`);
    }
    const better = isLoss && (this.#best === undefined || answer < this.#best.loss);
    if (better) this.#best = { densities, loss: answer };
    this.#told++;
    this.#current = this.#steps.next(answer).value;
    return better;
  }

  /** The best so far; the start until something is told. */
  get best(): Measured {
    return this.#best ?? { densities: this.#start, loss: Infinity };
  }

  /** Answers told. */
  get evaluations(): number {
    return this.#told;
  }

  *#run(): Generator<Question, never, Answer> {
    yield { densities: this.#start, kind: "start" };
    const mean = weightedMean(this.#start, this.#sizes);
    const scale = Math.min(mean, 1 - mean);
    if (this.#start.length > 1 && scale > 0) {
      let length: number | undefined = this.#onGrid(FIRST_MOVE * scale);
      while (length !== undefined) {
        const { densities } = this.best;
        const slopes = (yield { densities, kind: "slopes" }) as Float64Array;
        length = yield* this.#follow(this.best, slopes, length);
      }
    }
    return yield* this.#evolve(FIRST_STEP * scale);
  }

  /**
   * Measures moves towards equal slopes: longer ones while they help, else shorter ones.
   *
   * @returns The length that helped most, if any did.
   */
  *#follow(
    from: Measured,
    slopes: Float64Array,
    first: number,
  ): Generator<Question, number | undefined, Answer> {
    const direction = directionOf(slopes.map((slope, i) => slope / this.#sizes[i]), this.#sizes);
    if (!direction) return undefined;
    let length = first;
    let best: number | undefined;
    let least = from.loss;
    let growing: boolean | undefined;
    for (let i = 0; i < LENGTHS; i++) {
      const densities = this.#moved(from.densities, direction, length);
      if (equal(densities, from.densities)) break;
      const loss = (yield { densities, kind: "move" }) as number;
      const better = loss < least;
      if (better) [least, best] = [loss, length];
      // Past the best length in one direction or the other.
      if (growing !== undefined && growing !== better) break;
      growing = better;
      length *= better ? 2 : 0.5;
    }
    return best;
  }

  /** Densities moved along a direction, with their mean, bounds and grid. */
  #moved(densities: Float64Array, direction: Float64Array, length: number): Float64Array {
    const mean = weightedMean(densities, this.#sizes);
    const moved = densities.map((density, i) => density + length * direction[i]);
    const bounded = withMean(moved, mean, this.#least, 1, this.#sizes);
    const quantum = this.#quantum;
    return quantum === undefined ? bounded : rounded(bounded, mean, quantum, this.#least);
  }

  *#evolve(first: number): Generator<Question, never, Answer> {
    const parts = this.#start.length;
    const sizes = this.#sizes;
    const least = this.#quantum ?? 1e-4;
    let step = Math.max(first, least);
    let again: { from: number; to: number } | undefined;
    for (;;) {
      const from: number = again?.from ?? Math.floor(this.#random() * parts);
      const other = Math.floor(this.#random() * Math.max(1, parts - 1));
      const to: number = again?.to ?? (other < from || parts === 1 ? other : other + 1);
      const size = step * (0.5 + this.#random());
      const parent = this.best;
      // Of the smaller of the two: the other one's density changes by less.
      const [less, more] = [from, to].map((i) => sizes[i] / Math.min(sizes[from], sizes[to]));
      const amount = this.#onGridDown(Math.min(
        Math.max(size, least),
        (parent.densities[from] - this.#least) * less,
        (1 - parent.densities[to]) * more,
      ));
      if (from === to || !(amount > 0)) {
        // Nothing to move: measured once more, so that a search of one part ends as well.
        again = undefined;
        if (parts > 1 && this.#movable()) continue;
        yield { densities: parent.densities, kind: "mutation" };
        continue;
      }
      const densities = withStep(
        withStep(parent.densities, from, -amount / less),
        to,
        amount / more,
      );
      const loss = yield { densities, kind: "mutation" };
      const success = (loss as number) < parent.loss;
      step = Math.max(least, Math.min(0.5, success ? step * GROWTH : step * GROWTH ** -0.25));
      // What helped may help again; what hurt may help the other way round.
      again = success ? { from, to } : again === undefined ? { from: to, to: from } : undefined;
    }
  }

  /** Whether there are two parts that density can move between. */
  #movable(): boolean {
    const { densities } = this.best;
    const step = this.#quantum ?? 1e-9;
    return densities.some((from, i) =>
      from - this.#least >= step && densities.some((to, j) => i !== j && 1 - to >= step)
    );
  }

  /** At least one quantum. */
  #onGrid(step: number): number {
    const quantum = this.#quantum;
    return quantum === undefined ? step : Math.max(1, Math.round(step / quantum)) * quantum;
  }

  #onGridDown(step: number): number {
    const quantum = this.#quantum;
    return quantum === undefined ? step : Math.floor(step / quantum + 1e-6) * quantum;
  }
}

/**
 * Where density should move: the logarithms of the slopes, less their mean, the largest 1 or −1; nothing
 * where there are no slopes.
 */
function directionOf(slopes: Float64Array, sizes: Float64Array): Float64Array | undefined {
  const floor = LEAST_SLOPE * average(slopes.map((slope) => Math.max(slope, 0)));
  if (!(floor > 0 && floor < Infinity)) return undefined;
  const logs = slopes.map((slope) => Math.log(Math.max(slope, floor)));
  const middle = weightedMean(logs, sizes);
  const largest = logs.reduce((most, log) => Math.max(most, Math.abs(log - middle)), 0);
  return largest > 0 ? logs.map((log) => (log - middle) / largest) : undefined;
}

/**
 * Shifts all values by the same amount and bounds them, so that their mean is the wanted one: the nearest
 * such point.
 *
 * @param values What to shift.
 * @param mean Wanted, between the bounds.
 * @param sizes How much each value counts, on average 1; as much as any other where left out.
 */
export function withMean(
  values: ArrayLike<number>,
  mean: number,
  least: number,
  most: number,
  sizes: ArrayLike<number> = new Float64Array(values.length).fill(1),
): Float64Array {
  const all = Float64Array.from(values);
  const shifted = (by: number) => all.map((value) => Math.min(most, Math.max(least, value + by)));
  let low = least - all.reduce((a, b) => Math.max(a, b));
  let high = most - all.reduce((a, b) => Math.min(a, b));
  // Halved until neighbouring floats: the mean grows with the shift.
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (weightedMean(shifted(middle), sizes) < mean) low = middle;
    else high = middle;
  }
  return shifted(high);
}

/** Multiples of a quantum near the densities, with the mean of the start. */
function rounded(
  densities: Float64Array,
  mean: number,
  quantum: number,
  least: number,
): Float64Array {
  const floor = Math.round(least / quantum);
  const ceiling = Math.round(1 / quantum);
  const exact = densities.map((density) => density / quantum);
  const counts = exact.map((value) => Math.min(ceiling, Math.max(floor, Math.round(value))));
  let missing = Math.round(mean / quantum * densities.length) - counts.reduce((a, b) => a + b);
  for (; missing !== 0; missing -= Math.sign(missing)) {
    const step = Math.sign(missing);
    // The one that rounding took furthest the other way.
    let chosen = -1;
    for (let b = 0; b < counts.length; b++) {
      const to = counts[b] + step;
      if (to < floor || to > ceiling) continue;
      const rest = (exact[b] - counts[b]) * step;
      if (chosen < 0 || rest > (exact[chosen] - counts[chosen]) * step) chosen = b;
    }
    if (chosen < 0) break;
    counts[chosen] += step;
  }
  return counts.map((count) => count * quantum);
}

function withStep(densities: Float64Array, part: number, by: number): Float64Array {
  const changed = densities.slice();
  changed[part] += by;
  return changed;
}

function equal(a: Float64Array, b: Float64Array): boolean {
  return a.every((value, i) => value === b[i]);
}

function average(values: Float64Array): number {
  return values.reduce((a, b) => a + b) / values.length;
}

/** @param sizes On average 1. */
function weightedMean(values: Float64Array, sizes: ArrayLike<number>): number {
  return values.reduce((sum, value, i) => sum + value * sizes[i], 0) / values.length;
}
