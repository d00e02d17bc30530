/**
 * Runs compiled models in workerd, what Cloudflare Workers run on, with our own engine (`dist/run.js`, so
 * build first), and compares the tokens with those that are computed outside.
 *
 *     bun test/workerd/run.ts
 *
 * Miniflare, which brings workerd, goes into a temporary folder.
 * @module
 */
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { type Made, makeModels, PROMPT } from "../consumers/models.ts";
import { Checks, has, npmInstall, runJson, withFolder } from "../consumers/support.ts";
import { fromRoot } from "../support/paths.ts";

/** The newest that runs on Node 20. */
const MINIFLARE = "miniflare@4.20260426.0";
const MODELS = ["f32-csr", "int8-nm-8-16"];
/** Tokens after the prompt. */
const COUNT = 8;
/** A model's files, to be handed over. */
const FILES = [
  "onnx/model.onnx",
  "onnx/model.onnx_data",
  "tokenizer.json",
  "tokenizer_config.json",
  "config.json",
  "generation_config.json",
];

/** A call of the Worker. */
interface Call {
  readonly model: string;
  readonly prompt: string;
  readonly tokens: number;
  /** Which of the kernels are handed over. */
  readonly kernels: "all" | "simd" | "shared" | "none";
  /** Files that are fetched and handed over; the model is read from its URL when left out. */
  readonly files?: readonly string[];
  readonly options?: { readonly background?: boolean };
}

/** What the Worker answers. */
interface Answer {
  readonly value?: {
    readonly tokens: readonly number[];
    readonly info: { device: string; background: boolean; threads: number };
    readonly seconds: { load: number; prefill: number; decode: number };
  };
  readonly error?: { readonly code?: string; readonly message: string };
}

/** What drive.mjs prints. */
interface Driven {
  readonly version: string;
  readonly results: readonly Answer[];
  readonly console: readonly string[];
}

const call = (model: string, kernels: Call["kernels"], more: Partial<Call> = {}): Call => ({
  model,
  kernels,
  prompt: PROMPT,
  tokens: COUNT,
  ...more,
});

function checkTokens(checks: Checks, about: string, { value, error }: Answer, made: Made): void {
  if (!value) return checks.that(about, false, () => error?.message ?? "it gave nothing");
  checks.same(`${about}: tokens`, value.tokens, made.expected.tokens);
}

async function checkWorkerd(checks: Checks, folder: string, tools: string): Promise<void> {
  if (!await has("node")) return checks.skip("workerd", "no node on PATH");
  if (!await has("npm")) return checks.skip("workerd", "no npm on PATH");
  writeFileSync(join(tools, "package.json"), '{ "private": true, "type": "module" }\n');
  const failed = await npmInstall(tools, [MINIFLARE]);
  if (failed) return checks.missing("workerd", failed);
  for (const file of ["drive.mjs", "worker.mjs"]) {
    copyFileSync(fromRoot(`test/workerd/${file}`), join(tools, file));
  }
  const models = await makeModels(folder, COUNT, MODELS);
  const last = MODELS.at(-1)!;
  const calls = [
    ...MODELS.map((name) => call(name, "all")),
    call(last, "simd", { files: FILES }),
    call(last, "all", { options: { background: true } }),
    call(last, "none"),
    call(last, "shared"),
    // Slow enough to be timed.
    call(last, "all", { tokens: 400 }),
  ];
  const path = join(tools, "calls.json");
  writeFileSync(path, JSON.stringify(calls));
  const words = ["node", join(tools, "drive.mjs"), fromRoot("dist"), folder, path];
  const driven = await runJson<Driven>(words, tools);
  const answers = driven.results;

  console.log(`workerd ${driven.version}: ${answers[0].value?.info.device ?? "no engine"}`);
  models.forEach((made, i) => checkTokens(checks, made.name, answers[i], made));
  const [ofFiles, background, none, shared, long] = answers.slice(models.length);
  const made = models.find(({ name }) => name === last)!;
  checkTokens(checks, "files that are handed over, plain SIMD", ofFiles, made);
  checks.same("plain SIMD is taken", ofFiles.value?.info.device.includes("(simd)"), true);
  checkTokens(checks, "asked to compute in the background", background, made);
  checks.that(
    "says that it does not",
    background.value?.info.background === false &&
      background.value.info.device.includes("not in the background"),
    () => JSON.stringify(background),
  );
  for (
    const [what, { error }, hint] of [
      ["no kernels", none, "`kernels`"],
      ["kernels for threads", shared, ".unshared"],
    ] as const
  ) {
    checks.that(
      `${what}: an error that says what to hand over`,
      error?.code === "BACKEND_FAILED" && error.message.includes(hint),
      () => JSON.stringify(error),
    );
  }
  checks.same("400 tokens are generated", long.value?.tokens.length, 400);
  if (long.value) console.log(`  ${(399 / long.value.seconds.decode).toFixed(0)} tokens/s`);
  checks.same("workerd said nothing", driven.console, []);
}

const checks = new Checks();
await withFolder((folder) =>
  withFolder((tools) => checks.part("workerd", () => checkWorkerd(checks, folder, tools)))
);
process.exitCode = checks.end();
