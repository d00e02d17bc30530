/**
 * The options of every command, one schema each: for the library, for config files and for the CLI,
 * which derives its flags and its help from them.
 * @module
 */
import { z } from "zod";
import { checkObject, checkSignal } from "../checks.ts";
import { UsageError } from "../errors.ts";
import { INT4_GROUP } from "../prune/int4_grid.ts";
import type { Pattern } from "../prune/types.ts";

const path = z.string().min(1);
const seqlen = z.int().min(2).max(1 << 20);

/** A number of bytes, or text such as `800MB` or `1.5GB`. */
export const bytes = z.union([z.number().positive(), z.string()]).transform((value, context) => {
  if (typeof value === "number") return value;
  const match = /^\s*([\d.]+)\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?\s*$/.exec(value);
  const units: Record<string, number> = {
    B: 1,
    kB: 1e3,
    KB: 1e3,
    MB: 1e6,
    GB: 1e9,
    KiB: 2 ** 10,
    MiB: 2 ** 20,
    GiB: 2 ** 30,
  };
  const size = match ? Number(match[1]) * units[match[2] ?? "B"] : NaN;
  if (!(size > 0)) {
    context.addIssue(`${JSON.stringify(value)} is no amount of memory; write 800MB or 1.5GB`);
    return z.NEVER;
  }
  return size;
});

/** Most blocks of an allocation. The deepest models have some hundreds. */
export const MOST_BLOCKS = 4096;

/** What a block keeps of its weights. */
export const density = z.number().gt(0).max(1);

/** What each block keeps, in their order. */
export const densityList = z.array(density).min(1).max(MOST_BLOCKS);

/** `unstructured`, `N:M` kept of M, `mixed:M`, or `slots`. */
export const pattern = z.string().transform((value, context): Pattern => {
  const fail = (message: string) => {
    context.addIssue(message);
    return z.NEVER;
  };
  if (value === "unstructured" || value === "slots") return { kind: value };
  const nm = /^(mixed|\d+):(\d+)$/.exec(value);
  if (!nm) {
    return fail(
      `${JSON.stringify(value)} is no pattern; write unstructured, slots, 2:4 or mixed:16`,
    );
  }
  const m = Number(nm[2]);
  if (m < 2 || m > 32) return fail(`M of ${value} must be from 2 to 32`);
  if (nm[1] === "mixed") return { kind: "mixed", m };
  const n = Number(nm[1]);
  if (n < 1 || n > m) return fail(`${value} must keep 1 to ${m} of every ${m} weights`);
  return { kind: "nm", n, m };
});

/** Options of everything that runs a model. */
export const running = {
  backend: z.enum(["auto", "node", "wasm", "webgpu"]).default("auto").describe(
    "where the model runs: onnxruntime-node, WebAssembly or WebGPU; auto takes node where it is installed",
  ),
  threads: z.int().min(1).max(256).optional().describe(
    "CPU threads (default: all; onnxruntime-web under Deno: 1)",
  ),
  memory: bytes.optional().describe(
    "memory the process may take, e.g. 2GB (default: 1.3GB, or what the model needs at least, and what ONNX Runtime keeps between runs)",
  ),
};

/** Steps of distillation with `--method espalier`, unless the caller says otherwise. */
const DISTILL_STEPS = 96;

/** Options of `prune`. */
export const pruneSchema = z.strictObject({
  model: path.describe("folder of the checkpoint"),
  output: path.optional().describe("folder to write (default: NAME-pruned in the current folder)"),
  sparsity: z.number().min(0).lt(1).optional().describe(
    "fraction of weights to prune (default: 0.7, or what N:M says)",
  ),
  fit: bytes.optional().describe(
    "most bytes of the compiled model, e.g. 64MB: looks for sparsity, pattern and value type",
  ),
  method: z.enum(["wanda", "magnitude", "sparsegpt", "espalier"]).default("wanda").describe(
    "which weights go: those of lowest |W|·‖X‖ or |W|; sparsegpt and espalier also mend those that stay",
  ),
  allocation: z.enum(["dlp", "uniform", "owl", "atp", "auto", "search"]).default("dlp").describe(
    "how much each block keeps; auto tries all on held-out calibration text and takes the best, search goes on from there by measurement",
  ),
  searchBudget: z.int().min(1).max(1 << 20).optional().describe(
    "search: allocations to measure the loss or the slopes of (default: 40)",
  ),
  searchState: path.optional().describe(
    "search: file from which a stopped search goes on (default: OUT.search.json, removed when OUT is written)",
  ),
  reducer: z.enum(["median", "mean"]).default("median").describe(
    "DLP's score of a block: the paper says median, the released code takes the mean",
  ),
  alpha: z.number().min(0).max(0.5).default(0.15).describe(
    "DLP: half the distance between the densest and the sparsest block",
  ),
  lambda: z.number().min(0).max(0.5).default(0.08).describe("OWL: the same half distance"),
  outlierThreshold: z.number().positive().default(5).describe(
    "OWL: a score this many times the mean is an outlier",
  ),
  beta: z.number().min(-1).max(1).optional().describe(
    "ATP: how much sparser each block is than the one before (default: 0.3 from first to last)",
  ),
  densities: z.union([path, densityList]).optional().describe(
    "JSON file with the density of each block, or the espalier.json of a pruned checkpoint, instead of an allocation",
  ),
  pattern: pattern.prefault("unstructured").describe(
    "unstructured; slots, which our engine runs at the cost of what is kept; N:M kept (2:4, 8:16 …); or mixed:M where the allocation chooses N for each block",
  ),
  values: z.enum(["int4"]).optional().describe(
    "int4: also round the weights that stay, for compile --values int4; with sparsegpt and espalier, which make up for that, too",
  ),
  group: z.int().refine((group) => group === 32 || group === 64, "must be 32 or 64").default(
    INT4_GROUP,
  )
    .describe(
      "int4: weights that stay and share a scale, 32 or 64",
    ),
  head: z.enum(["int4"]).optional().describe(
    "int4: also round the output head and the embedding, for compile --head int4; with sparsegpt and espalier",
  ),
  calibration: path.optional().describe(
    'text: .txt, .jsonl with a "text" field, or .json {"windows": [[ids] …]}; self: text that the model writes itself',
  ),
  samples: z.int().min(1).max(1 << 20).optional().describe(
    "calibration windows (default: 128, or all of a .json; 32 of self)",
  ),
  seqlen: seqlen.optional().describe(
    "tokens a window (default: 2048, as far as model and text allow; 512 of self)",
  ),
  distill: z.int().min(0).max(1 << 20).optional().describe(
    `steps in which the weights that stay learn to foresee what the dense model does, of about 1,024 calibration tokens each (default: ${DISTILL_STEPS} with espalier, but where nothing is pruned; else 0)`,
  ),
  seed: z.int().min(0).max(0xffffffff).default(0).describe(
    "seed of the windows' places, or of the text that the model writes",
  ),
  skip: z.array(z.string().min(1)).default([]).describe(
    "linears to leave dense, by name or glob, e.g. '*.down_proj'; may be given several times",
  ),
  text: path.optional().describe("held-out text: perplexity before and after"),
  windows: z.int().min(1).optional().describe(
    "windows of --text to measure on (default: 32; all of a file that holds windows)",
  ),
  compare: z.boolean().default(false).describe(
    "also measure every other allocation on --text, without writing it",
  ),
  ...running,
  dryRun: z.boolean().default(false).describe("compute the allocation only; write nothing"),
  force: z.boolean().default(false).describe("replace the output folder"),
});

/** Options of `eval`. */
export const evaluateSchema = z.strictObject({
  model: path.describe("folder of the checkpoint"),
  text: path.describe("text to measure on, in the forms of prune's --calibration"),
  seqlen: seqlen.optional().describe("tokens a window (default: 2048, as far as the model allows)"),
  windows: z.int().min(1).optional().describe("windows to measure on (default: all)"),
  ...running,
});

/** Options of `inspect`. */
export const inspectSchema = z.strictObject({
  model: path.describe("folder of the checkpoint"),
});

/** Options of `export`. */
export const exportSchema = z.strictObject({
  allocation: z.union([
    path,
    z.custom<object>((value) => typeof value === "object" && value !== null),
  ]).describe("a pruned checkpoint, a file with an allocation, or what such a file holds"),
  recipe: z.enum(["llm-compressor"]).default("llm-compressor").describe(
    "the engine that will prune by it",
  ),
  method: z.enum(["wanda", "sparsegpt"]).default("wanda").describe(
    "which weights go first there: lowest |W|·‖X‖, or SparseGPT, which mends those that stay",
  ),
  skip: z.array(z.string().min(1)).default([]).describe(
    "linears to leave dense, by name or glob, beside those of the allocation; may be given several times",
  ),
  output: path.optional().describe("file to write (default: standard output)"),
  force: z.boolean().default(false).describe("replace the output file"),
});

/** Options of `prune`, as a caller writes them. */
export type PruneOptions = z.input<typeof pruneSchema>;
/** Options of `prune`, checked, with their defaults. */
export type PruneSettings = z.output<typeof pruneSchema>;
/** Options of `eval`, as a caller writes them. */
export type EvaluateOptions = z.input<typeof evaluateSchema>;
/** Options of `export`, as a caller writes them. */
export type ExportOptions = z.input<typeof exportSchema>;
/** Options of `inspect`, as a caller writes them. */
export type InspectOptions = z.input<typeof inspectSchema>;

/**
 * Steps of distillation that settings ask for.
 *
 * @param prunes Whether anything is pruned: what is only rounded has nothing to learn that its grid would
 *   not undo, unless the caller wants it.
 */
export function distillSteps(
  { distill, method, sparsity }: PruneSettings,
  prunes: boolean = sparsity !== 0,
): number {
  return distill ?? (method === "espalier" && prunes ? DISTILL_STEPS : 0);
}

/** What a caller passes beside the options. */
export interface RunHooks {
  /** Stops the work; it then fails with `AbortError` and leaves nothing behind. */
  signal?: AbortSignal;
  /** Told of every step. */
  onProgress?: (event: ProgressEvent) => void;
  /**
   * Told when a search begins that may be ended before its budget is used up: `end` ends it, and the work
   * goes on with the best so far. What is returned is called when the search is over.
   */
  onSearch?: (end: () => void) => () => void;
}

/**
 * Checks what stops work, and who is told of it: who writes JavaScript may hand over anything.
 *
 * @throws {UsageError} When there is something else.
 */
export function checkHooks(hooks: RunHooks): void {
  checkObject(hooks, "hooks", "{ signal, onProgress }");
  checkSignal(hooks.signal);
  for (const name of ["onProgress", "onSearch"] as const) {
    if (hooks[name] !== undefined && typeof hooks[name] !== "function") {
      throw new UsageError(`${name} must be a function`);
    }
  }
}

/** A step of long work, or something a person should know. */
export type ProgressEvent =
  | {
    readonly type: "progress";
    /** What is being done, e.g. `score blocks`. */
    readonly phase: string;
    readonly done: number;
    readonly total: number;
    /** What `done` counts, e.g. `blocks`. */
    readonly unit: string;
  }
  | { readonly type: "note"; readonly text: string };

/**
 * Checks options against a schema.
 *
 * @param name How to call a field in a message; the CLI gives the flag's spelling.
 * @throws {UsageError} Naming the first option that is wrong.
 */
export function parseOptions<T extends z.ZodType>(
  schema: T,
  options: unknown,
  name: (field: string) => string = (field) => field,
): z.output<T> {
  const parsed = schema.safeParse(options);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  if (issue.code === "unrecognized_keys") {
    throw new UsageError(`unknown option ${issue.keys.map(name).join(", ")}`);
  }
  const [first] = issue.path;
  const field = first === undefined ? "options" : name(String(first));
  if (first !== undefined && (options as Record<PropertyKey, unknown>)[first] === undefined) {
    throw new UsageError(`${field} is needed`);
  }
  throw new UsageError(`${field}: ${reasonOf(issue)}`);
}

/** How the command line spells a field, without dashes before it: `dryRun` is `dry-run`. */
export function flagName(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** How the environment spells a field: `queueTimeout` is `ESPALIER_QUEUE_TIMEOUT`. */
export function variableName(field: string): string {
  return `ESPALIER_${flagName(field).replaceAll("-", "_").toUpperCase()}`;
}

/**
 * What a text says that is for yes or no, as of a variable of the environment.
 *
 * @param where How a message calls what holds it.
 * @throws {UsageError} When it says neither.
 */
export function booleanOf(where: string, text: string): boolean {
  if (/^(1|true|0|false)$/.test(text)) return text === "1" || text === "true";
  throw new UsageError(`${where}: ${JSON.stringify(text)} is neither true nor false`);
}

/** What is wrong with a value; of several forms that it could have, with the first whose type it has. */
function reasonOf(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_key") return reasonOf(issue.issues[0]);
  if (issue.code !== "invalid_union") return issue.message;
  const meant = issue.errors.map(([first]) => first)
    .find((first) => first && !(first.code === "invalid_type" && first.path.length === 0));
  return meant ? reasonOf(meant) : issue.message;
}
