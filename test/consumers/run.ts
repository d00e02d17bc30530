/**
 * Runs compiled models in stock runtimes, and compares with what our own code computes: Python's onnx
 * and ONNX Runtime, transformers.js in Node and Deno.
 *
 *     bun test/consumers/run.ts
 *
 * Everything is installed into temporary folders. Where Python, a runtime or a registry is not there,
 * that part is skipped; with CI=true a registry that fails is a failure.
 * @module
 */
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fromRoot } from "../support/paths.ts";
import { type Made, makeModels, PROMPT, PROMPT_IDS } from "./models.ts";
import { Checks, has, makePython, npmInstall, runJson, withFolder } from "./support.ts";

const PIP_PACKAGES = ["onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6"];
const TRANSFORMERS_JS = "@huggingface/transformers@4.3.1";
/** Files that make up a model: config.json, tokenizer.json, onnx/model.onnx, onnx/model.onnx_data. */
const FILES = 4;
/** Tokens after the prompt. */
const TOKENS = 16;
/** Cached steps in Python; the first token needs none. */
const STEPS = 8;
/** Largest difference of a logit, as a part of it. */
const TOLERANCE = 1e-4;

/** What onnx_check.py prints. */
interface PythonResult {
  readonly versions: Record<string, string>;
  readonly models: {
    model: string;
    operators: string[];
    unfolded: string[];
    tokens: number[];
    top: number[];
  }[];
}

/** What transformers_js.mjs prints. */
interface ScriptResult {
  readonly runtime: string;
  readonly version: string;
  readonly models: { model: string; file: Generated; http: Generated }[];
  /** What the server answered, by status. */
  readonly requests: Record<string, number>;
}

interface Generated {
  readonly ids: number[];
  readonly tokens: number[];
  readonly text: string;
}

async function checkPython(checks: Checks, models: readonly Made[], folder: string): Promise<void> {
  console.log("\nPython: onnx.checker, shape inference, onnxruntime");
  const python = await makePython(folder, PIP_PACKAGES);
  if ("why" in python) {
    return python.net ? checks.missing("Python", python.why) : checks.skip("Python", python.why);
  }
  const script = fromRoot("test/consumers/onnx_check.py");
  for (const { name, folder, expected } of models) {
    await checks.part(name, async () => {
      const result = await runJson<PythonResult>([
        python.path,
        script,
        "--prompt",
        PROMPT_IDS.join(),
        "--steps",
        String(STEPS),
        folder,
      ]);
      const [found] = result.models;
      const operators = found.operators.join(", ");
      checks.that(`${name} is valid, with ${operators}`, found.operators.length > 0);
      checks.same(`${name}: all is unpacked at load`, found.unfolded, []);
      checks.same(`${name}: tokens`, found.tokens, expected.tokens.slice(0, STEPS + 1));
      const worst = Math.max(
        ...found.top.map((logit, i) => Math.abs(logit - expected.top[i]) / Math.abs(logit)),
      );
      checks.that(
        `${name}: logits agree to ${worst.toExponential(1)}`,
        worst < TOLERANCE,
        () => `more than ${TOLERANCE}`,
      );
    });
  }
}

async function checkTransformersJs(
  checks: Checks,
  models: readonly Made[],
  folder: string,
): Promise<void> {
  console.log(`\n${TRANSFORMERS_JS}`);
  // The script runs from where the package is, so that its import finds it in every runtime.
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
  const failed = await npmInstall(folder, [TRANSFORMERS_JS]);
  if (failed) return checks.missing("transformers.js", failed);
  /** What was generated, by model and runtime. */
  const texts = new Map<string, Map<string, string>>();
  const script = join(folder, "transformers_js.mjs");
  copyFileSync(fromRoot("test/consumers/transformers_js.mjs"), script);
  const runtimes: [string, string[]][] = [
    ["node", ["node"]],
    ["deno", ["deno", "run", "-A", "--node-modules-dir=manual"]],
  ];
  for (const [runtime, words] of runtimes) {
    if (!await has(runtime)) {
      checks.skip(`transformers.js in ${runtime}`, `no ${runtime} on PATH`);
      continue;
    }
    await checks.part(runtime, async () => {
      const result = await runJson<ScriptResult>([
        ...words,
        script,
        "--prompt",
        PROMPT,
        "--tokens",
        String(TOKENS),
        ...models.map(({ folder }) => folder),
      ], folder);
      checks.same(`${runtime} ${result.version} ran it`, result.runtime, runtime);
      const served = result.requests[200] ?? 0;
      checks.that(`${runtime}: ${served} files came over HTTP`, served >= FILES * models.length);
      for (const [i, { name, expected }] of models.entries()) {
        const { file, http } = result.models[i];
        const about = `${runtime}, ${name}`;
        checks.same(`${about}: the prompt's ids`, file.ids, PROMPT_IDS);
        checks.same(`${about}: tokens`, file.tokens, expected.tokens.slice(0, TOKENS));
        checks.same(`${about}: the same over HTTP`, http, file);
        texts.set(name, (texts.get(name) ?? new Map()).set(runtime, file.text));
      }
    });
  }
  for (const [name, byRuntime] of texts) {
    if (byRuntime.size < 2) continue;
    const [first, second] = byRuntime.values();
    checks.same(`${name}: the same text in ${[...byRuntime.keys()].join(" and ")}`, second, first);
  }
}

const checks = new Checks();
await withFolder(async (folder) => {
  const models = await makeModels(folder, TOKENS);
  for (const { name, expected } of models) {
    console.log(`${name}: the next best logit is at least ${expected.margin.toFixed(4)} behind`);
  }
  await checks.part("Python", () => withFolder((f) => checkPython(checks, models, f)));
  await checks.part(
    "transformers.js",
    () => withFolder((f) => checkTransformersJs(checks, models, f)),
  );
});
process.exitCode = checks.end();
