/**
 * Checkpoints are compiled before an engine loads them, into a folder that goes with the model.
 * @module
 */
import { join } from "node:path";
import type { RunHooks } from "../api/options.ts";
import { compile } from "../../compile/compile.ts";
import { folderName } from "../checkpoint/folder_name.ts";
import { TemporaryFolder } from "../platform/temporary.ts";
import type { LoadSettings } from "./load_options.ts";

/** A compiled model in a temporary folder. */
export interface CompiledFirst {
  readonly folder: string;
  /** Removes it. */
  readonly dispose: () => void;
}

/**
 * Compiles a checkpoint.
 *
 * @param checkpoint Its folder.
 * @param settings How weights are stored, and the longest context.
 * @throws {EspalierError} As `compile` does; nothing is left behind then.
 */
export async function compileFirst(
  checkpoint: string,
  { values, format, context }: LoadSettings,
  hooks: RunHooks,
): Promise<CompiledFirst> {
  const temporary = new TemporaryFolder("compiled");
  try {
    const { output } = await compile({
      model: checkpoint,
      // Under the checkpoint's own name: that is what the model is called by.
      output: join(temporary.path, folderName(checkpoint)),
      values: values === "auto" ? undefined : values,
      format,
      context,
    }, hooks);
    return { folder: output, dispose: () => temporary.remove() };
  } catch (error) {
    temporary.remove();
    throw error;
  }
}
