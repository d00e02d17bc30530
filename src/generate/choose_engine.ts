/**
 * Which engine runs a model, and why.
 * @module
 */
import { throwIfAborted } from "../checks.ts";
import { UnsupportedOperatorError, UsageError } from "../errors.ts";
import type { EngineModel } from "../engine/model.ts";
import type { LoadOptions, LoadSettings } from "./load_options.ts";
import type { Place } from "./place.ts";

/** A loaded model, and why it runs where it runs. */
export interface Chosen {
  readonly model: EngineModel;
  readonly why: string;
}

/**
 * Loads a model into the engine that is asked for, or that suits it.
 *
 * @param note Told when the engine is not the first choice.
 * @param settings They go together: see {@linkcode assertTogether}.
 * @throws {UnsupportedOperatorError} When the sparse engine is wanted and has not all operators.
 */
export async function chooseEngine(
  place: Place,
  settings: LoadSettings,
  note: (text: string) => void,
  signal?: AbortSignal,
): Promise<Chosen> {
  const { engine, device } = settings;
  const ofOrt = isOrts(device);
  if (engine === "ort" || ofOrt) {
    const why = ofOrt && engine === "auto" ? `${device} is ONNX Runtime's` : "it was asked for";
    return { model: await loadInOrt(place, settings, signal), why };
  }
  try {
    const model = await loadInSparse(place, settings, signal);
    return { model, why: engine === "sparse" ? "it was asked for" : "it has every operator" };
  } catch (error) {
    if (engine === "sparse" || !(error instanceof UnsupportedOperatorError)) throw error;
    const why = `the sparse engine does not run this model: ${error.message}`;
    note(`ONNX Runtime takes over: ${why}`);
    return { model: await loadInOrt(place, settings, signal), why };
  }
}

/** Has the runtime read the sparse engine's modules meanwhile, where that is the engine; see {@linkcode chooseEngine}. */
export function prefetchEngine({ engine, device = "wasm" }: LoadSettings): void {
  if (engine !== "ort" && device === "wasm") importSparse().catch(() => {});
}

/** Not before it is needed: ONNX Runtime alone may be. */
function importSparse() {
  return import("../engine/sparse/engine.ts");
}

/**
 * Checks that what is asked of an engine is something that it has: before a model is looked for, which may
 * have to be fetched, pruned or compiled.
 *
 * @throws {UsageError} When the options do not go together.
 */
export function assertTogether(
  { engine, device, kv, activations = "auto", embeddings }: LoadOptions,
): void {
  if (engine === "sparse" && isOrts(device)) {
    throw new UsageError(`the sparse engine runs on wasm: ${device} is for --engine ort`);
  }
  if ((engine === "ort" || isOrts(device)) && (kv === "int8" || activations !== "auto")) {
    throw new UsageError(
      `${kv === "int8" ? "--kv int8" : `--activations ${activations}`} is the sparse engine's: ` +
        `ONNX Runtime computes in float32`,
    );
  }
  if ((engine === "ort" || isOrts(device)) && embeddings === "file") {
    throw new UsageError(
      `--embeddings file is the sparse engine's: ONNX Runtime holds the whole model in memory`,
    );
  }
}

/** Whether ONNX Runtime alone runs there. */
function isOrts(device: LoadOptions["device"]): boolean {
  return device === "webgpu" || device === "cpu";
}

async function loadInSparse(
  { name, source, folder }: Place,
  settings: LoadSettings,
  signal: AbortSignal | undefined,
): Promise<EngineModel> {
  const { loadSparse } = await importSparse();
  // Nor what reads folders: browsers and edge functions have no file system.
  const memory = folder === undefined
    ? settings.memory
    : (await import("./fit.ts")).assertFitsSparse(name, folder, settings);
  const { threads, context, kv, activations, embeddings, background, keptSequences } = settings;
  return await loadSparse(source, {
    threads,
    context,
    kv,
    activations,
    embeddings,
    memory,
    background,
    keptSequences,
    signal,
  });
}

async function loadInOrt(
  { name, folder, source, checked = [] }: Place,
  settings: LoadSettings,
  signal: AbortSignal | undefined,
): Promise<EngineModel> {
  if (folder === undefined) {
    throw new UsageError(
      `${name}: ONNX Runtime loads from a folder only; fetch the model into one`,
    );
  }
  // It reads the files by itself.
  const { checkFiles } = await import("../engine/integrity.ts");
  await checkFiles(source, checked.filter((path) => path.startsWith("onnx/")));
  const { loadsNode } = await import("../engine/ort/node_module.ts");
  const { loadOrtFile } = await import("../engine/ort/cached.ts");
  const { readDecoderFile } = await import("../engine/ort/decoder_file.ts");
  const { assertFitsOrt } = await import("./fit.ts");
  const { threads, context, device = loadsNode() ? "cpu" : "wasm" } = settings;
  throwIfAborted(signal);
  const file = readDecoderFile(folder);
  assertFitsOrt(name, file, device, settings);
  const model = await loadOrtFile(file, { device, threads, context });
  // It cannot be stopped on the way.
  if (signal?.aborted) await model.close();
  throwIfAborted(signal);
  return model;
}
