/**
 * A model whose large files lie in parts: web hosts limit the size of a file, and not all of them send a
 * range of one.
 *
 * `parts.json` says which files, how large they are, and how large a part is; part 3 of `x` is the file
 * `x.part0003`. Parts are as large as the pieces that have a hash (`integrity.ts`), so that each is
 * fetched once.
 *
 * @module
 */
import { z } from "zod";
import { quote } from "../checks.ts";
import { FileReadError } from "../errors.ts";
import { CHUNK } from "./integrity.ts";
import { checkBounds, checkSmall, LARGEST_SMALL_FILE, type ModelSource } from "./source.ts";
import type { SourceFile } from "./source.ts";

/** The file that says which files lie in parts. */
export const PARTS = "parts.json";
/** Bytes of a part that `bundle` makes. */
export const PART_BYTES = CHUNK;
/** Bytes of the largest `parts.json` that is read. */
const LARGEST_PARTS = 1 << 20;
/** Bytes of the largest part that is read: it is in memory as a whole. */
const LARGEST_PART = 64 << 20;

const partsSchema = z.strictObject({
  format: z.literal(1),
  partBytes: z.int().min(1 << 16).max(LARGEST_PART),
  /** Bytes of each file that lies in parts. */
  files: z.record(z.string(), z.int().min(1)),
});

/** What `parts.json` holds. */
export type Parts = z.output<typeof partsSchema>;

/** The path of a part, counted from 0. */
export function partPath(path: string, index: number): string {
  return `${path}.part${String(index).padStart(4, "0")}`;
}

/**
 * Makes a source in which files that lie in parts are whole.
 *
 * @param source Where the parts are; one without `parts.json` is given back as it is.
 * @throws {FileReadError} When `parts.json` makes no sense. Later, when a part is not there or has
 *   another length.
 */
export async function partsSource(source: ModelSource): Promise<ModelSource> {
  if (!await source.has(PARTS)) return source;
  const text = new TextDecoder().decode(await source.read(PARTS, LARGEST_PARTS));
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new FileReadError(`${source.name}/${PARTS} is no JSON: bundle the model again`, {
      cause,
    });
  }
  const parts = partsSchema.safeParse(json);
  if (!parts.success) {
    const [issue] = parts.error.issues;
    throw new FileReadError(
      `${source.name}/${PARTS}: ${
        issue.path.join(".") || "it"
      }: ${issue.message}: bundle the model again`,
    );
  }
  return new InParts(source, parts.data);
}

class InParts implements ModelSource {
  readonly name: string;
  readonly isFar: boolean;
  readonly #source: ModelSource;
  readonly #parts: Parts;

  constructor(source: ModelSource, parts: Parts) {
    this.name = source.name;
    this.isFar = source.isFar ?? false;
    this.#source = source;
    this.#parts = parts;
  }

  async has(path: string): Promise<boolean> {
    return this.#sizeOf(path) !== undefined || await this.#source.has(path);
  }

  async read(path: string, largest = LARGEST_SMALL_FILE): Promise<Uint8Array<ArrayBuffer>> {
    const size = this.#sizeOf(path);
    if (size === undefined) return await this.#source.read(path, largest);
    checkSmall(`${this.name}/${path}`, size, largest);
    const bytes = new Uint8Array(size);
    await new PartsFile(this.#source, path, size, this.#parts.partBytes).read(0, bytes);
    return bytes;
  }

  async open(path: string): Promise<SourceFile> {
    const size = this.#sizeOf(path);
    if (size === undefined) return await this.#source.open(path);
    return new PartsFile(this.#source, path, size, this.#parts.partBytes);
  }

  async forget(path: string): Promise<boolean> {
    const size = this.#sizeOf(path);
    if (size === undefined) return await this.#source.forget?.(path) ?? false;
    return await new PartsFile(this.#source, path, size, this.#parts.partBytes).forget(0, size);
  }

  #sizeOf(path: string): number | undefined {
    return Object.hasOwn(this.#parts.files, path) ? this.#parts.files[path] : undefined;
  }
}

class PartsFile implements SourceFile {
  readonly size: number;
  readonly #source: ModelSource;
  readonly #path: string;
  readonly #partBytes: number;
  /** The part that was read last: who reads ahead in small steps asks for it again. */
  #latest: { readonly index: number; readonly bytes: Promise<Uint8Array> } | undefined;

  constructor(source: ModelSource, path: string, size: number, partBytes: number) {
    this.#source = source;
    this.#path = path;
    this.size = size;
    this.#partBytes = partBytes;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    checkBounds(`${this.#source.name}/${this.#path}`, this.size, offset, target.length);
    for (let done = 0; done < target.length;) {
      const index = Math.floor((offset + done) / this.#partBytes);
      const from = offset + done - index * this.#partBytes;
      const wanted = this.#bytesOf(index);
      // Who takes a part as a whole, as those do who check it, keeps it if need be.
      if (this.#source.readInto && from === 0 && target.length - done >= wanted) {
        const path = partPath(this.#path, index);
        await this.#source.readInto(path, target.subarray(done, done + wanted));
        done += wanted;
        continue;
      }
      const bytes = await this.#part(index);
      const piece = bytes.subarray(from, from + target.length - done);
      if (piece.length === bytes.length) this.#latest = undefined;
      target.set(piece, done);
      done += piece.length;
    }
  }

  async forget(offset: number, length: number): Promise<boolean> {
    const first = Math.floor(offset / this.#partBytes);
    const end = Math.ceil((offset + length) / this.#partBytes);
    let mayChange = false;
    for (let index = first; index < end; index++) {
      if (this.#latest?.index === index) this.#latest = undefined;
      if (await this.#source.forget?.(partPath(this.#path, index))) mayChange = true;
    }
    return mayChange;
  }

  close(): void {
    this.#latest = undefined;
  }

  #bytesOf(index: number): number {
    return Math.min(this.#partBytes, this.size - index * this.#partBytes);
  }

  #part(index: number): Promise<Uint8Array> {
    if (this.#latest?.index === index) return this.#latest.bytes;
    const bytes = this.#fetch(index);
    this.#latest = { index, bytes };
    bytes.catch(() => this.#latest = undefined);
    return bytes;
  }

  async #fetch(index: number): Promise<Uint8Array> {
    const path = partPath(this.#path, index);
    const wanted = Math.min(this.#partBytes, this.size - index * this.#partBytes);
    let bytes = await this.#source.read(path, wanted);
    if (bytes.length !== wanted && await this.#source.forget?.(path)) {
      bytes = await this.#source.read(path, wanted);
    }
    if (bytes.length === wanted) return bytes;
    throw new FileReadError(
      `${this.#source.name}/${quote(path)} has ${bytes.length} of ${wanted} bytes: upload it again`,
    );
  }
}
