/**
 * A model on a web server, in a page: what was read once is kept in the browser's Cache API.
 *
 * The cache is named by the model's place and by the SHA-256 of its `espalier.json`, which has the hashes
 * of all other files: another model, or a new version, has another cache, and the old one is removed. Only
 * `espalier.json` and `parts.json` are asked for each time; without a network the copies that are kept
 * stand in. Nothing here is trusted: `integrity.ts` checks what comes out of the cache as well, and has it
 * fetched again (`forget`) where it is damaged.
 *
 * Kept are files that lie in parts, and small ones. Larger files that lie whole are read by range.
 * @module
 */
import { FileReadError, UsageError } from "../errors.ts";
import { sha256Of } from "../platform/sha256.ts";
import { isBroken } from "./again.ts";
import { CHUNK, hashesOf, LARGEST_RECORD, RECORD } from "./integrity.ts";
import type { Known } from "./integrity.ts";
import { PARTS, partsSource } from "./parts_source.ts";
import {
  checkBounds,
  checkedPath,
  contentFile,
  LARGEST_SMALL_FILE,
  type ModelSource,
  type SourceFile,
} from "./source.ts";
import { urlSource, type UrlSourceOptions } from "./url_source.ts";

/** How far a model has come. */
export interface Loaded {
  /** Bytes that are there, from the network or the cache. */
  readonly done: number;
  /** Bytes of the whole model; undefined where its record does not say. */
  readonly total: number | undefined;
}

/** How a model is read and kept. */
export interface CachedOptions extends UrlSourceOptions {
  /** Told as bytes arrive. */
  readonly onProgress?: (loaded: Loaded) => void;
  /** Told once, when nothing more is kept: there is no cache, it is full, or the user forbids it. */
  readonly onUncached?: (reason: string) => void;
  /** In place of the browser's own; null for none. */
  readonly caches?: CacheStorage | null;
}

/** Characters of a hash that name a cache. */
const NAME_LENGTH = 32;

/**
 * Opens a model below a URL, whole or in parts.
 *
 * @param base An http or https URL of the model's folder.
 * @throws {UsageError} When it is none.
 * @throws {FileReadError} When its `espalier.json` or `parts.json` cannot be read.
 * @throws {IntegrityError} When its `espalier.json` is damaged.
 *
 * @example
 * ```js
 * const source = await cachedSource(new URL("model/", location.href), {
 *   onProgress: ({ done, total }) => postMessage({ done, total }),
 * });
 * const model = await runCompiled(source, { threads: 1 });
 * ```
 */
export async function cachedSource(
  base: string | URL,
  options: CachedOptions = {},
): Promise<ModelSource> {
  const source = new CachedSource(base, options);
  await source.begin();
  return await partsSource(source);
}

class CachedSource implements ModelSource {
  readonly name: string;
  /** Where nothing can be kept, that is. */
  readonly isFar = true;
  readonly #base: URL;
  readonly #options: CachedOptions;
  readonly #network: ModelSource;
  #cache: Cache | undefined;
  #hasGivenUp = false;
  #record: Uint8Array<ArrayBuffer> | undefined;
  #known: ReadonlyMap<string, Known> = new Map();
  #total: number | undefined;
  /** Whether there was no network at the beginning. */
  #isAway = false;
  /** Bytes that have come, by path. */
  readonly #come = new Map<string, number>();
  /** What the caller's own onProgress has thrown: neither the network nor the cache is to blame for that. */
  #thrown: { readonly error: unknown } | undefined;
  /** Files that were damaged: they are fetched past every cache. */
  readonly #forgotten = new Set<string>();

  constructor(base: string | URL, options: CachedOptions) {
    const { fetch = globalThis.fetch, onProgress } = options;
    if (onProgress !== undefined && typeof onProgress !== "function") {
      throw new UsageError("onProgress must be a function");
    }
    this.#options = options;
    this.#network = urlSource(base, {
      ...options,
      fetch: async (url, init) =>
        this.#counted(url, await fetch(url, { ...this.#how(url), ...init })),
    });
    this.name = this.#network.name;
    this.#base = new URL(base);
    this.#base.pathname = this.#base.pathname.replace(/\/*$/, "/");
    // No address in a cache may have them.
    this.#base.username = this.#base.password = "";
  }

  /** Reads the record, and opens the cache of the model that it describes. */
  async begin(): Promise<void> {
    const prefix = `espalier ${this.#base.origin}${this.#base.pathname} `;
    const storage = this.#storage();
    try {
      if (!await this.#network.has(RECORD)) return;
      this.#record = await this.#network.read(RECORD, LARGEST_RECORD);
    } catch (error) {
      if (!isBroken(error)) throw error;
      // A cache that cannot be read is none.
      this.#record = await this.#keptRecord(storage, prefix)
        .catch((cause) => void this.#giveUp(cause));
      if (!this.#record) throw error;
      this.#isAway = true;
    }
    const { files } = hashesOf(this.#record, `${this.name}/${RECORD}`);
    this.#known = files;
    if (files.size > 0) {
      this.#total = [...files.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    }
    const name = prefix + (await sha256Of(this.#record)).slice(0, NAME_LENGTH);
    try {
      for (const other of await storage?.keys() ?? []) {
        if (other.startsWith(prefix) && other !== name) await storage?.delete(other);
      }
      this.#cache = await storage?.open(name);
    } catch (error) {
      this.#giveUp(error);
    }
    await this.#keep(RECORD, this.#record);
  }

  async has(path: string): Promise<boolean> {
    if (this.#known.has(path) || (path === RECORD && this.#record)) return true;
    if (path === PARTS) {
      return await this.read(PARTS).then(() => true, (error) => {
        // A model in parts has had them kept.
        if (error instanceof FileReadError && (this.#isAway || !isBroken(error))) return false;
        throw error;
      });
    }
    // The record names every file of a model that has one; who asks for another would see a 404.
    return this.#known.size === 0 && await this.#network.has(path);
  }

  async read(path: string, largest = LARGEST_SMALL_FILE): Promise<Uint8Array<ArrayBuffer>> {
    if (path === RECORD && this.#record) return this.#record.slice();
    if (path === PARTS) return await this.#newest(path, largest);
    const bytes = await this.#kept(path, largest) ?? await this.#fetch(path, largest);
    if (this.#thrown) throw this.#thrown.error;
    return bytes;
  }

  async open(path: string): Promise<SourceFile> {
    const size = this.#known.get(path)?.bytes ?? 0;
    // Without a record nothing is kept, and nobody knows how large it is.
    if (size > CHUNK || !this.#record) return await this.#network.open(path);
    return new CachedFile(this, path, await this.read(path));
  }

  async forget(path: string): Promise<boolean> {
    await this.#cache?.delete(this.#address(path)).catch(() => {});
    const isFirst = !this.#forgotten.has(path);
    this.#forgotten.add(path);
    return isFirst;
  }

  /** The caches of this page, where it may have any. */
  #storage(): CacheStorage | undefined {
    const { caches } = this.#options;
    if (caches) return caches;
    try {
      if (caches === undefined && globalThis.caches) return globalThis.caches;
      this.#giveUp("this page has no cache, which needs https or localhost");
    } catch (error) {
      this.#giveUp(error);
    }
    return undefined;
  }

  /** The record of the model that was here the last time. */
  async #keptRecord(
    storage: CacheStorage | undefined,
    prefix: string,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    for (const name of await storage?.keys() ?? []) {
      if (!name.startsWith(prefix)) continue;
      const found = await (await storage?.open(name))?.match(this.#address(RECORD));
      if (found) return new Uint8Array(await found.arrayBuffer());
    }
    return undefined;
  }

  /** A file as it is now, or as it was the last time where there is no network. */
  async #newest(path: string, largest: number): Promise<Uint8Array<ArrayBuffer>> {
    try {
      return await this.#fetch(path, largest);
    } catch (error) {
      const kept = isBroken(error) ? await this.#kept(path, largest) : undefined;
      if (kept) return kept;
      throw error;
    }
  }

  async #fetch(path: string, largest: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#come.delete(path);
    const bytes = await this.#network.read(path, largest);
    await this.#keep(path, bytes);
    return bytes;
  }

  /** The bytes that the cache has; none where it has none that can be the file's. */
  async #kept(path: string, largest: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const known = this.#known.get(path)?.bytes;
    try {
      const found = await this.#cache?.match(this.#address(path));
      if (!found) return undefined;
      const bytes = new Uint8Array(await found.arrayBuffer());
      if (bytes.length > largest || (known !== undefined && bytes.length !== known)) {
        await this.forget(path);
        return undefined;
      }
      this.#count(path, bytes.length);
      return bytes;
    } catch {
      // A cache that cannot be read is none.
      return undefined;
    }
  }

  async #keep(path: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (!this.#cache) return;
    const headers = { "content-type": "application/octet-stream" };
    try {
      await this.#cache.put(this.#address(path), new Response(bytes, { headers }));
    } catch (error) {
      this.#giveUp(error);
    }
  }

  /** Goes on without a cache. What is in it stays: it may do the next time. */
  #giveUp(reason: unknown): void {
    this.#cache = undefined;
    // Files that are read at once may all find it full.
    if (this.#hasGivenUp) return;
    this.#hasGivenUp = true;
    const words = reason instanceof Error ? `${reason.name}: ${reason.message}` : String(reason);
    this.#options.onUncached?.(words);
  }

  /** The browser's own cache would hold what is kept a second time. */
  #how(url: string): Pick<RequestInit, "cache"> {
    const path = this.#pathOf(url);
    if (path === RECORD || path === PARTS) return { cache: "no-cache" };
    if (this.#forgotten.has(path)) return { cache: "reload" };
    return { cache: this.#cache ? "no-store" : "default" };
  }

  /** The same answer; its bytes are counted as they come. */
  #counted(url: string, response: Response): Response {
    const path = this.#pathOf(url);
    if (!response.ok || !response.body || !this.#options.onProgress) return response;
    // A piece of a file adds to what has come of it; a file that comes as a whole begins anew.
    let come = response.status === 206 ? this.#come.get(path) ?? 0 : 0;
    const counter = new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => {
        this.#count(path, come += chunk.length);
        controller.enqueue(chunk);
      },
    });
    const { status, statusText, headers } = response;
    return new Response(response.body.pipeThrough(counter), { status, statusText, headers });
  }

  #count(path: string, bytes: number): void {
    if (path === RECORD || path === PARTS) return;
    this.#come.set(path, Math.min(bytes, this.#known.get(path)?.bytes ?? Infinity));
    const done = [...this.#come.values()].reduce((sum, bytes) => sum + bytes, 0);
    try {
      this.#options.onProgress?.({ done, total: this.#total });
    } catch (error) {
      this.#thrown ??= { error };
    }
  }

  /** What a file is kept under: a signature in the query is another one at each visit. */
  #address(path: string): string {
    const url = new URL(this.#base);
    url.search = "";
    url.pathname += checkedPath(path).split("/").map(encodeURIComponent).join("/");
    return url.href;
  }

  #pathOf(url: string): string {
    return decodeURIComponent(new URL(url).pathname.slice(this.#base.pathname.length));
  }
}

/** A file that is held as a whole, and read anew where it was damaged. */
class CachedFile implements SourceFile {
  readonly size: number;
  readonly #source: CachedSource;
  readonly #path: string;
  #bytes: Uint8Array<ArrayBuffer> | undefined;

  constructor(source: CachedSource, path: string, bytes: Uint8Array<ArrayBuffer>) {
    this.#source = source;
    this.#path = path;
    this.#bytes = bytes;
    this.size = bytes.length;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    checkBounds(`${this.#source.name}/${this.#path}`, this.size, offset, target.length);
    this.#bytes ??= await this.#source.read(this.#path, this.size);
    await contentFile(this.#bytes, this.#path).read(offset, target);
  }

  async forget(): Promise<boolean> {
    this.#bytes = undefined;
    return await this.#source.forget(this.#path);
  }

  close(): void {
    this.#bytes = undefined;
  }
}
