// With npm and a bundler this is "espalier/run".
import { cachedSource, runCompiled } from "./run.js";

let running;

async function load() {
  const source = await cachedSource(new URL("model/", import.meta.url), {
    onProgress: ({ done, total }) =>
      postMessage({
        state: `Loading: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`,
      }),
  });
  // Only a page that is isolated by its headers may share memory between threads.
  return await runCompiled(source, { threads: crossOriginIsolated ? undefined : 1 });
}

async function answer(model, prompt) {
  running = new AbortController();
  postMessage({ state: "Writing …", busy: true });
  try {
    const messages = [{ role: "user", content: prompt }];
    const options = { temperature: 0.7, maxTokens: 200, signal: running.signal };
    for await (const piece of model.generate(model.canChat ? messages : prompt, options)) {
      if (piece.type === "text") postMessage({ text: piece.text });
      else {
        const pace = piece.completionTokens / piece.seconds.decode;
        postMessage({ state: `${pace.toFixed(0)} tokens/s`, ready: true });
      }
    }
  } catch (error) {
    postMessage({ state: error.message, ready: true });
  }
}

const model = load();
model.then(
  () => postMessage({ state: "Ready", ready: true }),
  (error) => postMessage({ state: error.message }),
);
onmessage = async ({ data }) => {
  if (data.stop) running?.abort();
  else await answer(await model, data.prompt);
};
