/**
 * A web server as plain as they are, which can be told to fail. For Node.
 */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css",
  ".js": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};
const ISOLATION = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

/**
 * Serves a folder to this machine alone.
 *
 * @param folder What is served.
 * @param options `isolated`: with the headers that isolate pages. `prefix`: the path that it lies at.
 * @returns `requests` are paths of files that were asked for; `change`, where it is set, gets a path and
 *   the bytes, and gives other bytes, a status, or "cut" to break the connection off in the middle; `types` are
 *   those of files by their ends.
 */
export async function serveFolder(folder, { isolated = false, prefix = "/" } = {}) {
  const site = { requests: [], change: undefined, types: TYPES };
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (!pathname.startsWith(prefix)) return void response.writeHead(404).end();
    const path = normalize(decodeURIComponent(pathname.slice(prefix.length))) || "index.html";
    const name = path === "./" || path === "." ? "index.html" : path;
    site.requests.push(name);
    let bytes;
    try {
      bytes = await readFile(join(folder, name));
    } catch {
      return void response.writeHead(404).end("not here");
    }
    const changed = site.change?.(name, bytes);
    if (typeof changed === "number") return void response.writeHead(changed).end("no");
    if (changed && changed !== "cut") bytes = changed;
    response.writeHead(200, {
      "content-type": site.types[extname(name)] ?? "application/octet-stream",
      "content-length": bytes.length,
      ...(isolated ? ISOLATION : {}),
    });
    if (changed !== "cut") return void response.end(bytes);
    response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy());
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  site.url = `http://127.0.0.1:${server.address().port}${prefix}`;
  site.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return site;
}
