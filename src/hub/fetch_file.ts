/**
 * Fetches one file into the cache: from where an earlier run broke off, and never more of it than was
 * promised.
 *
 * A partial file is named by the hash of the whole, so its bytes are the beginning of that or the hash
 * tells in the end. Writes go to positions: if two processes ever write the same one, they write the
 * same.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { dirname } from "node:path";
import { throwIfAborted } from "../checks.ts";
import {
  type EspalierError,
  FileWriteError,
  HashMismatchError,
  HubUnreachableError,
} from "../errors.ts";
import { letEventsIn } from "../platform/events.ts";
import { makeFolder, move, remove } from "../platform/folders.ts";
import { fileSize } from "../platform/paths.ts";
import { PositionedFile } from "../platform/positioned_file.ts";
import { lockFile } from "../platform/lock.ts";
import type { CachedRepository } from "./cache.ts";
import { type Answer, ATTEMPTS, type HubConnection, PassingFailure } from "./connection.ts";
import type { Subject } from "./failures.ts";
import type { HubFile } from "./listing.ts";

/** Bytes that are read at a time to hash what is there already. */
const PIECE = 4 << 20;

/** A file to fetch. */
export interface Wanted {
  readonly file: HubFile;
  readonly url: string;
  readonly subject: Subject;
}

/** Who is told. */
export interface FetchHooks {
  readonly signal: AbortSignal;
  /** How many bytes of the file there are now. */
  readonly onBytes: (done: number) => void;
  readonly note: (text: string) => void;
}

/**
 * Fetches a file, unless another process does: then it waits for that.
 *
 * @returns Where it came from: `cache` when another process has fetched it meanwhile.
 * @throws {AbortError} When the signal says so; what has come is kept for the next time.
 * @throws {HashMismatchError} When its content is another one, twice; nothing is kept then.
 * @throws {EspalierError} Of the class that says what else is wrong.
 */
export async function fetchFile(
  wanted: Wanted,
  connection: HubConnection,
  cache: CachedRepository,
  hooks: FetchHooks,
): Promise<"cache" | "network"> {
  const { file } = wanted;
  const lock = await lockFile(cache.lock(file), {
    signal: hooks.signal,
    onWait: () => hooks.note(`another process fetches ${file.path}: waiting for it`),
  });
  try {
    if (fileSize(cache.blob(file)) === file.bytes) {
      hooks.onBytes(file.bytes);
      return "cache";
    }
    const partial = cache.partial(file);
    makeFolder(dirname(partial));
    for (let isSecond = false;; isSecond = true) {
      const wrong = await fill(partial, wanted, connection, hooks, () => lock.held);
      if (!wrong) break;
      remove(partial);
      if (isSecond) throw wrong;
      hooks.note(`${file.path} came damaged: fetching it once more`);
    }
    move(partial, cache.blob(file));
    return "network";
  } finally {
    lock.release();
  }
}

/** Fills a partial file; what is wrong with its content then, if something is. */
async function fill(
  partial: string,
  { file, url, subject }: Wanted,
  connection: HubConnection,
  hooks: FetchHooks,
  isOurs: () => boolean,
): Promise<EspalierError | undefined> {
  const there = fileSize(partial) ?? 0;
  const opened = PositionedFile.open(partial, there > 0 ? "update" : "create");
  try {
    const content = new Content(opened, file);
    if (there > file.bytes) return mismatch(file, `${there} bytes`);
    await content.take(there, hooks.signal);
    hooks.onBytes(content.size);
    let best = content.size;
    let fruitless = 0;
    let etag: string | undefined;
    let ranges = true;
    while (content.size < file.bytes) {
      const from = ranges ? content.size : 0;
      const answer = await connection.open(url, subject, rangeOf(from, etag));
      const start = startOf(answer, from, file.bytes);
      const now = strongTag(answer);
      if (start === undefined) {
        answer.cancel();
        if (!ranges) return mismatch(file, "ranges that were not asked for");
        ranges = false;
        continue;
      }
      // Another one than the pieces before came from.
      if (etag !== undefined && now !== etag && start === 0) content.restart();
      etag = now;
      let failure: EspalierError | undefined;
      try {
        for await (const bytes of content.rest(answer, start)) {
          if (bytes > file.bytes) return mismatch(file, `more than ${file.bytes} bytes`);
          if (!isOurs()) throw lost(file);
          hooks.onBytes(bytes);
        }
      } catch (error) {
        if (!(error instanceof PassingFailure)) throw error;
        failure = error.failure.error;
      }
      if (content.size >= file.bytes) break;
      fruitless = content.size > best ? 0 : fruitless + 1;
      best = Math.max(best, content.size);
      if (fruitless === ATTEMPTS) {
        throw new HubUnreachableError(
          `${file.path} of ${subject.repository} broke off at byte ${content.size} of ${file.bytes}, ` +
            `${ATTEMPTS} times: what has come is kept, try again later` +
            (failure ? ` (${failure.message})` : ""),
          { cause: failure },
        );
      }
      await connection.pause(fruitless + 1);
    }
    const found = content.digest();
    if (found !== file.hash) return mismatch(file, `hash ${found}`);
    opened.flush();
    return undefined;
  } finally {
    opened.close();
  }
}

/** A content that grows, and its hash. */
class Content {
  readonly #file: PositionedFile;
  readonly #expected: HubFile;
  #hash: Hash;
  #size = 0;

  constructor(file: PositionedFile, expected: HubFile) {
    this.#file = file;
    this.#expected = expected;
    this.#hash = hashFor(expected);
  }

  get size(): number {
    return this.#size;
  }

  /** Takes bytes that are in the file already. */
  async take(size: number, signal: AbortSignal): Promise<void> {
    const buffer = new Uint8Array(Math.min(PIECE, size));
    while (this.#size < size) {
      throwIfAborted(signal);
      const piece = buffer.subarray(0, Math.min(PIECE, size - this.#size));
      this.#file.read(piece, this.#size);
      this.#hash.update(piece);
      this.#size += piece.length;
      await letEventsIn();
    }
  }

  /** Forgets all. */
  restart(): void {
    this.#hash = hashFor(this.#expected);
    this.#size = 0;
  }

  /**
   * Takes what an answer brings, past what is there already.
   *
   * @param start Position of the answer's first byte.
   * @returns The size after each piece; nothing is written beyond the size that was promised.
   */
  async *rest(answer: Answer, start: number): AsyncGenerator<number> {
    let at = start;
    for await (const piece of answer.body()) {
      const fresh = piece.subarray(Math.max(0, Math.min(piece.length, this.#size - at)));
      at += piece.length;
      if (at > this.#expected.bytes) {
        yield at;
        return;
      }
      if (fresh.length === 0) continue;
      this.#file.write(fresh, this.#size);
      this.#hash.update(fresh);
      this.#size += fresh.length;
      yield this.#size;
    }
  }

  digest(): string {
    return this.#hash.digest("hex");
  }
}

/** SHA-256, or git's hash of a blob, by the length of what is expected. */
function hashFor({ hash, bytes }: HubFile): Hash {
  return hash.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${bytes}\0`);
}

function rangeOf(from: number, etag: string | undefined): Record<string, string> {
  if (from === 0) return {};
  return { range: `bytes=${from}-`, ...(etag === undefined ? {} : { "if-range": etag }) };
}

/** Position of an answer's first byte; undefined when it cannot be used. */
function startOf(answer: Answer, from: number, bytes: number): number | undefined {
  const { status, headers } = answer;
  if (status === 200) return 0;
  if (
    status !== 206 || from === 0 || (headers.get("content-encoding") ?? "identity") !== "identity"
  ) {
    return undefined;
  }
  const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
  const fits = range && Number(range[1]) === from &&
    (range[2] === "*" || Number(range[2]) === bytes);
  return fits ? from : undefined;
}

/** What names a content exactly, where the server says it. */
function strongTag({ headers }: Answer): string | undefined {
  const tag = headers.get("etag") ?? undefined;
  return tag?.startsWith('"') ? tag : undefined;
}

function mismatch({ path, bytes, hash }: HubFile, found: string): HashMismatchError {
  return new HashMismatchError(
    `${path} has ${found}, the Hub lists ${bytes} bytes with hash ${hash}: what came was thrown away, ` +
      "try again later",
  );
}

function lost({ path }: HubFile): FileWriteError {
  return new FileWriteError(
    `another process took over ${path} while this one slept: start it again`,
  );
}
