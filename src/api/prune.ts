/**
 * `prune`: a checkpoint in, a pruned checkpoint out.
 * @module
 */
import { join, resolve } from "node:path";
import { batchesOf, type Plan } from "../calibrate/plan.ts";
import {
  type Importance,
  judge,
  type PassHooks,
  prunePass,
  type PruneRules,
} from "../calibrate/passes.ts";
import { WindowStates } from "../calibrate/states.ts";
import { buildGraph } from "../checkpoint/architectures/mod.ts";
import { CheckpointWriter } from "../checkpoint/writer.ts";
import { type Backend, openBackend } from "../engine/ort/backend.ts";
import type { StagedModel } from "../engine/ort/staged.ts";
import { throwIfAborted, UsageError } from "../errors.ts";
import { evaluateWindows, measureLosses } from "../evaluate/perplexity.ts";
import { cutIntoSections, type Sections } from "../onnx/sections.ts";
import { assertApart, assertFree, PendingFolder, writeText } from "../platform/files.ts";
import { peakResidentBytes } from "../platform/runtime.ts";
import { nameMatcher } from "../prune/skip.ts";
import type { AllocationName } from "../prune/types.ts";
import {
  ALLOCATIONS,
  checkPattern,
  densitiesOf,
  givenDensities,
  needsImportance,
  sharesOf,
  sparsityFor,
} from "./allocate.ts";
import {
  parseOptions,
  type PruneOptions,
  pruneSchema,
  type PruneSettings,
  type RunHooks,
} from "./options.ts";
import { type BlockLinear, describeRun, type PruneReport, type Trial } from "./prune_report.ts";
import { OpenModel, Phases, planWindows } from "./shared.ts";
import { calibrationWindows, heldOutWindows, type PruneWindows } from "./prune_windows.ts";

/** Windows of calibration, and of held-out text, that `--allocation auto` tries each allocation on. */
const TRIAL_WINDOWS = 16;

/**
 * Prunes a checkpoint.
 *
 * The result has the input's form: sharding, dtypes and all other files are kept, pruned weights are
 * 0, and `espalier.json` beside them says how it was made. The same options give the same bytes.
 *
 * @param options See `deno run mod.ts prune --help`.
 * @param hooks Progress and abort.
 * @returns What was done. Nothing is left on disk when it fails.
 * @throws {EspalierError} Of the class that says what is wrong.
 *
 * @example
 * ```ts
 * import { prune } from "espalier";
 *
 * const report = await prune({
 *   model: "SmolLM2-135M-Instruct",
 *   output: "SmolLM2-135M-pruned",
 *   sparsity: 0.5,
 *   calibration: "text.txt",
 * });
 * console.log(report.sparsity.reached);
 * ```
 */
export async function prune(options: PruneOptions, hooks: RunHooks = {}): Promise<PruneReport> {
  const settings = parseOptions(pruneSchema, options);
  const opened = new OpenModel(settings.model);
  const run = new PruneRun(settings, opened, hooks);
  try {
    return await run.run();
  } finally {
    await run.close();
    opened.checkpoint.close();
  }
}

class PruneRun {
  readonly #settings: PruneSettings;
  readonly #opened: OpenModel;
  readonly #signal: AbortSignal | undefined;
  readonly #phases: Phases;
  readonly #sections: Sections;
  readonly #sparsity: number;
  readonly #skipped: (name: string) => boolean;
  readonly #states = new Set<WindowStates>();
  #given: Float64Array | undefined;
  #backend: Backend | undefined;
  #model: StagedModel | undefined;

  constructor(settings: PruneSettings, opened: OpenModel, hooks: RunHooks) {
    this.#settings = settings;
    this.#opened = opened;
    this.#signal = hooks.signal;
    this.#phases = new Phases(hooks);
    this.#sections = cutIntoSections(buildGraph(opened.checkpoint, opened.spec, 1));
    this.#sparsity = sparsityFor(settings.pattern, settings.sparsity);
    this.#skipped = nameMatcher(settings.skip);
  }

  async run(): Promise<PruneReport> {
    const { allocation, pattern, densities, dryRun, text, compare } = this.#settings;
    const linears = this.#checkRequest();
    const output = this.#checkOutput();
    throwIfAborted(this.#signal);

    const fixed = pattern.kind === "nm" || densities !== undefined;
    const usesWindows = this.#settings.method === "wanda" ||
      (!fixed && (allocation === "auto" || needsImportance(allocation) || (compare && text)));
    if (fixed && (allocation !== "dlp" || pattern.kind === "nm")) {
      this.#phases.note(
        pattern.kind === "nm"
          ? `${pattern.n}:${pattern.m} gives every block the same density; mixed:${pattern.m} lets the allocation choose`
          : "the densities given take the place of the allocation",
      );
    }
    const windows = usesWindows
      ? calibrationWindows(
        this.#settings,
        this.#opened,
        !fixed && allocation === "auto",
        this.#phases,
      )
      : undefined;
    const heldOut = text
      ? heldOutWindows(this.#settings, this.#opened, windows?.length, this.#phases)
      : undefined;
    const length = Math.max(windows?.length ?? 0, heldOut?.length ?? 0);
    if (length > 0) await this.#openModel(length);

    const pending = dryRun ? undefined : new PendingFolder(output, { force: this.#settings.force });
    try {
      const writer = pending && new CheckpointWriter(this.#opened.checkpoint, pending.path);
      try {
        if (writer) {
          await this.#phases.run(
            "copy and check weights",
            "bytes",
            0,
            (step) => writer.copy(step, this.#signal),
          );
        }
        const dense = heldOut && !dryRun
          ? await this.#measure("measure dense model", this.#opened, heldOut.windows)
          : undefined;

        const chosen = await this.#allocate(windows);
        const shares = sharesOf(chosen.densities, pattern);
        const trials = [...chosen.trials];
        if (heldOut && compare && !dryRun && !fixed) {
          trials.push(...await this.#compare(windows!, heldOut.windows, chosen));
        }
        const counts = writer
          ? await this.#prune(writer, windows?.windows, this.#rules(shares))
          : undefined;
        writer?.close();
        const pruned = heldOut && pending
          ? await this.#measurePruned(pending.path, heldOut.windows)
          : undefined;

        const { report, record } = describeRun({
          settings: this.#settings,
          opened: this.#opened,
          linears,
          sparsity: this.#sparsity,
          allocation: chosen.allocation,
          densities: chosen.densities,
          shares,
          importance: chosen.importance,
          trials,
          windows,
          heldOut,
          perplexity: dense !== undefined && pruned !== undefined ? { dense, pruned } : undefined,
          counts,
          output: dryRun ? undefined : output,
          backend: this.#backend,
          phases: this.#phases,
          peakBytes: peakResidentBytes(),
        });
        if (pending) {
          writeText(join(pending.path, "espalier.json"), `${JSON.stringify(record, null, 2)}\n`);
          throwIfAborted(this.#signal);
          pending.commit();
        }
        return report;
      } finally {
        writer?.close();
      }
    } finally {
      pending?.discard();
    }
  }

  async close(): Promise<void> {
    for (const states of this.#states) states.close();
    await this.#model?.close();
  }

  /** Everything that can be refused before work begins; returns the linears that will be pruned. */
  #checkRequest(): BlockLinear[] {
    const { skip, pattern, densities } = this.#settings;
    const linears = this.#sections.blocks.flatMap(({ index, linears }) =>
      linears.map((linear) => ({ ...linear, block: index }))
    );
    for (const name of skip) {
      if (!linears.some(({ weight }) => nameMatcher([name])(weight))) {
        throw new UsageError(
          `--skip ${name} fits no linear of this model: their names look like ${
            linears[0].weight.replace(/\.weight$/, "")
          }`,
        );
      }
    }
    const pruned = linears.filter(({ weight }) => !this.#skipped(weight));
    if (pruned.length === 0) throw new UsageError("--skip leaves nothing to prune");
    checkPattern(pattern, pruned);
    if (densities !== undefined) {
      if (pattern.kind === "nm") {
        throw new UsageError("--densities does nothing for an N:M pattern");
      }
      this.#given = givenDensities(densities, this.#sections.blocks.length);
    }
    return pruned;
  }

  #checkOutput(): string {
    const { output, dryRun, force } = this.#settings;
    const target = resolve(output ?? `${this.#opened.checkpoint.name}-pruned`);
    if (dryRun) return target;
    assertApart(target, this.#opened.checkpoint.folder);
    assertFree(target, force);
    return target;
  }

  async #openModel(length: number): Promise<void> {
    const { backend, threads } = this.#settings;
    this.#backend = await this.#opened.openBackend(backend, threads);
    this.#model = this.#opened.stage(this.#backend, length);
    if (this.#backend.name === "wasm" && backend === "auto") {
      this.#phases.note(
        `running in ${this.#backend.label}; with the package onnxruntime-node installed it takes about a quarter of the time`,
      );
    }
  }

  /** The allocation that will be carried out. */
  async #allocate(windows: PruneWindows | undefined): Promise<Chosen> {
    const { allocation, pattern } = this.#settings;
    const blocks = this.#sections.blocks.length;
    if (this.#given) return { allocation: "given", densities: this.#given, trials: [] };
    if (pattern.kind === "nm") {
      return {
        allocation: "uniform",
        densities: densitiesOf("uniform", blocks, this.#allocationSettings(), undefined),
        trials: [],
      };
    }
    if (allocation !== "auto") {
      const importance = needsImportance(allocation)
        ? await this.#judge(windows!.windows, this.#settings.compare ? "both" : allocation)
        : undefined;
      return {
        allocation,
        densities: densitiesOf(allocation, blocks, this.#allocationSettings(), importance),
        importance,
        trials: [],
      };
    }
    return await this.#tryAll(windows!);
  }

  #allocationSettings() {
    const { alpha, lambda, beta } = this.#settings;
    return { sparsity: this.#sparsity, alpha, lambda, beta };
  }

  /** `--allocation auto`: the one with the lowest perplexity on calibration text kept apart. */
  async #tryAll(windows: PruneWindows): Promise<Chosen> {
    const calibration = windows.windows.slice(0, TRIAL_WINDOWS);
    const apart = windows.apart!.slice(0, TRIAL_WINDOWS);
    const once = 3 * windows.windows.length;
    const all = ALLOCATIONS.length * (2 * calibration.length + apart.length);
    this.#phases.note(
      `auto tries ${ALLOCATIONS.length} allocations on ${calibration.length} calibration windows and ${apart.length} held-out ones: ` +
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
      if (trial.trial.perplexity < least) {
        least = trial.trial.perplexity;
        best = { allocation, densities: trial.densities, importance, trials };
      }
    }
    // Uniform never fails, so there is always a best.
    return best!;
  }

  /** `--compare`: the other allocations, measured on the held-out text. */
  async #compare(
    windows: PruneWindows,
    heldOut: readonly Int32Array[],
    chosen: Chosen,
  ): Promise<Trial[]> {
    const trials: Trial[] = [];
    const importance = chosen.importance ?? await this.#judge(windows.windows, "both");
    for (const allocation of ALLOCATIONS) {
      if (allocation === chosen.allocation) continue;
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
  ): Promise<{ trial: Trial; densities: Float64Array } | undefined> {
    const blocks = this.#sections.blocks.length;
    let densities: Float64Array;
    try {
      densities = densitiesOf(allocation, blocks, this.#allocationSettings(), importance);
    } catch (error) {
      this.#phases.note(`${allocation} is left out: ${(error as Error).message}`);
      return undefined;
    }
    const rules = this.#rules(sharesOf(densities, this.#settings.pattern));
    const states = this.#settings.method === "wanda" ? this.#room(calibration) : undefined;
    const measured = this.#room(heldOut);
    const perplexity = await this.#overBlocks(
      `try ${allocation}`,
      2 * (states?.batches.length ?? 0) + measured.batches.length,
      async (hooks) => {
        await prunePass(this.#model!, rules, states, () => {}, measured, hooks);
        return (await measureLosses(this.#model!, measured, this.#signal)).perplexity;
      },
    );
    this.#free(states);
    this.#free(measured);
    return { trial: { allocation, on, perplexity }, densities };
  }

  /** Judges the blocks for one allocation, or for all that need it. */
  async #judge(
    windows: readonly Int32Array[],
    wanted: AllocationName | "both",
  ): Promise<Importance> {
    const { reducer, outlierThreshold } = this.#settings;
    const states = this.#room(windows);
    const questions = {
      reducer: wanted === "owl" ? undefined : reducer,
      threshold: wanted === "dlp" ? undefined : outlierThreshold,
      skipped: this.#skipped,
    };
    const importance = await this.#overBlocks(
      "judge blocks",
      states.batches.length,
      (hooks) => judge(this.#model!, states, questions, hooks),
    );
    this.#free(states);
    return importance;
  }

  /** The pruning itself; returns the zeros of each linear by the name of its weight. */
  async #prune(
    writer: CheckpointWriter,
    windows: readonly Int32Array[] | undefined,
    rules: PruneRules,
  ): Promise<Map<string, number>> {
    const zeros = new Map<string, number>();
    const states = windows && rules.method === "wanda" ? this.#room(windows) : undefined;
    const model = this.#model ?? this.#opened.stage(await openBackend("wasm", 1), 1);
    await this.#overBlocks("prune blocks", 2 * (states?.batches.length ?? 0.5), async (hooks) => {
      await prunePass(
        model,
        rules,
        states,
        ({ weight, mask, values }) => {
          writer.prune(weight, mask);
          let count = 0;
          for (let i = 0; i < values.length; i++) if (values[i] === 0) count++;
          zeros.set(weight, count);
        },
        undefined,
        hooks,
      );
    });
    this.#free(states);
    return zeros;
  }

  #rules(shares: PruneRules["shares"]): PruneRules {
    const { method, pattern } = this.#settings;
    return { method, pattern, shares, skipped: this.#skipped };
  }

  async #measure(
    phase: string,
    opened: OpenModel,
    windows: readonly Int32Array[],
  ): Promise<number> {
    const model = opened === this.#opened
      ? this.#model!
      : opened.stage(this.#backend!, windows[0].length);
    const states = this.#room(windows);
    const { perplexity } = await this.#phases.run(
      phase,
      "blocks",
      model.blocks.length + 1,
      (step) => evaluateWindows(model, states, step, this.#signal),
    );
    this.#free(states);
    if (model !== this.#model) await model.close();
    return perplexity;
  }

  /** Measures what was written, read back as anybody would read it. */
  async #measurePruned(folder: string, windows: readonly Int32Array[]): Promise<number> {
    const written = new OpenModel(folder);
    try {
      return await this.#measure("measure pruned model", written, windows);
    } finally {
      written.checkpoint.close();
    }
  }

  /** Runs a pass with its progress counted in blocks, parts of a block included. */
  #overBlocks<T>(
    phase: string,
    runsPerBlock: number,
    work: (hooks: PassHooks) => Promise<T>,
  ): Promise<T> {
    const blocks = this.#sections.blocks.length;
    return this.#phases.run(phase, "blocks", blocks, (step) => {
      let blocksDone = 0;
      let runs = 0;
      return work({
        signal: this.#signal,
        onBatch: () => step(Math.min(blocksDone + ++runs / runsPerBlock, blocksDone + 0.99)),
        onBlock: (index) => {
          blocksDone = index + 1;
          runs = 0;
          step(blocksDone);
        },
      });
    });
  }

  #room(windows: readonly Int32Array[]): WindowStates {
    const { spec } = this.#opened;
    const plan: Plan = planWindows(
      this.#model!,
      spec,
      windows.length,
      windows[0].length,
      this.#settings.memory,
    );
    const batches = batchesOf(windows, plan.windowsPerBatch);
    const states = new WindowStates(batches, spec.hidden, plan.spill);
    this.#states.add(states);
    return states;
  }

  #free(states: WindowStates | undefined): void {
    if (!states) return;
    states.close();
    this.#states.delete(states);
  }
}

/** The allocation that will be carried out, and how it was found. */
interface Chosen {
  readonly allocation: AllocationName | "given";
  readonly densities: Float64Array;
  readonly importance?: Importance;
  readonly trials: readonly Trial[];
}
