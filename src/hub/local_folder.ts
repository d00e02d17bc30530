/**
 * What commands read: a folder, whatever word named the model.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { UsageError } from "../errors.ts";
import { isHubReference } from "./reference.ts";

/**
 * The folder that a word names: itself, or for `hf:owner/name[@revision]` that in the cache of the Hub,
 * to which the model is fetched first.
 *
 * @throws {UsageError} For a URL: its files could be read, but not all that a folder is used for done there.
 * @throws {EspalierError} As `pull` does.
 */
export async function localFolder(word: string, hooks: RunHooks): Promise<string> {
  // What stands in it may be a secret.
  if (/^https?:\/\//i.test(word)) {
    throw new UsageError(
      "a folder is needed here, or hf:owner/name, not a URL, which generate, chat, serve and bench take: fetch its " +
        "files into a folder first",
    );
  }
  if (!isHubReference(word)) return word;
  // Not before it is needed: most models are in folders.
  const { pulledFolder } = await import("./pull.ts");
  return await pulledFolder(word, hooks);
}
