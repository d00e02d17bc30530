/**
 * Variants as compiled models in a temporary folder: pruned, compiled, and gone when they are measured.
 * @module
 */
import { join } from "node:path";
import { compile, type CompileReport } from "../../../compile/compile.ts";
import type { CompileOptions } from "../../../compile/options.ts";
import { type PruneOptions, pruneSchema, type RunHooks } from "../../api/options.ts";
import type { PruneReport } from "../../api/prune_report.ts";
import { mends } from "../../prune/block.ts";
import { remove } from "../../platform/folders.ts";
import { fixesWindows } from "../../text/corpus.ts";
import { prune } from "../prune.ts";
import type { CompareSettings } from "./options.ts";
import type { Variant } from "./variants.ts";

/** Values of the dense model that speed is taken beside. */
const REFERENCE = "int8";

/** Values that pruning can round to. */
const ROUNDED = pruneSchema.shape.values.unwrap().options;

/** A compiled variant. */
export interface Made {
  readonly folder: string;
  readonly compiled: CompileReport;
  /** How it was pruned; undefined for a dense one. */
  readonly pruned?: PruneReport;
}

/** Makes variants of one model; those that differ in values alone share a pruned checkpoint. */
export class VariantMaker {
  readonly #settings: CompareSettings;
  readonly #folder: string;
  #reference: Made | undefined;
  #pruned: { readonly key: string; readonly report: PruneReport } | undefined;

  /** @param folder A folder for what is made, which the caller removes. */
  constructor(settings: CompareSettings, folder: string) {
    this.#settings = settings;
    this.#folder = folder;
  }

  /** Options of `prune` for a variant; undefined for a dense one. */
  pruningOf(variant: Variant): Omit<PruneOptions, "output"> | undefined {
    const { pruning, fit, values, head } = variant;
    if (!pruning && !fit) return undefined;
    const { model, calibration, samples, seqlen, seed, alpha, skip } = this.#settings;
    const { distill, threads, backend, memory } = this.#settings;
    return {
      ...{ model, calibration, samples, seed, alpha, skip, distill, threads, backend, memory },
      // Windows that a file fixes are as long as they are.
      seqlen: calibration !== undefined && fixesWindows(calibration) ? undefined : seqlen,
      // Methods that mend round while they do; others leave that to compile.
      values: pruning && mends(pruning.method)
        ? ROUNDED.find((rounded) => rounded === (values as string))
        : undefined,
      head: pruning && mends(pruning.method) ? head : undefined,
      ...(pruning ?? { fit: fit!.bytes, method: fit!.method, allocation: fit!.allocation }),
    };
  }

  /**
   * Makes a variant.
   *
   * @throws {SizeUnreachableError} When it is a fit, and nothing fits.
   * @throws {EspalierError} As `prune` and `compile` do.
   */
  async make(variant: Variant, hooks: RunHooks): Promise<Made> {
    const isReference = variant.kind === "dense" && variant.values === REFERENCE &&
      variant.head === undefined;
    if (isReference) return await this.reference(hooks);
    const options = this.pruningOf(variant);
    const pruned = options && await this.#prune(options, hooks);
    const folder = join(this.#folder, "compiled");
    const compiled = await compile({
      model: pruned?.output ?? this.#settings.model,
      output: folder,
      // A fit has written its own beside the checkpoint.
      values: variant.values as CompileOptions["values"],
      head: variant.head,
      force: true,
    }, withoutNotes(hooks));
    return { folder, compiled, pruned };
  }

  /** The model that speed is taken beside, made once. */
  async reference(hooks: RunHooks): Promise<Made> {
    if (this.#reference) return this.#reference;
    const folder = join(this.#folder, "reference");
    const { model } = this.#settings;
    return this.#reference = {
      folder,
      compiled: await compile({ model, output: folder, values: REFERENCE }, withoutNotes(hooks)),
    };
  }

  async #prune(options: Omit<PruneOptions, "output">, hooks: RunHooks): Promise<PruneReport> {
    const key = JSON.stringify(options);
    if (this.#pruned?.key === key) return this.#pruned.report;
    const output = join(this.#folder, "pruned");
    this.#pruned = undefined;
    remove(output);
    const report = await prune({ ...options, output }, hooks);
    this.#pruned = { key, report };
    return report;
  }
}

/** For compiling: its notes are for who keeps the files, and that a variant is dense is no news. */
function withoutNotes({ signal, onProgress }: RunHooks): RunHooks {
  return { signal, onProgress: (event) => event.type === "progress" && onProgress?.(event) };
}
