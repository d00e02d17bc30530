/**
 * A folder for any web server: a page that runs the model in the browser.
 * @module
 */
import { join } from "node:path";
import type { LoadedInfo } from "../../generate/model.ts";
import { writeText } from "../../platform/files.ts";
import { fileSize } from "../../platform/paths.ts";
import { pathWord } from "../../platform/shell.ts";
import { pageFiles } from "../../server/page/mod.ts";
import { distribution } from "../dist.ts";
import { copyBuilt } from "../edge_files.ts";
import { copyInParts } from "../model_files.ts";
import { indexHtml, STYLES, UNLOADED } from "../page/index.ts";
import type { Target, TargetReport } from "../target.ts";
import { tryModel } from "../try_model.ts";

/** The page's scripts, as `scripts/build.ts` makes them. */
const SCRIPTS = ["page/page.js", "page/worker.js"];
/** Kernels for shared memory; the engine makes those for one thread of them. */
const KERNELS = ["wasm/relaxed.wasm", "wasm/relaxed-fused.wasm", "wasm/simd.wasm"];

/**
 * Headers for hosts that read this file (Netlify, Cloudflare Pages). The first two isolate the page, and
 * only an isolated page may share memory between threads.
 */
const HEADERS = `/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
  X-Content-Type-Options: nosniff
  Cache-Control: no-cache
`;

/** Bytes that a page's WebAssembly memory may have. */
const LIMIT = 2 ** 32;

/** Makes the folder. */
export const makeStatic: Target = async ({ name, model, folder, settings, hooks }) => {
  const memory = memoryOf(await tryModel(model, settings, hooks.signal));
  const dist = await distribution(hooks);
  const { bytes } = await copyInParts(model, join(folder, "model"), hooks);
  const page = join(folder, "page");
  copyBuilt(dist, folder, SCRIPTS);
  copyBuilt(dist, page, KERNELS);
  for (const file of STYLES) writeText(join(page, file), pageFiles[`/page/${file}`].body);
  writeText(join(page, "unloaded.js"), UNLOADED);
  const { context, kv } = settings;
  writeText(join(folder, "index.html"), indexHtml({ name, bytes, context, kv }));
  writeText(join(folder, "_headers"), HEADERS);
  // GitHub Pages would leave out _headers, and read all other files for templates.
  writeText(join(folder, ".nojekyll"), "");
  return {
    memory,
    next: [
      `python3 -m http.server --directory ${pathWord(settings.output ?? `${name}-static`)}`,
      "open http://localhost:8000/",
    ],
    notes: [
      "upload the folder to any web server with https; it may lie at any path",
      "threads: where pages are served with the two Cross-Origin headers of _headers (Netlify and " +
      "Cloudflare Pages read that file); elsewhere, as at GitHub Pages, one thread computes",
      ...(fileSize(join(model, "espalier.json")) === undefined
        ? ["the model has no espalier.json: nothing is kept for the next time, nothing checked"]
        : []),
    ],
  };
};

/** What the page will take. */
function memoryOf(
  { memoryBytes, weightBytes, cacheBytesPerToken, stateBytes = 0, context }: LoadedInfo,
): TargetReport["memory"] {
  const engine = memoryBytes ?? weightBytes;
  const cache = cacheBytesPerToken * context + stateBytes;
  const parts = {
    weights: weightBytes,
    buffers: engine - weightBytes,
    [`cache of ${context} tokens`]: cache,
  };
  return { limit: LIMIT, total: engine + cache, parts };
}
