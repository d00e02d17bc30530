/**
 * Espalier: prune language models with DLP, compile them to compact sparse ONNX, run them at the edge.
 *
 * Run it (`deno run -A mod.ts prune`, `bun mod.ts prune`) or import it.
 *
 * @example
 * ```ts
 * import { evaluate, load, prune } from "./mod.ts";
 *
 * await prune({ model: "MODEL_DIR", output: "OUT", pattern: "8:16", calibration: "text.txt" });
 * const { perplexity } = await evaluate({ model: "OUT", text: "held-out.txt" });
 *
 * await using model = await load("OUT");
 * for await (const piece of model.generate("Once upon a time", { maxTokens: 50 })) {
 *   if (piece.type === "text") console.log(piece.text);
 * }
 * ```
 * @module
 */
export { compile, type CompiledLinear, type CompileReport } from "./compile/compile.ts";
export { expand, type ExpandReport } from "./compile/expand.ts";
export {
  type CompiledInspectReport,
  type CompiledLinearReport,
  inspectCompiled,
} from "./compile/inspect.ts";
export type { CompileOptions, ExpandOptions, VerifyOptions } from "./compile/options.ts";
export { verify, type VerifyReport } from "./compile/verify.ts";
export { evaluate, type EvaluateReport } from "./src/api/evaluate.ts";
export { exportRecipe, type ExportReport } from "./src/api/export.ts";
export { inspect, type InspectReport, type LinearReport } from "./src/api/inspect.ts";
export type {
  EvaluateOptions,
  ExportOptions,
  InspectOptions,
  ProgressEvent,
  PruneOptions,
  RunHooks,
} from "./src/api/options.ts";
export {
  compare,
  type ComparedVariant,
  type CompareReport,
} from "./src/workflow/compare/compare.ts";
export type { CompareOptions } from "./src/workflow/compare/options.ts";
export { comparisonSvg } from "./src/workflow/compare/svg.ts";
export { prune } from "./src/workflow/prune.ts";
export { pull, type PulledFile, type PullOptions, type PullReport } from "./src/hub/pull.ts";
export { bench, type BenchReport } from "./src/generate/bench.ts";
export type { EndPiece, GenerationPiece, TextPiece } from "./src/generate/generate.ts";
export { load } from "./src/generate/load.ts";
export type { LoadOptions } from "./src/generate/load_options.ts";
export type { LoadedInfo, Model } from "./src/generate/model.ts";
export type { GenerationOptions } from "./src/generate/options.ts";
export type { ModelFiles, ModelLocation } from "./src/generate/place.ts";
export type { Prompt } from "./src/generate/prompt.ts";
export type { Message } from "./src/text/chat_template.ts";
export type { TokenConstraint } from "./src/text/constraint.ts";
export type { TextForm } from "./src/text/structured/mod.ts";
export type { ModelInfo, RunOptions, Sequence } from "./src/engine/model.ts";
export type {
  BlockReport,
  CalibrationReport,
  PruneReport,
  SearchRecord,
  Trial,
} from "./src/api/prune_report.ts";
export type { DistillReport } from "./src/api/distill.ts";
export { type AppOptions, createApp } from "./src/server/app.ts";
export * from "./src/errors.ts";
export { VERSION } from "./src/version.ts";

if (import.meta.main) {
  const { main } = await import("./src/cli/main.ts");
  await main();
}
