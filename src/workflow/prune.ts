/**
 * `prune` with all that it can take from above it: text that the model writes itself, and the sizes of
 * compiled models.
 * @module
 */
import type { PruneOptions, RunHooks } from "../api/options.ts";
import { prune as pruneCheckpoint } from "../api/prune.ts";
import type { PruneReport } from "../api/prune_report.ts";
import { writerFor } from "./self_calibration.ts";
import { sizeTeller } from "./size_teller.ts";

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
  return await pruneCheckpoint(options, hooks, {
    // Not before the options have been checked.
    write: (order) => writerFor(options.model, options, hooks)(order),
    sizes: sizeTeller,
  });
}
