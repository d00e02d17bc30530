/**
 * The model of a binary: in it, or in a folder beside it.
 * @module
 */
import { dirname, join } from "node:path";
import process from "node:process";
import type { CarriedModel, PlacedModel } from "../cli/own_model.ts";
import { CheckpointNotFoundError } from "../errors.ts";
import type { LoadOptions } from "../generate/load_options.ts";
import { makeFolder } from "../platform/folders.ts";
import { isFolder } from "../platform/paths.ts";
import { PositionedFile } from "../platform/positioned_file.ts";
import { freeBytes } from "../platform/memory.ts";
import { TemporaryFolder } from "../platform/temporary.ts";
import { embeddedFiles } from "./embedded.ts";

/** Bytes that are copied at a time. */
const PIECE = 4 << 20;

/** What a binary was made with. */
export interface BinaryModel {
  /** What the model is called. */
  readonly name: string;
  /** Where Bun put each of its files, by its path in the model; undefined when it lies beside. */
  readonly files?: Readonly<Record<string, string>>;
  /** Where Bun put the file that says where they lie in the binary, on systems where they may be read so. */
  readonly places?: string;
  /** What `bundle` was told of context and cache; a command's own words go over it. */
  readonly context?: number;
  readonly kv: "auto" | "f32" | "int8";
  /** Whether the sparse engine has not all operators of the model. */
  readonly needsOrt: boolean;
}

/** The model of a binary, for its commands. */
export function carriedModel(model: BinaryModel): CarriedModel {
  return {
    settings: (options) => ({
      ...options,
      context: options.context ?? model.context,
      kv: options.kv === undefined || options.kv === "auto" ? model.kv : options.kv,
      engine: model.needsOrt && (options.engine ?? "auto") === "auto" ? "ort" : options.engine,
      memory: options.memory ?? freeBytes(),
    }),
    place: async (options) => {
      // Its folder is called by the program, which may be moved and named anew.
      if (!model.files) return { location: folderBeside(), name: model.name, dispose: () => {} };
      const files = await embeddedFiles(model.files, model.places);
      return isForOrt(options)
        ? await unpacked(model.name, files)
        : { location: { files, name: model.name }, dispose: () => {} };
    },
  };
}

function isForOrt({ engine, device }: LoadOptions): boolean {
  return engine === "ort" || device === "cpu" || device === "webgpu";
}

/**
 * The folder of a model that is not in the binary.
 *
 * @throws {CheckpointNotFoundError} When it is not there.
 */
function folderBeside(): string {
  const binary = process.execPath;
  const names = [`${binary}.model`, `${binary.replace(/\.exe$/i, "")}.model`];
  const found = names.find(isFolder);
  if (found !== undefined) return found;
  throw new CheckpointNotFoundError(
    `${
      names[0]
    } is not there: the model of this program lies in a folder beside it; move both together, ` +
      `or name another model`,
  );
}

/** ONNX Runtime takes folders: the files in one that goes once they have been loaded. */
async function unpacked(name: string, files: Record<string, Blob>): Promise<PlacedModel> {
  const temporary = new TemporaryFolder("model");
  const folder = join(temporary.path, name);
  try {
    for (const [path, blob] of Object.entries(files)) {
      const to = join(folder, path);
      makeFolder(dirname(to));
      const file = PositionedFile.open(to, "create");
      try {
        for (let at = 0; at < blob.size; at += PIECE) {
          file.write(new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer()), at);
        }
      } finally {
        file.close();
      }
    }
    return { location: folder, dispose: () => temporary.remove() };
  } catch (error) {
    temporary.remove();
    throw error;
  }
}
