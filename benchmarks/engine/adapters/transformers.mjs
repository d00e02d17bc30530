/**
 * transformers.js in Node, on its default backend: onnxruntime-node.
 */
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { openModel } from "./transformers_model.mjs";

/**
 * @param {import("./engine.ts").EngineConfig} config
 * @returns {Promise<import("./engine.ts").Engine>}
 */
export async function open({ model, threads, variant, packages }) {
  const folder = join(packages, "node_modules", "@huggingface", "transformers");
  const path = join(folder, "dist", "transformers.node.mjs");
  const transformers = await import(pathToFileURL(path).href);
  transformers.env.localModelPath = dirname(model);
  const engine = await openModel(transformers, basename(model), {
    dtype: variant,
    session_options: { intraOpNumThreads: threads },
  });
  const ort = join(packages, "node_modules", "onnxruntime-node", "package.json");
  const { version } = JSON.parse(readFileSync(ort, "utf8"));
  return { ...engine, product: `${engine.product}, onnxruntime-node ${version}` };
}
