/**
 * Checking a model's files against the hashes that `compile` wrote, while they are read.
 *
 * `espalier.json` has a SHA-256 for every piece of every file. A piece is read as a whole, checked, and
 * only then given to whoever asked for a part of it: what is damaged is never used. The record itself
 * is trusted: this finds damage, and a file of another model, but keeps no attacker out.
 *
 * @module
 */
import { z } from "zod";
import { throwIfAborted } from "../checks.ts";
import { IntegrityError } from "../errors.ts";
import { giveBack } from "../platform/garbage.ts";
import { sha256Of } from "../platform/sha256.ts";
import { checkBounds, checkSmall, LARGEST_SMALL_FILE, type ModelSource } from "./source.ts";
import type { SourceFile } from "./source.ts";

/** Bytes that one hash stands for. */
export const CHUNK = 4 << 20;
/** The file that holds the hashes. */
export const RECORD = "espalier.json";
/** Bytes of the largest record that is read. */
export const LARGEST_RECORD = 64 << 20;
/** Checked pieces of a file that are kept: tensors are read one after the other, the next piece ahead. */
const KEPT = 2;
/**
 * The same where they come over a network. Of a block not all matrices are read in the order in which they lie: with
 * two, the piece before the next was asked for again, and a model of 72 MB took 135; with three it takes 85.
 */
const KEPT_OF_FAR = 3;

/** What to do about it. */
const ADVICE =
  "fetch or copy it again; where it was changed on purpose, change it in the checkpoint and compile " +
  "that, or load the model unchecked";

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const recordSchema = z.looseObject({
  files: z.looseObject({
    chunkBytes: z.int().min(1 << 16).max(1 << 28),
    hashes: z.record(
      z.string(),
      z.looseObject({ bytes: z.int().min(0), sha256, chunks: z.array(sha256) }),
    ),
  }).optional(),
});

/** What is known of a file. */
export interface Known {
  readonly bytes: number;
  readonly chunks: readonly string[];
}

/** A source, and the paths of the files that it checks. */
export interface CheckedSource {
  readonly source: ModelSource;
  /** Empty for a model whose record has no hashes. */
  readonly paths: readonly string[];
}

/**
 * Makes a source that checks what it reads.
 *
 * @param source A compiled model; one without hashes is read as it is.
 * @throws {IntegrityError} When its record is damaged. Later, from reading, when a file differs from it.
 */
export async function checkedSource(source: ModelSource): Promise<CheckedSource> {
  if (!await source.has(RECORD)) return { source, paths: [] };
  const record = await source.read(RECORD, LARGEST_RECORD);
  const { chunk, files } = hashesOf(record, `${source.name}/${RECORD}`);
  if (files.size === 0) return { source, paths: [] };
  return { source: new Checking(source, record, files, chunk), paths: [...files.keys()] };
}

/** The hashes in a record. */
export interface Hashes {
  /** Bytes that one stands for. */
  readonly chunk: number;
  /** By path; none for a model whose record has no hashes. */
  readonly files: ReadonlyMap<string, Known>;
}

/**
 * Reads the hashes in a record.
 *
 * @param place What it is called, for messages.
 * @throws {IntegrityError} When it is damaged.
 */
export function hashesOf(bytes: Uint8Array, place: string): Hashes {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    throw new IntegrityError(`${place} is no JSON: compile or fetch the model again`, { cause });
  }
  const record = recordSchema.safeParse(json);
  if (!record.success) {
    throw new IntegrityError(
      `${place}: the hashes of files cannot be read: compile or fetch the model again`,
    );
  }
  const { files } = record.data;
  if (!files) return { chunk: CHUNK, files: new Map() };
  const known = new Map(Object.entries(files.hashes));
  for (const [path, { bytes, chunks }] of known) {
    if (chunks.length !== Math.ceil(bytes / files.chunkBytes)) {
      throw new IntegrityError(
        `${place}: ${path} has ${bytes} bytes and ${chunks.length} hashes of pieces of ` +
          `${files.chunkBytes}: compile or fetch the model again`,
      );
    }
  }
  return { chunk: files.chunkBytes, files: known };
}

/**
 * Reads files to their ends, for engines that read them by themselves afterwards.
 *
 * @throws {IntegrityError} When one differs from its hashes.
 */
export async function checkFiles(source: ModelSource, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const file = await source.open(path);
    try {
      const buffer = new Uint8Array(Math.min(CHUNK, file.size));
      for (let at = 0; at < file.size; at += buffer.length) {
        await file.read(at, buffer.subarray(0, Math.min(buffer.length, file.size - at)));
      }
    } finally {
      file.close();
    }
  }
}

/**
 * Reads all files of a model that there are hashes of; those that are not there are missed by who needs them.
 *
 * @throws {IntegrityError} When one differs from its hashes.
 * @throws {AbortError} When the signal says so.
 */
export async function checkModel(
  { source, paths }: CheckedSource,
  signal?: AbortSignal,
): Promise<void> {
  for (const path of paths) {
    throwIfAborted(signal);
    if (await source.has(path)) await checkFiles(source, [path]);
  }
}

class Checking implements ModelSource {
  readonly name: string;
  readonly isFar: boolean | undefined;
  readonly #source: ModelSource;
  /** The record, which has been read already: others look into it as well. */
  readonly #record: Uint8Array<ArrayBuffer>;
  readonly #known: ReadonlyMap<string, Known>;
  readonly #chunk: number;

  constructor(
    source: ModelSource,
    record: Uint8Array<ArrayBuffer>,
    known: ReadonlyMap<string, Known>,
    chunk: number,
  ) {
    this.name = source.name;
    this.isFar = source.isFar;
    this.#source = source;
    this.#record = record;
    this.#known = known;
    this.#chunk = chunk;
  }

  has(path: string): Promise<boolean> {
    return this.#source.has(path);
  }

  async read(path: string, largest = LARGEST_SMALL_FILE): Promise<Uint8Array<ArrayBuffer>> {
    if (path === RECORD) {
      checkSmall(`${this.name}/${path}`, this.#record.length, largest);
      return this.#record.slice();
    }
    const known = this.#known.get(path);
    if (!known) return await this.#source.read(path, largest);
    const file = await this.#open(path, known);
    try {
      checkSmall(`${this.name}/${path}`, file.size, largest);
      return await file.readAll();
    } finally {
      file.close();
    }
  }

  async open(path: string): Promise<SourceFile> {
    const known = this.#known.get(path);
    return known ? await this.#open(path, known) : await this.#source.open(path);
  }

  async #open(path: string, known: Known): Promise<CheckedFile> {
    const file = await this.#source.open(path);
    const place = `${this.name}/${path}`;
    if (file.size !== known.bytes) {
      file.close();
      throw new IntegrityError(
        `${place} has ${file.size} bytes, and had ${known.bytes} when it was compiled: ${ADVICE}`,
      );
    }
    const kept = this.#source.isFar ? KEPT_OF_FAR : KEPT;
    return new CheckedFile(place, file, known.chunks, this.#chunk, kept);
  }
}

/** A piece that is read and checked, or is about to be. */
interface Piece {
  readonly bytes: Promise<Uint8Array<ArrayBuffer>>;
  /** The memory that it lies in. */
  readonly room: ArrayBuffer;
  /** Who is not done with it: reads, what fills and checks it, and the file as long as it keeps it. */
  users: number;
}

/** A file of which every piece is checked before any of it is given. */
class CheckedFile implements SourceFile {
  readonly isChecked = true;
  readonly size: number;
  /** There where the file itself has it. */
  readonly direct: (() => SourceFile) | undefined;
  readonly #place: string;
  readonly #file: SourceFile;
  readonly #hashes: readonly string[];
  readonly #chunk: number;
  readonly #most: number;
  /** Pieces that were read last, the latest last. */
  readonly #kept = new Map<number, Piece>();
  /** Memory of pieces that nobody needs, for the next ones: garbage would lie about for long. */
  readonly #spare: ArrayBuffer[] = [];
  /** The piece that was asked for last. */
  #latest = -1;
  #isClosed = false;

  /** @param most Pieces that are kept. */
  constructor(
    place: string,
    file: SourceFile,
    hashes: readonly string[],
    chunk: number,
    most: number,
  ) {
    this.#most = most;
    this.size = file.size;
    this.#place = place;
    this.#file = file;
    this.direct = file.direct && (() => file.direct!());
    this.#hashes = hashes;
    this.#chunk = chunk;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    checkBounds(this.#place, this.size, offset, target.length);
    for (let done = 0; done < target.length;) {
      const at = offset + done;
      const index = Math.floor(at / this.#chunk);
      const piece = this.#piece(index);
      piece.users++;
      try {
        const bytes = await piece.bytes;
        const from = at - index * this.#chunk;
        const part = bytes.subarray(from, from + target.length - done);
        target.set(part, done);
        done += part.length;
      } finally {
        this.#leave(piece);
      }
    }
  }

  /** The whole file; each piece is checked where it stays. */
  async readAll(): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(this.size);
    for (let index = 0; index < this.#hashes.length; index++) {
      const from = index * this.#chunk;
      await this.#readPiece(index, from, bytes.subarray(from, from + this.#chunk));
    }
    return bytes;
  }

  close(): void {
    this.#isClosed = true;
    for (const index of [...this.#kept.keys()]) this.#forget(index);
    for (const room of this.#spare.splice(0)) giveBack(room);
    this.#file.close();
  }

  #piece(index: number): Piece {
    const piece = this.#keep(index);
    // While this one is used, the next one is read and checked, unless somebody jumps about.
    if (index === this.#latest + 1 && index + 1 < this.#hashes.length) this.#keep(index + 1);
    this.#latest = index;
    return piece;
  }

  #keep(index: number): Piece {
    let piece = this.#kept.get(index);
    this.#kept.delete(index);
    if (!piece) {
      // The first is the one that was used least recently.
      if (this.#kept.size === this.#most) this.#forget(this.#kept.keys().next().value!);
      piece = this.#start(index);
    }
    this.#kept.set(index, piece);
    return piece;
  }

  #start(index: number): Piece {
    const from = index * this.#chunk;
    const length = Math.min(this.#chunk, this.size - from);
    // All but the last are of one length.
    const spare = this.#spare.pop();
    const room = spare && spare.byteLength >= length ? spare : new ArrayBuffer(length);
    const bytes = this.#readPiece(index, from, new Uint8Array(room, 0, length));
    const piece: Piece = { bytes, room, users: 2 };
    bytes.then(
      () => this.#leave(piece),
      () => {
        // The next time it may be there.
        if (this.#kept.get(index) === piece) this.#forget(index);
        this.#leave(piece);
      },
    );
    return piece;
  }

  /** Keeps a piece no longer. */
  #forget(index: number): void {
    const piece = this.#kept.get(index)!;
    this.#kept.delete(index);
    this.#leave(piece);
  }

  /** One is done with a piece. */
  #leave(piece: Piece): void {
    piece.users--;
    if (piece.users > 0) return;
    if (this.#isClosed) giveBack(piece.room);
    else this.#spare.push(piece.room);
  }

  async #readPiece(
    index: number,
    from: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    for (let isLast = false;; isLast = true) {
      await this.#file.read(from, bytes);
      if (await sha256Of(bytes) === this.#hashes[index]) return bytes;
      // A copy that somebody keeps may be damaged where the file itself is not.
      const mayChange = await this.#file.forget?.(from, bytes.length);
      if (isLast || !mayChange) break;
    }
    throw new IntegrityError(
      `${this.#place} is damaged: bytes ${from} to ${from + bytes.length} (piece ${index + 1} of ` +
        `${this.#hashes.length}) are not what compile wrote: ${ADVICE}`,
    );
  }
}
