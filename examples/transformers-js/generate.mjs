/**
 * Runs a compiled model in stock transformers.js.
 *
 *     node generate.mjs COMPILED_DIR PROMPT
 */
import { basename, dirname, resolve } from "node:path";
import process from "node:process";
import { env, pipeline } from "@huggingface/transformers";

const [folder, prompt] = process.argv.slice(2);
const model = resolve(folder);
env.allowRemoteModels = false;
env.localModelPath = dirname(model);

const generator = await pipeline("text-generation", basename(model), { dtype: "fp32" });
const [{ generated_text }] = await generator(prompt, { max_new_tokens: 20, do_sample: false });
console.log(generated_text);
await generator.dispose();
