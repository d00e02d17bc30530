/**
 * Options of `compile`, `expand` and `verify`: the CLI's flags come from these schemas.
 * @module
 */
import { z } from "zod";
import { running } from "../src/api/options.ts";
import { INT4_GROUP } from "../src/prune/int4_grid.ts";
import { MOST_POSITIONS } from "./rotary_tables.ts";

const path = z.string().min(1);
const valueType = z.enum(["f32", "f16", "int8", "int4"]);

/** Options of `compile`. */
export const compileSchema = z.strictObject({
  model: path.describe("folder of a pruned checkpoint"),
  output: path.optional().describe("folder to write (default: MODEL_DIR-onnx, here)"),
  format: z.enum(["auto", "nm", "csr", "bitmap", "slots", "dense"]).optional().describe(
    "how linears are packed (default: auto, the smallest that each one's zeros allow)",
  ),
  values: valueType.optional().describe(
    "how kept weights are stored (default: what prune --fit counted on, else int8)",
  ),
  group: z.int().min(2).max(1 << 16).optional().describe(
    "int8: inputs of a row that share a scale (default: the whole row, as always in dense linears); " +
      `int4: kept weights that do, 32 or 64 (default: ${INT4_GROUP})`,
  ),
  head: valueType.optional().describe(
    "how embedding and output head are stored (default: as --values; int8 with int4)",
  ),
  context: z.int().min(2).max(MOST_POSITIONS).optional().describe(
    "longest sequence (default: the model's, 32768 at most)",
  ),
  logits: z.enum(["all", "last"]).default("all").describe(
    "positions that logits are given for",
  ),
  force: z.boolean().default(false).describe("replace the output folder"),
});

/** Options of `expand`. */
export const expandSchema = z.strictObject({
  model: path.describe("folder of a compiled model"),
  output: path.optional().describe("folder to write (default: MODEL_DIR-dense, here)"),
  dtype: z.enum(["f32", "f16", "bf16"]).optional().describe(
    "how weights are stored (default: as in the checkpoint that was compiled)",
  ),
  force: z.boolean().default(false).describe("replace the output folder"),
});

/** Options of `verify`. */
export const verifySchema = z.strictObject({
  model: path.describe("folder of a compiled model"),
  against: path.describe("folder of the checkpoint that it was compiled from"),
  text: path.describe("text to compare on, in the forms of prune's --calibration"),
  seqlen: z.int().min(2).max(1 << 20).optional().describe(
    "tokens a window (default: 256, as far as the model allows; a file that holds windows has its own)",
  ),
  windows: z.int().min(1).default(8).describe("windows to compare on"),
  ...running,
});

/** Options of `compile`, as a caller writes them. */
export type CompileOptions = z.input<typeof compileSchema>;
/** Options of `compile`, checked. */
export type CompileSettings = z.output<typeof compileSchema>;
/** Options of `expand`, as a caller writes them. */
export type ExpandOptions = z.input<typeof expandSchema>;
/** Options of `verify`, as a caller writes them. */
export type VerifyOptions = z.input<typeof verifySchema>;
