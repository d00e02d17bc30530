/**
 * Our own engine in Node, as its users load it there: `espalier/run`, from `dist`.
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import process from "node:process";
import { engineOfOurs } from "./adapters/steps.ts";

// Not there before `bun run build`: type checkers must not look for it.
const { filesSource, runCompiled } = await import(
  new URL("../../dist/run.js", import.meta.url).href
);

/**
 * Loads a compiled model: all files of a folder.
 *
 * @param {{ model: string, threads: number }} config
 */
export async function open({ model: folder, threads }) {
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
  const files = paths.map((path) => [relative(folder, path), new Uint8Array(readFileSync(path))]);
  const model = await runCompiled(filesSource(Object.fromEntries(files)), { threads });
  return engineOfOurs(`Espalier in Node ${process.versions.node}`, model);
}
