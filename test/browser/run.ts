/**
 * Runs compiled models in headless Chromium, with plain onnxruntime-web and with our own engine
 * (`dist/run.js`, so build first), and compares with what ONNX Runtime computes outside.
 *
 *     bun test/browser/run.ts
 *
 * It takes the Chromium on PATH; with CI=true, as root, it has apt-get install one where there is none.
 * Without one it is skipped. playwright-core goes into a temporary folder.
 * @module
 */
import { copyFileSync, createReadStream, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import process from "node:process";
import { type Made, makeModels, PROMPT_IDS } from "../consumers/models.ts";
import { Checks, has, npmInstall, runJson, withFolder } from "../consumers/support.ts";
import { fromRoot } from "../support/paths.ts";
import { findChromium } from "./pages/chromium.ts";

const PLAYWRIGHT = "playwright-core@1.65.1";
/** Models to run: one of each format. */
const MODELS = ["f32-csr", "f16-bitmap", "int8-auto", "int8-nm-8-16"];
/** The one that WebGPU runs too: its shaders are emulated, and slow. */
const ON_WEBGPU = "int8-auto";
/** Cached steps. */
const STEPS = 6;
/** Largest difference of a logit, as a part of it. */
const TOLERANCE = 1e-4;
/** The same where inputs of int8 weights are quantised. */
const QUANTISED_TOLERANCE = 1e-2;
/** The same on WebGPU, which adds in another order. */
const WEBGPU_TOLERANCE = 1e-3;

const TYPES: Record<string, string> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/** What drive.mjs prints. */
interface Driven {
  readonly version: string;
  readonly results: { value?: unknown; error?: string }[];
  readonly console: string[];
}

/** What the page computes. */
interface Computed {
  readonly version: string;
  readonly tokens: number[];
  readonly top: number[];
}

/** Serves the page, onnxruntime-web and the models to this machine alone. */
async function serve(models: string): Promise<{ url: string; close(): void }> {
  const roots: Record<string, string> = {
    page: fromRoot("test/browser"),
    ort: fromRoot("node_modules/onnxruntime-web/dist"),
    dist: fromRoot("dist"),
    models,
  };
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url!, "http://localhost").pathname));
    const [, root, ...rest] = path.split("/");
    const file = roots[root] && join(roots[root], ...rest);
    const found = file ? statSync(file, { throwIfNoEntry: false }) : undefined;
    if (!file || !found?.isFile()) return void response.writeHead(404).end();
    response.writeHead(200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "content-length": found.size,
      // Isolation, without which a page has no shared memory, and so no threads.
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
    });
    createReadStream(file).pipe(response);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/page/page.html`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Has the page do something, and gives what came of it. */
async function drive(tools: string, chromium: string, url: string, calls: object[]) {
  const path = join(tools, "calls.json");
  writeFileSync(path, JSON.stringify(calls));
  return await runJson<Driven>(["node", join(tools, "drive.mjs"), chromium, url, path], tools);
}

function check(
  checks: Checks,
  about: string,
  { expected }: Made,
  result: Driven["results"][number],
  tolerance: number,
): void {
  const found = result.value as Computed | undefined;
  if (!found) return checks.that(about, false, () => result.error ?? "it gave nothing");
  checks.same(`${about}: tokens`, found.tokens, expected.tokens);
  const worst = Math.max(
    ...found.top.map((logit, i) => Math.abs(logit - expected.top[i]) / Math.abs(logit)),
  );
  checks.that(
    `${about}: logits agree to ${worst.toExponential(1)}`,
    worst < tolerance,
    () => `more than ${tolerance}`,
  );
}

async function checkBrowser(checks: Checks, folder: string, tools: string): Promise<void> {
  if (!await has("node")) return checks.skip("Chromium", "no node on PATH");
  const chromium = await findChromium();
  if ("why" in chromium) return checks.skip("Chromium", chromium.why);
  writeFileSync(join(tools, "package.json"), '{ "private": true, "type": "module" }\n');
  const failed = await npmInstall(tools, [PLAYWRIGHT]);
  if (failed) return checks.missing("Chromium", failed);
  copyFileSync(fromRoot("test/browser/drive.mjs"), join(tools, "drive.mjs"));

  const models = await makeModels(folder, STEPS + 1, MODELS);
  const server = await serve(folder);
  const call = (model: string, provider: "wasm" | "webgpu") => ({
    function: "greedy",
    argument: { model, provider, prompt: PROMPT_IDS, steps: STEPS },
  });
  try {
    const calls = [{ function: "adapter" }, ...models.map(({ name }) => call(name, "wasm"))];
    const { version, results, console: said } = await drive(
      tools,
      chromium.path,
      server.url,
      calls,
    );
    console.log(`Chromium ${version}, onnxruntime-web ${(results[1].value as Computed)?.version}`);
    models.forEach((model, i) =>
      check(checks, `wasm, ${model.name}`, model, results[i + 1], TOLERANCE)
    );
    checks.same("the page said nothing", said, []);

    const ways = [{ threads: 1 }, { threads: 2 }, { threads: 2, background: true }];
    const ours = await drive(
      tools,
      chromium.path,
      server.url,
      models.flatMap(({ name }) =>
        ways.map((way) => ({
          function: "ours",
          argument: { model: name, ...way, prompt: PROMPT_IDS, steps: STEPS },
        }))
      ),
    );
    ours.results.forEach((result, i) => {
      const model = models[Math.floor(i / ways.length)];
      const device = (result.value as Computed | undefined)?.version ?? "our engine";
      const tolerance = model.name.startsWith("int8") ? QUANTISED_TOLERANCE : TOLERANCE;
      check(checks, `${device}, ${model.name}`, model, result, tolerance);
    });
    // A model need not have a chat template; the browser reports the question as an error.
    const said404 = ours.console.filter((line) => !line.includes("404 (Not Found)"));
    checks.same("the page said nothing of our engine", said404, []);

    const adapter = results[0].value as string | undefined;
    const model = models.find(({ name }) => name === ON_WEBGPU)!;
    if (!adapter) return checks.skip("WebGPU", results[0].error ?? "Chromium finds no adapter");
    const gpu = await drive(tools, chromium.path, server.url, [call(model.name, "webgpu")]);
    check(checks, `WebGPU (${adapter}), ${model.name}`, model, gpu.results[0], WEBGPU_TOLERANCE);
  } finally {
    server.close();
  }
}

const checks = new Checks();
await withFolder((folder) =>
  withFolder((tools) => checks.part("Chromium", () => checkBrowser(checks, folder, tools)))
);
process.exitCode = checks.end();
