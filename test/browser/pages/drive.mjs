/**
 * Uses the server's pages in headless Chromium, and prints what was found.
 *
 *     drive.mjs TASK.json
 *
 * The task is {chromium, url, key?, pictures?, fakes?}; printed is {version, checks: [{what, ok, why}]}.
 * For Node; it must lie beside a node_modules with playwright-core and axe-core.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { checkDocs } from "./docs.mjs";
import { checkFailures } from "./failures.mjs";
import { Results } from "./harness.mjs";
import { checkPlayground } from "./playground.mjs";
import { checkText } from "./text.mjs";

const { chromium: executablePath, fakes, ...task } = JSON.parse(
  readFileSync(process.argv[2], "utf8"),
);
// A name in a variable, so that who only checks this file need not have the package.
const name = "playwright-core";
const { chromium } = await import(name);
const axe = readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const results = new Results();
try {
  await checkPlayground(browser, results, { ...task, axe });
  await checkDocs(browser, results, { ...task, axe });
  await checkText(browser, results, task);
  if (fakes) {
    const loading = async () => await (await fetch(fakes.loading)).text();
    await checkFailures(browser, results, { ...fakes, loading, axe, pictures: task.pictures });
  }
  console.log(JSON.stringify({ version: browser.version(), checks: results.checks }));
} finally {
  await browser.close();
}
