/**
 * Models in folders: compiled ones, and checkpoints.
 * @module
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CompiledModel } from "../../compile/compiled_model.ts";
import type { RunHooks } from "../api/options.ts";
import { folderName } from "../checkpoint/folder_name.ts";
import { folderSource } from "../engine/folder_source.ts";
import { UsageError } from "../errors.ts";
import { localFolder } from "../hub/local_folder.ts";
import { bytesIn } from "../platform/folders.ts";
import { compileFirst } from "./compile_first.ts";
import type { LoadSettings } from "./load_options.ts";
import type { Place } from "./place.ts";

/**
 * Finds the model in a folder, or at the Hub; a checkpoint is compiled first.
 *
 * @throws {CheckpointNotFoundError} When the folder holds neither.
 * @throws {EspalierError} As `compile` does.
 */
export async function folderPlace(
  location: string | URL,
  settings: LoadSettings,
  hooks: RunHooks,
): Promise<Place> {
  const path = location instanceof URL ? pathOf(location) : await localFolder(location, hooks);
  const isCompiled = CompiledModel.isAt(path);
  if (isCompiled) tellWhatIsSettled(path, settings, hooks);
  const { folder, dispose } = isCompiled
    ? { folder: path, dispose: () => {} }
    : await compileFirst(path, settings, hooks);
  return {
    name: folderName(folder),
    source: folderSource(folder),
    folder,
    bytes: bytesIn(join(folder, "onnx")),
    dispose,
  };
}

/** @throws {UsageError} When it is no path on this machine. */
function pathOf(url: URL): string {
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw new UsageError(`${url.href} is no path: ${(cause as Error).message}`, { cause });
  }
}

/** Says of options for checkpoints that a compiled model has its own. */
function tellWhatIsSettled(path: string, settings: LoadSettings, hooks: RunHooks): void {
  for (const field of ["values", "format"] as const) {
    if (settings[field] === "auto") continue;
    const text = `${folderName(path)} is compiled already: ${field} ${settings[field]} ` +
      "is for checkpoints, which are compiled on the way, and changes nothing";
    hooks.onProgress?.({ type: "note", text });
  }
}
