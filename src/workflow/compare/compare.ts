/**
 * `compare`: what a model is worth, by bytes and by speed, dense and pruned.
 * @module
 */
import { createHash } from "node:crypto";
import { basename, extname, join } from "node:path";
import { parseOptions, type RunHooks } from "../../api/options.ts";
import { evaluationWindows, OpenModel, Phases, windowLength } from "../../api/shared.ts";
import { SELF } from "../../api/calibration_writer.ts";
import { stoppedKeeping, throwIfAborted } from "../../checks.ts";
import { folderName } from "../../checkpoint/folder_name.ts";
import {
  AbortError,
  AllocationError,
  type EspalierError,
  PatternError,
  SizeUnreachableError,
  UsageError,
} from "../../errors.ts";
import { median } from "../../generate/bench.ts";
import { exists } from "../../platform/paths.ts";
import { hashFile } from "../../platform/hash.ts";
import { TemporaryFolder } from "../../platform/temporary.ts";
import { processors } from "../../platform/machine.ts";
import { VERSION } from "../../version.ts";
import { type BestAt, bestAt, sizeFrontier, speedFrontier } from "./frontier.ts";
import { type Made, VariantMaker } from "./make.ts";
import { measureCompiled, type Measuring } from "./measure.ts";
import { type CompareOptions, compareSchema, type CompareSettings } from "./options.ts";
import { CompareState, keyOf, type MeasuredVariant } from "./state.ts";
import { defaultVariants, fitVariant, type Variant, withoutDoubles } from "./variants.ts";

/** What a checkpoint says beside its weights: of texts that it writes for itself, the last two say where they end. */
const DESCRIPTIONS = [
  "config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "generation_config.json",
];
/** Bytes of files that are hashed at a time. */
const CHUNK = 4 << 20;

/** A variant, as the report has it. */
export interface ComparedVariant extends Omit<MeasuredVariant, "perplexity" | "tokensPerSecond"> {
  /** Infinity where the model has fallen apart; `null` in JSON. */
  readonly perplexity: number;
  /** `speedup` times the reference's median in all rounds; undefined where the context is too short. */
  readonly tokensPerSecond?: number;
}

/** What `compare` found. */
export interface CompareReport {
  readonly model: string;
  readonly text: {
    readonly file: string;
    readonly windows: number;
    readonly seqlen: number;
    /** SHA-256 of the windows' ids as little-endian int32. */
    readonly sha256: string;
  };
  readonly calibration?: string;
  /** The smallest first. */
  readonly variants: readonly ComparedVariant[];
  /** Names of those that no other beats: lower perplexity at no more bytes, or at no less speed. */
  readonly frontier: { readonly size: readonly string[]; readonly speed: readonly string[] };
  /** For each size asked for. */
  readonly at: readonly (BestAt & { readonly unreachable?: string })[];
  readonly state: string;
  /** Variants that were measured now; the others were in the state file. */
  readonly measured: number;
  readonly notes: readonly string[];
  readonly seconds: number;
}

/** The file that finished variants are kept in: the one that was named, or one called after the model. */
export function stateFileOf({ model, state }: Pick<CompareOptions, "model" | "state">): string {
  return state ?? `${folderName(model)}-compare.json`;
}

/**
 * Compares variants of a model: bytes of the compiled files, perplexity on held-out text and speed of
 * decoding, each of the compiled model in the engine that would run it.
 *
 * Finished variants are kept in a file: the same command goes on where it was stopped.
 *
 * @param options See `deno run mod.ts compare --help`.
 * @param hooks Progress and abort. Nothing but the state file is left on disk.
 * @throws {CompareStateError} When the state file is damaged.
 * @throws {EspalierError} Of the class that says what else is wrong.
 */
export async function compare(
  options: CompareOptions,
  hooks: RunHooks = {},
): Promise<CompareReport> {
  const started = performance.now();
  const settings = parseOptions(compareSchema, options);
  const phases = new Phases(hooks);
  const { method, allocation, at = [] } = settings;
  const defaults = { method, allocation };
  const variants = withoutDoubles([
    ...settings.variants?.(defaults) ?? defaultVariants(defaults),
    ...at.map((bytes) => fitVariant(bytes, defaults)),
  ]);
  if (variants.some(needsText) && settings.calibration === undefined) {
    throw new UsageError(
      "--calibration FILE is needed to prune: text like that which the model will meet, or self",
    );
  }
  const chosen = variants.find(({ fit }) => ["auto", "search"].includes(fit?.allocation ?? ""));
  if (chosen) {
    throw new UsageError(
      `a fit looks for pattern and values: name one allocation for it, not ${
        chosen.fit!.allocation
      }`,
    );
  }
  const searched = variants.find(({ pruning }) =>
    pruning?.allocation === "search" && isFixed(pruning.pattern)
  );
  if (searched) {
    throw new UsageError(
      `${searched.name}: --allocation search has nothing to search where N:M gives every block the same ` +
        `density: name another allocation for it, as ${
          searched.pruning!.pattern
        }:${searched.values}:uniform, or leave it out of --variants`,
    );
  }
  const { facts, calibration, windows, text, name } = readInputs(settings, phases);
  const state = CompareState.open(stateFileOf(settings), settings);
  const temporary = new TemporaryFolder("compare");
  const measured = new Map<string, MeasuredVariant>();
  const unreachable = new Map<number, string>();
  let fresh = 0;
  let impossible: EspalierError | undefined;
  try {
    const maker = new VariantMaker(settings, temporary.path);
    const keys = new Map(variants.map((variant) => [
      variant,
      // Not by its name, which leaves out what is the default.
      keyOf([facts, variant.pruning || variant.fit ? calibration : 0, {
        ...variant,
        name: undefined,
      }]),
    ]));
    const missing = bySharedPruning(
      variants.filter((variant) => !state.get(keys.get(variant)!)),
      maker,
    );
    if (missing.length < variants.length) {
      phases.note(`${variants.length - missing.length} variants were measured before`);
    }
    if (missing.length > 0) state.assertWritable();
    for (const [i, variant] of missing.entries()) {
      throwIfAborted(hooks.signal);
      const own = within(hooks, `${i + 1} of ${missing.length}, ${variant.name}`);
      const { folder: reference, compiled } = await maker.reference(within(hooks, "dense int8"));
      const { context } = compiled.options;
      const measuring: Measuring = { ...settings, windows, reference, context };
      try {
        const made = await maker.make(variant, own);
        const figures = await measureCompiled(made.folder, measuring, own);
        state.set(keys.get(variant)!, { ...described(variant, made), ...figures });
        fresh++;
      } catch (error) {
        if (!isImpossible(error)) throw error;
        impossible ??= error;
        phases.note(`${variant.name}: ${error.message}`);
        if (variant.fit) unreachable.set(variant.fit.bytes, error.message);
      }
    }
    for (const variant of variants) {
      const found = state.get(keys.get(variant)!);
      if (found) measured.set(variant.name, { ...found, name: variant.name });
    }
    if (impossible && measured.size === 0) throw impossible;
  } catch (error) {
    if (!(error instanceof AbortError) || fresh === 0) throw error;
    throw stoppedKeeping(state.path, error, settings.fresh ? "without --fresh " : "");
  } finally {
    temporary.remove();
  }
  const all = comparable([...measured.values()]);
  return {
    model: name,
    text,
    calibration: settings.calibration && basename(settings.calibration),
    variants: all,
    frontier: {
      size: sizeFrontier(all).map(({ name }) => name),
      speed: speedFrontier(all).map(({ name }) => name),
    },
    at: at.map((bytes) => ({ ...bestAt(bytes, all), unreachable: unreachable.get(bytes) })),
    state: state.path,
    measured: fresh,
    notes: phases.notes,
    seconds: (performance.now() - started) / 1000,
  };
}

/**
 * Variants as if all of them had been timed at once: the speed of each is its ratio to the reference in
 * its own rounds, times what the reference had in all of them. The smallest first.
 */
function comparable(variants: readonly MeasuredVariant[]): ComparedVariant[] {
  const reference = variants.flatMap(({ referenceTokensPerSecond }) =>
    referenceTokensPerSecond ?? []
  );
  return variants.map((variant): ComparedVariant => ({
    ...variant,
    perplexity: variant.perplexity ?? Infinity,
    ...(variant.speedup === undefined
      ? {}
      : { tokensPerSecond: variant.speedup * median(reference) }),
  })).sort((a, b) => a.bytes - b.bytes);
}

/** Whether an error is that a variant cannot be, so that others can still be measured. */
function isImpossible(error: unknown): error is EspalierError {
  return error instanceof SizeUnreachableError || error instanceof AllocationError ||
    error instanceof PatternError;
}

/** Those that share a pruned checkpoint beside each other, else as they come. */
function bySharedPruning(variants: readonly Variant[], maker: VariantMaker): Variant[] {
  const groups = Map.groupBy(variants, (variant) => JSON.stringify(maker.pruningOf(variant)));
  return [...groups.values()].flat();
}

/** Whether pruning needs calibration text; magnitude with a pattern that needs no judging does without. */
function needsText({ kind, pruning }: Variant): boolean {
  if (kind === "dense") return pruning !== undefined;
  if (!pruning || pruning.method !== "magnitude") return true;
  return isFixed(pruning.pattern) ? false : !["uniform", "atp"].includes(pruning.allocation);
}

/** Whether a pattern is N:M, which says the density of every block. */
function isFixed(pattern: string): boolean {
  return /^\d+:/.test(pattern);
}

/** Reads what all variants share, and what their results hang on. */
function readInputs(settings: CompareSettings, phases: Phases) {
  const opened = new OpenModel(settings.model);
  try {
    const { checkpoint, spec } = opened;
    const source = opened.read(settings.text);
    const wanted = "windows" in source ? undefined : Math.min(settings.seqlen, spec.context);
    const length = windowLength(wanted, spec.context, source, (text) => phases.note(text));
    const windows = evaluationWindows(source, length, spec.vocabulary, settings.windows);
    const hash = createHash("sha256");
    for (const window of windows) {
      hash.update(new Uint8Array(window.buffer, window.byteOffset, window.byteLength));
    }
    const sha256 = hash.digest("hex");
    const files = [...checkpoint.shards, ...DESCRIPTIONS];
    const model = files.map((file) => join(checkpoint.folder, file)).filter(exists)
      .map((path) => hashFile(path, CHUNK).sha256);
    const { calibration, samples, seqlen, seed, alpha, skip, backend } = settings;
    const threads = settings.threads ?? processors();
    const distill = settings.distill ?? "as prune does";
    const calibrated = calibration === undefined || calibration === SELF
      ? calibration
      // The name says how the file is read.
      : [extname(calibration), hashFile(calibration, CHUNK).sha256];
    return {
      name: checkpoint.name,
      windows,
      text: { file: basename(settings.text), windows: windows.length, seqlen: length, sha256 },
      facts: {
        espalier: VERSION,
        model,
        windows: sha256,
        // Windows of another length may hold the same tokens.
        length,
        // Speeds of another machine would be compared with those of this one.
        threads,
      },
      // Backends differ in the last bits of what they compute.
      calibration: { text: calibrated, samples, seqlen, seed, alpha, skip, distill, backend },
    };
  } finally {
    opened.checkpoint.close();
  }
}

/** What a variant is, from what was made of it. */
function described(variant: Variant, { compiled, pruned }: Made) {
  const { sparsity, bytes, options } = compiled;
  return {
    name: variant.name,
    kind: variant.kind,
    values: options.values,
    ...(pruned && {
      pattern: pruned.pattern,
      method: pruned.method,
      allocation: pruned.allocation,
    }),
    // A dense model may hold zeros of its own, and weights may be rounded to 0; that is no pruning.
    sparsity: pruned && pruned.sparsity.asked > 0 ? pruned.sparsity.reached ?? sparsity : 0,
    bytesPerWeight: bytes.perWeight,
  };
}

/** Hooks whose phases say what they are a part of. */
function within(hooks: RunHooks, what: string): RunHooks {
  return {
    signal: hooks.signal,
    onProgress: (event) =>
      hooks.onProgress?.(
        event.type === "note"
          ? { ...event, text: `${what}: ${event.text}` }
          : { ...event, phase: `${what}: ${event.phase}` },
      ),
  };
}
