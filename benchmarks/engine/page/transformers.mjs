/**
 * transformers.js in a page, on WebAssembly.
 */
import { openModel } from "../adapters/transformers_model.mjs";

const PACKAGE = "/packages/@huggingface/transformers/dist/transformers.js";
const ORT = "/packages/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify";

/**
 * @param {import("../adapters/engine.ts").EngineConfig} config
 * @returns {Promise<import("../adapters/engine.ts").Engine>}
 */
export async function open({ model, threads, variant }) {
  if (!crossOriginIsolated) throw new Error("the page may not share memory");
  // A name in a variable, so that who only checks this file need not have the package.
  const transformers = await import(PACKAGE);
  const { env } = transformers;
  env.localModelPath = "/models/";
  const { wasm, versions } = env.backends.onnx;
  // The build that it would fetch from a CDN.
  const { origin } = location;
  wasm.wasmPaths = { mjs: `${origin}${ORT}.mjs`, wasm: `${origin}${ORT}.wasm` };
  wasm.numThreads = threads;
  const engine = await openModel(transformers, model, { dtype: variant, device: "wasm" });
  return { ...engine, product: `${engine.product}, onnxruntime-web ${versions.web}` };
}
