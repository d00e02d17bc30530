/**
 * A model on a web server.
 *
 * Large files are read by ranges where the server has them. Many have not, and answer with the whole
 * file: that is then taken once, into a `Blob`, which browsers may keep on disk. Servers of apps answer with
 * the app's page where there is no such file: no file of a model is a page.
 *
 * A server that has answered once is asked again where a connection breaks off, for what has not come yet, or where
 * it is busy.
 * @module
 */
import { AbortError, FileReadError, UsageError } from "../errors.ts";
import { isInPage } from "../platform/page.ts";
import { LONGEST_TIMER } from "../platform/timers.ts";
import { reasonOf } from "../platform/fetch_raw.ts";
import { again, brokenOff, refused, WAITS } from "./again.ts";
import { discard, isHtml, lengthOf, rangeOf, startsPage } from "./answer.ts";
import {
  checkBounds,
  checkedPath,
  checkSmall,
  contentFile,
  LARGEST_SMALL_FILE,
  type ModelSource,
  shortRead,
  type SourceFile,
} from "./source.ts";

/** Largest file that is taken whole: what a wasm memory holds. */
const LARGEST_WHOLE = 2 ** 32;
/** Milliseconds without a byte after which a connection counts as broken off: some break without a word. */
const PATIENCE = 30_000;
/** Asks whether there is a file, and how large it is. */
const FIRST_BYTE = "bytes=0-0";
/** Bytes of a body that are gathered before they go into a Blob. */
const PIECE = 16 << 20;
/** The part of `fetch` that is used. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** How files are asked for. */
export interface UrlSourceOptions {
  /** Headers of every request, e.g. `authorization`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Stops requests that are under way, and makes later ones fail. */
  readonly signal?: AbortSignal;
  /** In place of the runtime's own. */
  readonly fetch?: Fetch;
  /**
   * Milliseconds before each further attempt when a connection has broken off, or the server is busy (default: 250,
   * 1000, 4000); none: it is not tried again.
   */
  readonly waits?: readonly number[];
  /** Milliseconds without a byte after which a connection counts as broken off (default: 30,000). */
  readonly patience?: number;
}

/**
 * The files below a URL.
 *
 * @param base An http or https URL of the model's folder; its query goes along with every request, and so do user
 *   and password, in a header.
 * @throws {UsageError} When it is none.
 */
export function urlSource(base: string | URL, options: UrlSourceOptions = {}): ModelSource {
  return new UrlSource(base, options);
}

class UrlSource implements ModelSource {
  readonly name: string;
  readonly isFar = true;
  readonly #base: URL;
  readonly #options: UrlSourceOptions;
  /** Whether there is such a server, and it lets us in: else nobody is to wait for what will not come. */
  #hasAnswered = false;

  constructor(base: string | URL, options: UrlSourceOptions) {
    const url = URL.canParse(base) ? new URL(base) : undefined;
    if (url?.protocol !== "http:" && url?.protocol !== "https:") {
      throw new UsageError(`${JSON.stringify(String(base))} is no http or https URL of a model`);
    }
    this.#options = withCredentials(url, options);
    // Browsers and Node send no request to a URL with user and password, and tell whoever asks both.
    url.username = url.password = "";
    this.#base = url;
    // Without the query: it may be a secret.
    this.name = (url.origin + url.pathname).replace(/\/+$/, "");
  }

  has(path: string): Promise<boolean> {
    return this.again(() => this.#has(path));
  }

  read(path: string, largest = LARGEST_SMALL_FILE): Promise<Uint8Array<ArrayBuffer>> {
    return this.again(() => this.#read(path, largest));
  }

  open(path: string): Promise<SourceFile> {
    return this.again(() => this.#open(path));
  }

  /**
   * Makes an attempt, and others where the connection breaks off.
   *
   * @param done Bytes that attempts have brought, where the next one goes on from there.
   */
  again<T>(attempt: () => Promise<T>, done?: () => number): Promise<T> {
    const { signal, waits = WAITS } = this.#options;
    return again(attempt, { signal, done, waits: () => this.#hasAnswered ? waits : [] });
  }

  async #has(path: string): Promise<boolean> {
    // Not HEAD: servers that sign URLs allow one method.
    const response = await this.request(path, FIRST_BYTE);
    await discard(response);
    // 416: there is a file, and it has no first byte.
    if (response.ok || response.status === 416) return !await this.#isPage(path, response);
    // 403: stores of objects say so of what is not there to all who may not list it. Where nothing may be read, the
    // files that must be there say it.
    if ([403, 404, 410].includes(response.status)) return false;
    throw this.#failed(path, response);
  }

  async #read(path: string, largest: number): Promise<Uint8Array<ArrayBuffer>> {
    const place = this.#place(path);
    const response = await this.request(path);
    const blob = await this.whole(path, response, largest);
    const bytes = new Uint8Array(blob.size);
    await contentFile(blob, place).read(0, bytes);
    if (isHtml(response) && startsPage(bytes)) throw this.#isNotThere(path);
    return bytes;
  }

  async #open(path: string): Promise<SourceFile> {
    const place = this.#place(path);
    const response = await this.request(path, FIRST_BYTE);
    if (response.ok && await this.#isPage(path, response)) {
      await discard(response);
      throw this.#isNotThere(path);
    }
    const range = rangeOf(response);
    if (range && range.first === 0 && range.last === 0) {
      await discard(response);
      return new RangedFile(this, path, place, range.size, response.headers.get("etag"));
    }
    if (response.status === 200) {
      return contentFile(await this.whole(path, response, LARGEST_WHOLE), place);
    }
    await discard(response);
    // A range without its place, or none at all, as of an empty file: the file can still be had whole.
    if (response.status !== 206 && response.status !== 416) throw this.#failed(path, response);
    return contentFile(
      await this.whole(path, await this.request(path), LARGEST_WHOLE),
      place,
    );
  }

  /** Asks for a file or a range of it; any status is an answer. */
  async request(path: string, range?: string): Promise<Response> {
    const { headers, signal } = this.#options;
    const url = new URL(this.#base);
    const folder = url.pathname.replace(/\/+$/, "");
    url.pathname = `${folder}/${checkedPath(path).split("/").map(encodeURIComponent).join("/")}`;
    // Ranges are of the file's own bytes; browsers see to that by themselves.
    const own: Record<string, string> = range ? { range, "accept-encoding": "identity" } : {};
    const init: RequestInit = { headers: { ...headers, ...own }, signal };
    // A browser would keep that byte, and ask for the others only: of a server that compresses, Chromium then gives
    // the byte alone. Other runtimes keep nothing, and not all of them know the word.
    if (range === FIRST_BYTE && isInPage()) init.cache = "no-store";
    const answer = this.#ask(url, init);
    try {
      const response = await this.#inTime(answer);
      if (response.ok) this.#hasAnswered = true;
      return response;
    } catch (cause) {
      // It may come after all.
      answer.then(discard, () => {});
      throw this.broken(path, cause);
    }
  }

  /** A promise even of what throws. */
  async #ask(url: URL, init: RequestInit): Promise<Response> {
    const { fetch = globalThis.fetch } = this.#options;
    return await fetch(url.href, init);
  }

  /** The body of an answer to a request for a whole file. */
  async whole(path: string, response: Response, largest: number): Promise<Blob> {
    const place = this.#place(path);
    if (response.status !== 200) {
      await discard(response);
      throw this.#failed(path, response);
    }
    const declared = lengthOf(response);
    try {
      checkSmall(place, declared ?? 0, largest);
    } catch (error) {
      await discard(response);
      throw error;
    }
    const parts: Blob[] = [];
    let pending: Uint8Array<ArrayBuffer>[] = [];
    let [size, gathered] = [0, 0];
    await this.#eachChunk(path, response, (chunk) => {
      checkSmall(place, size += chunk.length, largest);
      pending.push(chunk);
      gathered += chunk.length;
      if (gathered < PIECE) return;
      parts.push(new Blob(pending));
      [pending, gathered] = [[], 0];
    });
    if (declared !== undefined && size < declared) throw shortRead(place, size, declared);
    return new Blob([...parts, ...pending]);
  }

  /**
   * Fills `target` with the body of an answer, which must have as many bytes.
   *
   * @param onBytes Told of so many more.
   */
  async fill(
    path: string,
    response: Response,
    target: Uint8Array,
    onBytes: (count: number) => void,
  ): Promise<void> {
    let done = 0;
    await this.#eachChunk(path, response, (chunk) => {
      if (done + chunk.length > target.length) {
        throw new FileReadError(
          `${this.#place(path)}: the server gave more than the ${target.length} bytes asked for`,
        );
      }
      target.set(chunk, done);
      done += chunk.length;
      onBytes(chunk.length);
    });
    if (done !== target.length) throw shortRead(this.#place(path), done, target.length);
  }

  /** The error for a connection that broke, or was stopped. */
  broken(path: string, cause: unknown): Error {
    if (this.#options.signal?.aborted) {
      return new AbortError(`${this.#place(path)}: stopped before the end`, { cause });
    }
    return brokenOff(`cannot read ${this.#place(path)}: ${reasonOf(cause)}`, cause);
  }

  async #eachChunk(
    path: string,
    response: Response,
    take: (chunk: Uint8Array<ArrayBuffer>) => void,
  ): Promise<void> {
    const reader = response.body?.getReader();
    if (!reader) return;
    try {
      for (;;) {
        const { done, value } = await this.#inTime(reader.read()).catch((cause) => {
          throw this.broken(path, cause);
        });
        if (done) return;
        take(value);
      }
    } finally {
      // Where all was read, there is nothing left to stop.
      await reader.cancel().catch(() => {});
    }
  }

  /** What a promise gives, if that comes in time. */
  async #inTime<T>(promise: Promise<T>): Promise<T> {
    const { patience = PATIENCE } = this.#options;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<never>((_, fail) => {
      const reason = `nothing has come for ${patience / 1000} s`;
      timer = setTimeout(() => fail(new Error(reason)), Math.min(patience, LONGEST_TIMER));
    });
    try {
      return await Promise.race([promise, silence]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether the answer is a page, which stands for a file that is not there. */
  async #isPage(path: string, response: Response): Promise<boolean> {
    if (!isHtml(response)) return false;
    // What there is may be one byte.
    const again = await this.request(path);
    if (!again.ok) {
      await discard(again);
      throw this.#failed(path, again);
    }
    const reader = again.body?.getReader();
    try {
      const first = reader && await this.#inTime(reader.read());
      return first?.value !== undefined && startsPage(first.value);
    } catch (cause) {
      throw this.broken(path, cause);
    } finally {
      await reader?.cancel().catch(() => {});
    }
  }

  #isNotThere(path: string): FileReadError {
    return new FileReadError(
      `cannot read ${
        this.#place(path)
      }: the server answered with a page in its place: there is no such file`,
    );
  }

  #failed(path: string, response: Response): FileReadError {
    const reason = `${response.status} ${response.statusText}`.trim();
    return refused(`cannot read ${this.#place(path)}: the server answered ${reason}`, response);
  }

  #place(path: string): string {
    return `${this.name}/${path}`;
  }
}

/** A file of a server that has ranges. */
class RangedFile implements SourceFile {
  readonly #source: UrlSource;
  readonly #path: string;
  readonly #place: string;
  readonly #etag: string | null;
  /** The whole file, where the server has stopped giving ranges. */
  #whole: Promise<SourceFile> | undefined;

  constructor(
    source: UrlSource,
    path: string,
    place: string,
    readonly size: number,
    etag: string | null,
  ) {
    this.#source = source;
    this.#path = path;
    this.#place = place;
    this.#etag = etag;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    checkBounds(this.#place, this.size, offset, target.length);
    let done = 0;
    await this.#source.again(
      () => this.#readOn(offset + done, target.subarray(done), (count) => done += count),
      () => done,
    );
  }

  /** Reads what has not come yet. */
  async #readOn(
    offset: number,
    target: Uint8Array,
    onBytes: (count: number) => void,
  ): Promise<void> {
    if (target.length === 0) return;
    if (this.#whole) return (await this.#whole).read(offset, target);
    const last = offset + target.length - 1;
    const response = await this.#source.request(this.#path, `bytes=${offset}-${last}`);
    if (response.status === 200) {
      if (this.#whole) await discard(response);
      else {
        this.#whole = this.#takeWhole(response);
        // One that broke off is no file.
        this.#whole.catch(() => this.#whole = undefined);
      }
      return (await this.#whole).read(offset, target);
    }
    const range = rangeOf(response);
    const etag = response.headers.get("etag");
    const changed = range?.size !== this.size || (etag ?? this.#etag) !== this.#etag;
    if (range?.first !== offset || range.last !== last || changed) {
      await discard(response);
      const { status } = response;
      if (!range && !response.ok) {
        throw refused(`cannot read ${this.#place}: the server answered ${status}`, response);
      }
      throw new FileReadError(
        `${this.#place}: the server answered ${status} to a request for bytes ${offset} to ` +
          `${last} of ${this.size}${range ? ": the file has changed" : ""}`,
      );
    }
    await this.#source.fill(this.#path, response, target, onBytes);
  }

  close(): void {
    this.#whole = undefined;
  }

  async #takeWhole(response: Response): Promise<SourceFile> {
    const blob = await this.#source.whole(this.#path, response, LARGEST_WHOLE);
    if (blob.size !== this.size) throw shortRead(this.#place, blob.size, this.size);
    return contentFile(blob, this.#place);
  }
}

/** The options, and the header that says user and password of a URL where nothing else is to be said. */
function withCredentials(
  { username, password }: URL,
  { headers = {}, ...options }: UrlSourceOptions,
): UrlSourceOptions {
  const isSaid = Object.keys(headers).some((name) => name.toLowerCase() === "authorization");
  if (isSaid || (username === "" && password === "")) return { ...options, headers };
  const words = [username, password].map(decoded).join(":");
  const bytes = String.fromCharCode(...new TextEncoder().encode(words));
  return { ...options, headers: { ...headers, authorization: `Basic ${btoa(bytes)}` } };
}

/** What stands in a URL, as it is meant; a percent sign that begins nothing is one. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
