/**
 * What commands read: a folder, whatever word named the model.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { isHubReference } from "./reference.ts";

/**
 * The folder that a word names: itself, or for `hf:owner/name[@revision]` that in the cache of the Hub,
 * to which the model is fetched first.
 *
 * @throws {EspalierError} As `pull` does.
 */
export async function localFolder(word: string, hooks: RunHooks): Promise<string> {
  if (!isHubReference(word)) return word;
  // Not before it is needed: most models are in folders.
  const { pulledFolder } = await import("./pull.ts");
  return await pulledFolder(word, hooks);
}
