/**
 * Search: densities of the blocks by measured loss, where a rule can only guess them.
 *
 * The loss of densities is asked of the caller, one candidate at a time. First it is measured with each
 * block a step sparser than the start. Where a block's part of the loss falls like a·exp(−k·d) with one k
 * for all blocks, the optimum has equal slopes, and lies in the direction of the slopes' logarithms (for
 * how a budget of bits is shared out by slopes, see Shoham and Gersho, "Efficient bit allocation for an
 * arbitrary set of quantizers", 1988). How far is measured: k cannot be, with steps that are above the
 * noise. This is done twice. From the best a (1+1) evolution strategy goes on: density moves between two
 * blocks, the candidate becomes the parent when its loss is lower, and the step follows the successes
 * (Rechenberg's rule of one in five).
 *
 * What comes next depends only on the start, the random numbers and the losses told so far: told the same
 * losses again, a search is where it was.
 * @module
 */

/** A block keeps no less than this: an empty one cuts the model in two. */
export const LEAST_DENSITY = 0.02;

/** How far the steps that measure slopes go, as a part of the mean density or sparsity. */
const PROBE = 0.2;
/** Times that slopes are measured, and followed. */
const ROUNDS = 2;
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
}

/** A candidate. */
export interface Candidate {
  /** Density of each block. */
  readonly densities: Float64Array;
  /** What it is for. A `probe` has another mean than the start and is never a result. */
  readonly kind: "start" | "probe" | "move" | "mutation";
}

/** Densities and their measured loss. */
export interface Measured {
  readonly densities: Float64Array;
  readonly loss: number;
}

/** A search: {@linkcode next} says what to measure, {@linkcode tell} takes the loss. */
export class DensitySearch {
  readonly #start: Float64Array;
  readonly #random: () => number;
  readonly #quantum: number | undefined;
  readonly #least: number;
  readonly #steps: Generator<Candidate, never, number>;
  #current: Candidate | undefined;
  #best: Measured | undefined;
  #told = 0;

  /**
   * @param start Densities to start from; their mean is kept. With a quantum, multiples of it.
   * @param settings Where chance comes from, and the grid.
   */
  constructor(start: ArrayLike<number>, settings: SearchSettings) {
    this.#start = Float64Array.from(start);
    this.#random = settings.random;
    this.#quantum = settings.quantum;
    // A start below the bound stays possible.
    const least = settings.quantum ?? LEAST_DENSITY;
    this.#least = this.#start.reduce((a, b) => Math.min(a, b), least);
    this.#steps = this.#run();
  }

  /** The candidate whose loss is wanted; the same until it is told. */
  next(): Candidate {
    this.#current ??= this.#steps.next(0).value;
    return this.#current;
  }

  /**
   * Takes the loss of the candidate that {@linkcode next} gave.
   *
   * @param loss In nats; infinite where it could not be computed.
   * @returns Whether the candidate is the best so far.
   */
  tell(loss: number): boolean {
    const { densities, kind } = this.next();
    const better = this.#best === undefined || (kind !== "probe" && loss < this.#best.loss);
    if (better) this.#best = { densities, loss };
    this.#told++;
    this.#current = this.#steps.next(loss).value;
    return better;
  }

  /** The best so far; the start until something is told. */
  get best(): Measured {
    return this.#best ?? { densities: this.#start, loss: Infinity };
  }

  /** Losses told. */
  get evaluations(): number {
    return this.#told;
  }

  *#run(): Generator<Candidate, never, number> {
    yield { densities: this.#start, kind: "start" };
    const mean = average(this.#start);
    const scale = Math.min(mean, 1 - mean);
    const step = this.#onGrid(PROBE * scale);
    if (this.#start.length > 1 && scale > 0) {
      for (let round = 0; round < ROUNDS; round++) {
        const slopes = yield* this.#probe(this.best, step);
        yield* this.#follow(this.best, slopes, step);
      }
    }
    return yield* this.#evolve(FIRST_STEP * scale);
  }

  /**
   * How much the loss grows with a step less of each block, a unit of density. A step less tells more than
   * a step more: the loss is steeper there.
   */
  *#probe({ densities, loss }: Measured, step: number): Generator<Candidate, Float64Array, number> {
    const slopes = new Float64Array(densities.length);
    for (let block = densities.length - 1; block >= 0; block--) {
      const down = Math.min(step, this.#onGridDown(densities[block] - this.#least));
      // A block that has nothing left to give is probed the other way.
      const by = down > 0 ? -down : Math.min(step, this.#onGridDown(1 - densities[block]));
      if (by === 0) continue;
      const probed = yield { densities: withStep(densities, block, by), kind: "probe" };
      slopes[block] = (loss - probed) / by;
    }
    return slopes;
  }

  /** Measures moves towards equal slopes: longer ones while they help, else shorter ones. */
  *#follow(
    from: Measured,
    slopes: Float64Array,
    step: number,
  ): Generator<Candidate, void, number> {
    const direction = directionOf(slopes);
    if (!direction) return;
    let length = step;
    let least = from.loss;
    let growing: boolean | undefined;
    for (let i = 0; i < LENGTHS; i++) {
      const densities = this.#moved(from.densities, direction, length);
      if (equal(densities, from.densities)) return;
      const loss = yield { densities, kind: "move" };
      const better = loss < least;
      least = Math.min(least, loss);
      // Past the best length in one direction or the other.
      if (growing === undefined ? false : growing !== better) return;
      growing = better;
      length *= better ? 2 : 0.5;
    }
  }

  /** Densities moved along a direction, with their mean, bounds and grid. */
  #moved(densities: Float64Array, direction: Float64Array, length: number): Float64Array {
    const mean = average(densities);
    const moved = densities.map((density, b) => density + length * direction[b]);
    const bounded = withMean(moved, mean, this.#least, 1);
    const quantum = this.#quantum;
    return quantum === undefined ? bounded : rounded(bounded, mean, quantum, this.#least);
  }

  *#evolve(first: number): Generator<Candidate, never, number> {
    const blocks = this.#start.length;
    const least = this.#quantum ?? 1e-4;
    let step = Math.max(first, least);
    let again: { from: number; to: number } | undefined;
    for (;;) {
      const from: number = again?.from ?? Math.floor(this.#random() * blocks);
      const other = Math.floor(this.#random() * Math.max(1, blocks - 1));
      const to: number = again?.to ?? (other < from || blocks === 1 ? other : other + 1);
      const size = step * (0.5 + this.#random());
      const parent = this.best;
      const amount = this.#onGridDown(Math.min(
        Math.max(size, least),
        parent.densities[from] - this.#least,
        1 - parent.densities[to],
      ));
      if (from === to || !(amount > 0)) {
        // Nothing to move: measured once more, so that a search of one block ends as well.
        again = undefined;
        if (blocks > 1 && this.#movable()) continue;
        yield { densities: parent.densities, kind: "mutation" };
        continue;
      }
      const densities = withStep(withStep(parent.densities, from, -amount), to, amount);
      const loss = yield { densities, kind: "mutation" };
      const success = loss < parent.loss;
      step = Math.max(least, Math.min(0.5, success ? step * GROWTH : step * GROWTH ** -0.25));
      // What helped may help again; what hurt may help the other way round.
      again = success ? { from, to } : again === undefined ? { from: to, to: from } : undefined;
    }
  }

  /** Whether there are two blocks that density can move between. */
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
function directionOf(slopes: Float64Array): Float64Array | undefined {
  const finite = slopes.filter(Number.isFinite);
  if (finite.length === 0) return undefined;
  const steepest = finite.reduce((a, b) => Math.max(a, b));
  const floor = LEAST_SLOPE * average(finite.map((slope) => Math.max(slope, 0)));
  if (!(floor > 0)) return undefined;
  // A block whose loss became infinite is as steep as the steepest that was measured.
  const logs = slopes.map((slope) =>
    Math.log(Math.max(Number.isFinite(slope) ? slope : steepest, floor))
  );
  const middle = average(logs);
  const largest = logs.reduce((most, log) => Math.max(most, Math.abs(log - middle)), 0);
  return largest > 0 ? logs.map((log) => (log - middle) / largest) : undefined;
}

/**
 * Shifts all values by the same amount and bounds them, so that their mean is the wanted one: the nearest
 * such point.
 *
 * @param values What to shift.
 * @param mean Wanted, between the bounds.
 */
export function withMean(
  values: ArrayLike<number>,
  mean: number,
  least: number,
  most: number,
): Float64Array {
  const all = Float64Array.from(values);
  const shifted = (by: number) => all.map((value) => Math.min(most, Math.max(least, value + by)));
  let low = least - all.reduce((a, b) => Math.max(a, b));
  let high = most - all.reduce((a, b) => Math.min(a, b));
  // Halved until neighbouring floats: the mean grows with the shift.
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (average(shifted(middle)) < mean) low = middle;
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

function withStep(densities: Float64Array, block: number, by: number): Float64Array {
  const changed = densities.slice();
  changed[block] += by;
  return changed;
}

function equal(a: Float64Array, b: Float64Array): boolean {
  return a.every((value, i) => value === b[i]);
}

function average(values: Float64Array): number {
  return values.reduce((a, b) => a + b) / values.length;
}
