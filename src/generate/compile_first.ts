/**
 * Checkpoints are compiled before an engine loads them, into a folder that goes with the model.
 * @module
 */
import { join } from "node:path";
import type { RunHooks } from "../api/options.ts";
import { compile } from "../../compile/compile.ts";
import { decoderOf } from "../checkpoint/architectures/mod.ts";
import { Checkpoint } from "../checkpoint/checkpoint.ts";
import { folderName } from "../checkpoint/folder_name.ts";
import { folderSource } from "../engine/folder_source.ts";
import { contextWithin } from "../engine/tokens.ts";
import { TemporaryFolder } from "../platform/temporary.ts";
import type { LoadSettings } from "./load_options.ts";
import { readText } from "./read_text.ts";

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
 * @throws {ContextOverflowError} When the context is more than the model has.
 * @throws {TokenizerError | ChatTemplateError} When there is a tokenizer or a chat template that cannot be used.
 * @throws {EspalierError} As `compile` does; nothing is left behind then.
 */
export async function compileFirst(
  checkpoint: string,
  { values, format, context }: LoadSettings,
  hooks: RunHooks,
): Promise<CompiledFirst> {
  assertContext(checkpoint, context);
  // As above: what is read is read again where it then lies, in a folder whose name says nothing to who reads of it.
  await readText(folderSource(checkpoint));
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

/** An engine would say so, but of a large model minutes later: to `compile` a context is an upper bound. */
function assertContext(folder: string, wanted: number | undefined): void {
  if (wanted === undefined) return;
  const checkpoint = Checkpoint.open(folder);
  try {
    contextWithin(wanted, decoderOf(checkpoint).context);
  } finally {
    checkpoint.close();
  }
}
