/**
 * `load`: a model from wherever it lies, ready to generate.
 * @module
 */
import { checkHooks, parseOptions, type RunHooks } from "../api/options.ts";
import { throwIfAborted } from "../checks.ts";
import { readCard } from "./card.ts";
import { assertTogether, chooseEngine, prefetchEngine } from "./choose_engine.ts";
import { type LoadOptions, loadSchema } from "./load_options.ts";
import { Model } from "./model.ts";
import { checkedSource, checkFiles } from "../engine/integrity.ts";
import { findPlace, type ModelLocation, type Place } from "./place.ts";
import { readText } from "./read_text.ts";

/** Where compiled models have their graph. */
const GRAPH = "onnx/model.onnx";

/**
 * Loads a model.
 *
 * A folder holds a compiled model, or a checkpoint, dense or pruned, which is then compiled into a
 * temporary folder that goes when the model is closed. The sparse engine runs it where it has a kernel
 * for every operator, else ONNX Runtime; `model.info` says which and why.
 *
 * @param model A folder, `hf:owner/name[@revision]` for a model of the Hub, a URL that a compiled model's
 *   files lie under, or those files themselves.
 * @param options See `deno run mod.ts generate --help`.
 * @param hooks Progress and abort.
 * @throws {MemoryBudgetError} With the figures, when it does not fit; nothing has been loaded then.
 * @throws {BackendError} When the device is not there.
 * @throws {IntegrityError} When a file is not what `compile` wrote.
 * @throws {EspalierError} Of the class that says what else is wrong.
 *
 * @example
 * ```ts
 * await using model = await load("SmolLM2-135M-pruned");
 * for await (const piece of model.generate("Once upon a time", { maxTokens: 50 })) {
 *   if (piece.type === "text") process.stdout.write(piece.text);
 * }
 * ```
 */
export function load(
  model: ModelLocation,
  options: LoadOptions = {},
  hooks: RunHooks = {},
): Promise<Model> {
  return loadAs(undefined, model, options, hooks);
}

/**
 * The same, for who knows what the model is called.
 *
 * @param name Default: what its place says.
 */
export async function loadAs(
  name: string | undefined,
  model: ModelLocation,
  options: LoadOptions,
  hooks: RunHooks,
): Promise<Model> {
  const started = performance.now();
  const settings = parseOptions(loadSchema, options);
  checkHooks(hooks);
  assertTogether(settings);
  throwIfAborted(hooks.signal);
  prefetchEngine(settings);
  const found = await findPlace(model, settings, hooks);
  try {
    const place = settings.unchecked ? found : await checkedPlace(found);
    // Before the engine: who has no tokenizer, or a broken one, should not wait for the weights.
    const text = await readText(place.source);
    const card = await readCard(place.source);
    const note = (text: string) => hooks.onProgress?.({ type: "note", text });
    const { model: engine, why } = await chooseEngine(place, settings, note, hooks.signal);
    const loadSeconds = (performance.now() - started) / 1000;
    return new Model({
      engine,
      text,
      card,
      info: {
        ...engine.info,
        name: name ?? place.name,
        ...(place.bytes === undefined ? {} : { fileBytes: place.bytes }),
        why,
        loadSeconds,
      },
      dispose: place.dispose,
    });
  } catch (error) {
    found.dispose();
    throw error;
  }
}

/** The same place; what is read there is checked. */
async function checkedPlace(place: Place): Promise<Place> {
  const { source, paths } = await checkedSource(place.source);
  // In a folder the graph is looked into before an engine reads it: does it fit into memory?
  if (place.folder !== undefined) await checkFiles(source, paths.filter((path) => path === GRAPH));
  return { ...place, source, checked: paths };
}
