/**
 * What runs a compiled model where there is no file system, or only Node: `espalier/run`.
 *
 * @example
 * ```js
 * import { runCompiled, urlSource } from "espalier/run";
 *
 * const model = await runCompiled(urlSource("https://example.com/model/"), { threads: 1 });
 * for await (const piece of model.generate("Once upon a time")) console.log(piece.text ?? "");
 * ```
 * @module
 */
import { modelName, type ModelSource } from "../engine/source.ts";
import { checkedSource } from "../engine/integrity.ts";
import { loadSparse } from "../engine/sparse/engine.ts";
import type { KernelModules } from "../engine/sparse/kernels.ts";
import { checkOptions, type SparseOptions } from "../engine/sparse/options.ts";
import { UsageError } from "../errors.ts";
import { readCard } from "./card.ts";
import { Model } from "./model.ts";
import { readText } from "./read_text.ts";

export type { KernelModules, ModelSource, SparseOptions };
// What the signatures of a model name.
export type { CacheUse, ModelInfo, RunOptions, Sequence } from "../engine/model.ts";
export type { FileContent, SourceFile } from "../engine/source.ts";
export type { Fetch, UrlSourceOptions } from "../engine/url_source.ts";
export type { Message } from "../text/chat_template.ts";
export type { TokenConstraint } from "../text/constraint.ts";
export type { ChoiceLogprobs, TokenLogprob } from "../text/logprobs.ts";
export type { TextForm } from "../text/structured/mod.ts";
export type { BlockCard, ModelCard } from "./card.ts";
export type { EndPiece, GenerationPiece, TextPiece } from "./generate.ts";
export type { LoadedInfo } from "./model.ts";
export type { GenerationOptions } from "./options.ts";
export type { Prompt, PromptOptions, PromptTokens } from "./prompt.ts";
export { filesSource } from "../engine/source.ts";
export { urlSource } from "../engine/url_source.ts";
export { partsSource } from "../engine/parts_source.ts";
export { type CachedOptions, cachedSource, type Loaded } from "../engine/cached_source.ts";
export { EspalierError } from "../errors.ts";
export { Model } from "./model.ts";

/**
 * Loads a compiled model into the sparse engine.
 *
 * @param source Its files: under a URL, or in memory.
 * @param options Threads, context, precision. More than one thread needs shared memory: in a page,
 *   cross-origin isolation. Where WebAssembly is not compiled from bytes, as in Cloudflare Workers, hand
 *   the kernels over: `import relaxed from "espalier/wasm/relaxed.unshared.wasm"`, `{ kernels: { relaxed } }`.
 * @throws {EspalierError} Of the class that says what is wrong.
 */
export async function runCompiled(
  source: ModelSource,
  options: SparseOptions = {},
): Promise<Model> {
  // As who has no types may write it; `load` takes a URL alone.
  if (typeof source?.read !== "function") {
    throw new UsageError("runCompiled takes a source: urlSource(URL), or filesSource(FILES)");
  }
  checkOptions(options);
  const started = performance.now();
  const { source: checked } = await checkedSource(source);
  const text = await readText(checked);
  const card = await readCard(checked);
  const engine = await loadSparse(checked, options);
  return new Model({
    engine,
    text,
    card,
    info: {
      ...engine.info,
      name: modelName(source),
      why: "there is no other here",
      loadSeconds: (performance.now() - started) / 1000,
    },
    dispose: () => {},
  });
}
