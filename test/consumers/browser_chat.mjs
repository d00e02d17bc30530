/**
 * Uses the page of examples/browser-chat in headless Chromium, and prints what it wrote.
 *
 *     browser_chat.mjs CHROMIUM FOLDER
 *
 * Printed is {visits: [{answer, state, requests}], stopped, said}: two visits of the same browser. For Node;
 * it must lie below a node_modules with playwright-core, where server.mjs is from here.
 */
import process from "node:process";
import { serveFolder } from "../browser/site/server.mjs";

const [executablePath, folder] = process.argv.slice(2);
// A name in a variable, so that who only checks this file need not have the package.
const name = "playwright-core";
const { chromium } = await import(name);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const site = await serveFolder(folder);
try {
  const page = await browser.newPage();
  const said = [];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(error.message));
  const idle = () => page.locator("#send:enabled").waitFor({ timeout: 60_000 });
  const visits = [];
  for (let visit = 0; visit < 2; visit++) {
    site.requests.length = 0;
    await page.goto(site.url);
    await idle();
    await page.locator("#send").click();
    await page.waitForFunction(() =>
      /tokens\/s/.test(document.getElementById("state").textContent)
    );
    visits.push({
      answer: await page.locator("#answer").textContent(),
      state: await page.locator("#state").textContent(),
      requests: [...site.requests],
    });
  }
  // The page itself stops at the first text: a click from here comes after the last, an answer takes 50 ms.
  await page.evaluate(() => {
    const stop = document.getElementById("stop");
    new MutationObserver(() => stop.click())
      .observe(document.getElementById("answer"), { childList: true });
  });
  let stopped = "";
  for (let attempt = 0; attempt < 9 && !/stopped/.test(stopped); attempt++) {
    await page.locator("#send").click();
    await page.waitForFunction(() => document.getElementById("answer").textContent !== "");
    await idle();
    stopped = await page.locator("#state").textContent();
  }
  console.log(JSON.stringify({ visits, stopped, said }));
} finally {
  site.close();
  await browser.close();
}
