/**
 * The files of a compiled model as a bundle has them: large ones in parts (`engine/parts_source.ts`).
 * @module
 */
import { join } from "node:path";
import { throwIfAborted } from "../checks.ts";
import type { RunHooks } from "../api/options.ts";
import { ownFiles } from "../checkpoint/own_files.ts";
import { hashesOf, LARGEST_RECORD, RECORD } from "../engine/integrity.ts";
import { PART_BYTES, partPath, PARTS, type Parts } from "../engine/parts_source.ts";
import { TEXT_FILES } from "../generate/read_text.ts";
import { letEventsIn } from "../platform/events.ts";
import { readText, writeBytes, writeText } from "../platform/files.ts";
import { makeFolder } from "../platform/folders.ts";
import { fileSize } from "../platform/paths.ts";
import { PositionedFile } from "../platform/positioned_file.ts";
import { hashFile } from "../platform/hash.ts";

/** A file of a model. */
export interface ModelFile {
  /** Its path in the model. */
  readonly path: string;
  readonly bytes: number;
}

/**
 * The files of a compiled model that go into a bundle. Hidden ones are none of its: they are those of git and
 * of what fetched it, the weights a second time and secrets among them; nor is what links lead to elsewhere.
 *
 * @param model Its folder.
 * @returns `strays`: links that are left out.
 */
export function modelFiles(model: string): { files: ModelFile[]; strays: readonly string[] } {
  const { paths, strays } = ownFiles(model);
  const files = paths.map((path) => ({ path, bytes: fileSize(join(model, path)) ?? 0 }));
  return { files, strays };
}

/** Bytes of files, all together. */
export function bytesOf(files: readonly ModelFile[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}

/**
 * The record of a model as its folder is now. Pages ask for the files that it names and for no other, so a chat
 * template that was put there since gets its hashes, and what was taken away has none.
 *
 * @returns Undefined where it stays as it is.
 */
function renewedRecord(model: string, files: readonly ModelFile[]): string | undefined {
  const place = join(model, RECORD);
  if (fileSize(place) === undefined) return undefined;
  const text = readText(place, LARGEST_RECORD);
  const { files: known, chunk } = hashesOf(new TextEncoder().encode(text), place);
  const there = new Set(files.map(({ path }) => path));
  const added = TEXT_FILES.filter((path) => there.has(path) && !known.has(path));
  const gone = [...known.keys()].filter((path) => !there.has(path));
  if (known.size === 0 || added.length + gone.length === 0) return undefined;
  const record = JSON.parse(text);
  for (const path of gone) delete record.files.hashes[path];
  for (const path of added) record.files.hashes[path] = hashFile(join(model, path), chunk);
  return `${JSON.stringify(record, null, 2)}\n`;
}

/**
 * Copies a model's files, each that is larger than a part in parts.
 *
 * @param model Folder of the compiled model.
 * @param folder Where to; made where it is not there.
 * @returns Bytes of the model, and of its largest file as written.
 * @throws {DiskFullError} When there is no room.
 * @throws {AbortError} When the signal says so.
 */
export async function copyInParts(
  model: string,
  folder: string,
  hooks: RunHooks,
): Promise<{ bytes: number; largest: number }> {
  const { files } = modelFiles(model);
  const total = bytesOf(files);
  const parts: Parts = { format: 1, partBytes: PART_BYTES, files: {} };
  let done = 0;
  let largest = 0;
  for (const { path, bytes: size } of files) {
    const isSplit = size > PART_BYTES;
    if (isSplit) parts.files[path] = size;
    makeFolder(join(folder, path, ".."));
    const file = PositionedFile.open(join(model, path), "read");
    try {
      for (let at = 0, index = 0; at < size || at === 0; at += PART_BYTES, index++) {
        throwIfAborted(hooks.signal);
        const piece = new Uint8Array(Math.min(PART_BYTES, size - at));
        file.read(piece, at);
        writeBytes(join(folder, isSplit ? partPath(path, index) : path), piece);
        done += piece.length;
        largest = Math.max(largest, piece.length);
        hooks.onProgress?.({ type: "progress", phase: "copy model", done, total, unit: "bytes" });
        // Copying is all synchronous: Ctrl-C comes in here.
        await letEventsIn();
      }
    } finally {
      file.close();
    }
  }
  const record = renewedRecord(model, files);
  if (record !== undefined) writeText(join(folder, RECORD), record);
  writeText(join(folder, PARTS), `${JSON.stringify(parts, null, 2)}\n`);
  return { bytes: total, largest };
}
