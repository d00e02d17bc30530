/**
 * A Worker that serves two compiled models, which lie in it: the example, and the same with a chat
 * template. `server.js`, `wasm` and the models' folders lie beside it.
 */
import { createApp, filesSource, runCompiled } from "./server.js";
import relaxed from "./wasm/relaxed.unshared.wasm";
import relaxedFused from "./wasm/relaxed-fused.unshared.wasm";
import simd from "./wasm/simd.unshared.wasm";
import config from "./plain/config.json";
import generationConfig from "./plain/generation_config.json";
import graph from "./plain/onnx/model.onnx";
import weights from "./plain/onnx/model.onnx_data";
import tokenizer from "./plain/tokenizer.json";
import plainTokenizerConfig from "./plain/tokenizer_config.json";
import chatTokenizerConfig from "./chat/tokenizer_config.json";

/** Loads one of them. */
async function open(name, tokenizerConfig) {
  const files = {
    "config.json": config,
    "generation_config.json": generationConfig,
    "onnx/model.onnx": graph,
    "onnx/model.onnx_data": weights,
    "tokenizer.json": tokenizer,
    "tokenizer_config.json": tokenizerConfig,
  };
  const bytes = Object.entries(files).map(([path, data]) => [path, new Uint8Array(data)]);
  return await runCompiled(filesSource(Object.fromEntries(bytes), name), {
    kernels: { relaxed, "relaxed-fused": relaxedFused, simd },
  });
}

let app;

/** Tells of what fails in the server itself. */
function log(entry) {
  if (entry.event === "error") console.error(JSON.stringify(entry));
}

export default {
  async fetch(request, env, context) {
    // At the first request: before it nothing may be computed for long.
    app ??= createApp(
      [await open("plain", plainTokenizerConfig), await open("chat", chatTokenizerConfig)],
      { log },
    );
    return await app.fetch(request, env, context);
  },
};
