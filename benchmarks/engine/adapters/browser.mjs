/**
 * Engines that run in a page: wllama and transformers.js, in headless Chromium.
 *
 * Node drives it; the page does the work and measures the time. It is served with the headers that give
 * it shared memory, and so threads.
 */
import { createReadStream, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { basename, dirname, extname, join, normalize } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/**
 * @param {import("./engine.ts").EngineConfig} config
 * @returns {Promise<import("./engine.ts").Engine>}
 */
export async function open({ packages, chromium: executablePath, model, variant, ...rest }) {
  const [page, ...more] = variant.split(" ");
  const server = await serve({
    page: fileURLToPath(new URL("../page", import.meta.url)),
    adapters: fileURLToPath(new URL(".", import.meta.url)),
    packages: join(packages, "node_modules"),
    models: dirname(model),
  });
  const playwright = join(packages, "node_modules", "playwright-core", "index.mjs");
  const { chromium } = await import(pathToFileURL(playwright).href);
  const browser = await chromium.launch({
    executablePath,
    headless: true,
    timeout: 60_000,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  const tab = await browser.newPage();
  // A page that waits for its engine waits for ever when the tab dies.
  const crash = new Promise((_, reject) => {
    tab.on("crash", () => reject(new Error("the page crashed")));
  });
  crash.catch(() => {});
  const call = (name, ...given) =>
    Promise.race([
      crash,
      tab.evaluate(({ name, given }) => globalThis.engine[name](...given), { name, given }),
    ]);
  tab.on("pageerror", ({ message }) => console.error(message));
  await tab.goto(`${server.url}/page/page.html`);
  const config = { ...rest, model: basename(model), variant: more.join(" ") };
  const { product, loadSeconds } = await Promise.race([
    crash,
    tab.evaluate(async ({ page, config }) => {
      const start = performance.now();
      const { open } = await import(`./${page}.mjs`);
      globalThis.engine = await open(config);
      const loadSeconds = (performance.now() - start) / 1000;
      return { product: globalThis.engine.product, loadSeconds };
    }, { page, config }),
  ]);
  return {
    product: `${product}, Chromium ${browser.version()}`,
    loadSeconds,
    generate: (prompt, steps) => call("generate", prompt, steps),
    hold: (prompt) => call("hold", prompt),
    resume: (steps) => call("resume", steps),
    peakBytes: () => rendererPeak(process.pid),
    async close() {
      await browser.close();
      server.close();
    },
  };
}

/** Serves folders to this machine alone. */
async function serve(roots) {
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    const [, root, ...rest] = path.split("/");
    const file = roots[root] && join(roots[root], ...rest);
    const found = file ? statSync(file, { throwIfNoEntry: false }) : undefined;
    if (!found?.isFile()) return void response.writeHead(404).end();
    response.writeHead(200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "content-length": found.size,
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
      "cross-origin-resource-policy": "same-origin",
    });
    if (request.method === "HEAD") response.end();
    else createReadStream(file).pipe(response);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** `VmHWM` of the process below this one that runs the page: the largest of its kind. */
function rendererPeak(root) {
  const processes = [];
  try {
    for (const name of readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      try {
        const status = readFileSync(`/proc/${name}/status`, "utf8");
        const field = (key) => Number(new RegExp(`^${key}:\\s*(\\d+)`, "m").exec(status)?.[1]);
        const words = readFileSync(`/proc/${name}/cmdline`, "utf8").split(/[\0 ]/);
        processes.push({
          pid: Number(name),
          parent: field("PPid"),
          peak: field("VmHWM") * 1024,
          renders: words.includes("--type=renderer"),
        });
      } catch {
        // It has ended.
      }
    }
  } catch {
    return undefined;
  }
  const below = new Set([root]);
  // A child may be listed before its parent.
  for (let before = 0; before !== below.size;) {
    before = below.size;
    for (const { pid, parent } of processes) if (below.has(parent)) below.add(pid);
  }
  const peaks = processes.filter(({ pid, renders }) => renders && below.has(pid));
  return peaks.length === 0 ? undefined : Math.max(...peaks.map(({ peak }) => peak));
}
