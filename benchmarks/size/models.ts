/**
 * Checkpoints pruned quickly, and compiled.
 * @module
 */
import { join } from "node:path";
import type { CompileReport, PruneReport } from "../../mod.ts";
import {
  espalier,
  findRuntime,
  type Finished,
  runJson,
  type RuntimeName,
} from "../support/process.ts";

/** How a checkpoint is pruned: a pattern, or the fraction of zeros. */
export type Pruning = "dense" | "50 %" | "70 %" | "2:4" | "8:16" | "4:16";
/** How kept weights are stored. */
export type Values = "f32" | "f16" | "int8";
/** How linears are packed. */
export type Format = "dense" | "bitmap" | "csr" | "nm";

/** Our commands in one runtime. */
export interface Tool {
  readonly words: readonly string[];
  /** The runtime, with its version. */
  readonly version: string;
}

/** Finds a runtime for our commands. */
export async function toolIn(runtime: RuntimeName): Promise<Tool> {
  const { path, version } = await findRuntime(runtime);
  const title = runtime === "deno" ? "Deno" : "Bun";
  return { words: espalier(runtime, path), version: `${title} ${version}` };
}

/** Prunes by magnitude, each linear alike: the sizes do not depend on which weights go. */
export async function pruneTo(
  { words }: Tool,
  model: string,
  pruning: Pruning,
  folder: string,
): Promise<string> {
  if (pruning === "dense") return model;
  const output = join(folder, `pruned-${pruning.replace(/\W+/, "-")}`);
  const percent = /^(\d+) %$/.exec(pruning);
  const how = percent ? ["--sparsity", String(Number(percent[1]) / 100)] : ["--pattern", pruning];
  const plain = ["--method", "magnitude", "--allocation", "uniform"];
  const finished = await runJson([
    ...words,
    "prune",
    model,
    "-o",
    output,
    "--json",
    ...plain,
    ...how,
  ]);
  return (finished.value as PruneReport).output!;
}

/** Compiles a checkpoint; the report and what the process took. */
export async function compileTo(
  { words }: Tool,
  model: string,
  format: Format,
  values: Values,
  output: string,
  group?: number,
): Promise<Finished & { report: CompileReport }> {
  const how = ["--format", format, "--values", values, ...group ? ["--group", String(group)] : []];
  const finished = await runJson([...words, "compile", model, "-o", output, "--json", ...how]);
  return { ...finished, report: finished.value as CompileReport };
}

/**
 * Bytes a weight of the linears by the formulas of `docs/format.md`, without scales and row pointers.
 *
 * @param kept Fraction of the weights that are stored.
 * @param m Of N:M.
 */
export function bytesByFormula(format: Format, values: Values, kept: number, m = 0): number {
  const value = { f32: 4, f16: 2, int8: 1 }[values];
  switch (format) {
    case "dense":
      return value;
    case "bitmap":
      return kept * value + 1 / 8;
    case "csr":
      return kept * (value + 1);
    case "nm":
      return kept * (value + (m <= 2 ? 1 : m <= 4 ? 2 : m <= 16 ? 4 : 8) / 8);
  }
}
