/**
 * A model in a folder of this machine.
 * @module
 */
import { join } from "node:path";
import { FileReadError } from "../errors.ts";
import { noFile } from "../platform/file_errors.ts";
import { fileSize } from "../platform/paths.ts";
import { PositionedFile } from "../platform/positioned_file.ts";
import {
  checkBounds,
  checkedPath,
  checkSmall,
  LARGEST_SMALL_FILE,
  type ModelSource,
  type SourceFile,
} from "./source.ts";

/**
 * The files below a folder.
 *
 * @param folder The model's folder, e.g. one that `compile` wrote.
 */
export function folderSource(folder: string): ModelSource {
  const at = (path: string) => join(folder, checkedPath(path));
  return {
    name: folder,
    has: async (path) => await Promise.resolve(fileSize(at(path)) !== undefined),
    async read(path, largest = LARGEST_SMALL_FILE) {
      const file = openFile(at(path));
      try {
        checkSmall(at(path), file.size, largest);
        const bytes = new Uint8Array(file.size);
        await file.read(0, bytes);
        return bytes;
      } finally {
        file.close();
      }
    },
    open: async (path) => await Promise.resolve(openFile(at(path))),
  };
}

function openFile(path: string): SourceFile {
  // Folders can be opened too.
  if (fileSize(path) === undefined) throw noFile(path);
  return new FolderFile(PositionedFile.open(path, "read"));
}

/** A file of which there may be several: the last that is closed closes it. */
class FolderFile implements SourceFile {
  readonly size: number;
  readonly #file: PositionedFile;
  readonly #users: { count: number };
  #isOpen = true;

  constructor(file: PositionedFile, users = { count: 0 }) {
    this.#file = file;
    this.size = file.size;
    this.#users = users;
    users.count++;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    const { path } = this.#file;
    checkBounds(path, this.size, offset, target.length);
    // The system may have given its number to another file.
    if (!this.#isOpen) throw new FileReadError(`${path} has been closed`);
    await Promise.resolve(this.#file.read(target, offset));
  }

  direct(): SourceFile {
    return new FolderFile(this.#file, this.#users);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (--this.#users.count === 0) this.#file.close();
  }
}
