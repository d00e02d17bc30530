/**
 * Options of `bundle`.
 * @module
 */
import { z } from "zod";
import { loadFields } from "../generate/load_options.ts";
import { serverFields } from "../server/options.ts";

/** Ways out. */
export const TARGETS = ["binary", "deno", "cloudflare", "static"] as const;
/** A way out. */
export type TargetName = (typeof TARGETS)[number];

/** Options that some targets have, and they alone. */
export const OPTIONS_OF_TARGETS: Readonly<Record<string, readonly TargetName[]>> = {
  platform: ["binary"],
  externalModel: ["binary"],
  withOrt: ["binary"],
  parallel: ["deno", "cloudflare"],
};

/** The schema of {@linkcode BundleOptions}. */
export const bundleSchema = z.strictObject({
  model: z.string().min(1).optional().describe(
    "folder of a compiled model, or of a checkpoint (default: the example)",
  ),
  target: z.enum(TARGETS).describe(
    "binary: one file for a machine; deno: Deno Deploy; cloudflare: a Worker; static: any web server",
  ),
  output: z.string().min(1).optional().describe(
    "file (binary) or folder to write (default: MODEL-TARGET)",
  ),
  platform: z.string().regex(/^bun-[a-z0-9-]+(-v\d+\.\d+\.\d+)?$/, "write it as bun-linux-arm64")
    .optional().describe(
      "binary: another machine's, e.g. bun-linux-arm64, bun-darwin-arm64, bun-windows-x64 (default: this one's); " +
        "with -v1.4.5 behind, of that version of Bun",
    ),
  externalModel: z.boolean().default(false).describe(
    "binary: the model in a folder beside it, read by range, instead of in it",
  ),
  withOrt: z.boolean().default(false).describe("binary: ONNX Runtime (WebAssembly) as well"),
  context: loadFields.context,
  kv: loadFields.kv,
  parallel: serverFields.parallel.unwrap().default(2).describe(
    "deno, cloudflare: sequences that generate at once",
  ),
  values: loadFields.values,
  format: loadFields.format,
  force: z.boolean().default(false).describe("replace the output"),
});

/** Options of `bundle`, as a caller writes them. */
export type BundleOptions = z.input<typeof bundleSchema>;
/** Options of `bundle`, checked, with their defaults. */
export type BundleSettings = z.output<typeof bundleSchema>;
