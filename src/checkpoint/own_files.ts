/**
 * Which files of a folder are those of the model in it: not the hidden ones, and not all that links lead to. A folder
 * may come from anybody, and what is made of it goes to others: a link must not take along what is its user's.
 * @module
 */
import { basename, extname, isAbsolute, join, relative, sep } from "node:path";
import { listFolder, pathsIn } from "../platform/folders.ts";
import { isHidden, isLink, realPath } from "../platform/paths.ts";

/** Stores that keep contents by their hashes, to which models' files may be links: git-annex's and DVC's. */
const STORES = ["/.git/annex/objects/", "/.dvc/cache/"];
/** Files that are read as what they are called. */
const WEIGHTS = /\.(safetensors|onnx|onnx_data)$/;

/** What {@linkcode ownFiles} finds. */
export interface OwnFiles {
  /** Paths of the model's files, sorted, with slashes. */
  readonly paths: readonly string[];
  /** Links that are not followed. */
  readonly strays: readonly string[];
}

/** Says of a link, and of where it ends, whether it counts. */
type Follows = (path: string, target: string, isFolder: boolean) => boolean;

/**
 * The files of the model in a folder and below. Links count
 *
 * - within the folder, where they lead to nothing hidden;
 * - into a store of contents by hash, as the cache of the Hub has them;
 * - elsewhere, from the folder's top or `onnx/`: to files of the same name, and from weights to weights.
 *
 * @param isLeftOut Says of a path, of a folder's too, that neither it nor what is below is wanted.
 */
export function ownFiles(
  folder: string,
  isLeftOut: (path: string) => boolean = isHidden,
): OwnFiles {
  return judged(folder, (follows) => pathsIn(folder, isLeftOut, follows));
}

/** Those of them that lie in the folder itself. */
export function ownFilesAtTop(folder: string): OwnFiles {
  return judged(folder, (follows) =>
    listFolder(folder)
      .filter(({ name, kind }) => kind === "file" && !isHidden(name))
      .map(({ name }) => name)
      .filter((name) => {
        const path = join(folder, name);
        return !isLink(path) || follows(name, realPath(path), false);
      }));
}

/** What is told of links that are not followed. */
export function straysText(strays: readonly string[]): string {
  const [first, ...others] = strays;
  return others.length === 0
    ? `${first} is a link to what is none of the model's: it is left out`
    : `${first} and ${others.length} more are links to what is none of the model's: they are left out`;
}

/** Finds files, and keeps the links that do not count. */
function judged(folder: string, find: (follows: Follows) => string[]): OwnFiles {
  const root = realPath(folder);
  const strays: string[] = [];
  const paths = find((path, target, isFolder) => {
    if (leadsToOwn(root, path, target, isFolder)) return true;
    strays.push(path);
    return false;
  });
  return { paths, strays };
}

/**
 * Whether a link counts.
 *
 * @param root The folder, with its links followed.
 * @param path The link in it.
 * @param target Where it ends.
 */
function leadsToOwn(root: string, path: string, target: string, isFolder: boolean): boolean {
  const slashed = (name: string) => name.replaceAll(sep, "/");
  const way = relative(root, target), end = slashed(target);
  const names = slashed(way).split("/");
  // What is on another drive of Windows has no way there.
  const isInside = !isAbsolute(way) && names[0] !== "..";
  if (isInside && !names.some(isHidden)) return true;
  if (isFolder) return false;
  if (end.startsWith(blobsOf(slashed(root)))) return true;
  if (STORES.some((store) => end.includes(store))) return true;
  if (isInside || !/^(onnx\/)?[^/]+$/.test(path)) return false;
  const isWeights = WEIGHTS.test(path) && extname(target) === extname(path);
  return isWeights || basename(target) === basename(path);
}

/** Where the Hub's cache keeps the contents of a snapshot's files. */
function blobsOf(root: string): string {
  const at = root.lastIndexOf("/snapshots/");
  return at < 0 ? "\0" : `${root.slice(0, at)}/blobs/`;
}
