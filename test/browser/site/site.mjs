/**
 * The page of a folder as people use it: it generates what the engine generates elsewhere, stops, and
 * looks well.
 */
import { checkAccess, checkWidth, picture, withPage } from "../pages/harness.mjs";
import { serveFolder } from "./server.mjs";

/** Longest that the page may stand still while the engine computes, in milliseconds. */
const STILL = 200;

/** Gives a part a server and a page, neither of which knows anything yet. */
export async function onSite(browser, results, what, options, use, allowed) {
  const { folder, isolated, prefix, ...page } = options;
  await results.part(what, async () => {
    const site = await serveFolder(folder, { isolated, prefix });
    try {
      await withPage(browser, results, what, page, (page) => use(page, site), allowed);
    } finally {
      site.close();
    }
  });
}

/** Waits until the model is there. */
export async function loaded(page) {
  await page.locator("#text, #prompt").filter({ visible: true }).first().waitFor();
}

/** Waits until the page has given up, and gives what it says. */
export async function refusal(page) {
  await page.locator("#notice.failed").waitFor();
  return `${await page.locator("#notice-title").innerText()}: ${await page.locator("#notice-text")
    .innerText()}`;
}

/** Has it take the likeliest token each time, so many times. */
export async function setGreedy(page, tokens) {
  await page.evaluate((tokens) => {
    const set = (id, value) => {
      const input = document.getElementById(id);
      input.value = value;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    };
    set("temperature", "0");
    set("max_tokens", String(tokens));
  }, tokens);
}

/** Lets it continue a text, and gives what it wrote. */
export async function continueText(page, { prompt }, tokens) {
  await setGreedy(page, tokens);
  await page.locator("#text").fill(prompt);
  await page.locator("#continue").click();
  await page.locator("#editor-measures span, #editor-failure:not([hidden])").first().waitFor();
  const whole = await page.locator("#text").inputValue();
  return whole.slice(prompt.length);
}

/** Threads that the card tells. */
async function threads(page) {
  return Number(
    await page.locator(".facts div").filter({ hasText: /^Threads/ }).locator("dd").textContent(),
  );
}

/** Generation, with one thread and with several, in a folder of a site. */
export async function checkPage(browser, results, { text, chat, tokens }) {
  const prefix = "/some/where/";
  const ways = [["not isolated", false, 1], ["isolated", true, 2]];
  for (const [what, isolated, count] of ways) {
    const at = { folder: text.folder, isolated, prefix };
    await onSite(browser, results, `text, ${what}`, at, async (page, site) => {
      await page.goto(site.url);
      await loaded(page);
      const cores = await page.evaluate(() => navigator.hardwareConcurrency);
      results.same(`text, ${what}: threads`, await threads(page), Math.min(count, cores));
      const found = await continueText(page, text, tokens);
      results.same(`text, ${what}: the same as outside`, found, text.expected);
      const outside = site.requests.filter((path) => !/^(index|page\/|model\/)/.test(path));
      results.same(`text, ${what}: asks for its own files only`, outside, []);
    });
    await onSite(
      browser,
      results,
      `chat, ${what}`,
      { ...at, folder: chat.folder },
      async (page, site) => {
        await page.goto(site.url);
        await loaded(page);
        await setGreedy(page, tokens);
        await page.locator("#prompt").fill(chat.prompt);
        await page.keyboard.press("Enter");
        await page.locator(".message.model .measures").waitFor();
        const found = await page.locator(".message.model .text").textContent();
        results.same(`chat, ${what}: the same as outside`, squeeze(found), squeeze(chat.expected));
        const measures = await page.locator(".message.model .measures").innerText();
        results.that(`chat, ${what}: tells its speed`, /\d tokens\/s/.test(measures), measures);
        await checkAnswers(page, results, what);
        await checkStop(page, results, what);
      },
    );
  }
}

/** Asks anew, and waits until what came of it is there. */
async function ask(page, prompt) {
  await page.getByRole("button", { name: "New chat" }).click();
  await page.locator("#prompt").fill(prompt);
  await page.keyboard.press("Enter");
  await page.locator(".message.model .measures, .message.model .failure").first().waitFor();
}

/** Answers in JSON, and questions that are too long. */
async function checkAnswers(page, results, what) {
  const json = () => page.evaluate(() => document.getElementById("json").click());
  await json();
  await ask(page, "Name a river.");
  const text = await page.locator(".message.model .text").textContent();
  results.that(`chat, ${what}: JSON where it is wanted`, /^\s*\{/.test(text), text);
  await json();
  await ask(page, "river ".repeat(600));
  const said = await page.locator(".message.model .failure p").innerText();
  const isTold = /^The prompt has \d+ tokens, the context holds 512/.test(said);
  results.that(`chat, ${what}: a question that is too long is told`, isTold, said);
}

/** A page shows paragraphs where a text has empty lines. */
const squeeze = (text) => text.replaceAll(/\s+/g, "");

/** Stops an answer in the middle, and looks whether the page stood still while it came. */
async function checkStop(page, results, what) {
  await page.evaluate(() => {
    const set = (id, value) => {
      const input = document.getElementById(id);
      input.value = value;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    };
    set("max_tokens", "480");
    set("temperature", "2");
    let last = performance.now();
    globalThis.longest = 0;
    const look = () => {
      const now = performance.now();
      globalThis.longest = Math.max(globalThis.longest, now - last);
      last = now;
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
  let measures = "";
  for (let attempt = 0; attempt < 8 && !measures.includes("stopped"); attempt++) {
    await page.getByRole("button", { name: "New chat" }).click();
    await page.locator("#prompt").fill("Tell a long story");
    await page.keyboard.press("Enter");
    await page.locator(".message.model:not(.waiting), .message.model .tools").first().waitFor();
    await page.keyboard.press("Escape");
    await page.locator(".message.model .measures").waitFor();
    measures = await page.locator(".message.model .measures").innerText();
  }
  results.that(`chat, ${what}: Escape stops it`, measures.includes("stopped"), measures);
  const longest = await page.evaluate(() => globalThis.longest);
  results.that(`chat, ${what}: the page stays free`, longest < STILL, `${longest} ms`);
}

/** The page in its states, on two screens, in two themes. */
export async function checkLooks(browser, results, { chat, text, axe, pictures }) {
  for (const screen of ["desktop", "phone"]) {
    for (const theme of ["light", "dark"]) {
      const what = `${screen}, ${theme}`;
      const options = { folder: chat.folder, screen, theme, reducedMotion: "reduce" };
      const see = async (page, state) => {
        await checkWidth(results, `${what}, ${state}`, page);
        await checkAccess(results, `${what}, ${state}`, page, axe);
        await picture(page, pictures, `${screen}-${theme}-${state}`);
      };
      await onSite(browser, results, what, options, async (page, site) => {
        let go = () => {};
        const gone = new Promise((resolve) => go = resolve);
        await page.context().route(/part0002/, async (route) => {
          await gone;
          await route.continue();
        });
        await page.goto(site.url);
        await page.waitForFunction(() => document.getElementById("notice-progress").value > 0.4);
        await see(page, "loading");
        go();
        await loaded(page);
        await page.locator(".facts").waitFor({ state: "attached" });
        await see(page, "empty");
        await setGreedy(page, 40);
        await page.locator("#prompt").fill(chat.prompt);
        await page.keyboard.press("Enter");
        await page.locator(".message.model .measures").waitFor();
        await see(page, "answer");
        if (screen === "phone") {
          await page.getByRole("button", { name: "Model and settings" }).click();
          await see(page, "model");
        }
      });
      await onSite(browser, results, `${what}, failed`, options, async (page, site) => {
        site.change = (path) => path.endsWith("part0001") ? 404 : undefined;
        await page.goto(site.url);
        await refusal(page);
        await see(page, "failed");
      }, /404/);
      if (theme === "light") {
        await onSite(
          browser,
          results,
          `${what}, text`,
          { ...options, folder: text.folder },
          async (page, site) => {
            await page.goto(site.url);
            await loaded(page);
            await continueText(page, text, 40);
            await see(page, "text");
          },
        );
      }
    }
  }
}
