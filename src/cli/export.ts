/**
 * `export`: the command.
 * @module
 */
import { z } from "zod";
import { exportRecipe } from "../api/export.ts";
import { exportSchema } from "../api/options.ts";
import { FileReadError, UsageError } from "../errors.ts";
import { print } from "../platform/output.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { readInput } from "./input.ts";
import { say } from "./model.ts";

/** Bytes of the longest allocation on standard input. */
const LONGEST_INPUT = 16 << 20;

/** The command's options: the allocation is the word without a flag, which readers call `model`. */
export const exportCommandSchema = z.strictObject({
  model: z.string().min(1).optional().describe("the allocation"),
  ...exportSchema.omit({ allocation: true }).shape,
});

/** The `export` command. */
export const exportCommand: Command = {
  name: "export",
  summary: "Write an allocation as a recipe for llm-compressor, which prunes on graphics cards.",
  usage: "export ALLOCATION [-o recipe.yaml] [OPTIONS]",
  schema: exportCommandSchema,
  details: [
    "ALLOCATION is a pruned checkpoint (or its espalier.json), a file with what prune --dry-run --json",
    "prints, or one with the density of each block, as prune --densities takes it; - is standard input.",
    "Without -o the recipe goes to standard output.",
    "With --json: recipe, package, method, pattern, densities, dense [blocks left alone], skip, output,",
    "notes, text (the recipe).",
  ].join("\n"),
  examples: [
    ["export OUT -o recipe.yaml", "prune by the allocation of a pruned checkpoint, with Wanda"],
    [
      "prune MODEL_DIR --dry-run --calibration text.txt --json > allocation.json",
      "only find the allocation",
    ],
    [
      "export allocation.json --method sparsegpt --skip '*.down_proj' -o recipe.yaml",
      "carry it out with SparseGPT, some linears left dense",
    ],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, exportCommandSchema, { modelIsOptional: true });
    const { model, ...options } = checkOptions(exportCommandSchema, line.options, line.sources);
    if (model === undefined) {
      throw new UsageError(
        "name an allocation: a pruned checkpoint, or a file; - is standard input",
      );
    }
    const allocation = model === "-" ? await readAllocation(signal) : model;
    const report = exportRecipe({ ...options, allocation });
    if (line.json) {
      print(`${JSON.stringify(report)}\n`);
      return 0;
    }
    if (report.output === undefined) print(report.text);
    else say(`written to ${report.output}, for ${report.package}`);
    for (const note of report.notes) say(note);
    return 0;
  },
};

/** The JSON on standard input. */
async function readAllocation(signal: AbortSignal): Promise<object> {
  const text = await readInput(LONGEST_INPUT, () =>
    new FileReadError(
      `standard input has more than ${LONGEST_INPUT} bytes: that is no allocation`,
    ), signal);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new FileReadError(`standard input is not valid JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
  // Text, a number or null: readAllocation would take the first for a path.
  return typeof json === "object" && json !== null ? json : {};
}
