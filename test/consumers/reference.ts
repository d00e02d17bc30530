/**
 * What a compiled model should say: its weights unpacked by our own code into a dense checkpoint, and
 * that run without a cache.
 *
 *     reference.ts --prompt 1,2,3 [--steps 9] COMPILED_DIR...
 *
 * prints one JSON object for each folder: {model, tokens, top}.
 * @module
 */
import { basename, join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { expand } from "../../mod.ts";
import { FAST, forward, load } from "../support/models.ts";
import { withFolder } from "./support.ts";

/** The likeliest tokens after a prompt. */
export interface Greedy {
  readonly tokens: readonly number[];
  /** The logit of each. */
  readonly top: readonly number[];
  /** How far the next best is behind, at the closest: below 1e-3 or so, runtimes may differ. */
  readonly margin: number;
}

/**
 * Computes the likeliest tokens, one after another, from the whole window each time.
 *
 * @param folder Of a compiled model.
 * @param prompt Token ids.
 * @param steps How many tokens.
 */
export function greedy(folder: string, prompt: readonly number[], steps: number): Promise<Greedy> {
  return withFolder(async (temporary) => {
    const dense = join(temporary, "dense");
    await expand({ model: folder, output: dense, dtype: "f32" });
    const loaded = await load(dense, FAST, prompt.length + steps);
    try {
      const window = [...prompt];
      const top: number[] = [];
      let margin = Infinity;
      for (let step = 0; step < steps; step++) {
        const logits = (await forward(loaded.model, window)).slice(-loaded.spec.vocabulary);
        const token = logits.reduce((best, logit, i) => logit > logits[best] ? i : best, 0);
        window.push(token);
        top.push(logits[token]);
        logits[token] = -Infinity;
        margin = Math.min(margin, top[step] - logits.reduce((a, b) => Math.max(a, b)));
      }
      return { tokens: window.slice(prompt.length), top, margin };
    } finally {
      await loaded.close();
    }
  });
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { prompt: { type: "string" }, steps: { type: "string", default: "9" } },
  });
  if (!values.prompt || positionals.length === 0) {
    console.error("usage: reference.ts --prompt 1,2,3 [--steps 9] COMPILED_DIR...");
    process.exit(2);
  }
  const prompt = values.prompt.split(",").map(Number);
  for (const folder of positionals) {
    const found = await greedy(resolve(folder), prompt, Number(values.steps));
    console.log(JSON.stringify({ model: basename(resolve(folder)), ...found }));
  }
}
