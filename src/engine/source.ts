/**
 * Where an engine reads a model from, so that it need not know of file systems.
 *
 * Here are the interface and files in memory; `folder_source.ts` and `url_source.ts` are the others.
 * Browsers can import this module and the one for URLs.
 * @module
 */
import { quote } from "../checks.ts";
import { FileReadError, UsageError } from "../errors.ts";

/** Bytes of a file that is read whole, where its reader names no limit. */
export const LARGEST_SMALL_FILE = 256 << 20;

/** The files of one model. Paths are relative to it, with slashes, e.g. `onnx/model.onnx`. */
export interface ModelSource {
  /** For messages. */
  readonly name: string;
  /** Whether files come over a network, so that what is read twice costs twice. */
  readonly isFar?: boolean;
  /** Whether there is such a file. */
  has(path: string): Promise<boolean>;
  /**
   * Reads a small file whole.
   *
   * @param path Where it is.
   * @param largest Bytes above which it is refused, before more than that has been read.
   * @throws {FileReadError} When it is not there, is too large or cannot be read.
   */
  read(path: string, largest?: number): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Reads a file whole into bytes of the caller's, exactly as many, for those who use them again: where
   * memory is little, what is thrown away counts until it is collected. Not all sources have it.
   *
   * @throws {FileReadError} When it is not there, has another length or cannot be read.
   */
  readInto?(path: string, target: Uint8Array): Promise<void>;
  /**
   * Opens a file of any size.
   *
   * @throws {FileReadError} When it is not there or cannot be read.
   */
  open(path: string): Promise<SourceFile>;
  /**
   * Drops copies of a file that turned out to be damaged.
   *
   * @returns Whether reading it again may give something else.
   */
  forget?(path: string): Promise<boolean>;
}

/** An open file of a model. */
export interface SourceFile {
  /** Bytes in it. */
  readonly size: number;
  /**
   * Fills `target` with the bytes from `offset` on. Reads may overlap in time.
   *
   * @throws {FileReadError} When they are not all there.
   */
  read(offset: number, target: Uint8Array): Promise<void>;
  /** Whether reading compares with hashes, piece by piece, so that a few bytes take as long as a piece. */
  readonly isChecked?: boolean;
  /**
   * The same file once more, for those who read a few bytes now and then, as long as they like: with no more time and
   * memory than these take, and unchecked. It is closed for itself. Files on this machine have it.
   */
  direct?(): SourceFile;
  /** The same as `forget` of {@linkcode ModelSource}, for these bytes. */
  forget?(offset: number, length: number): Promise<boolean>;
  /** Closes it; a second call does nothing. */
  close(): void;
}

/** What a model is called by: of where it lies on the web the last part, so that nobody is told the rest. */
export function modelName({ name, isFar }: ModelSource): string {
  if (!isFar) return name;
  const last = name.split("/").at(-1) || name;
  try {
    const decoded = decodeURIComponent(last);
    return /[/\\\p{Cc}]/u.test(decoded) ? last : decoded;
  } catch {
    return last;
  }
}

/** What a file in memory is, or one that a browser holds. */
export type FileContent = Uint8Array | Blob;

/**
 * Files in memory, or `Blob`s: those that a user chose in a browser, say.
 *
 * @param files By path.
 * @param name For messages.
 * @throws {UsageError} When there are none, or one is neither bytes nor a Blob.
 */
export function filesSource(
  files: ReadonlyMap<string, FileContent> | Readonly<Record<string, FileContent>>,
  name = "files",
): ModelSource {
  // Who writes JavaScript may hand over anything.
  if (typeof files !== "object" || files === null) {
    throw new UsageError(`${name}: give the files by their paths, {"onnx/model.onnx": …}`);
  }
  const byPath = files instanceof Map ? files : new Map(Object.entries(files));
  for (const [path, content] of byPath) {
    if (content instanceof Uint8Array || content instanceof Blob) continue;
    throw new UsageError(`${name}: ${quote(String(path))} is neither a Uint8Array nor a Blob`);
  }
  const contentOf = (path: string): FileContent => {
    const content = byPath.get(checkedPath(path));
    if (content) return content;
    // As browsers name what is in a folder that somebody has chosen.
    const longer = [...byPath.keys()].find((one) => one.endsWith(`/${path}`));
    throw new FileReadError(
      `${name}: there is no file ${quote(path)}` +
        (longer === undefined
          ? ""
          : `, but ${quote(longer)}: give paths as they are inside the model's folder`),
    );
  };
  return {
    name,
    has: (path) => Promise.resolve(byPath.has(checkedPath(path))),
    async read(path, largest = LARGEST_SMALL_FILE) {
      const file = contentFile(contentOf(path), `${name}/${path}`);
      checkSmall(`${name}/${path}`, file.size, largest);
      const bytes = new Uint8Array(file.size);
      await file.read(0, bytes);
      return bytes;
    },
    // A promise even of what throws.
    open: async (path) => await contentFile(contentOf(path), `${name}/${path}`),
  };
}

/** Bytes that are copied out of a Blob at a time. */
const PIECE = 16 << 20;

/**
 * Bytes or a Blob, as an open file.
 *
 * @param place Where they are from, for messages.
 */
export function contentFile(content: FileContent, place: string): SourceFile {
  const size = content instanceof Blob ? content.size : content.length;
  const file: SourceFile = {
    size,
    // Bytes would stay in memory as a whole for a few of them.
    ...content instanceof Blob ? { direct: () => file } : {},
    async read(offset, target) {
      checkBounds(place, size, offset, target.length);
      if (content instanceof Uint8Array) {
        target.set(content.subarray(offset, offset + target.length));
        return;
      }
      for (let done = 0; done < target.length; done += PIECE) {
        const end = Math.min(done + PIECE, target.length);
        const piece = await bytesOf(content.slice(offset + done, offset + end), place);
        if (piece.length !== end - done) throw shortRead(place, piece.length, end - done);
        target.set(piece, done);
      }
    },
    close() {},
  };
  return file;
}

async function bytesOf(blob: Blob, place: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (cause) {
    // A file behind a Blob can change or go away.
    throw new FileReadError(`cannot read ${place}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * A path that stays inside the model.
 *
 * @throws {FileReadError} When it could lead out of it.
 */
export function checkedPath(path: string): string {
  const climbs = path.split("/").some((part) => part === "" || part === "." || part === "..");
  if (!climbs && !/[\\:\0]/.test(path)) return path;
  throw new FileReadError(`${quote(path)} is no path of a file inside a model`);
}

/**
 * Checks that bytes lie inside a file.
 *
 * @throws {FileReadError} When they do not.
 */
export function checkBounds(place: string, size: number, offset: number, length: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && offset + length <= size) return;
  throw new FileReadError(
    `${place} has ${size} bytes, and bytes ${offset} to ${offset + length} were asked for`,
  );
}

/**
 * Checks the size of a file that is read whole.
 *
 * @throws {FileReadError} When it is too large.
 */
export function checkSmall(place: string, size: number, largest: number): void {
  if (size <= largest) return;
  throw new FileReadError(`${place} has ${size} bytes; at most ${largest} are read for this use`);
}

/** The error for a file that gave fewer bytes than it has. */
export function shortRead(place: string, got: number, wanted: number): FileReadError {
  return new FileReadError(
    `${place} gave ${got} of ${wanted} bytes: it was truncated or has changed; fetch it again`,
  );
}
