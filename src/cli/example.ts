/**
 * The example model, as commands take it.
 * @module
 */
import { join } from "node:path";
import type { RunHooks } from "../api/options.ts";
import { prune } from "../api/prune.ts";
import { TemporaryFolder } from "../platform/temporary.ts";
import { readConfigFile } from "./args.ts";
import { EXAMPLE_CONFIG } from "./prune.ts";

/** What it is called. */
export const EXAMPLE_NAME = "tiny";

/** The example, pruned to 8 of 16 weights, in a temporary folder. */
export async function prunedExample(
  hooks: RunHooks,
): Promise<{ folder: string; dispose: () => void }> {
  const temporary = new TemporaryFolder("example");
  const folder = join(temporary.path, EXAMPLE_NAME);
  const { model, calibration, samples, seqlen, seed } = readConfigFile(EXAMPLE_CONFIG);
  try {
    await prune(
      { model, calibration, samples, seqlen, seed, output: folder, pattern: "8:16" } as Parameters<
        typeof prune
      >[0],
      hooks,
    );
    return { folder, dispose: () => temporary.remove() };
  } catch (error) {
    temporary.remove();
    throw error;
  }
}
