/**
 * What `prune` tells: the report for its caller, the record `espalier.json` for whoever finds the model.
 *
 * The record has no times, paths or machine in it, so that the same command gives the same bytes.
 * @module
 */
import type { Importance } from "../calibrate/passes.ts";
import type { Backend } from "../engine/ort/backend.ts";
import type { Linear } from "../onnx/sections.ts";
import { mends, type Share } from "../prune/block.ts";
import type { AllocationName, Pattern } from "../prune/types.ts";
import { VERSION } from "../version.ts";
import { percent } from "./percent.ts";
import type { StoreChoice } from "./compiled_sizes.ts";
import type { FitReport, Fitted } from "./fit.ts";
import type { Sampling } from "./calibration_writer.ts";
import type { DistillReport } from "./distill.ts";
import type { PruneSettings } from "./options.ts";
import type { PruneWindows } from "./prune_windows.ts";
import { sparsityOf } from "./inspect.ts";
import type { OpenModel, Phases } from "./shared.ts";

/** An allocation that was measured without being written. */
export interface Trial {
  readonly allocation: AllocationName | "search";
  /** Measured on calibration text kept apart (`auto`, `search`), or on `--text` (`--compare`). */
  readonly on: "calibration" | "text";
  readonly perplexity: number;
}

/** How `--allocation search` came to its densities. */
export interface SearchRecord {
  /** The fixed allocation that it started from: the best on calibration text kept apart. */
  readonly from: AllocationName;
  /** Allocations whose loss or slopes it might measure, and that it measured. */
  readonly budget: number;
  readonly evaluations: number;
  /** Windows of calibration text kept apart that it measured on. */
  readonly slice: { readonly windows: number; readonly seqlen: number };
  /**
   * Loss on them in nats a token, masked by fixed statistics: the mean of the cross entropies with the
   * tokens that came and with the dense model's predictions.
   */
  readonly loss: { readonly start: number; readonly end: number };
  /** Perplexity on calibration text kept apart, pruned as the result will be. */
  readonly perplexity: { readonly start: number; readonly end: number };
  /** What is carried out: the start where the search did not come out below it. */
  readonly taken: AllocationName | "search";
}

/** What was calibrated on: windows of a file, or of text that the model wrote. */
export interface CalibrationReport {
  readonly kind?: "self";
  /** Name of the file, where it was one. */
  readonly file?: string;
  /** How the model wrote it, where it did. */
  readonly sampling?: Sampling;
  readonly windows: number;
  readonly seqlen: number;
  /** SHA-256 of the windows' ids as little-endian int32. */
  readonly sha256: string;
}

/** One block, pruned. */
export interface BlockReport {
  readonly index: number;
  /** Fraction of weights that the allocation lets it keep. */
  readonly density: number;
  /** N of N:M, where the pattern is one. */
  readonly kept?: number;
  /** The same of each pruned linear, where they differ. */
  readonly densities?: Record<string, number>;
  /** DLP's score S, where the model was judged. */
  readonly score?: number;
  /** OWL's outlier percent, where the model was judged. */
  readonly outlierPercent?: number;
  /** Fraction of zeros reached, over its pruned linears. */
  readonly sparsity?: number;
  /** Fraction of zeros of each pruned linear. */
  readonly linears?: Record<string, number>;
}

/** What `prune` did. */
export interface PruneReport {
  readonly model: string;
  readonly architecture: string;
  /** Folder that was written; absent after a dry run. */
  readonly output?: string;
  readonly method: string;
  /** What the weights that stay were rounded to, if they were. */
  readonly values?: "int4";
  /** What the output head was rounded to, if it was. */
  readonly head?: "int4";
  /** The allocation carried out; `given` for `--densities`. */
  readonly allocation: AllocationName | "given" | "search";
  readonly reducer: string;
  readonly pattern: string;
  /** Linears that were left dense, by name or glob. */
  readonly skip: readonly string[];
  /** Asked for, and reached, over the linears that were pruned. */
  readonly sparsity: { readonly asked: number; readonly reached?: number };
  readonly blocks: BlockReport[];
  readonly trials: readonly Trial[];
  /** How the allocation was searched, where it was. */
  readonly search?: SearchRecord;
  readonly calibration?: CalibrationReport;
  /** How the weights that stay were distilled from the dense model, where they were. */
  readonly distillation?: DistillReport;
  /** What `--fit` tried and found. */
  readonly fit?: FitReport;
  /** How `compile` stores it unless it is told otherwise. */
  readonly compile?: StoreChoice;
  readonly perplexity?: {
    readonly text: string;
    readonly windows: number;
    readonly seqlen: number;
    readonly dense: number;
    readonly pruned: number;
  };
  readonly backend?: string;
  readonly notes: readonly string[];
  /** Seconds by phase. */
  readonly seconds: Record<string, number>;
  /** Largest resident memory of the process. */
  readonly peakBytes: number;
}

/** A linear and the block that it is in. */
export interface BlockLinear extends Linear {
  readonly block: number;
}

/** All that a run knows when it is done. */
export interface RunFacts {
  readonly settings: PruneSettings;
  readonly fitted?: Fitted;
  readonly opened: OpenModel;
  /** The linears that are pruned. */
  readonly linears: readonly BlockLinear[];
  readonly sparsity: number;
  readonly allocation: AllocationName | "given" | "search";
  readonly shares: readonly Share[];
  readonly importance?: Importance;
  readonly trials: readonly Trial[];
  readonly search?: SearchRecord;
  readonly windows?: PruneWindows;
  readonly heldOut?: PruneWindows;
  readonly perplexity?: { readonly dense: number; readonly pruned: number };
  readonly distilled?: DistillReport;
  /** Zeros by weight name. */
  readonly counts?: ReadonlyMap<string, number>;
  readonly output?: string;
  readonly backend?: Backend;
  readonly phases: Phases;
  readonly peakBytes: number;
}

/** The report and the record of a run. */
export function describeRun(facts: RunFacts): { report: PruneReport; record: object } {
  const { settings, opened, windows, heldOut, perplexity, counts } = facts;
  const blocks = blockReports(facts);
  const reached = counts && reachedSparsity(facts);
  const calibration: CalibrationReport | undefined = windows && {
    ...(windows.sampling ? { kind: "self", sampling: windows.sampling } : { file: windows.file }),
    windows: windows.windows.length,
    seqlen: windows.length,
    sha256: windows.sha256,
  };
  const measured = perplexity && heldOut && {
    text: heldOut.file!,
    windows: heldOut.windows.length,
    seqlen: heldOut.length,
    ...perplexity,
  };
  const { fitted } = facts;
  // What compile takes where nothing else is said.
  const compile: StoreChoice | undefined = fitted?.compile ??
    ((settings.values || settings.head) && {
      values: settings.values ?? "int8",
      ...(settings.values && { group: settings.group }),
      ...(settings.head && { head: settings.head }),
    });
  const storing = { ...(fitted && { fit: fitted.report }), ...(compile && { compile }) };
  const report: PruneReport = {
    model: opened.checkpoint.name,
    architecture: String(opened.checkpoint.config.model_type),
    output: facts.output,
    method: settings.method,
    values: settings.values,
    head: settings.head,
    allocation: facts.allocation,
    reducer: settings.reducer,
    pattern: patternText(settings.pattern),
    skip: settings.skip,
    sparsity: { asked: facts.sparsity, reached },
    blocks,
    trials: facts.trials,
    search: facts.search,
    calibration,
    distillation: facts.distilled,
    ...storing,
    perplexity: measured,
    backend: facts.backend?.label,
    notes: facts.phases.notes,
    seconds: facts.phases.seconds,
    peakBytes: facts.peakBytes,
  };
  const record = {
    format: 1,
    espalier: VERSION,
    onnxruntime: facts.backend?.label.replace(/,.*$/, ""),
    source: report.model,
    architecture: report.architecture,
    options: {
      sparsity: facts.sparsity,
      method: settings.method,
      allocation: facts.allocation,
      ...(facts.allocation === "dlp" && { reducer: settings.reducer, alpha: settings.alpha }),
      ...(facts.allocation === "owl" && {
        lambda: settings.lambda,
        outlierThreshold: settings.outlierThreshold,
      }),
      ...(facts.allocation === "atp" && settings.beta !== undefined && { beta: settings.beta }),
      pattern: report.pattern,
      skip: settings.skip,
      seed: settings.seed,
    },
    ...storing,
    calibration,
    distillation: facts.distilled,
    sparsity: report.sparsity,
    blocks,
    trials: facts.trials,
    search: facts.search,
    perplexity: measured,
    modelCard: modelCard(report, settings),
  };
  return { report, record };
}

function blockReports({ linears, shares, importance, counts }: RunFacts): BlockReport[] {
  return shares.map((share, index) => {
    const own = linears.filter(({ block }) => block === index);
    const sizes = own.map(({ weight, rows, columns }) => ({
      shape: [rows, columns] as [number, number],
      zeros: counts?.get(weight) ?? 0,
    }));
    return {
      index,
      density: share.density,
      kept: share.kept,
      densities: share.linears &&
        Object.fromEntries(own.map(({ name }, i) => [name, share.linears![i]])),
      // A block of which all is left dense is not judged.
      score: own.length > 0 ? importance?.scores?.[index] : undefined,
      outlierPercent: own.length > 0 ? importance?.outliers?.[index] : undefined,
      sparsity: counts && sparsityOf(sizes),
      linears: counts && Object.fromEntries(
        own.map(({ name, rows, columns }, i) => [name, sizes[i].zeros / (rows * columns)]),
      ),
    };
  });
}

function reachedSparsity({ linears, counts }: RunFacts): number {
  return sparsityOf(linears.map(({ weight, rows, columns }) => ({
    shape: [rows, columns] as [number, number],
    zeros: counts?.get(weight) ?? 0,
  })));
}

/** A pattern as the option spells it. */
export function patternText(pattern: Pattern): string {
  switch (pattern.kind) {
    case "unstructured":
    case "slots":
      return pattern.kind;
    case "nm":
      return `${pattern.n}:${pattern.m}`;
    case "mixed":
      return `mixed:${pattern.m}`;
  }
}

/** What was calibrated on, as a person reads it. */
export function calibrationText({ windows, seqlen, file }: CalibrationReport): string {
  return `${windows} windows of ${seqlen} tokens ${
    file === undefined ? "that the model wrote itself" : `of ${file}`
  }`;
}

/** A section in Markdown to paste into the model's card. */
function modelCard(report: PruneReport, settings: PruneSettings): string {
  const { skip } = settings;
  const lines = [
    "## Pruning",
    "",
    `Pruned from \`${report.model}\` with Espalier ${VERSION}; ${
      report.distillation
        ? `the weights that stay and the last norm were distilled from it in ${report.distillation.steps} steps on the calibration text.`
        : mends(settings.method)
        ? "the weights that stay were changed to make up for those that went, without training."
        : "no weight was retrained."
    }`,
    "",
    "| | |",
    "|---|---|",
    `| weights pruned, of the linears in all blocks | ${percent(report.sparsity.reached ?? 0)} |`,
    `| pattern | ${report.pattern} |`,
    `| method | ${report.method}${settings.values ? `, rounded to ${settings.values}` : ""} |`,
    `| allocation | ${report.allocation}${
      report.allocation === "dlp" ? ` (${report.reducer})` : ""
    } |`,
  ];
  if (skip.length > 0) lines.push(`| left dense | ${skip.join(", ")} |`);
  const { calibration, perplexity } = report;
  if (calibration) {
    lines.push(
      `| calibration | ${calibrationText(calibration)} |`,
    );
  }
  if (perplexity) {
    lines.push(
      `| perplexity on ${perplexity.text}, ${perplexity.windows} windows of ${perplexity.seqlen} tokens | ${
        perplexity.dense.toFixed(2)
      } before, ${perplexity.pruned.toFixed(2)} after |`,
    );
  }
  return lines.join("\n") + "\n";
}

/** The allocation that is written: a search that ends no better than it began leaves the one that it started from. */
export function writtenAllocation(
  { allocation, search }: Pick<PruneReport, "allocation"> & {
    readonly search?: Pick<SearchRecord, "taken">;
  },
): PruneReport["allocation"] {
  return search?.taken ?? allocation;
}
