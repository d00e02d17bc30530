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
  const file = PositionedFile.open(path, "read");
  const { size } = file;
  let open = true;
  return {
    size,
    async read(offset, target) {
      checkBounds(path, size, offset, target.length);
      // The system may have given its number to another file.
      if (!open) throw new FileReadError(`${path} has been closed`);
      await Promise.resolve(file.read(target, offset));
    },
    close() {
      open = false;
      file.close();
    },
  };
}
