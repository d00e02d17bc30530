/**
 * Uses folders that `bundle --target static` made, in headless Chromium, and prints what was found.
 *
 *     drive.mjs TASK.json
 *
 * The task is {chromium, pictures?, text: {folder, prompt, expected}, chat: {folder, prompt, expected},
 * tokens}; printed is {version, checks: [{what, ok, why}]}. For Node; it must lie in a folder beside a node_modules
 * with playwright-core and axe-core.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { checkDamage, checkKept, checkLimits, checkUnloaded } from "./failures.mjs";
import { Results } from "../pages/harness.mjs";
import { checkLooks, checkPage } from "./site.mjs";

const { chromium: executablePath, ...task } = JSON.parse(readFileSync(process.argv[2], "utf8"));
// A name in a variable, so that who only checks this file need not have the package.
const name = "playwright-core";
const { chromium } = await import(name);
const axe = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const results = new Results();
try {
  await checkPage(browser, results, task);
  await checkKept(browser, results, task);
  await checkDamage(browser, results, task);
  await checkUnloaded(browser, results, task);
  await checkLimits(browser, results, task);
  await checkLooks(browser, results, { ...task, axe });
  console.log(JSON.stringify({ version: browser.version(), checks: results.checks }));
} finally {
  await browser.close();
}
