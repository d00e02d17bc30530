/**
 * What the bundles of edge functions have in common: the model's files, and the literal of their entries.
 * @module
 */
import { join } from "node:path";
import { copyFile } from "../platform/files.ts";
import { makeFolder, pathsIn } from "../platform/folders.ts";
import { copyInParts } from "./model_files.ts";
import type { Bundle } from "../edge/handler.ts";
import type { TargetInput } from "./target.ts";

/**
 * Copies the model in parts, and says what is there as the entry of a function wants to know it.
 *
 * @param folder Below the bundle's folder.
 * @param engine How the engine runs the model.
 * @returns That, and the bytes of the largest file.
 */
export async function writeModel(
  { name, model, folder: output, settings, hooks }: TargetInput,
  folder: string,
  engine: Bundle["engine"],
): Promise<{ bundle: Bundle; largest: number }> {
  const target = join(output, folder);
  makeFolder(target);
  const { largest } = await copyInParts(model, target, hooks);
  const files = pathsIn(target);
  return { bundle: { name, files, parallel: settings.parallel, engine }, largest };
}

/** Copies files of the build. */
export function copyBuilt(dist: string, folder: string, paths: readonly string[]): void {
  for (const path of paths) {
    const target = join(folder, path);
    makeFolder(join(target, ".."));
    copyFile(join(dist, path), target);
  }
}

/** A value as it stands in an entry. */
export function literal(value: unknown): string {
  return JSON.stringify(value, null, 2);
}
