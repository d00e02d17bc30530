/**
 * The page of a folder when things go wrong: on the way, in the browser's cache, in the browser.
 */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { withPage } from "../pages/harness.mjs";
import { continueText, loaded, onSite, refusal } from "./site.mjs";

/** Files of the model that were asked for, but for the two that say whether it is still the same. */
const partsOf = (requests) =>
  requests.filter((path) =>
    path.startsWith("model/") && !["model/espalier.json", "model/parts.json"].includes(path)
  );
const GRAPH = "model/onnx/model.onnx";

/** What is kept for the next time. */
export async function checkKept(browser, results, { text, tokens }) {
  const generates = async (page, what) =>
    results.same(`${what}: generates`, await continueText(page, text, tokens), text.expected);
  await onSite(browser, results, "second time", { folder: text.folder }, async (page, site) => {
    await page.goto(site.url);
    await loaded(page);
    const first = partsOf(site.requests);
    results.same("first time: each file is asked for once", first.length, new Set(first).size);
    results.that("first time: there are parts", first.some((path) => /part0002$/.test(path)));
    site.requests.length = 0;
    await page.reload();
    await loaded(page);
    results.same("second time: no part over the network", partsOf(site.requests), []);
    await generates(page, "second time");

    // A part that was damaged in the cache, and one that was cut short.
    await page.evaluate(async () => {
      for (const name of await caches.keys()) {
        const cache = await caches.open(name);
        for (const { url } of await cache.keys()) {
          const isCut = url.endsWith("tokenizer.json") || url.endsWith("part0001");
          if (!isCut && !url.endsWith("part0000")) continue;
          const bytes = new Uint8Array(await (await cache.match(url)).arrayBuffer());
          bytes[1000] ^= 1;
          await cache.put(url, new Response(isCut ? bytes.slice(0, -9) : bytes));
        }
      }
    });
    site.requests.length = 0;
    await page.reload();
    await loaded(page);
    results.same(
      "damaged in the cache: fetched again, and nothing else",
      partsOf(site.requests).map((path) => path.split("/").at(-1)).sort(),
      ["model.onnx_data.part0000", "model.onnx_data.part0001", "tokenizer.json"],
    );
    await generates(page, "damaged in the cache");
    site.requests.length = 0;
    await page.reload();
    await loaded(page);
    results.same("damaged in the cache: healed", partsOf(site.requests), []);
  });
  const away = /ERR_EMPTY_RESPONSE|ERR_CONNECTION|ERR_FAILED|ERR_CONTENT_LENGTH/;
  await onSite(browser, results, "without network", { folder: text.folder }, async (page, site) => {
    await page.goto(site.url);
    await loaded(page);
    await page.context().route(/\/model\//, (route) => route.abort());
    await page.reload();
    await loaded(page);
    await generates(page, "without network");
  }, away);
  await onSite(browser, results, "another model", { folder: text.folder }, async (page, site) => {
    await page.goto(site.url);
    await loaded(page);
    // The same model in other words is another one.
    site.change = (path, bytes) =>
      path === "model/espalier.json" ? new TextEncoder().encode(`${bytes} `) : undefined;
    await page.reload();
    await loaded(page);
    const names = await page.evaluate(() => caches.keys());
    results.same("another model: the old one is not kept", names.length, 1);
  });
}

/** Files that are not what they should be, or do not come. */
export async function checkDamage(browser, results, { text, tokens }) {
  const part = "model/onnx/model.onnx_data.part0001";
  const changes = [
    ["a part that is not there", part, () => 404, /cannot be read.*part0001.*404/],
    ["a part of a failing server", part, () => 503, /cannot be read.*part0001.*503/],
    ["a damaged part", part, flipped, /is damaged.*onnx_data is damaged/],
    ["a part that is too short", part, (bytes) => bytes.subarray(9), /cannot be read.*part0001/],
    ["a damaged graph", GRAPH, flipped, /is damaged.*model\.onnx is damaged/],
    ["a connection that breaks off", part, () => "cut", /connection was lost/],
  ];
  for (const [what, file, change, expected] of changes) {
    await onSite(browser, results, what, { folder: text.folder }, async (page, site) => {
      site.change = (path, bytes) => path === file ? change(bytes) : undefined;
      await page.goto(site.url);
      const said = await refusal(page);
      results.that(`${what} is told: ${said}`, expected.test(said), said);
      site.change = undefined;
      site.requests.length = 0;
      await page.locator("#notice-retry").click();
      await loaded(page);
      const again = partsOf(site.requests);
      results.that(`${what}: trying again goes on there`, !again.includes("model/config.json"));
      results.same(`${what}: then`, await continueText(page, text, tokens), text.expected);
    }, /status of (404|503)|net::ERR/);
  }
}

const flipped = (bytes) => {
  const copy = Uint8Array.from(bytes);
  copy[copy.length >> 1] ^= 16;
  return copy;
};

/** A page whose script does not come. */
export async function checkUnloaded(browser, results, { text }) {
  const url = pathToFileURL(join(text.folder, "index.html")).href;
  await results.part("a file", () =>
    withPage(browser, results, "a file", {}, async (page) => {
      await page.goto(url);
      const said = await refusal(page);
      results.that(
        `a page that is opened as a file is told: ${said}`,
        /web server/.test(said),
        said,
      );
    }, /CORS policy|Failed to load/));
  for (const what of ["that is not there", "of another type"]) {
    await onSite(browser, results, what, { folder: text.folder }, async (page, site) => {
      site.change = (path) =>
        path === "page/page.js" && what === "that is not there" ? 404 : undefined;
      if (what === "of another type") site.types = { ...site.types, ".js": "text/plain" };
      await page.goto(site.url);
      const said = await refusal(page);
      results.that(
        `a script ${what} is told: ${said}`,
        /page\/page\.js did not come/.test(said),
        said,
      );
    }, /status of 404|MIME type/);
  }
}

/** Browsers that can less: the worker's script begins with what takes it away. */
export async function checkLimits(browser, results, { text, tokens }) {
  const fail = (kind) => `() => { throw new ${kind}("made up"); }`;
  const noSharing = `WebAssembly.Memory = class extends WebAssembly.Memory {
    constructor(about) { if (about.shared) throw new RangeError("made up"); super(about); } };`;
  const runs = [
    [
      "a full disk",
      `Cache.prototype.put = () => Promise.reject(new DOMException("", "QuotaExceededError"));`,
      false,
    ],
    ["no cache", `Object.defineProperty(globalThis, "caches", { value: undefined });`, false],
    ["no room for shared memory", noSharing, true],
  ];
  for (const [what, code, isolated] of runs) {
    await onSite(browser, results, what, { folder: text.folder, isolated }, async (page, site) => {
      site.change = begin(code);
      await page.goto(site.url);
      await loaded(page);
      results.same(`${what}: generates`, await continueText(page, text, tokens), text.expected);
    });
  }
  const refused = [
    [
      "too little memory",
      `WebAssembly.Memory.prototype.grow = ${fail("RangeError")};`,
      /not enough memory/,
    ],
    [
      "no SIMD",
      `{ const { compile } = WebAssembly;
         WebAssembly.compile = (bytes) => bytes.length < 99 ? compile(bytes)
           : Promise.reject(new WebAssembly.CompileError("made up")); }`,
      /browser cannot run.*SIMD/,
    ],
    ["a script that fails", `throw new Error("made up");`, /cannot be loaded.*made up/],
  ];
  for (const [what, code, expected] of refused) {
    await onSite(browser, results, what, { folder: text.folder }, async (page, site) => {
      site.change = begin(code);
      await page.goto(site.url);
      const said = await refusal(page);
      results.that(`${what} is told: ${said}`, expected.test(said), said);
      site.change = undefined;
      await page.locator("#notice-retry").click();
      await loaded(page);
    }, /made up/);
  }
}

const begin = (code) => (path, bytes) =>
  path === "page/worker.js" ? new TextEncoder().encode(`${code}\n${bytes}`) : undefined;
