/**
 * Measures the page of a folder that `bundle --target static` made, in headless Chromium.
 *
 *     static_page.mjs TASK.json
 *
 * The task is {chromium, folder, prompt, tokens, repeat}; printed is {version, ways: [{threads, first,
 * again, tokensPerSecond}]}: with one thread, and with as many as there are. `first` and `again` are lists of
 * {loaded, firstText} in milliseconds: of an empty browser, and of one that was there before. For Node; it
 * must lie below a node_modules with playwright-core, where server.mjs is from here.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { serveFolder } from "../../test/browser/site/server.mjs";

/** Milliseconds for what a page waits for. */
const PATIENCE = 120_000;

const { chromium: executablePath, folder, prompt, tokens, repeat } = JSON.parse(
  readFileSync(process.argv[2], "utf8"),
);
// A name in a variable, so that who only checks this file need not have the package.
const name = "playwright-core";
const { chromium } = await import(name);

/** In the page, from its beginning: notes when the model is there, and when an answer begins. */
function watch() {
  globalThis.times = {};
  const look = () => {
    const [text, field] = [document.getElementById("text"), document.getElementById("prompt")];
    if (times.loaded === undefined && (text?.offsetParent ?? field?.offsetParent)) {
      times.loaded = performance.now();
    }
    const isBegun = document.querySelector(".message.model .text")?.textContent ||
      (times.asked !== undefined && text.value.length > times.length);
    if (times.asked !== undefined && times.begun === undefined && isBegun) {
      times.begun = performance.now();
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}

/** Has it write, and gives {text: …} with what it wrote and the measures below it. */
async function write(page) {
  await page.waitForFunction(() => globalThis.times.loaded !== undefined);
  await page.evaluate(({ prompt, tokens }) => {
    const set = (id, value) => {
      const field = document.getElementById(id);
      field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    };
    set("temperature", "0");
    set("max_tokens", String(tokens));
    const chats = document.getElementById("prompt").offsetParent !== null;
    set(chats ? "prompt" : "text", prompt);
    times.length = prompt.length;
    times.asked = performance.now();
    document.getElementById(chats ? "send" : "continue").click();
  }, { prompt, tokens });
  const measures = page.locator(".message.model .measures, #editor-measures:not(:empty)");
  await measures.first().waitFor();
  const said = await measures.first().innerText();
  const times = await page.evaluate(() => globalThis.times);
  if (times.begun === undefined) {
    throw new Error("the model answers nothing here: take a copy of it without its chat template");
  }
  return {
    loaded: times.loaded,
    firstText: times.loaded + times.begun - times.asked,
    rate: Number(/([\d.]+) tokens\/s/.exec(said)?.[1]),
  };
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const ways = [];
  for (const isolated of [false, true]) {
    const site = await serveFolder(folder, { isolated });
    const way = { threads: 0, first: [], again: [], rates: [] };
    for (let round = 0; round < repeat; round++) {
      const context = await browser.newContext();
      const page = await context.newPage();
      page.setDefaultTimeout(PATIENCE);
      await page.addInitScript(watch);
      await page.goto(site.url);
      const first = await write(page);
      await page.goto(site.url);
      const again = await write(page);
      way.first.push(first);
      way.again.push(again);
      way.rates.push(first.rate, again.rate);
      const threads = page.locator(".facts div").filter({ hasText: /^Threads/ }).locator("dd");
      way.threads = Number(await threads.textContent());
      await context.close();
    }
    ways.push(way);
    site.close();
  }
  console.log(JSON.stringify({ version: browser.version(), ways }));
} finally {
  await browser.close();
}
