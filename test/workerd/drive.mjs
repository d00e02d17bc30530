/**
 * Runs worker.mjs in workerd, by Miniflare, asks it, and prints what it answers.
 *
 *     drive.mjs DIST MODELS CALLS.json
 *
 * The calls are what the Worker is given, with `model`, a folder in MODELS, in place of `url`: MODELS is
 * served to it. Printed is {version, results, console}. For Node; it must lie beside worker.mjs and a
 * node_modules with miniflare.
 */
import { createReadStream, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { join, normalize } from "node:path";
import process from "node:process";

const [dist, models, calls] = process.argv.slice(2);
const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
// A name in a variable, so that who only checks this file need not have the package.
const name = "miniflare";
const { Log, LogLevel, Miniflare } = await import(name);

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  const file = join(models, path);
  const found = statSync(file, { throwIfNoEntry: false });
  if (!found?.isFile()) return void response.writeHead(404).end();
  response.writeHead(200, { "content-length": found.size });
  createReadStream(file).pipe(response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const base = `http://127.0.0.1:${server.address().port}`;

const said = [];
class Lines extends Log {
  log(message) {
    said.push(message);
  }
}
const miniflare = new Miniflare({
  log: new Lines(LogLevel.WARN),
  cf: false,
  compatibilityDate: "2026-04-01",
  modulesRoot: here,
  modules: [
    {
      type: "ESModule",
      path: join(here, "worker.mjs"),
      contents: readFileSync(join(here, "worker.mjs"), "utf8"),
    },
    {
      type: "ESModule",
      path: join(here, "dist/run.js"),
      contents: readFileSync(join(dist, "run.js"), "utf8"),
    },
    ...readdirSync(join(dist, "wasm")).map((file) => ({
      type: "CompiledWasm",
      path: join(here, "dist/wasm", file),
      contents: readFileSync(join(dist, "wasm", file)),
    })),
  ],
});
try {
  const results = [];
  for (const { model, ...call } of JSON.parse(readFileSync(calls, "utf8"))) {
    const body = JSON.stringify({ ...call, url: `${base}/${model}/` });
    const answer = await miniflare.dispatchFetch("http://localhost/", { method: "POST", body });
    results.push(answer.ok ? await answer.json() : { error: { message: await answer.text() } });
  }
  const { version } = JSON.parse(
    readFileSync(join(here, "node_modules/workerd/package.json"), "utf8"),
  );
  console.log(JSON.stringify({ version, results, console: said }));
} finally {
  await miniflare.dispose();
  server.closeAllConnections();
  server.close();
}
