/**
 * `--calibration self`: a model's own text as its calibration windows.
 * @module
 */
import type { CalibrationWriter } from "../api/calibration_writer.ts";
import type { PruneOptions, RunHooks } from "../api/options.ts";
import { TextError } from "../errors.ts";
import { load } from "../generate/load.ts";
import { openTokenizer } from "../text/folder.ts";
import { SELF_TEMPERATURE, writeWindows } from "./self_text.ts";

/** How the weights of the model that writes are stored: what it writes is hardly another's. */
const VALUES = "int8";

/**
 * What writes calibration text for a checkpoint: the checkpoint itself, compiled into a temporary
 * folder that is gone when the text is there.
 *
 * @param model Its folder.
 * @param how `threads` of the engine, all processors when left out; `memory` that it may take, in bytes.
 * @param hooks Progress of the compiling; the writing tells the phases of its order.
 */
export function writerFor(
  model: string,
  { threads, memory }: Pick<PruneOptions, "threads" | "memory">,
  hooks: RunHooks,
): CalibrationWriter {
  return async ({ windows, length, seed, phases, signal }) => {
    const { beginId, endIds } = openTokenizer(model);
    const [begin = endIds.values().next().value] = [beginId];
    if (begin === undefined) {
      throw new TextError(
        `${model} names no token that begins or ends a text, so it cannot write any by itself: ` +
          `give --calibration a file`,
      );
    }
    const loaded = await load(model, { values: VALUES, context: length, threads, memory }, {
      signal,
      // Notes are for who asked for a compiled model: that it is dense is no news to who will prune it.
      onProgress: (event) => event.type === "progress" && hooks.onProgress?.(event),
    });
    try {
      const written = await phases.run(
        "write calibration text",
        "tokens",
        windows * length,
        (step) =>
          writeWindows(
            { info: loaded.info, open: () => loaded.open() },
            { windows, length, seed, begin, ends: endIds },
            step,
            signal,
          ),
      );
      const sampling = { temperature: SELF_TEMPERATURE, begin, seed, values: VALUES };
      return { windows: written, sampling };
    } finally {
      await loaded.close();
    }
  };
}
