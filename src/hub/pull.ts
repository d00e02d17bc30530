/**
 * `pull`: a model of the Hub, in the cache or in a folder of its own.
 * @module
 */
import { join, resolve } from "node:path";
import { z } from "zod";
import { checkHooks, parseOptions, type RunHooks } from "../api/options.ts";
import { throwIfAborted } from "../checks.ts";
import {
  AbortError,
  HubFailedError,
  HubUnreachableError,
  OfflineError,
  RateLimitError,
} from "../errors.ts";
import { readJson } from "../platform/files.ts";
import { assertApart, assertFree, PendingFolder } from "../platform/output_folder.ts";
import { cloneFile } from "../platform/links.ts";
import { CachedRepository, LARGEST_INDEX } from "./cache.ts";
import { chooseFiles, chooseShards } from "./choose.ts";
import { HubConnection } from "./connection.ts";
import { fetchFile } from "./fetch_file.ts";
import type { HubFile } from "./listing.ts";
import { type HubReference, isCommit, parseReference } from "./reference.ts";
import { type HubSettings, readSettings } from "./settings.ts";

/** Files that are fetched at once. */
const AT_ONCE = 4;

/** Options of `pull`. */
export const pullSchema = z.strictObject({
  model: z.string().min(1).describe(
    "hf:owner/name, with @revision behind it for another than main",
  ),
  output: z.string().min(1).optional().describe(
    "folder to copy the model to (default: it stays in the cache)",
  ),
  force: z.boolean().default(false).describe("replace the output folder"),
});

/** Options of `pull`, as a caller writes them. */
export type PullOptions = z.input<typeof pullSchema>;

/** A file that a model needs. */
export interface PulledFile {
  /** Below the folder, with slashes. */
  readonly path: string;
  readonly bytes: number;
  /** Where the Hub knows it: of large files. */
  readonly sha256?: string;
  /** Whether it was there already. */
  readonly from: "cache" | "network";
}

/** What `pull` found and fetched. */
export interface PullReport {
  /** `owner/name`. */
  readonly model: string;
  /** The commit. */
  readonly revision: string;
  /** Where the model is. */
  readonly folder: string;
  readonly files: readonly PulledFile[];
  readonly seconds: number;
}

/**
 * Fetches a model of the Hugging Face Hub, as far as it is not in the cache.
 *
 * The cache is the one of all clients of the Hub. What is fetched are the files that a model needs:
 * config, tokenizer, and the weights in safetensors or as compiled ONNX. What was interrupted goes on
 * where it broke off.
 *
 * @param options See `deno run mod.ts pull --help`.
 * @param hooks Progress and abort.
 * @throws {RepositoryNotFoundError} When there is no such repository.
 * @throws {RevisionNotFoundError} When it has no such revision.
 * @throws {HubFileNotFoundError} When a file that it lists is not there.
 * @throws {UnauthorizedError} When the Hub wants a token, or another one.
 * @throws {OfflineError} When `HF_HUB_OFFLINE` is set, and the model is not in the cache.
 * @throws {EspalierError} Of the class that says what else is wrong.
 *
 * @example
 * ```ts
 * import { prune, pull } from "espalier";
 *
 * const { folder } = await pull({ model: "hf:HuggingFaceTB/SmolLM2-135M" });
 * await prune({ model: folder, calibration: "text.txt" });
 * ```
 */
export async function pull(options: PullOptions, hooks: RunHooks = {}): Promise<PullReport> {
  const { model, output, force } = parseOptions(pullSchema, options);
  checkHooks(hooks);
  const wanted = parseReference(model);
  const settings = await readSettings();
  return await pullWith(settings, wanted, { output, force }, hooks);
}

/**
 * The folder with a model of the Hub, for commands that want to read it. Where the Hub cannot be
 * reached and the cache has the model, that is taken, and said.
 *
 * @param word `hf:owner/name[@revision]`.
 * @throws {EspalierError} As {@linkcode pull} does.
 */
export async function pulledFolder(word: string, hooks: RunHooks): Promise<string> {
  const wanted = parseReference(word);
  const settings = await readSettings();
  try {
    return (await pullWith(settings, wanted, { force: false }, hooks)).folder;
  } catch (error) {
    const isAway = [HubUnreachableError, HubFailedError, RateLimitError].some((kind) =>
      error instanceof kind
    );
    const kept = isAway ? keptCommit(settings, wanted) : undefined;
    if (kept === undefined) throw error;
    const text = `${
      (error as Error).message
    }; taking ${wanted.repository} at ${kept} from the cache`;
    hooks.onProgress?.({ type: "note", text });
    return new CachedRepository(settings.cache, wanted.repository).snapshot(kept);
  }
}

/** {@linkcode pull}, with settings from elsewhere than the environment. */
export async function pullWith(
  settings: HubSettings,
  wanted: HubReference,
  { output, force }: { readonly output?: string; readonly force: boolean },
  hooks: RunHooks,
): Promise<PullReport> {
  const started = performance.now();
  const cache = new CachedRepository(settings.cache, wanted.repository);
  throwIfAborted(hooks.signal);
  const target = output === undefined ? undefined : resolve(output);
  if (target !== undefined) {
    assertApart(target, cache.folder);
    assertFree(target, force);
  }
  const { commit, files } = settings.offline
    ? offline(settings, wanted, cache)
    : await new Pull(settings, wanted, cache, hooks).run();
  const snapshot = cache.snapshot(commit);
  if (target !== undefined) await copy(snapshot, files, target, force, hooks);
  return {
    model: wanted.repository,
    revision: commit,
    folder: target ?? snapshot,
    files,
    seconds: (performance.now() - started) / 1000,
  };
}

/** What the cache has, where the Hub must not be asked. */
function offline(
  settings: HubSettings,
  wanted: HubReference,
  cache: CachedRepository,
): { commit: string; files: PulledFile[] } {
  const commit = cache.commitOf(wanted);
  const lacking = commit === undefined ? undefined : cache.missing(commit);
  const where = `${wanted.repository} at revision ${wanted.revision}`;
  const remedy = "unset HF_HUB_OFFLINE to fetch it";
  if (commit === undefined || lacking === undefined) {
    throw new OfflineError(`${where} is not in the cache ${settings.cache}: ${remedy}`);
  }
  if (lacking.length > 0) {
    const names = lacking.slice(0, 5).join(", ") + (lacking.length > 5 ? " …" : "");
    throw new OfflineError(`of ${where} the cache ${settings.cache} lacks ${names}: ${remedy}`);
  }
  const listed = cache.listed(commit);
  const { files, index } = chooseFiles(listed, wanted.repository);
  const path = index && join(cache.snapshot(commit), index.path);
  const shards = path ? chooseShards(readJson(path, LARGEST_INDEX), path, listed) : [];
  const report = [...files, ...shards].map((file) => reported(file, "cache"));
  return { commit, files: report.sort(byPath) };
}

/** The commit of a whole model in the cache, if there is one. */
function keptCommit(settings: HubSettings, wanted: HubReference): string | undefined {
  const cache = new CachedRepository(settings.cache, wanted.repository);
  const commit = cache.commitOf(wanted);
  return commit !== undefined && cache.missing(commit).length === 0 ? commit : undefined;
}

/** One run of `pull` against the Hub. */
class Pull {
  readonly #wanted: HubReference;
  readonly #cache: CachedRepository;
  readonly #hooks: RunHooks;
  /** Stops all files when one has failed. */
  readonly #stop = new AbortController();
  readonly #connection: HubConnection;
  /** Bytes there are of each file that is fetched. */
  readonly #done = new Map<HubFile, number>();

  constructor(
    settings: HubSettings,
    wanted: HubReference,
    cache: CachedRepository,
    hooks: RunHooks,
  ) {
    this.#wanted = wanted;
    this.#cache = cache;
    this.#hooks = hooks;
    this.#connection = new HubConnection(settings, this.#stop.signal);
  }

  async run(): Promise<{ commit: string; files: PulledFile[] }> {
    const onAbort = () => this.#stop.abort();
    this.#hooks.signal?.addEventListener("abort", onAbort);
    try {
      return await this.#run();
    } catch (error) {
      if (!this.#hooks.signal?.aborted) throw error;
      throw new AbortError(
        "stopped before the end: what has come is kept, the next pull goes on there",
      );
    } finally {
      this.#hooks.signal?.removeEventListener("abort", onAbort);
    }
  }

  async #run(): Promise<{ commit: string; files: PulledFile[] }> {
    const { repository, revision } = this.#wanted;
    const { commitOf, listRepository } = await import("./listing.ts");
    const commit = isCommit(revision) ? revision : await commitOf(this.#connection, this.#wanted);
    const listed = await listRepository(this.#connection, this.#wanted, commit);
    const { files, index } = chooseFiles(listed, repository);
    const report: PulledFile[] = [];
    let all = files;
    if (index) {
      report.push(...await this.#fetchAll([index], commit));
      const path = join(this.#cache.snapshot(commit), index.path);
      const shards = chooseShards(readJson(path, LARGEST_INDEX), index.path, listed);
      all = [...files.filter((file) => file !== index), ...shards];
    }
    report.push(...await this.#fetchAll(all, commit));
    // Last: who finds the revision in the cache finds all of it.
    this.#cache.keepRevision(this.#wanted, commit);
    return { commit, files: report.sort(byPath) };
  }

  /** Fetches what is not there, some at a time, the largest first. */
  async #fetchAll(files: readonly HubFile[], commit: string): Promise<PulledFile[]> {
    const report = new Map<HubFile, PulledFile>();
    // By content: files that are the same are fetched once.
    const contents = new Map<string, HubFile[]>();
    for (const file of files) {
      if (this.#cache.has(file, commit)) {
        report.set(file, reported(file, "cache"));
      } else {
        const content = `${file.hash} ${file.bytes}`;
        contents.set(content, [...contents.get(content) ?? [], file]);
      }
    }
    const waiting = [...contents.values()].sort(([a], [b]) => b.bytes - a.bytes);
    const total = waiting.reduce((sum, [{ bytes }]) => sum + bytes, 0);
    this.#done.clear();
    if (waiting.length > 0) this.#tell(total);
    const errors: unknown[] = [];
    const worker = async () => {
      for (let same = waiting.shift(); same; same = waiting.shift()) {
        try {
          const from = await this.#fetch(same[0], commit, total);
          for (const file of same) {
            this.#cache.link(file, commit);
            report.set(file, reported(file, from));
          }
        } catch (error) {
          errors.push(error);
          this.#stop.abort();
          return;
        }
      }
    };
    // All of them end before the first error goes on: their files are closed, their locks released.
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    if (errors.length > 0) throw errors[0];
    return files.map((file) => report.get(file)!);
  }

  #fetch(file: HubFile, commit: string, total: number): Promise<"cache" | "network"> {
    const { repository, revision } = this.#wanted;
    const { endpoint } = this.#connection.settings;
    const path = file.path.split("/").map(encodeURIComponent).join("/");
    const url = `${endpoint}/${repository}/resolve/${commit}/${path}`;
    return fetchFile(
      { file, url, subject: { repository, revision, path: file.path } },
      this.#connection,
      this.#cache,
      {
        signal: this.#stop.signal,
        note: (text) => this.#hooks.onProgress?.({ type: "note", text }),
        onBytes: (done) => {
          this.#done.set(file, done);
          this.#tell(total);
        },
      },
    );
  }

  #tell(total: number): void {
    const done = [...this.#done.values()].reduce((sum, bytes) => sum + bytes, 0);
    const phase = `fetch ${this.#wanted.repository}`;
    this.#hooks.onProgress?.({ type: "progress", phase, done, total, unit: "bytes" });
  }
}

/** Copies a model out of the cache: who writes to the copy must not write to the cache. */
async function copy(
  snapshot: string,
  files: readonly PulledFile[],
  target: string,
  force: boolean,
  hooks: RunHooks,
): Promise<void> {
  const pending = new PendingFolder(target, { force });
  try {
    for (const { path } of files) {
      throwIfAborted(hooks.signal);
      await cloneFile(join(snapshot, path), join(pending.path, path));
    }
    throwIfAborted(hooks.signal);
    pending.commit();
  } finally {
    pending.discard();
  }
}

function byPath(a: PulledFile, b: PulledFile): number {
  return a.path < b.path ? -1 : 1;
}

function reported(
  { path, bytes, hash }: HubFile,
  from: "cache" | "network",
): PulledFile {
  return { path, bytes, ...(/^[0-9a-f]{64}$/.test(hash) ? { sha256: hash } : {}), from };
}
