/**
 * Options of `compare`: the CLI's flags come from these schemas.
 * @module
 */
import { z } from "zod";
import { bytes, pruneSchema } from "../../api/options.ts";
import { GRAMMAR, variantList } from "./variants.ts";

const path = z.string().min(1);
const { model, method, allocation, distill, backend, memory, skip, alpha, seed } =
  pruneSchema.shape;

/** Sizes as text with commas, or a list. */
const sizes = z.union([z.string(), z.array(z.union([z.string(), z.number()]))]).transform(
  (given, context): number[] => {
    const words = typeof given === "string" ? given.split(",") : given;
    const sizes: number[] = [];
    for (const word of words) {
      const parsed = bytes.safeParse(word);
      if (!parsed.success) {
        context.addIssue(parsed.error.issues[0].message);
        return z.NEVER;
      }
      sizes.push(parsed.data);
    }
    return [...new Set(sizes)].sort((a, b) => a - b);
  },
);

/** The fields of {@linkcode compareSchema}, for schemas that have more. */
export const compareFields = {
  model,
  text: path.describe(
    "held-out text that perplexity is measured on, in the forms of --calibration",
  ),
  calibration: path.optional().describe(
    "text that pruning calibrates on, as of prune; self: text that the model writes itself",
  ),
  at: sizes.optional().describe(
    "sizes with commas, e.g. 40MB,60MB: also the best that fits into each, as prune --fit finds it",
  ),
  variants: variantList.optional().describe(
    `what to compare, with commas: ${GRAMMAR} (default: dense, and the usual patterns)`,
  ),
  method: method.unwrap().default("espalier").describe("prunes the variants that name no method"),
  allocation: allocation.describe("and those that name no allocation, as of prune"),
  distill,
  samples: z.int().min(1).max(1 << 20).default(32).describe("calibration windows"),
  seqlen: z.int().min(2).max(1 << 20).default(512).describe(
    "tokens a window, of calibration and of --text",
  ),
  windows: z.int().min(1).default(16).describe("windows of --text to measure on"),
  seed,
  alpha,
  skip,
  repeat: z.int().min(1).max(100).default(5).describe(
    "rounds in which speed is taken, each beside dense int8; the median is told, of what the state file has not",
  ),
  state: path.optional().describe(
    "file of finished variants, with which stopped work goes on (default: MODEL-compare.json, here)",
  ),
  fresh: z.boolean().default(false).describe("measure again what that file holds"),
  threads: z.int().min(1).max(256).optional().describe(
    "threads (default: all processors; onnxruntime-web takes one under Deno)",
  ),
  backend,
  memory,
};

/** Options of `compare`. */
export const compareSchema = z.strictObject(compareFields);

/** Options of the command `compare`. */
export const compareCommandSchema = z.strictObject({
  ...compareFields,
  svg: path.optional().describe("also draw the plots into this file"),
  markdown: z.boolean().default(false).describe("print the table as Markdown, and nothing else"),
  force: z.boolean().default(false).describe("replace the file of --svg"),
});

/** Options of `compare`, as a caller writes them. */
export type CompareOptions = z.input<typeof compareSchema>;
/** Options of `compare`, checked. */
export type CompareSettings = z.output<typeof compareSchema>;
