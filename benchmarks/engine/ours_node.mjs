/**
 * Our own engine in Node, as its users load it there: `espalier/run`, from `dist`.
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { filesSource, runCompiled } from "../../dist/run.js";
import { engineOfSteps, likeliest } from "./adapters/steps.ts";

/**
 * Loads a compiled model, all files of a folder. A step is as in `ours.ts`.
 *
 * @param {{ model: string, threads: number }} config
 */
export async function open({ model: folder, threads }) {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
  const model = await runCompiled(
    filesSource(
      Object.fromEntries(
        names.map((name) => [name.slice(folder.length + 1), new Uint8Array(readFileSync(name))]),
      ),
    ),
    { threads },
  );
  const begin = () => {
    const sequence = model.open();
    return {
      run: async (tokens) => likeliest(await sequence.run(tokens, { within: 0 })),
      mark() {
        const { length } = sequence;
        return () => sequence.truncate(length);
      },
      close: () => sequence.close(),
    };
  };
  const product = `Espalier in Node ${process.versions.node}, ${model.info.device}`;
  return {
    ...engineOfSteps(product, begin, () => model.close()),
    tokenBytes: model.info.tokenBytes,
  };
}
