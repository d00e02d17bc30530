/** What people call the model in a folder by. @module */
import { basename, dirname, resolve } from "node:path";

/**
 * The name of a model's folder. In the cache of the Hugging Face Hub a folder is named by a commit:
 * there it is the name of the repository, without its owner.
 */
export function folderName(folder: string): string {
  const path = resolve(folder);
  const snapshots = dirname(path);
  const repository = /^models--(?:[^/\\]+?--)?([^/\\]+)$/.exec(basename(dirname(snapshots)));
  const isSnapshot = basename(snapshots) === "snapshots" && /^[0-9a-f]{40}$/.test(basename(path));
  return isSnapshot && repository ? repository[1] : basename(path);
}
