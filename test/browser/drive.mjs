/**
 * Opens a page in headless Chromium, calls its functions, and prints what they give.
 *
 *     drive.mjs CHROMIUM URL CALLS.json
 *
 * The calls are [{function, argument}]; printed is {version, results: [{value} or {error}], console}.
 * For Node; it must lie beside a node_modules with playwright-core.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

/** Milliseconds for one call. */
const PATIENCE = 120_000;

const [executablePath, url, calls] = process.argv.slice(2);
// A name in a variable, so that who only checks this file need not have the package.
const name = "playwright-core";
const { chromium } = await import(name);
const profile = mkdtempSync(join(tmpdir(), "espalier-chromium-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
  ],
});
try {
  const page = await context.newPage();
  const said = [];
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  await page.goto(url);
  const results = [];
  for (const call of JSON.parse(readFileSync(calls, "utf8"))) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("took too long")), PATIENCE);
    });
    const work = page.evaluate(
      async ({ function: name, argument }) => ({ value: await globalThis[name](argument) }),
      call,
    );
    results.push(await Promise.race([work, late]).catch(({ message }) => ({ error: message })));
    clearTimeout(timer);
  }
  const version = context.browser()?.version();
  console.log(JSON.stringify({ version, results, console: said }));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
