/**
 * A model as bundles run it: in our own engine.
 * @module
 */
import { folderSource } from "../engine/folder_source.ts";
import { TargetUnfitError, UnsupportedOperatorError } from "../errors.ts";
import type { LoadedInfo } from "../generate/model.ts";
import { runCompiled } from "../generate/run.ts";
import type { BundleSettings } from "./options.ts";

/**
 * Loads a model once, before it is bundled: what cannot be loaded here cannot be there.
 *
 * @param model Its folder.
 * @returns What it takes.
 * @throws {TargetUnfitError} When the engine has no kernel for it.
 * @throws {EspalierError} Of the class that says what else is wrong.
 */
export async function tryModel(
  model: string,
  { context, kv }: BundleSettings,
  signal: AbortSignal | undefined,
): Promise<LoadedInfo> {
  try {
    const options = { threads: 1, context, kv, signal };
    await using loaded = await runCompiled(folderSource(model), options);
    return loaded.info;
  } catch (error) {
    if (!(error instanceof UnsupportedOperatorError)) throw error;
    throw new TargetUnfitError(
      `only our own engine runs there: ${error.message}; --target binary --with-ort runs it`,
      { cause: error },
    );
  }
}
