/**
 * Search: densities of the blocks by measured loss, where a rule can only guess them.
 *
 * The loss of densities d is asked of the caller, one candidate at a time. First it is measured with
 * each block a step sparser than the start, and with some a step denser. Near the start a block's part of the loss
 * is taken to fall like exp(−k·d), with a slope of its own and one k for all blocks: at the optimum of
 * that model all slopes are equal, so block b moves by (ln slope_b − ν)/k, ν such that the mean is
 * kept (for what a budget of bits is shared out by in rate–distortion theory, see Shoham and Gersho,
 * "Efficient bit allocation for an arbitrary set of quantizers", 1988). Some lengths of that move are
 * measured. From the best a (1+1) evolution strategy goes on: density moves between two blocks, the
 * candidate becomes the parent when its loss is lower, and the step follows the successes (Rechenberg's
 * rule of one in five).
 *
 * What comes next depends only on the start, the random numbers and the losses told so far: told the same
 * losses again, a search is where it was.
 * @module
 */

/** A block keeps no less than this: an empty one cuts the model in two. */
export const LEAST_DENSITY = 0.02;

/** How far the steps that measure slopes go, as a part of the mean density or sparsity. */
const PROBE = 0.2;
/** Lengths of the move to equal slopes that are measured. */
const LENGTHS: readonly number[] = [0.5, 1, 1.5];
/** Of every so many blocks, one is measured denser as well. */
const BENDS = 4;
/** A slope below this part of the mean slope is taken for it: its measurement is noise by then. */
const LEAST_SLOPE = 0.05;
/** Bounds of k: what a loss can look like, and what noise can make of it. */
const LEAST_DECAY = 1;
const MOST_DECAY = 40;
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
    const base = yield { densities: this.#start, kind: "start" };
    const mean = average(this.#start);
    const scale = Math.min(mean, 1 - mean);
    if (this.#start.length > 1) {
      const slopes = yield* this.#probe(base, this.#onGrid(PROBE * scale));
      for (const length of LENGTHS) {
        const aim = this.#moved(slopes, length);
        if (!equal(aim, this.best.densities)) yield { densities: aim, kind: "move" };
      }
    }
    return yield* this.#evolve(FIRST_STEP * scale);
  }

  /**
   * Measures each block a step sparser, which tells more than a step denser: the loss is steeper there. Of
   * every fourth block both, for the bend.
   */
  *#probe(base: number, step: number): Generator<Candidate, Slopes, number> {
    const start = this.#start;
    const slopes = new Float64Array(start.length);
    let falls = 0;
    let rises = 0;
    for (let block = start.length - 1; block >= 0; block--) {
      const down = Math.min(step, this.#onGridDown(start[block] - this.#least));
      const up = Math.min(step, this.#onGridDown(1 - start[block]));
      const sparser = down > 0
        ? (yield { densities: withStep(start, block, -down), kind: "probe" }) - base
        : 0;
      const twice = down <= 0 || block % BENDS === 0;
      const denser = twice && up > 0
        ? base - (yield { densities: withStep(start, block, up), kind: "probe" })
        : 0;
      // exp(k·step) − 1 for one step more than is there: the same factor for all blocks, so it cancels.
      const slope = down > 0 ? sparser / down : up > 0 ? denser / up : 0;
      slopes[block] = Number.isFinite(slope) ? slope : 0;
      if (twice && down === step && up === step && Number.isFinite(sparser + denser)) {
        rises += sparser;
        falls += denser;
      }
    }
    // exp(−k·d): a step less costs exp(k·step) times what a step more gains.
    const decay = Math.log(rises / falls) / step;
    return {
      slopes,
      decay: rises > 0 && falls > 0
        ? Math.min(MOST_DECAY, Math.max(LEAST_DECAY, decay))
        : MOST_DECAY,
    };
  }

  /** The start, moved towards equal slopes. */
  #moved({ slopes, decay }: Slopes, length: number): Float64Array {
    const floor = LEAST_SLOPE * average(slopes.map((slope) => Math.max(slope, 0)));
    if (!(floor > 0)) return this.#start;
    const moved = this.#start.map((density, b) =>
      density + length * Math.log(Math.max(slopes[b], floor)) / decay
    );
    const mean = average(this.#start);
    const densities = withMean(moved, mean, this.#least, 1);
    const quantum = this.#quantum;
    return quantum === undefined ? densities : rounded(densities, mean, quantum, this.#least);
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

/** How the loss falls with each block's density, near the start. */
interface Slopes {
  /** How much the loss grows with a step less of each block, a unit of density. */
  readonly slopes: Float64Array;
  /** k of exp(−k·d). */
  readonly decay: number;
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
