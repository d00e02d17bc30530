/**
 * llama.cpp in Node: node-llama-cpp with its prebuilt library, on the CPU.
 *
 * A step is the next token of `sequence.evaluate`, which samples in llama.cpp: no logits come to
 * JavaScript.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** Tokens of a sequence that is not held. */
const SHORT = 1024;

/**
 * @param {import("./engine.ts").EngineConfig} config
 * @returns {Promise<import("./engine.ts").Engine>}
 */
export async function open({ model: path, threads, context, packages }) {
  const folder = join(packages, "node_modules", "node-llama-cpp");
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const { getLlama } = await import(pathToFileURL(join(folder, "dist", "index.js")).href);
  const llama = await getLlama({
    gpu: false,
    build: "never",
    skipDownload: true,
    progressLogs: false,
    logLevel: "error",
    maxThreads: threads,
  });
  const model = await llama.loadModel({ modelPath: path });
  // A context each: attention then has to look at a sequence's own cells only.
  const sequenceOf = async (contextSize) =>
    (await model.createContext({ contextSize, threads: { ideal: threads, min: threads } }))
      .getSequence();
  const short = await sequenceOf(SHORT);
  const long = await sequenceOf(context);
  const { release } = llama.llamaCppRelease;
  let held;

  async function go(sequence, tokens, count) {
    const all = { tokens: [], seconds: [] };
    let start = performance.now();
    for await (const token of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
      const now = performance.now();
      all.tokens.push(token);
      all.seconds.push((now - start) / 1000);
      start = now;
      if (all.tokens.length === count) break;
    }
    return all;
  }

  return {
    product: `node-llama-cpp ${version}, llama.cpp ${release}`,
    async generate(prompt, steps) {
      await short.clearHistory();
      return await go(short, [...prompt.tokens], 1 + steps);
    },
    async hold(prompt) {
      await long.clearHistory();
      const first = await go(long, [...prompt.tokens], 1);
      held = { length: prompt.tokens.length, token: first.tokens[0] };
      return first;
    },
    async resume(steps) {
      const { length, token } = held;
      await long.eraseContextTokenRanges([{ start: length, end: long.nextTokenIndex }]);
      return await go(long, [token], steps);
    },
    close: () => llama.dispose(),
  };
}
