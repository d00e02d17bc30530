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
import type * as Library from "./src/library.ts";
export type { Format } from "./compile/choose_format.ts";
export type { CompiledLinear, CompileReport } from "./compile/compile.ts";
export type { ExpandReport } from "./compile/expand.ts";
export type { CompiledInspectReport, CompiledLinearReport } from "./compile/inspect.ts";
export type { CompileOptions, ExpandOptions, VerifyOptions } from "./compile/options.ts";
export type { VerifyReport } from "./compile/verify.ts";
export type { EvaluateReport } from "./src/api/evaluate.ts";
export type { Sampling } from "./src/api/calibration_writer.ts";
export type { StoreChoice } from "./src/api/compiled_sizes.ts";
export type { ExportReport } from "./src/api/export.ts";
export type { FitReport } from "./src/api/fit.ts";
export type { InspectReport, LinearReport } from "./src/api/inspect.ts";
export type {
  EvaluateOptions,
  ExportOptions,
  InspectOptions,
  ProgressEvent,
  PruneOptions,
  RunHooks,
} from "./src/api/options.ts";
export type { ComparedVariant, CompareReport } from "./src/workflow/compare/compare.ts";
export type { BestAt } from "./src/workflow/compare/frontier.ts";
export type { CompareOptions } from "./src/workflow/compare/options.ts";
export type { PulledFile, PullOptions, PullReport } from "./src/hub/pull.ts";
export type { BenchReport } from "./src/generate/bench.ts";
export type { EndPiece, GenerationPiece, TextPiece } from "./src/generate/generate.ts";
export type { LoadOptions } from "./src/generate/load_options.ts";
export type { BlockCard, ModelCard } from "./src/generate/card.ts";
export type { LoadedInfo, Model } from "./src/generate/model.ts";
export type { GenerationOptions } from "./src/generate/options.ts";
export type { ModelFiles, ModelLocation } from "./src/generate/place.ts";
export type { Prompt, PromptOptions, PromptTokens } from "./src/generate/prompt.ts";
export type { Message } from "./src/text/chat_template.ts";
export type { TokenConstraint } from "./src/text/constraint.ts";
export type { ChoiceLogprobs, TokenLogprob } from "./src/text/logprobs.ts";
export type { TextForm } from "./src/text/structured/mod.ts";
export type { CacheUse, ModelInfo, RunOptions, Sequence } from "./src/engine/model.ts";
export type {
  BlockReport,
  CalibrationReport,
  PruneReport,
  SearchRecord,
  Trial,
} from "./src/api/prune_report.ts";
export type { DistillReport } from "./src/api/distill.ts";
export type { AllocationName } from "./src/prune/types.ts";
export type { AppOptions } from "./src/server/app.ts";
export type { App, AppEnv } from "./src/server/context.ts";
export type { Log, LogEntry } from "./src/server/log.ts";
export * from "./src/errors.ts";
export { VERSION } from "./src/version.ts";

// Nobody imports from the program that is run, and each of its commands needs a part of the library only.
export const {
  bench,
  compare,
  comparisonSvg,
  compile,
  createApp,
  evaluate,
  expand,
  exportRecipe,
  inspect,
  inspectCompiled,
  load,
  prune,
  pull,
  verify,
}: typeof Library = import.meta.main ? {} as typeof Library : await import("./src/library.ts");

if (import.meta.main) {
  const { main } = await import("./src/cli/main.ts");
  await main();
}
