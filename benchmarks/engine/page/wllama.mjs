/**
 * wllama in a page: llama.cpp's server in WebAssembly, asked for completions.
 *
 * A step is the time between two pieces of a streamed completion, which is what wllama gives its users:
 * it has no interface below that. llama.cpp samples; no logits come to JavaScript. Prompts go in as
 * text, so that the first token's time has llama.cpp's tokenizer in it, a part in a thousand.
 */
const PACKAGE = "/packages/@wllama/wllama";

/**
 * @param {import("../adapters/engine.ts").EngineConfig} config
 * @returns {Promise<import("../adapters/engine.ts").Engine>}
 */
export async function open({ model, threads, context }) {
  if (!crossOriginIsolated) throw new Error("the page may not share memory");
  const { Wllama } = await import(`${PACKAGE}/esm/index.js`);
  const { version } = await (await fetch(`${PACKAGE}/package.json`)).json();
  const wllama = new Wllama({ default: `${PACKAGE}/esm/wasm/wllama.wasm` }, {
    suppressNativeLog: true,
  });
  const file = await (await fetch(`/models/${model}`)).blob();
  // Two sequences with a cache of their own each: one is held while the other is used. The server
  // takes the one that begins like the prompt, which is checked below by what it found in its cache.
  await wllama.loadModel([file], {
    n_ctx: 2 * context,
    n_parallel: 2,
    kv_unified: false,
    n_threads: threads,
    n_gpu_layers: 0,
  });
  if (wllama.getNumThreads() !== threads) {
    throw new Error(`wllama took ${wllama.getNumThreads()} threads`);
  }
  let held;

  async function go(prompt, count, cached) {
    const all = { tokens: [], seconds: [] };
    let text = "";
    let timings;
    let start = performance.now();
    await wllama.createCompletion({
      prompt: prompt.text,
      max_tokens: count,
      temperature: 0,
      // Nothing before the argmax.
      samplers: ["temperature"],
      cache_prompt: cached > 0,
      stream: true,
      // What is below are the server's options, which wllama hands on: token ids with the text.
      verbose: true,
      return_tokens: true,
      timings_per_token: true,
      onData(chunk) {
        const now = performance.now();
        timings = chunk.timings ?? timings;
        const { text: piece, finish_reason } = chunk.choices[0];
        if (finish_reason !== null) return;
        all.tokens.push(...chunk.__verbose.tokens);
        all.seconds.push((now - start) / 1000);
        text += piece;
        start = now;
      },
    });
    const { prompt_n, cache_n } = timings;
    if (prompt_n + cache_n !== prompt.tokens.length || cache_n !== cached) {
      throw new Error(
        `llama.cpp ran ${prompt_n} tokens and found ${cache_n} in its cache, ` +
          `where ${prompt.tokens.length} were given and ${cached} held`,
      );
    }
    if (all.tokens.length !== count || all.seconds.length !== count) {
      throw new Error(`${all.tokens.length} tokens came in ${all.seconds.length} pieces`);
    }
    return { ...all, text };
  }

  return {
    product: `wllama ${version}, llama.cpp ${Wllama.getLibllamaVersion()}`,
    generate: (prompt, steps) => go(prompt, 1 + steps, 0),
    async hold(prompt) {
      const first = await go(prompt, 1, 0);
      held = {
        tokens: [...prompt.tokens, ...first.tokens],
        text: prompt.text + first.text,
      };
      return first;
    },
    async resume(steps) {
      // The first token's time has the way of the whole prompt into the worker in it.
      const { tokens, seconds } = await go(held, 1 + steps, held.tokens.length - 1);
      return { tokens: tokens.slice(1), seconds: seconds.slice(1) };
    },
    close: () => wllama.exit(),
  };
}
