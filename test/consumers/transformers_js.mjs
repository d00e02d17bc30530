/**
 * Runs compiled models in transformers.js: from a local folder, and over HTTP as from the Hub.
 *
 *     transformers_js.mjs --prompt TEXT [--tokens 16] COMPILED_DIR...
 *
 * Prints {runtime, version, models: [{model, file: {ids, tokens, text}, http: {…}, requests}]}. Plain
 * JavaScript, for Node and Deno; it must lie beside a node_modules with @huggingface/transformers.
 */
import { createReadStream, mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { prompt: { type: "string" }, tokens: { type: "string", default: "16" } },
});
const folders = positionals.map((folder) => resolve(folder));

// A name in a variable, so that who only checks this file need not have the package.
const name = "@huggingface/transformers";
const { env, pipeline } = await import(name);
// What comes over HTTP goes into a cache, from which Node and Deno load it: one that starts empty.
env.cacheDir = mkdtempSync(join(tmpdir(), "espalier-cache-"));

/** What a pipeline generates, and the token ids behind it. */
async function generate(model) {
  const generator = await pipeline("text-generation", model);
  const options = { max_new_tokens: Number(values.tokens), do_sample: false };
  const [{ generated_text: text }] = await generator(values.prompt, options);
  const inputs = generator.tokenizer(values.prompt);
  const output = await generator.model.generate({ ...inputs, ...options });
  const ids = [...inputs.input_ids.data].map(Number);
  const tokens = [...output.data].map(Number).slice(ids.length);
  await generator.dispose();
  return { ids, tokens, text };
}

/** Serves the folders as the Hub does, under /NAME/resolve/main/; counts answers by status. */
async function serve() {
  const requests = {};
  const server = createServer((request, response) => {
    const answer = (status, headers, path) => {
      requests[status] = (requests[status] ?? 0) + 1;
      response.writeHead(status, headers);
      if (path && request.method !== "HEAD") createReadStream(path).pipe(response);
      else response.end();
    };
    const { pathname } = new URL(request.url, "http://localhost");
    const [, model, file] = /^\/([\w.-]+)\/resolve\/main\/((?:[\w-][\w.-]*\/?)+)$/.exec(pathname) ??
      [];
    const folder = folders.find((folder) => basename(folder) === model);
    const path = folder && join(folder, file);
    const found = path && statSync(path, { throwIfNoEntry: false });
    if (!found?.isFile()) return answer(404, {});
    answer(200, { "content-length": found.size, "content-type": "application/octet-stream" }, path);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return { server, requests, host: `http://127.0.0.1:${server.address().port}/` };
}

const { server, requests, host } = await serve();
const models = [];
for (const folder of folders) {
  env.allowLocalModels = true;
  env.allowRemoteModels = false;
  env.localModelPath = dirname(folder);
  const file = await generate(basename(folder));
  env.allowLocalModels = false;
  env.allowRemoteModels = true;
  env.remoteHost = host;
  const http = await generate(basename(folder));
  models.push({ model: basename(folder), file, http });
}
rmSync(env.cacheDir, { recursive: true, force: true });
server.closeAllConnections?.();
server.close();
const { bun, deno, node } = process.versions;
const runtime = deno ? "deno" : bun ? "bun" : "node";
console.log(JSON.stringify({ runtime, version: deno ?? bun ?? node, models, requests }));
