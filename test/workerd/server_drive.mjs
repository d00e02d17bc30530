/**
 * Serves server_worker.mjs in workerd, by Miniflare, until its standard input ends. Printed is {url,
 * version}, then what workerd says, a line each.
 *
 *     server_drive.mjs
 *
 * For Node; it must lie beside server_worker.mjs, its modules and a node_modules with miniflare.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
// A name in a variable, so that who only checks this file need not have the package.
const name = "miniflare";
const { Log, LogLevel, Miniflare } = await import(name);

class Lines extends Log {
  log(message) {
    console.log(message);
  }
}

const module = (type, path) => ({
  type,
  path: join(here, path),
  contents: type === "ESModule"
    ? readFileSync(join(here, path), "utf8")
    : readFileSync(join(here, path)),
});
const filesOf = (folder) =>
  readdirSync(join(here, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(here.length + 1));

const miniflare = new Miniflare({
  log: new Lines(LogLevel.WARN),
  cf: false,
  host: "127.0.0.1",
  port: 0,
  compatibilityDate: "2026-04-01",
  // The second one: else a client that goes keeps its place until readTimeout.
  compatibilityFlags: ["nodejs_compat", "enable_request_signal"],
  modulesRoot: here,
  modules: [
    module("ESModule", "server_worker.mjs"),
    module("ESModule", "server.js"),
    ...filesOf("wasm").map((path) => module("CompiledWasm", path)),
    ...[...filesOf("plain"), ...filesOf("chat")].map((path) => module("Data", path)),
  ],
});
try {
  const url = await miniflare.ready;
  const workerd = readFileSync(join(here, "node_modules/workerd/package.json"), "utf8");
  console.log(JSON.stringify({ url: url.href, version: JSON.parse(workerd).version }));
  await new Promise((end) => process.stdin.on("end", end).resume());
} finally {
  await miniflare.dispose();
}
