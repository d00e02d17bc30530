/**
 * `prune --fit`: which pattern, sparsity and value type, so that the compiled model has at most so many
 * bytes and the lowest perplexity.
 *
 * Sizes are computed, not measured; perplexity is measured on calibration text kept apart, as
 * `--allocation auto` does.
 * @module
 */
import type { Importance, PruneRules } from "../calibrate/passes.ts";
import { throwIfAborted } from "../checks.ts";
import { AllocationError, SizeUnreachableError } from "../errors.ts";
import { keptOf } from "../prune/kept.ts";
import { SLOT_COLUMNS, SLOT_ROWS } from "../prune/slots.ts";
import { mends, type Share } from "../prune/block.ts";
import type { AllocationName, Pattern } from "../prune/types.ts";
import { densitiesOf, needsImportance, sharesOf } from "./allocate.ts";
import { type Chosen, judgeBlocks, type PruneRequest, rulesFor } from "./choose_allocation.ts";
import { type KeptByName, type SizeTeller, type StoreChoice, storedAs } from "./compiled_sizes.ts";
import { type BlockLinear, patternText } from "./prune_report.ts";
import type { PruneWindows } from "./prune_windows.ts";
import { TRIAL_WINDOWS, tryRules } from "./trial.ts";
import type { Workbench } from "./workbench.ts";

/** Densities are looked for in steps of one in so many. */
const STEPS = 1000;
/** Fewest of them: with less than a twentieth of its weights a model says nothing. */
const FEWEST = 50;
/** Most of them, short of all: an allocation prunes something of every block. */
const MOST = 990;
/** Neighbours that N:M and mixed patterns are tried with. */
const M = 16;

/** A plan that fits. */
export interface FitCandidate {
  readonly pattern: string;
  /** Fraction of weights pruned; 0 where the dense model fits. */
  readonly sparsity: number;
  /** How it is to be stored. */
  readonly compile: StoreChoice;
  /** Bytes of the compiled model. */
  readonly bytes: number;
}

/** A plan that fits, and what it was worth. */
export interface FitTrial extends FitCandidate {
  /** On calibration text kept apart, with weights rounded as they will be stored. */
  readonly perplexity: number;
}

/** What `--fit` found; a part of the report and the record. */
export interface FitReport {
  /** Bytes that were asked for. */
  readonly asked: number;
  /** Bytes that the compiled model will have, at most. */
  readonly bytes: number;
  /** All that was tried, the best first. */
  readonly trials: readonly FitTrial[];
}

/** The plan to carry out. */
export interface Fitted {
  /** The request with the plan's pattern, sparsity and values. */
  readonly request: PruneRequest;
  /** Whether nothing is to be changed: the dense model fits, and is the best that does. */
  readonly unchanged: boolean;
  readonly chosen: Chosen;
  readonly compile: StoreChoice;
  readonly report: FitReport;
}

/** A candidate with what it takes to carry it out. */
interface Plan extends FitCandidate {
  readonly kind: Pattern;
  readonly shares: readonly Share[];
}

/** What is to fit. */
export interface FitOrder {
  readonly request: PruneRequest;
  /** Linears that are pruned. */
  readonly linears: readonly BlockLinear[];
  /** Most bytes of the compiled model. */
  readonly bytes: number;
  /** The one pattern that was asked for; all are tried where there is none. */
  readonly pattern?: Pattern;
  readonly sizes: SizeTeller;
}

/**
 * Refuses what cannot fit, which takes no time.
 *
 * @throws {SizeUnreachableError} With the smallest size that there is.
 */
export function assertReachable(order: FitOrder): void {
  new Planner(order).assertReachable();
}

/**
 * Finds the plan; {@linkcode assertReachable} has found that there is one.
 *
 * @param windows Calibration windows, with others kept apart.
 */
export async function fit(
  order: FitOrder,
  windows: PruneWindows,
  bench: Workbench,
): Promise<Fitted> {
  const { request, sizes } = order;
  const allocation = request.settings.allocation as AllocationName;
  const planner = new Planner(order);
  const importance = needsImportance(allocation)
    ? await judgeBlocks(
      request,
      bench,
      windows.windows,
      // Those that it will be compared with ask for what they are judged by, too.
      request.settings.compare ? "both" : allocation,
    )
    : undefined;
  const plans = planner.plans(importance, (text) => bench.phases.note(text));
  const calibration = windows.windows.slice(0, TRIAL_WINDOWS);
  const apart = windows.apart!.slice(0, TRIAL_WINDOWS);
  bench.phases.note(
    `--fit: ${plans.length} plans fit, each is tried on ${calibration.length} calibration windows and ` +
      `${apart.length} held-out ones: about ${
        (plans.length * (2 * calibration.length + apart.length) / (3 * windows.windows.length))
          .toFixed(1)
      } times the work of pruning once`,
  );
  const tried: { plan: Plan; perplexity: number }[] = [];
  for (const plan of plans) {
    throwIfAborted(bench.signal);
    const perplexity = await tryRules(
      bench,
      `try ${plan.sparsity === 0 ? "dense" : plan.pattern} ${storedAs(plan.compile)}`,
      rulesOf(request, plan),
      calibration,
      apart,
      ({ weight, values }) => {
        const { rows, columns } = order.linears.find((linear) => linear.weight === weight)!;
        sizes.round({ name: weight, values, rows, columns }, plan.compile);
      },
      // compile knows no names to skip.
      ({ weight, rows, columns }, values) =>
        sizes.round({ name: weight, values, rows, columns }, plan.compile),
    );
    tried.push({ plan, perplexity });
  }
  tried.sort((a, b) => a.perplexity - b.perplexity);
  const [{ plan: best }] = tried;
  const carriedOut = requestFor(request, best);
  return {
    request: carriedOut,
    unchanged: best.sparsity === 0 && carriedOut.settings.values === undefined,
    compile: best.compile,
    chosen: {
      allocation: best.kind.kind === "nm" || best.sparsity === 0 ? "uniform" : allocation,
      shares: best.shares,
      importance,
      trials: [],
    },
    report: {
      asked: order.bytes,
      bytes: best.bytes,
      trials: tried.map(({ plan: { pattern, sparsity, compile, bytes }, perplexity }) => ({
        pattern,
        sparsity,
        compile,
        bytes,
        perplexity,
      })),
    },
  };
}

/** The request that carries a plan out; methods that mend round to int4 while they do. */
function requestFor(request: PruneRequest, { kind, sparsity, compile }: Plan): PruneRequest {
  const rounds = compile.values === "int4" && mends(request.settings.method);
  const settings = {
    ...request.settings,
    pattern: kind,
    values: rounds ? "int4" as const : undefined,
    head: rounds && compile.head === "int4" ? "int4" as const : undefined,
  };
  return { ...request, settings, sparsity };
}

/** How a plan is tried; one that changes nothing has a mask that keeps one of every one. */
function rulesOf(request: PruneRequest, plan: Plan): PruneRules {
  const planned = requestFor(request, plan);
  const rules = rulesFor(planned, plan.shares);
  return plan.sparsity > 0 || planned.settings.values !== undefined
    ? rules
    : { ...rules, method: "magnitude", pattern: { kind: "nm", n: 1, m: 1 } };
}

/** Makes the plans: for each pattern and value type the one that keeps most. */
class Planner {
  readonly #order: FitOrder;
  readonly #patterns: readonly Pattern[];
  readonly #choices: readonly StoreChoice[];

  constructor(order: FitOrder) {
    this.#order = order;
    const { linears, pattern, request, sizes } = order;
    const { group, method } = request.settings;
    this.#choices = sizes.choices
      // A head that is rounded to nearest costs more than it saves.
      .filter(({ head }) => head !== "int4" || mends(method))
      .map((choice) => choice.values === "int4" ? { ...choice, group } : choice);
    this.#patterns = pattern
      ? [pattern]
      : PATTERNS.filter((other) => linears.every((linear) => fits(other, linear)));
  }

  /** @throws {SizeUnreachableError} When nothing fits. */
  assertReachable(): void {
    const { sizes, bytes, request } = this.#order;
    let smallest = Infinity;
    let how = "", kind = "";
    for (const choice of this.#choices) {
      for (const pattern of this.#patterns) {
        const [least] = stepsOf(pattern);
        const size = sizes.bytes(this.#keptAt(pattern, least, undefined), choice);
        if (size >= smallest) continue;
        smallest = size;
        how = `${nameOf(pattern, least)} in ${storedAs(choice)}`;
        // How many bytes slots take, the weights decide; how little a block may keep, an allocation does.
        kind = pattern.kind === "slots"
          ? "that is certain"
          : pattern.kind === "nm" || request.settings.allocation === "uniform"
          ? "possible"
          : "with all blocks alike";
      }
    }
    if (smallest <= bytes) return;
    throw new SizeUnreachableError(
      `nothing fits into ${bytes} bytes: the smallest ${kind} is ${smallest} (${how}), embeddings and ` +
        `head included, which pruning leaves as they are: ask for more${
          request.settings.skip.length > 0 ? ", or skip less" : ""
        }`,
    );
  }

  plans(importance: Importance | undefined, note: (text: string) => void): Plan[] {
    const { sizes, bytes } = this.#order;
    const plans: Plan[] = [];
    for (const choice of this.#choices) {
      const dense = sizes.bytes(new Map(), choice);
      if (dense <= bytes) {
        plans.push(this.#densePlan(choice, dense));
        continue;
      }
      for (const pattern of this.#patterns) {
        const step = this.#largest(pattern, choice, importance);
        if (step === undefined) continue;
        try {
          plans.push(this.#plan(pattern, step, choice, importance));
        } catch (error) {
          if (!(error instanceof AllocationError)) throw error;
          note(`${patternText(pattern)} in ${storedAs(choice)} is left out: ${error.message}`);
        }
      }
    }
    if (plans.length > 0) return plans.filter((plan) => !isHopeless(plan, plans));
    throw new AllocationError(
      `--fit: no allocation can be carried out at the sparsity that ${bytes} bytes take: ` +
        `take a smaller alpha or lambda, or --allocation uniform`,
    );
  }

  /** The greatest step that fits: sizes grow with what is kept. */
  #largest(
    pattern: Pattern,
    choice: StoreChoice,
    importance: Importance | undefined,
  ): number | undefined {
    const { sizes, bytes } = this.#order;
    const steps = stepsOf(pattern);
    const first = this.#keptAt(pattern, steps[0], importance);
    const rest = sizes.bytes(first, choice) - sizes.linearBytes(first, choice);
    let low = 0;
    let high = steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const kept = this.#keptAt(pattern, steps[middle], importance);
      if (sizes.linearBytes(kept, choice) + rest <= bytes) low = middle + 1;
      else high = middle;
    }
    // The graph has some bytes more or fewer: the last word has the whole.
    for (let i = low - 1; i >= 0; i--) {
      if (sizes.bytes(this.#keptAt(pattern, steps[i], importance), choice) <= bytes) {
        return steps[i];
      }
    }
    return undefined;
  }

  #plan(
    pattern: Pattern,
    step: number,
    choice: StoreChoice,
    importance: Importance | undefined,
  ): Plan {
    const kind = patternAt(pattern, step);
    const densities = this.#densities(kind, step, importance);
    const shares = sharesOf(densities, kind);
    const sparsity = kind.kind === "nm" ? 1 - kind.n / kind.m : (STEPS - step) / STEPS;
    return {
      pattern: patternText(kind),
      sparsity,
      compile: choice,
      bytes: this.#order.sizes.bytes(this.#keptAt(pattern, step, importance), choice),
      kind,
      shares,
    };
  }

  #densePlan(choice: StoreChoice, bytes: number): Plan {
    const densities = new Float64Array(this.#order.request.blocks).fill(1);
    return {
      pattern: "unstructured",
      sparsity: 0,
      compile: choice,
      bytes,
      kind: { kind: "unstructured" },
      shares: Array.from(densities, (density) => ({ density })),
    };
  }

  #densities(pattern: Pattern, step: number, importance: Importance | undefined): Float64Array {
    const { request } = this.#order;
    const { alpha, lambda, beta, allocation } = request.settings;
    const name = pattern.kind === "nm" ? "uniform" : allocation as AllocationName;
    const settings = { sparsity: (STEPS - step) / STEPS, alpha, lambda, beta };
    return densitiesOf(name, request, settings, importance);
  }

  /** What stays at a step; where the allocation cannot be carried out, as much in every block. */
  #keptAt(pattern: Pattern, step: number, importance: Importance | undefined): KeptByName {
    const { request, linears } = this.#order;
    const kind = patternAt(pattern, step);
    let densities = new Float64Array(request.blocks).fill(step / STEPS);
    try {
      if (importance || !needsImportance(request.settings.allocation as AllocationName)) {
        densities = this.#densities(kind, step, importance) as typeof densities;
      }
    } catch (error) {
      if (!(error instanceof AllocationError)) throw error;
    }
    const shares = sharesOf(densities, kind);
    return new Map(linears.map((linear) => [
      linear.weight,
      keptOf(linear, request.settings.method, kind, shares[linear.block]),
    ]));
  }
}

/** Whether a pattern can be that of a linear. */
function fits(pattern: Pattern, { rows, columns }: BlockLinear): boolean {
  switch (pattern.kind) {
    case "unstructured":
      return true;
    case "slots":
      return rows % SLOT_ROWS === 0 && columns % SLOT_COLUMNS === 0;
    default:
      return columns % pattern.m === 0;
  }
}

/** Whether the same pattern keeps more than twice as much with other values: nobody need try that. */
function isHopeless({ kind, sparsity }: Plan, plans: readonly Plan[]): boolean {
  const kept = 1 - sparsity;
  return plans.some((other) =>
    other.sparsity > 0 && other.kind.kind === kind.kind && 1 - other.sparsity > 2 * kept
  );
}

/** Patterns that are tried; N of `nm` is looked for. */
const PATTERNS: readonly Pattern[] = [
  { kind: "unstructured" },
  { kind: "slots" },
  { kind: "nm", n: 0, m: M },
  { kind: "mixed", m: M },
];

/** The densities of a pattern, in steps, that are looked at. */
function stepsOf(pattern: Pattern): number[] {
  if (pattern.kind === "nm") {
    const counts = pattern.n > 0
      ? [pattern.n]
      : Array.from({ length: pattern.m - 1 }, (_, i) => i + 1);
    return counts.map((n) => n / pattern.m * STEPS);
  }
  return Array.from({ length: MOST - FEWEST + 1 }, (_, i) => FEWEST + i);
}

/** The pattern at a step: N:M with its N. */
function patternAt(pattern: Pattern, step: number): Pattern {
  return pattern.kind === "nm"
    ? { ...pattern, n: Math.max(1, Math.round(step / STEPS * pattern.m)) }
    : pattern;
}

function nameOf(pattern: Pattern, step: number): string {
  const text = patternText(patternAt(pattern, step));
  return pattern.kind === "nm" ? text : `${text}, ${100 - 100 * step / STEPS} % zeros`;
}
