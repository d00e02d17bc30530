/**
 * Runs recipes that `export` wrote in llm-compressor, and counts what became 0.
 *
 *     PYTHON=path/to/python bun test/consumers/llm_compressor.ts
 *
 * The Python (default: python3) must have the release of llmcompressor that `src/api/llm_compressor.ts`
 * names, and a PyTorch, of which a build for the CPU is enough. Nothing is installed: PyTorch is a
 * download of 200 MB at least, which is also why `.ci/run` leaves this step out. Where something is
 * missing, that is said, and everything is skipped.
 * @module
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import {
  evaluate,
  type ExportOptions,
  exportRecipe,
  type ExportReport,
  prune,
  type PruneOptions,
  type PruneReport,
} from "../../mod.ts";
import { LLM_COMPRESSOR } from "../../src/api/llm_compressor.ts";
import { OpenModel } from "../../src/api/shared.ts";
import { randomWindows } from "../../src/text/windows.ts";
import { fromRoot } from "../support/paths.ts";
import { Checks, lastLines, run, runJson, withFolder } from "./support.ts";

const TINY = fromRoot("examples/tiny");
const PYTHON = process.env.PYTHON ?? "python3";
/** Calibration: windows and tokens of each, the same for both programs. */
const WINDOWS = 16;
const LENGTH = 128;
/** Windows that perplexity is measured on. */
const HELD_OUT = 16;
/** Columns that SparseGPT takes at a time, and prunes at least one weight of. */
const BLOCK_SIZE = 128;
/** Part of a matrix that SparseGPT may prune beside, for it takes all that score alike. */
const TIES = 1e-4;
/** Least part of a Wanda mask that is the same as ours: both prune by float32 norms of the same text. */
const LEAST_AGREEMENT = 0.98;

/** What is pruned, and how. */
interface Case {
  readonly name: string;
  readonly prune: Partial<PruneOptions>;
  readonly method: "wanda" | "sparsegpt";
}

const CASES: readonly Case[] = [
  { name: "wanda, unstructured, DLP", prune: { sparsity: 0.7 }, method: "wanda" },
  { name: "sparsegpt, unstructured, DLP", prune: { sparsity: 0.7 }, method: "sparsegpt" },
  { name: "wanda, 2:4", prune: { pattern: "2:4" }, method: "wanda" },
  { name: "sparsegpt, 2:4", prune: { pattern: "2:4" }, method: "sparsegpt" },
  // One of four is kept: a reader that mixes up kept and pruned would show.
  { name: "wanda, 1:4", prune: { pattern: "1:4" }, method: "wanda" },
  {
    name: "wanda, mixed:16, down_proj left dense",
    prune: { pattern: "mixed:16", sparsity: 0.6, skip: ["*.down_proj"] },
    method: "wanda",
  },
  {
    // 24 divides the rows, but not the columns that SparseGPT takes at a time.
    name: "sparsegpt, 12:24, down_proj left dense",
    prune: { pattern: "12:24", skip: ["down_proj"] },
    method: "sparsegpt",
  },
  {
    name: "wanda, given densities, two blocks whole",
    prune: { densities: [1, 0.5, 0.5, 0.4, 0.3, 0.3, 0.2, 1] },
    method: "wanda",
  },
];

/** What llm_compressor.py prints. */
interface Result {
  readonly versions: Record<string, string>;
  readonly linears: Record<string, Counted>;
}

/** A pruned matrix. */
interface Counted {
  readonly rows: number;
  readonly columns: number;
  readonly zeros: number;
  /** Zeros of the row with the fewest, and with the most. */
  readonly fewest: number;
  readonly most: number;
  /** Zeros of the M neighbours with the fewest. */
  readonly group?: number;
  /** Part of the weights that are 0 in both or in neither. */
  readonly agree?: number;
}

/** Prunes by ourselves, exports that, and has llm-compressor prune by the recipe. */
async function check(checks: Checks, { name, prune: options, method }: Case, folder: string) {
  console.log(`\n${name}`);
  const [ours, theirs] = [join(folder, "ours"), join(folder, "theirs")];
  const [recipe, windows] = [join(folder, "recipe.yaml"), join(folder, "windows.json")];
  writeFileSync(windows, JSON.stringify({ windows: calibration() }));
  const report = await prune({ model: TINY, output: ours, calibration: windows, ...options });
  const exported: ExportOptions = { allocation: ours, method, output: recipe };
  const { pattern, skip, dense } = exportRecipe(exported);
  const m = Number(pattern.split(":")[1] ?? 0);
  const words = ["--model", TINY, "--recipe", recipe, "--windows", windows, "--output", theirs];
  const result = await runJson<Result>([
    PYTHON,
    fromRoot("test/consumers/llm_compressor.py"),
    ...words,
    ...["--against", ours],
    ...(skip.length === 0 && m > 0 ? ["--m", String(m)] : []),
  ]);
  const linears = Object.entries(result.linears);
  checks.same(`${linears.length} linears`, linears.length, 7 * report.blocks.length);
  for (const { index } of report.blocks) {
    const own = linears.filter(([name]) => name.includes(`.layers.${index}.`));
    checks.that(
      `block ${index}: ${densityText(own, report, index)}`,
      own.every(([name, counted]) => fits(name, counted, report, index, method, dense)),
      () => JSON.stringify(own),
    );
  }
  if (method === "wanda") {
    const least = Math.min(...linears.map(([, { agree }]) => agree!));
    checks.that(
      `masks as ours: at least ${percent(least)} of a linear's weights`,
      least >= LEAST_AGREEMENT,
    );
  }
  const text = join(TINY, "evaluation.txt");
  const measured = await Promise.all(
    [ours, theirs].map((model) => evaluate({ model, text, seqlen: LENGTH, windows: HELD_OUT })),
  );
  const [wanda, other] = measured.map(({ perplexity }) => perplexity.toFixed(2));
  console.log(`  perplexity ${other}, ours (wanda) ${wanda}`);
}

/** Windows of the example's calibration text. */
function calibration(): number[][] {
  const opened = new OpenModel(TINY);
  try {
    const source = opened.read(join(TINY, "calibration.txt"));
    if ("windows" in source) throw new Error("text was expected");
    return randomWindows(source.tokens, WINDOWS, LENGTH, 1).map((window) => [...window]);
  } finally {
    opened.checkpoint.close();
  }
}

/** Whether a matrix has the zeros that the allocation asks for, where the pattern wants them. */
function fits(
  name: string,
  { rows, columns, zeros, fewest, most, group }: Counted,
  report: PruneReport,
  block: number,
  method: Case["method"],
  dense: ExportReport["dense"],
): boolean {
  const { density, kept, linears } = report.blocks[block];
  const own = Object.entries(linears!).find(([linear]) => name.endsWith(`.${linear}.weight`));
  if (own === undefined || dense.includes(block)) return zeros === 0;
  if (kept !== undefined) {
    const m = Math.round(kept / density);
    const wanted = columns - columns * kept / m;
    return fewest === wanted && most === wanted && (group === undefined || group === m - kept);
  }
  // As many as ours, which are the same number in every row.
  if (method === "wanda") {
    return fewest === most && zeros === Math.round(own[1] * rows * columns);
  }
  const pieces = Math.ceil(columns / BLOCK_SIZE);
  const extra = zeros - (1 - density) * rows * columns;
  return extra >= -pieces && extra <= pieces + TIES * rows * columns;
}

function densityText(own: [string, Counted][], report: PruneReport, block: number): string {
  const sum = (of: (counted: Counted) => number) => own.reduce((a, [, b]) => a + of(b), 0);
  const zeros = sum(({ zeros }) => zeros) / sum(({ rows, columns }) => rows * columns);
  const { density, sparsity } = report.blocks[block];
  return `density ${percent(density)} asked, zeros ${percent(zeros)}, ours ${percent(sparsity!)}`;
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(2)} %`;
}

/** Why this machine cannot run llm-compressor, if it cannot. */
async function missing(): Promise<string | undefined> {
  const ask = "import torch, llmcompressor; print(llmcompressor.__version__)";
  const { code, stdout, stderr } = await run([PYTHON, "-c", ask]);
  if (code !== 0) {
    return `${PYTHON}: ${lastLines(stderr, 1)}: set PYTHON to one that has ` +
      `llmcompressor ${LLM_COMPRESSOR} and a torch for the CPU`;
  }
  const version = stdout.trim().split("\n").at(-1);
  return version === LLM_COMPRESSOR
    ? undefined
    : `${PYTHON} has llmcompressor ${version}; recipes are for ${LLM_COMPRESSOR}`;
}

const checks = new Checks();
const why = await missing();
if (why === undefined) {
  for (const each of CASES) {
    await checks.part(each.name, () => withFolder((folder) => check(checks, each, folder)));
  }
} else {
  checks.skip("llm-compressor", why);
}
process.exitCode = checks.end();
