/**
 * `export`: an allocation as a recipe for an engine that prunes what one machine cannot.
 * @module
 */
import { OutputExistsError, UsageError } from "../errors.ts";
import { replaceText } from "../platform/files.ts";
import { exists, realPath } from "../platform/paths.ts";
import { fileOf, readAllocation } from "./allocation_file.ts";
import { type ExportOptions, exportSchema, parseOptions } from "./options.ts";
import { LLM_COMPRESSOR, llmCompressorRecipe } from "./llm_compressor.ts";
import { patternText } from "./prune_report.ts";

/** What `export` made. */
export interface ExportReport {
  readonly recipe: "llm-compressor";
  /** The package and the release that the recipe was checked with. */
  readonly package: string;
  readonly method: "wanda" | "sparsegpt";
  /** As `prune --pattern` spells it. */
  readonly pattern: string;
  /** Density of each block. */
  readonly densities: readonly number[];
  /** Blocks that the recipe leaves alone, for they keep all their weights. */
  readonly dense: readonly number[];
  /** Linears that stay dense, by name or glob. */
  readonly skip: readonly string[];
  /** File that was written. */
  readonly output?: string;
  readonly notes: readonly string[];
  /** The recipe: YAML. */
  readonly text: string;
}

/**
 * Writes an allocation as a recipe for llm-compressor.
 *
 * @param options See `deno run mod.ts export --help`. `allocation` may also be the report of `prune`.
 * @returns The recipe, which is in a file as well where `output` names one.
 * @throws {EspalierError} Of the class that says what is wrong.
 *
 * @example
 * ```ts
 * import { exportRecipe, prune } from "espalier";
 *
 * const report = await prune({ model: "MODEL_DIR", calibration: "text.txt", dryRun: true });
 * exportRecipe({ allocation: report, method: "sparsegpt", output: "recipe.yaml" });
 * ```
 */
export function exportRecipe(options: ExportOptions): ExportReport {
  const settings = parseOptions(exportSchema, options);
  const { allocation, recipe, method, output, force } = settings;
  if (output !== undefined) {
    if (typeof allocation === "string" && realPath(fileOf(allocation)) === realPath(output)) {
      throw new UsageError("the output is the allocation itself: name another file");
    }
    if (exists(output) && !force) {
      throw new OutputExistsError(
        `output file ${output} is there already: name another one, or pass --force to replace it`,
      );
    }
  }
  const given = readAllocation(allocation);
  const skip = [...new Set([...given.skip, ...settings.skip])];
  const { text, dense, notes } = llmCompressorRecipe({ ...given, skip }, method);
  if (output !== undefined) replaceText(output, text, { private: false });
  return {
    recipe,
    package: `llmcompressor ${LLM_COMPRESSOR}`,
    method,
    pattern: patternText(given.pattern),
    densities: given.shares.map(({ density }) => density),
    dense,
    skip,
    output,
    notes,
    text,
  };
}
