/**
 * Which allocation `prune` carries out: the one that was named, or the best of those that were tried.
 * @module
 */
import { type Importance, judge, type PruneRules } from "../calibrate/passes.ts";
import { AllocationError } from "../errors.ts";
import { MOST_DENSE } from "../prune/allocation.ts";
import { INT4_GROUP } from "../prune/int4_grid.ts";
import type { Share } from "../prune/block.ts";
import type { AllocationName } from "../prune/types.ts";
import { ALLOCATIONS, type Blocks, densitiesOf, needsImportance, sharesOf } from "./allocate.ts";
import type { PruneSettings, RunHooks } from "./options.ts";
import { percent } from "./percent.ts";
import { type SearchRecord, type Trial, writtenAllocation } from "./prune_report.ts";
import type { PruneWindows } from "./prune_windows.ts";
import { searchDensities } from "./search_allocation.ts";
import type { SearchState } from "./search_state.ts";
import { TRIAL_WINDOWS, tryRules } from "./trial.ts";
import type { Workbench } from "./workbench.ts";

/** How far from what was asked for the bounds of an allocation may move it before that is told. */
const TOLD_FROM = 0.0005;

/** The allocation that will be carried out, and how it was found. */
export interface Chosen {
  readonly allocation: AllocationName | "given" | "search";
  /** What each block keeps. */
  readonly shares: readonly Share[];
  readonly importance?: Importance;
  readonly trials: readonly Trial[];
  /** How it was searched, where it was. */
  readonly search?: SearchRecord;
}

/** What `--allocation search` needs beside its request. */
export interface Searching {
  /** What was measured before, and where it is kept. */
  readonly state: SearchState;
  readonly onSearch: RunHooks["onSearch"];
}

/** What is to be pruned. */
export interface PruneRequest extends Blocks {
  readonly settings: PruneSettings;
  /** Mean sparsity to aim at. */
  readonly sparsity: number;
  /** Whether a weight of that name is left dense. */
  readonly skipped: (name: string) => boolean;
  /** Rounds a weight's values to what the checkpoint can hold. */
  readonly store: (name: string, values: Float32Array) => void;
  /** What each block keeps, where the caller says it. */
  readonly given?: readonly Share[];
}

/** How to prune by the shares of an allocation. */
export function rulesFor(request: PruneRequest, shares: PruneRules["shares"]): PruneRules {
  const { method, pattern } = request.settings;
  const { skipped, store, settings: { values, head, group } } = request;
  const int4Group = values === "int4" ? group : undefined;
  // Beside int8 values compile takes the usual group.
  const headGroup = head === "int4" ? int4Group ?? INT4_GROUP : undefined;
  return { method, pattern, shares, skipped, store, int4Group, headGroup };
}

/** Finds the allocation of a request, judging or trying what it needs. */
export class AllocationChooser {
  readonly #request: PruneRequest;
  readonly #bench: Workbench;
  readonly #searching: Searching | undefined;

  constructor(request: PruneRequest, bench: Workbench, searching?: Searching) {
    this.#request = request;
    this.#bench = bench;
    this.#searching = searching;
  }

  /** The allocation that will be carried out. */
  async choose(windows: PruneWindows | undefined): Promise<Chosen> {
    const chosen = await this.#choose(windows);
    const { allocation, importance } = chosen;
    if (allocation === "given" || allocation === "search") return chosen;
    const { sparsity, pruned } = this.#request;
    const densities = this.#densities(allocation, importance);
    const mean = pruned.reduce((sum, block) => sum + densities[block], 0) / pruned.length;
    const reached = 1 - mean;
    if (Math.abs(reached - sparsity) >= TOLD_FROM) {
      this.#bench.phases.note(
        `${allocation} leaves no block denser than ${MOST_DENSE}: all together they lose ` +
          `${percent(reached)} of their weights, not ${percent(sparsity)}`,
      );
    }
    this.#tellOfWholeNumbers(mean, chosen.shares);
    return chosen;
  }

  /** Of M neighbours one is kept at least: blocks that would have less lose less than was asked for. */
  #tellOfWholeNumbers(wanted: number, shares: readonly Share[]): void {
    const { settings: { pattern }, pruned } = this.#request;
    if (pattern.kind !== "mixed") return;
    const kept = pruned.reduce((sum, block) => sum + shares[block].density, 0) / pruned.length;
    // Whole numbers are right to half a one of all blocks together.
    if (kept - wanted <= 0.5 / (pattern.m * pruned.length) + 1e-9) return;
    this.#bench.phases.note(
      `mixed:${pattern.m} keeps at least 1 of ${pattern.m} weights: all together they lose ` +
        `${percent(1 - kept)} of their weights, not ${percent(1 - wanted)}`,
    );
  }

  async #choose(windows: PruneWindows | undefined): Promise<Chosen> {
    const { allocation, pattern } = this.#request.settings;
    const { given, sparsity } = this.#request;
    if (given) return { allocation: "given", shares: given, trials: [] };
    if (pattern.kind === "nm" || sparsity === 0) {
      const densities = this.#densities("uniform", undefined);
      return { allocation: "uniform", shares: sharesOf(densities, pattern), trials: [] };
    }
    if (allocation === "search") return await this.#search(windows!);
    if (allocation !== "auto") {
      const importance = needsImportance(allocation)
        ? await this.#judge(windows!.windows, this.#request.settings.compare ? "both" : allocation)
        : undefined;
      const densities = this.#densities(allocation, importance);
      return { allocation, shares: sharesOf(densities, pattern), importance, trials: [] };
    }
    return await this.#tryAll(windows!);
  }

  #densities(allocation: AllocationName, importance: Importance | undefined): Float64Array {
    const { sparsity, settings: { alpha, lambda, beta } } = this.#request;
    const settings = { sparsity, alpha, lambda, beta };
    return densitiesOf(allocation, this.#request, settings, importance);
  }

  /** `--allocation auto`: the one with the lowest perplexity on calibration text kept apart. */
  async #tryAll(windows: PruneWindows): Promise<Chosen> {
    const calibration = windows.windows.slice(0, TRIAL_WINDOWS);
    const apart = windows.apart!.slice(0, TRIAL_WINDOWS);
    const once = 3 * windows.windows.length;
    const all = ALLOCATIONS.length * (2 * calibration.length + apart.length);
    this.#bench.phases.note(
      `${this.#request.settings.allocation} tries ${ALLOCATIONS.length} allocations on ${calibration.length} calibration windows and ${apart.length} held-out ones: ` +
        `about ${(all / once).toFixed(1)} times the work of pruning once`,
    );
    const importance = await this.#judge(windows.windows, "both");
    const trials: Trial[] = [];
    let best: Chosen | undefined;
    let least = Infinity;
    for (const allocation of ALLOCATIONS) {
      const trial = await this.#try(allocation, calibration, apart, importance, "calibration");
      if (!trial) continue;
      trials.push(trial.trial);
      // The first stays where perplexities are infinite.
      if (!best || trial.trial.perplexity < least) {
        least = trial.trial.perplexity;
        best = { allocation, shares: trial.shares, importance, trials };
      }
    }
    // Uniform never fails, so there is always a best.
    return best!;
  }

  /** `--allocation search`: from the best fixed one on; never one that measures worse than that. */
  async #search(windows: PruneWindows): Promise<Chosen> {
    const { settings, skipped } = this.#request;
    const { method, pattern, searchBudget, seed } = settings;
    const { state, onSearch } = this.#searching!;
    const fixed = await this.#tryAll(windows);
    const calibration = windows.windows.slice(0, TRIAL_WINDOWS);
    const apart = windows.apart!;
    const found = await searchDensities(
      {
        start: Float64Array.from(fixed.shares, ({ density }) => density),
        rules: { method, pattern, skipped },
        budget: searchBudget,
        seed,
        calibration,
        apart,
      },
      this.#bench,
      state,
      onSearch,
    );
    const trial = await this.#measure(
      "search",
      found,
      calibration,
      apart.slice(0, TRIAL_WINDOWS),
      "calibration",
    );
    const from = fixed.trials.find(({ allocation }) => allocation === fixed.allocation)!;
    const better = trial.perplexity < from.perplexity;
    if (!better) {
      this.#bench.phases.note(
        `pruned for real, what the search found has a perplexity of ${
          trial.perplexity.toFixed(2)
        }, ` +
          `${from.allocation} ${from.perplexity.toFixed(2)}: ${from.allocation} stays`,
      );
    }
    const { shares: _, densities: __, ...how } = found;
    return {
      allocation: "search",
      shares: better ? found.shares : fixed.shares,
      importance: fixed.importance,
      trials: [...fixed.trials, trial],
      search: {
        from: fixed.allocation as AllocationName,
        ...how,
        perplexity: { start: from.perplexity, end: trial.perplexity },
        taken: better ? "search" : from.allocation,
      },
    };
  }

  /** `--compare`: the other allocations, measured on the held-out text. */
  async compare(
    windows: PruneWindows,
    heldOut: readonly Int32Array[],
    chosen: Chosen,
  ): Promise<Trial[]> {
    const trials: Trial[] = [];
    const importance = chosen.importance ?? await this.#judge(windows.windows, "both");
    // It is measured as it is written.
    const written = writtenAllocation(chosen);
    for (const allocation of ALLOCATIONS) {
      if (allocation === written) continue;
      const tried = await this.#try(allocation, windows.windows, heldOut, importance, "text");
      if (tried) trials.push(tried.trial);
    }
    return trials;
  }

  /** Prunes in memory only, and measures; nothing when the allocation is impossible. */
  async #try(
    allocation: AllocationName,
    calibration: readonly Int32Array[],
    heldOut: readonly Int32Array[],
    importance: Importance,
    on: Trial["on"],
  ): Promise<{ trial: Trial; shares: Share[] } | undefined> {
    let densities: Float64Array;
    try {
      densities = this.#densities(allocation, importance);
    } catch (error) {
      if (!(error instanceof AllocationError)) throw error;
      this.#bench.phases.note(`${allocation} is left out: ${error.message}`);
      return undefined;
    }
    const shares = sharesOf(densities, this.#request.settings.pattern);
    const trial = await this.#measure(allocation, { densities, shares }, calibration, heldOut, on);
    return { trial, shares };
  }

  /** Prunes in memory only, and measures; `densities` are what it is remembered by. */
  async #measure(
    allocation: Trial["allocation"],
    { densities, shares }: { densities: Float64Array; shares: readonly Share[] },
    calibration: readonly Int32Array[],
    heldOut: readonly Int32Array[],
    on: Trial["on"],
  ): Promise<Trial> {
    const known = this.#searching?.state;
    const before = on === "calibration" ? known?.trial(allocation, densities) : undefined;
    if (before !== undefined) return { allocation, on, perplexity: before };
    const rules = rulesFor(this.#request, shares);
    const perplexity = await tryRules(
      this.#bench,
      `try ${allocation}`,
      rules,
      calibration,
      heldOut,
    );
    if (on === "calibration") known?.keepTrial(allocation, densities, perplexity);
    return { allocation, on, perplexity };
  }

  #judge(windows: readonly Int32Array[], wanted: AllocationName | "both"): Promise<Importance> {
    return judgeBlocks(this.#request, this.#bench, windows, wanted);
  }
}

/** Judges the blocks for one allocation, or for all that need it. */
export async function judgeBlocks(
  { settings, skipped }: PruneRequest,
  bench: Workbench,
  windows: readonly Int32Array[],
  wanted: AllocationName | "both",
): Promise<Importance> {
  const { reducer, outlierThreshold } = settings;
  const states = await bench.room(windows);
  const questions = {
    reducer: wanted === "owl" ? undefined : reducer,
    threshold: wanted === "dlp" ? undefined : outlierThreshold,
    skipped,
  };
  const importance = await bench.overBlocks(
    "judge blocks",
    states.batches.length,
    async (hooks) => judge(await bench.model(), states, questions, hooks),
  );
  bench.free(states);
  return importance;
}
