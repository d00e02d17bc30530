/**
 * A Worker that runs a compiled model: it is given a JSON object, and answers with one.
 *
 * `dist` lies beside it, and its kernels are imported, since workerd compiles none.
 */
import { filesSource, runCompiled, urlSource } from "./dist/run.js";
import relaxed from "./dist/wasm/relaxed.unshared.wasm";
import relaxedFused from "./dist/wasm/relaxed-fused.unshared.wasm";
import shared from "./dist/wasm/simd.wasm";
import simd from "./dist/wasm/simd.unshared.wasm";

/** What may be handed over. */
const KERNELS = {
  all: { relaxed, "relaxed-fused": relaxedFused, simd },
  simd: { simd },
  shared: { simd: shared },
  none: undefined,
};

/** A model's files, fetched first. */
async function fetchFiles(url, paths) {
  const files = {};
  for (const path of paths) {
    const response = await fetch(new URL(path, url));
    if (response.ok) files[path] = new Uint8Array(await response.arrayBuffer());
    else await response.body?.cancel();
  }
  return filesSource(files);
}

/** The likeliest tokens after a text, and the seconds that the load and each token but the first took. */
async function greedy({ url, files, kernels, options, prompt, tokens: count }) {
  const started = performance.now();
  const source = files ? await fetchFiles(url, files) : urlSource(url);
  const model = await runCompiled(source, { kernels: KERNELS[kernels], ...options });
  const loaded = performance.now();
  const tokens = [];
  let end;
  for await (
    const piece of model.generate(prompt, { temperature: 0, maxTokens: count, ignoreEos: true })
  ) {
    if (piece.type === "text") tokens.push(...piece.tokens);
    else end = piece;
  }
  await model.close();
  const { device, background, threads } = model.info;
  return {
    tokens,
    info: { device, background, threads },
    seconds: { load: (loaded - started) / 1000, ...end.seconds },
  };
}

export default {
  async fetch(request) {
    try {
      return Response.json({ value: await greedy(await request.json()) });
    } catch (error) {
      const { name, code, message, stack } = error;
      return Response.json({ error: { name, code, message, stack } });
    }
  },
};
