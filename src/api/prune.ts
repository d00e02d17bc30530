/**
 * `prune`: a checkpoint in, a pruned checkpoint out.
 * @module
 */
import { join, resolve, sep } from "node:path";
import { straysText } from "../checkpoint/own_files.ts";
import { CheckpointWriter } from "../checkpoint/writer.ts";
import { throwIfAborted } from "../checks.ts";
import { UsageError } from "../errors.ts";
import { type Block, cutIntoSections } from "../onnx/sections.ts";
import { writeText } from "../platform/files.ts";
import { assertApart, assertFree, PendingFolder } from "../platform/output_folder.ts";
import { peakResidentBytes } from "../platform/runtime.ts";
import { ALLOCATIONS, needsImportance } from "./allocate.ts";
import { type CalibrationWriter, noWriter } from "./calibration_writer.ts";
import { noSizes, type SizeTeller } from "./compiled_sizes.ts";
import { carryOut, leaveAsItIs } from "./carry_out.ts";
import { assertDistillable } from "./distill.ts";
import { withinGradients } from "./gradients.ts";
import { AllocationChooser, rulesFor } from "./choose_allocation.ts";
import { assertReachable, fit } from "./fit.ts";
import { idleNotes, type RunUses } from "./idle_options.ts";
import {
  checkHooks,
  distillSteps,
  parseOptions,
  type PruneOptions,
  pruneSchema,
  type PruneSettings,
  type RunHooks,
} from "./options.ts";
import { describeRun, type PruneReport } from "./prune_report.ts";
import { assertGoTogether, requestOf } from "./prune_request.ts";
import { calibrationWindows, heldOutWindows, type PruneWindows } from "./prune_windows.ts";
import { assertSearchable } from "./search_allocation.ts";
import { SearchState, subjectOf } from "./search_state.ts";
import { OpenModel, Phases } from "./shared.ts";
import { Workbench } from "./workbench.ts";

/**
 * Prunes a checkpoint.
 *
 * The result has the input's form: sharding, dtypes and all other files are kept, pruned weights are
 * 0, and `espalier.json` beside them says how it was made. The same options give the same bytes on as many
 * threads.
 *
 * @param options See `deno run mod.ts prune --help`.
 * @param hooks Progress and abort.
 * @param given What others can and this folder cannot; `prune` of `src/workflow` gives all of it.
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
export async function prune(
  options: PruneOptions,
  hooks: RunHooks = {},
  given: PruneGivens = {},
): Promise<PruneReport> {
  const settings = parseOptions(pruneSchema, options);
  checkHooks(hooks);
  assertGoTogether(settings);
  const opened = new OpenModel(settings.model);
  const run = new PruneRun({ options, settings }, opened, hooks, given);
  try {
    return await run.run();
  } finally {
    await run.close();
    opened.checkpoint.close();
  }
}

/** What `prune` is given by who stands above it. */
export interface PruneGivens {
  /** Writes the text of `--calibration self`. */
  readonly write?: CalibrationWriter;
  /** Knows how large compiled models are, for `--fit`. */
  readonly sizes?: (opened: OpenModel) => SizeTeller;
}

/** Says which files a pruned checkpoint has not. */
function leftOutText(paths: readonly string[]): string {
  const named = paths.slice(0, 4).join(", ");
  const more = paths.length > 4 ? ` and ${paths.length - 4} more` : "";
  return `not copied, for they hold the dense model's weights in another form: ${named}${more}`;
}

class PruneRun {
  readonly #options: PruneOptions;
  readonly #settings: PruneSettings;
  readonly #given: PruneGivens;
  readonly #opened: OpenModel;
  readonly #signal: AbortSignal | undefined;
  readonly #onSearch: RunHooks["onSearch"];
  readonly #phases: Phases;
  readonly #bench: Workbench;
  readonly #blocks: readonly Block[];

  constructor(
    { options, settings }: { options: PruneOptions; settings: PruneSettings },
    opened: OpenModel,
    hooks: RunHooks,
    given: PruneGivens,
  ) {
    this.#options = options;
    this.#given = given;
    this.#opened = opened;
    this.#signal = hooks.signal;
    this.#onSearch = hooks.onSearch;
    this.#phases = new Phases(hooks);
    this.#settings = withinGradients(settings, opened, (text) => this.#phases.note(text));
    this.#bench = new Workbench(opened, this.#settings, this.#phases, hooks.signal);
    this.#blocks = cutIntoSections(opened.graph).blocks;
  }

  async run(): Promise<PruneReport> {
    const { allocation, densities, dryRun, text, compare, fit: asked } = this.#settings;
    let { pattern } = this.#settings;
    const note = (text: string) => this.#phases.note(text);
    const asks = requestOf(this.#settings, this.#opened, this.#blocks, note);
    const { linears } = asks;
    let { request } = asks;
    const output = this.#checkOutput();
    const sizes = asked === undefined ? undefined : (this.#given.sizes ?? noSizes)(this.#opened);
    // The default pattern is no wish: a fit then tries others.
    const wished = this.#options.pattern === undefined ? undefined : pattern;
    const order = sizes && { request, linears, bytes: asked!, pattern: wished, sizes };
    // Before a text is read, or written: what cannot fit takes no time.
    if (order) assertReachable(order);
    const fixed = asked === undefined && (pattern.kind === "nm" || densities !== undefined);
    const searches = !fixed && allocation === "search";
    const keepsApart = sizes !== undefined || searches || (!fixed && allocation === "auto");
    const steps = distillSteps(this.#settings);
    const usesWindows = sizes !== undefined || this.#settings.method !== "magnitude" ||
      steps > 0 ||
      (!fixed && (keepsApart || needsImportance(allocation) || compare));
    const makesNone = fixed || request.sparsity === 0;
    const makesAll = allocation === "auto" || allocation === "search" || compare;
    this.#noteIdle({
      allocations: makesNone ? [] : makesAll ? ALLOCATIONS : [allocation],
      calibration: usesWindows,
    });
    throwIfAborted(this.#signal);
    if (fixed && (allocation !== "dlp" || pattern.kind === "nm")) {
      this.#phases.note(
        pattern.kind === "nm"
          ? `${pattern.n}:${pattern.m} gives every block the same density; mixed:${pattern.m} lets the allocation choose`
          : "the densities given take the place of the allocation",
      );
    }
    const windows = usesWindows
      ? await calibrationWindows(this.#settings, this.#opened, keepsApart, {
        phases: this.#phases,
        signal: this.#signal,
        write: this.#given.write ?? noWriter,
      })
      : undefined;
    const heldOut = text
      ? heldOutWindows(this.#settings, this.#opened, windows?.length, this.#phases)
      : undefined;
    if (dryRun && text) {
      const passedOver = compare ? "--text and --compare are" : "--text is";
      this.#phases.note(`a dry run measures no perplexity: ${passedOver} passed over`);
    }
    const length = Math.max(windows?.length ?? 0, heldOut?.length ?? 0);
    if (length > 0) await this.#bench.open(length);
    if (steps > 0 && !dryRun) {
      const { memory } = this.#settings;
      const task = { windows: windows!.windows, linears, memory };
      await assertDistillable(this.#bench, this.#opened, task);
    }
    if (searches) await assertSearchable(this.#bench, windows!.apart!);
    const triesOrWrites = keepsApart || !dryRun;
    const method = triesOrWrites ? this.#settings.method : undefined;
    if (windows) await this.#bench.assertRoom(windows.windows, method);
    if (heldOut && !dryRun) await this.#bench.assertRoom(heldOut.windows);
    const fitted = order && await fit(order, windows!, this.#bench);
    let settings = this.#settings;
    if (fitted) {
      request = fitted.request;
      settings = request.settings;
      pattern = settings.pattern;
    }
    const state = searches ? this.#openState(output, windows!, request.sparsity) : undefined;
    const chooser = new AllocationChooser(
      request,
      this.#bench,
      state && { state, onSearch: this.#onSearch },
    );

    const pending = dryRun ? undefined : new PendingFolder(output, { force: this.#settings.force });
    try {
      // Not before: it may lie in a folder that was made for the output.
      state?.assertWritable();
      const writer = pending && new CheckpointWriter(this.#opened.checkpoint, pending.path);
      try {
        if (writer) {
          await this.#phases.run(
            "copy and check weights",
            "bytes",
            0,
            (step) => writer.copy(step, this.#signal),
          );
          if (writer.leftOut.length > 0) this.#phases.note(leftOutText(writer.leftOut));
          if (writer.strays.length > 0) this.#phases.note(straysText(writer.strays));
        }
        const dense = heldOut && !dryRun
          ? await this.#bench.measure("measure dense model", heldOut.windows)
          : undefined;

        const chosen = fitted?.chosen ?? await chooser.choose(windows);
        const { shares } = chosen;
        const trials = [...chosen.trials];
        const allocated = !fixed && pattern.kind !== "nm" && request.sparsity > 0;
        if (heldOut && compare && !dryRun && allocated) {
          trials.push(...await chooser.compare(windows!, heldOut.windows, chosen));
          if (steps > 0) this.#phases.note("of the allocations only the one written is distilled");
        } else if (heldOut && compare && !dryRun) {
          this.#phases.note(
            "--compare is passed over: no allocation was made that others could do",
          );
        }
        if (fitted?.unchanged && steps > 0) {
          this.#phases.note("--distill is passed over: nothing is pruned");
        }
        // A dense model that fits stays as it is.
        const done = writer &&
          await (fitted?.unchanged
            ? leaveAsItIs(this.#opened, linears, this.#signal)
            : carryOut(this.#bench, {
              settings,
              rules: rulesFor(request, shares),
              linears,
              windows: windows?.windows,
              writer,
              folder: pending.path,
            }));
        writer?.close();
        const pruned = heldOut && pending
          ? await this.#measurePruned(pending.path, heldOut.windows)
          : undefined;

        const { report, record } = describeRun({
          settings,
          fitted,
          opened: this.#opened,
          linears,
          sparsity: request.sparsity,
          allocation: chosen.allocation,
          shares,
          importance: chosen.importance,
          trials,
          search: chosen.search,
          windows,
          heldOut,
          perplexity: dense !== undefined && pruned !== undefined ? { dense, pruned } : undefined,
          counts: done?.zeros,
          distilled: done?.distilled,
          output: dryRun ? undefined : output,
          backend: this.#bench.backend,
          phases: this.#phases,
          peakBytes: peakResidentBytes(),
        });
        if (pending) {
          writeText(join(pending.path, "espalier.json"), `${JSON.stringify(record, null, 2)}\n`);
          throwIfAborted(this.#signal);
          pending.commit();
          // A state that was named may be wanted again, with a larger budget.
          if (this.#settings.searchState === undefined) state?.remove();
        }
        return report;
      } finally {
        writer?.close();
      }
    } catch (error) {
      throw state ? state.told(error) : error;
    } finally {
      pending?.discard();
    }
  }

  close(): Promise<void> {
    return this.#bench.close();
  }

  /** Says which options do nothing beside the others, and what one does not do. */
  #noteIdle(uses: RunUses): void {
    const { skip, values } = this.#settings;
    if (values === "int4" && skip.length > 0) {
      this.#phases.note(
        "what --skip leaves dense is not rounded here: compile --values int4 rounds it to nearest, " +
          "which no perplexity that is measured here counts",
      );
    }
    for (const note of idleNotes(this.#options, this.#settings, uses)) this.#phases.note(note);
  }

  #checkOutput(): string {
    const { output, dryRun, force } = this.#settings;
    const target = resolve(output ?? `${this.#opened.checkpoint.name}-pruned`);
    if (dryRun) return target;
    assertApart(target, this.#opened.checkpoint.folder);
    assertFree(target, force);
    return target;
  }

  /** What a search has measured before: where it was told to lie, or beside the output. */
  #openState(output: string, windows: PruneWindows, sparsity: number): SearchState {
    const { searchState, dryRun, force } = this.#settings;
    const path = searchState ?? (dryRun ? undefined : `${output}.search.json`);
    if (path && `${resolve(path)}${sep}`.startsWith(output + sep)) {
      throw new UsageError(
        `--search-state ${path} is the output folder, or lies in it, which is replaced as a whole: name another place`,
      );
    }
    const backend = this.#bench.backend!.label.replace(/,.*$/, "");
    const subject = subjectOf(this.#settings, this.#opened, windows, sparsity, backend);
    const state = new SearchState(path, subject, { force });
    if (state.known > 0) {
      this.#phases.note(
        `the search goes on from ${path}, where ${state.known} allocations are measured`,
      );
    }
    return state;
  }

  /** Measures what was written, read back as anybody would read it. */
  async #measurePruned(folder: string, windows: readonly Int32Array[]): Promise<number> {
    const written = new OpenModel(folder);
    try {
      return await this.#bench.measure("measure pruned model", windows, written);
    } finally {
      written.checkpoint.close();
    }
  }
}
