/**
 * Runs a compiled model with plain onnxruntime-web, in the page that loads this.
 *
 * `globalThis.greedy({ model, provider, prompt, steps })` gives the likeliest token after the prompt,
 * and after each of the cached steps; `globalThis.adapter()` what WebGPU there is.
 */

/** Builds of onnxruntime-web, by execution provider. */
const BUILDS = { wasm: "/ort/ort.wasm.min.mjs", webgpu: "/ort/ort.webgpu.min.mjs" };

globalThis.adapter = async () => {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return undefined;
  const { vendor, architecture, description } = adapter.info;
  return [vendor, architecture, description].filter(Boolean).join(" ") || "unnamed adapter";
};

globalThis.greedy = async ({ model, provider, prompt, steps }) => {
  const ort = await import(BUILDS[provider]);
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(`/models/${model}/onnx/model.onnx`, {
    executionProviders: [provider],
    externalData: [{ path: "model.onnx_data", data: `/models/${model}/onnx/model.onnx_data` }],
    logSeverityLevel: 3,
  });
  const int64 = (values) =>
    new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  const cache = {};
  for (const { name, shape } of session.inputMetadata) {
    if (!name.startsWith("past_key_values.")) continue;
    cache[name] = new ort.Tensor("float32", new Float32Array(0), [1, shape[1], 0, shape[3]]);
  }
  const tokens = [];
  const top = [];
  let given = prompt;
  let seen = 0;
  for (let step = 0; step <= steps; step++) {
    const total = seen + given.length;
    const outputs = await session.run({
      input_ids: int64(given),
      attention_mask: int64(new Array(total).fill(1)),
      position_ids: int64(given.map((_, i) => seen + i)),
      ...cache,
    });
    const { data, dims } = outputs.logits;
    const logits = data.subarray(data.length - dims[2]);
    const token = logits.reduce((best, logit, i) => logit > logits[best] ? i : best, 0);
    tokens.push(token);
    top.push(logits[token]);
    for (const name of Object.keys(cache)) {
      cache[name] = outputs[name.replace("past_key_values", "present")];
    }
    given = [token];
    seen = total;
  }
  await session.release();
  return { version: ort.env.versions.web, tokens, top };
};

/** The same by our own engine, of `dist/run.js`. */
globalThis.ours = async ({ model, threads, background, prompt, steps }) => {
  const { runCompiled, urlSource } = await import("/dist/run.js");
  const source = urlSource(new URL(`/models/${model}/`, location.href));
  const loaded = await runCompiled(source, { threads, background });
  const sequence = loaded.open();
  const tokens = [];
  const top = [];
  let given = prompt;
  for (let step = 0; step <= steps; step++) {
    const logits = await sequence.run(given);
    const token = logits.reduce((best, logit, i) => logit > logits[best] ? i : best, 0);
    tokens.push(token);
    top.push(logits[token]);
    given = [token];
  }
  sequence.close();
  await loaded.close();
  return { version: loaded.info.device, tokens, top };
};
