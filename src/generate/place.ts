/**
 * Where models lie: in folders, on web servers, in memory.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { partsSource } from "../engine/parts_source.ts";
import { type FileContent, filesSource, modelName, type ModelSource } from "../engine/source.ts";
import { urlSource } from "../engine/url_source.ts";
import { quote } from "../checks.ts";
import { UsageError } from "../errors.ts";
import type { LoadSettings } from "./load_options.ts";

/** The page of a model at the Hub, or of its files. */
const HUB_PAGE =
  /^https?:\/\/(?:www\.)?(?:huggingface\.co|hf\.co)\/([\w.-]+\/[\w.-]+)(?:\/tree\/([\w.-]+))?\/?$/i;

/** The files of a compiled model by their paths in its folder, e.g. `onnx/model.onnx`. */
export interface ModelFiles {
  readonly files: ReadonlyMap<string, FileContent> | Readonly<Record<string, FileContent>>;
  /** What the model is called by. Default: `files`. */
  readonly name?: string;
}

/**
 * A folder of a compiled model or of a checkpoint, an http, https or file URL of such a folder (of a
 * compiled model where it is on the web, whole or in parts), or the files themselves.
 */
export type ModelLocation = string | URL | ModelFiles;

/** A compiled model that has been found. */
export interface Place {
  /** What it is called by. */
  readonly name: string;
  readonly source: ModelSource;
  /** Its folder, where it has one: ONNX Runtime reads that. */
  readonly folder?: string;
  /** Bytes of its `onnx` folder, where that is known without asking. */
  readonly bytes?: number;
  /** Paths of the files that the source checks while it reads them. */
  readonly checked?: readonly string[];
  /** Removes what was made to have it. */
  readonly dispose: () => void;
}

/**
 * Finds a model; a checkpoint is compiled first.
 *
 * @throws {UsageError} For what is none of the forms of a location.
 * @throws {EspalierError} As `compile` does.
 */
export async function findPlace(
  model: ModelLocation,
  settings: LoadSettings,
  hooks: RunHooks,
): Promise<Place> {
  // Who writes JavaScript may hand over anything.
  if (typeof model === "object" && model && "files" in model) {
    const source = filesSource(model.files, model.name);
    return { name: source.name, source, dispose: () => {} };
  }
  const url = urlOf(model);
  if (url && url.protocol !== "file:") {
    const [, name, revision = "main"] = HUB_PAGE.exec(url.href) ?? [];
    if (name !== undefined) {
      const hf = `hf:${name}${revision === "main" ? "" : `@${revision}`}`;
      throw new UsageError(`${url.href} is a page of the Hub, and no folder of files: write ${hf}`);
    }
    // What a bundle has on a server lies in parts.
    const source = await partsSource(urlSource(url, { signal: hooks.signal }));
    return { name: modelName(source), source, dispose: () => {} };
  }
  if (typeof model !== "string" && !url) {
    throw new UsageError("name a folder, a URL, or {files}: nothing else can be loaded");
  }
  // Not before it is needed: browsers and edge functions have no file system.
  const { folderPlace } = await import("./folder_place.ts");
  return await folderPlace(url ?? model as string, settings, hooks);
}

/** The URL that a location is; a word before a colon may also be a drive of Windows. */
function urlOf(model: string | URL): URL | undefined {
  if (model instanceof URL) return model;
  if (!/^(https?|file):\/\//i.test(model)) return undefined;
  if (!URL.canParse(model)) throw new UsageError(`${quote(model)} is no URL`);
  return new URL(model);
}
