/**
 * Our command, run and read.
 * @module
 */
import { join } from "node:path";
import type { PruneReport } from "../../mod.ts";
import {
  espalier,
  findRuntime,
  type Finished,
  runJson,
  type RuntimeName,
  withFolder,
} from "../support/process.ts";

/** Builds of ONNX Runtime that prune is measured with. */
export type BackendName = "node" | "wasm";

/** One run of `prune`. */
export interface PruneRun extends Finished {
  readonly report: PruneReport;
  /** All phases together: reading and checking the weights, judging, pruning, writing. */
  readonly phaseSeconds: number;
  /** The runtime, with its version. */
  readonly runtime: string;
}

/**
 * Prunes into a folder that is removed again.
 *
 * @param runtime What runs it.
 * @param options Options of `prune`, without `-o` and `--json`.
 * @param parent Where the folder is made.
 * @throws {ProgramError} When the runtime is missing or the command fails.
 */
export async function runPrune(
  runtime: RuntimeName,
  options: readonly string[],
  parent?: string,
): Promise<PruneRun> {
  const { path, version } = await findRuntime(runtime);
  return await withFolder(async (folder) => {
    const finished = await runJson([
      ...espalier(runtime, path),
      "prune",
      ...options,
      "-o",
      join(folder, "pruned"),
      "--json",
    ]);
    const report = finished.value as PruneReport;
    const phaseSeconds = Object.values(report.seconds).reduce((sum, s) => sum + s, 0);
    return { ...finished, report, phaseSeconds, runtime: `${title(runtime)} ${version}` };
  }, parent);
}

/** A runtime's name as its makers spell it. */
export function title(runtime: RuntimeName): string {
  return runtime === "deno" ? "Deno" : "Bun";
}
