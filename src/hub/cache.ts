/**
 * The cache that all clients of the Hub share: contents by their hashes in `blobs`, the files of a
 * commit as links to them in `snapshots`, branches and tags in `refs`.
 *
 * Two things are our own, since other clients would trip over them: their locks are calls of the
 * system that not every runtime has, and they append to files that end with `.incomplete`. So ours are
 * called otherwise, and in the worst case a file is fetched by two programs at once.
 * @module
 */
import { basename, dirname, join } from "node:path";
import { INDEX, SINGLE } from "../checkpoint/file_names.ts";
import { readJson, readText, replaceText } from "../platform/files.ts";
import { listFolder, makeFolder } from "../platform/folders.ts";
import { fileSize, isFolder, realPath } from "../platform/paths.ts";
import { linkTo } from "../platform/links.ts";
import { CONFIG, GRAPH, GRAPH_DATA, RECORD, shardsIn } from "./choose.ts";
import type { HubFile } from "./listing.ts";
import { type HubReference, isCommit } from "./reference.ts";

/** Bytes of the largest file in `refs`. */
const LARGEST_REF = 200;
/** Bytes of the largest index that is read. */
export const LARGEST_INDEX = 64 << 20;

/** One repository in the cache. */
export class CachedRepository {
  readonly folder: string;
  readonly #locks: string;

  /** @param root Folder of the cache. */
  constructor(root: string, repository: string) {
    const name = `models--${repository.replace("/", "--")}`;
    this.folder = join(root, name);
    this.#locks = join(root, ".locks", name);
  }

  /** Where a content lies when it is whole. */
  blob({ hash }: HubFile): string {
    return join(this.folder, "blobs", hash);
  }

  /** Where it lies until then. */
  partial({ hash }: HubFile): string {
    return join(this.folder, "blobs", `${hash}.espalier.incomplete`);
  }

  /** Held by the process that fetches it. */
  lock({ hash }: HubFile): string {
    return join(this.#locks, `${hash}.espalier.lock`);
  }

  /** The folder with the files of a commit. */
  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  /** Whether a file of a commit is there; a content that is there under another commit is linked. */
  has(file: HubFile, commit: string): boolean {
    if (fileSize(join(this.snapshot(commit), file.path)) === file.bytes) return true;
    if (fileSize(this.blob(file)) !== file.bytes) return false;
    this.link(file, commit);
    return true;
  }

  /** Gives a whole content its name in a commit. */
  link(file: HubFile, commit: string): void {
    linkTo(this.blob(file), join(this.snapshot(commit), file.path));
  }

  /** The commit that a revision stood for when the Hub was asked last; undefined where it never was. */
  commitOf({ revision }: HubReference): string | undefined {
    if (isCommit(revision)) return revision;
    const path = join(this.folder, "refs", revision);
    const text = fileSize(path) === undefined ? "" : readText(path, LARGEST_REF).trim();
    return isCommit(text) ? text : undefined;
  }

  /** Keeps what a revision stands for. */
  keepRevision({ revision }: HubReference, commit: string): void {
    if (isCommit(revision)) return;
    const path = join(this.folder, "refs", revision);
    if (fileSize(path) !== undefined && readText(path, LARGEST_REF) === commit) return;
    makeFolder(dirname(path));
    replaceText(path, commit, { private: false });
  }

  /**
   * What a commit's folder lacks, as far as can be told without the Hub.
   *
   * @returns Paths; empty when a model is there.
   * @throws {ShardError} When the index there is damaged.
   */
  missing(commit: string): string[] {
    const at = (path: string) => join(this.snapshot(commit), path);
    const lacks = (path: string) => fileSize(at(path)) === undefined;
    const config = lacks(CONFIG) ? [CONFIG] : [];
    if (!lacks(SINGLE)) return config;
    if (!lacks(INDEX)) {
      return [...config, ...shardsIn(readJson(at(INDEX), LARGEST_INDEX), at(INDEX)).filter(lacks)];
    }
    if (lacks(GRAPH)) return [...config, SINGLE];
    // Graphs of others may have their data inside.
    return lacks(GRAPH_DATA) && !lacks(RECORD) ? [...config, GRAPH_DATA] : config;
  }

  /** The files of a commit that are there, at the root and in `onnx`, as the Hub would list them. */
  listed(commit: string): HubFile[] {
    const folder = this.snapshot(commit);
    return ["", "onnx/"].filter((below) => isFolder(join(folder, below))).flatMap((below) =>
      listFolder(join(folder, below)).filter(({ kind }) => kind === "file").map(({ name }) => {
        const full = join(folder, below, name);
        // A link leads to the content, whose name is its hash; a copy has none.
        return { path: `${below}${name}`, bytes: fileSize(full)!, hash: basename(realPath(full)) };
      })
    );
  }
}
