/**
 * Uses the playground as people do: with the keyboard, on two screens, in two themes. It works against
 * any server whose first model can chat.
 */
import { checkAccess, checkWidth, picture, withPage } from "./harness.mjs";

const CLIPBOARD = ["clipboard-read", "clipboard-write"];
const ANSWER = ".message.model";

/** Opens the playground, with a key where the server wants one. */
export async function open(page, { url, key }) {
  await page.goto(url);
  await page.locator("#chat, #key-dialog[open]").filter({ visible: true }).first().waitFor();
  if (key && await page.locator("#key-dialog").isVisible()) {
    await page.keyboard.type(key);
    await page.keyboard.press("Enter");
  }
  await page.locator("#prompt").waitFor();
}

/** Types a message and sends it. */
export async function send(page, text) {
  await page.locator("#prompt").focus();
  await page.keyboard.type(text);
  await page.keyboard.press("Enter");
}

/** Waits until the last answer is there as a whole. */
export async function answered(page, count) {
  await page.locator(`${ANSWER} .measures`).nth(count - 1).waitFor();
  await page.locator("#send").waitFor();
}

/** Lengths of the last answer's text while it comes. */
async function growth(page) {
  return await page.evaluate(async () => {
    const lengths = new Set();
    for (;;) {
      const last = [...document.querySelectorAll(".message.model")].at(-1);
      const length = last?.querySelector(".text").textContent.length ?? 0;
      if (length > 0) lengths.add(length);
      if (last?.querySelector(".tools")) return [...lengths];
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
  });
}

/** The text in a response's events. */
async function sentText(response) {
  const whole = await response;
  await whole.finished();
  const events = (await whole.body()).toString("utf8").split("\n\n").map((event) => event.slice(6));
  return events.filter((event) => event.startsWith("{"))
    .map((event) => JSON.parse(event).choices[0]?.delta.content ?? "").join("");
}

async function converse(page, results) {
  let body;
  let lengths = [];
  // A model may have nothing to say; another draw then finds words.
  for (let attempt = 0; attempt < 6 && lengths.length < 3; attempt++) {
    if (attempt > 0) await page.getByRole("button", { name: "New chat" }).click();
    body = page.waitForRequest((request) => request.url().endsWith("/v1/chat/completions"));
    await send(page, "Why are fruit trees trained flat against a wall?");
    lengths = await growth(page);
  }
  results.that("the answer grows in steps", lengths.length >= 3, `${lengths.length} steps`);
  const { messages, stream, temperature } = (await body).postDataJSON();
  results.same("the message goes out as it was typed", messages, [
    { role: "user", content: "Why are fruit trees trained flat against a wall?" },
  ]);
  results.same("it asks for a stream, with the settings", { stream, temperature }, {
    stream: true,
    temperature: 0.7,
  });
  const measures = await page.locator(`${ANSWER} .measures`).innerText();
  results.that(
    "speed, time to the first token and usage are told",
    /\d tokens\/s/.test(measures) && /first after [\d.]+ m?s/.test(measures) &&
      /\d tokens? for \d+ of prompt/.test(measures),
    measures,
  );
  results.same("the field has the focus again", await focused(page), "prompt");
  await page.getByRole("button", { name: "Copy the answer" }).click();
  await page.getByText("Copied").waitFor();
  results.same(
    "the answer is copied as the server sent it",
    await page.evaluate(() => navigator.clipboard.readText()),
    await sentText((await body).response()),
  );
  await page.locator("#prompt").focus();
  const announced = await page.locator("#announcer p").allInnerTexts();
  const text = await page.locator(`${ANSWER} .text`).innerText();
  results.that(
    "a screen reader is told sentences, not tokens",
    announced.length >= 1 && announced.length <= lengths.length / 2 + 2,
    `${announced.length} announcements of ${lengths.length} steps`,
  );
  const told = announced.join(" ").replaceAll(/\s+/g, "");
  results.that(
    "and all of the text",
    told.startsWith(text.replaceAll(/\s+/g, "").slice(0, 40)),
    told.slice(0, 80),
  );

  await page.getByRole("button", { name: "Regenerate" }).focus();
  await page.keyboard.press("Enter");
  await page.locator(`${ANSWER} .tools`).waitFor({ state: "detached" });
  await answered(page, 1);
  results.same("a regenerated answer replaces the old one", await page.locator(ANSWER).count(), 1);

  await page.locator("#prompt").focus();
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  results.same("Shift+Enter begins a line", await page.locator("#prompt").inputValue(), "one\ntwo");
  await page.locator("#prompt").fill("");
}

/** Stops an answer in the middle. A model may end by itself before: it then gets another chance. */
async function stop(page, results) {
  let measures = "";
  for (let attempt = 0; attempt < 3 && !measures.includes("stopped"); attempt++) {
    // A new one each time: what was said before would leave small models no room.
    await page.getByRole("button", { name: "New chat" }).click();
    const before = await page.locator(ANSWER).count();
    await send(page, "Tell me a long story about a garden, with every detail. !slow");
    await page.waitForFunction(
      (count) =>
        [...document.querySelectorAll(".message.model")].at(count)?.querySelector(".text")
          .textContent,
      before,
    );
    await page.keyboard.press("Escape");
    await answered(page, before + 1);
    measures = await page.locator(`${ANSWER} .measures`).last().innerText();
  }
  results.that("Escape stops an answer", measures.includes("stopped"), measures);
  const length = () => page.locator(`${ANSWER} .text`).last().evaluate((e) => e.textContent.length);
  const stopped = await length();
  await page.waitForTimeout(700);
  results.same("nothing comes after it", await length(), stopped);
}

async function settings(page, results) {
  await page.getByRole("tab", { name: "Model" }).focus();
  await page.keyboard.press("ArrowRight");
  await page.getByLabel("System prompt").fill("Answer like a gardener.");
  await page.getByLabel("Temperature").fill("0");
  await page.getByLabel("Seed").fill("7");
  await page.getByLabel("Max tokens").fill("24");
  await page.getByLabel("Stop at").fill("END\n\\n\\n");
  await page.getByRole("switch", { name: "Answer in JSON" }).press("Space");
  const request = page.waitForRequest((request) => request.url().endsWith("/v1/chat/completions"));
  const before = await page.locator(ANSWER).count();
  await send(page, "Name a pear.");
  const { messages, temperature, seed, max_tokens, stop, response_format, top_p } = (await request)
    .postDataJSON();
  results.same("settings go out", {
    first: messages[0],
    temperature,
    top_p,
    seed,
    max_tokens,
    stop,
    response_format,
  }, {
    first: { role: "system", content: "Answer like a gardener." },
    temperature: 0,
    top_p: 0.95,
    seed: 7,
    max_tokens: 24,
    stop: ["END", "\n\n"],
    response_format: { type: "json_object" },
  });
  await answered(page, before + 1);

  await page.getByLabel("Temperature").fill("3");
  await send(page, "Again.");
  results.same("a wrong setting keeps a message back", await focused(page), "temperature");
  results.same("and says why", await page.locator("#temperature-wrong").innerText(), "From 0 to 2");
  await page.getByRole("button", { name: "Reset" }).click();
  await page.reload();
  await page.locator("#prompt").waitFor();
  results.same("a reset holds", await page.getByLabel("Temperature").inputValue(), "0.7");
}

const focused = (page) => page.evaluate(() => document.activeElement?.id);

/** Has the next Tab begin at the top of the page. */
async function toStart(page) {
  await page.evaluate(() => {
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute("tabindex");
  });
}

async function walk(page, results) {
  await toStart(page);
  await page.keyboard.press("Tab");
  results.same("the first Tab offers to skip", await focused(page), "skip");
  await page.keyboard.press("Enter");
  results.same("which leads to the field", await focused(page), "prompt");
  await toStart(page);
  const places = [];
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press("Tab");
    const place = await page.evaluate(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return undefined;
      const style = getComputedStyle(element);
      const box = element.closest(".composer-box");
      const seen = style.outlineStyle !== "none" ||
        (box && getComputedStyle(box).boxShadow !== "none");
      const part = element.closest("header, main, aside")?.localName ?? "skip";
      return { part, seen: Boolean(seen), name: element.id || element.textContent.trim() };
    });
    if (!place) break;
    places.push(place);
  }
  const order = places.map(({ part }) => part).filter((part, i, all) => part !== all[i - 1]);
  results.same("Tab goes through bar, conversation, panel", order.slice(0, 4), [
    "skip",
    "header",
    "main",
    "aside",
  ]);
  const unseen = places.filter(({ seen }) => !seen).map(({ name }) => name);
  results.same("the focus can be seen everywhere", unseen, []);
}

async function theme(page, results) {
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.getByRole("button", { name: "Use the dark theme" }).click();
  const dark = await background();
  results.that("the theme changes by hand", light !== dark, `${light}, ${dark}`);
  await page.reload();
  await page.locator("#prompt").waitFor();
  results.same("and stays so", await background(), dark);
  await page.getByRole("button", { name: "Use the light theme" }).click();
  results.same("and back", await background(), light);
}

/** Looks at a page in the states that it has. */
async function look(page, results, what, name, { axe, pictures }) {
  const see = async (state, number) => {
    await checkWidth(results, `${what}, ${state}`, page);
    await checkAccess(results, `${what}, ${state}`, page, axe);
    await picture(page, pictures, `${name}-${number}-${state}`);
  };
  const isPhone = name.startsWith("phone");
  await page.locator(".facts").waitFor({ state: "attached" });
  await page.waitForTimeout(1000);
  await see("empty", 1);
  await send(page, "What does pruning leave of a network? !code");
  await answered(page, 1);
  await see("conversation", 2);
  if (isPhone) {
    await page.getByRole("button", { name: "Model and settings" }).click();
    results.same(`${what}: the sheet takes the focus`, await focused(page), "close-panel");
  }
  await see("model", 3);
  await page.getByRole("tab", { name: "Settings" }).click();
  await see("settings", 4);
  if (isPhone) {
    await page.keyboard.press("Escape");
    results.same(`${what}: and gives it back`, await focused(page), "open-panel");
  }
}

/** On paper, and in scripts that are written from right to left. */
async function checkPrint(page, results) {
  // So low that any answer is cut on the screen.
  await page.setViewportSize({ width: 900, height: 320 });
  await send(page, "\u05e9\u05dc\u05d5\u05dd (a) !long");
  await page.locator(".message.model .text").waitFor();
  await page.waitForFunction(() => {
    const { scrollHeight, clientHeight } = document.getElementById("scroll");
    return scrollHeight > clientHeight + 100;
  });
  await page.keyboard.press("Escape");
  await answered(page, 1);
  const bidi = await page.evaluate(() =>
    [".said", ".text p", "#prompt"].map((one) =>
      getComputedStyle(document.querySelector(one)).unicodeBidi
    )
  );
  results.same("a text has the direction of its words", bidi, Array(3).fill("plaintext"));
  await page.emulateMedia({ media: "print" });
  const isCut = await page.evaluate(() => {
    const { scrollHeight, clientHeight } = document.getElementById("scroll");
    return scrollHeight > clientHeight + 1;
  });
  results.that("all of a conversation is printed", !isCut);
}

/** All of the above. */
export async function checkPlayground(browser, results, about) {
  // The page asks without a key first, and the browser reports the refusal.
  const allowed = about.key ? /status of 401/ : undefined;
  const on = (what, options, use) =>
    results.part(what, () =>
      withPage(browser, results, what, options, async (page) => {
        await open(page, about);
        await use(page);
      }, allowed));

  await on("conversation", { permissions: CLIPBOARD }, async (page) => {
    await converse(page, results);
    await stop(page, results);
    await page.getByRole("button", { name: "New chat" }).click();
    results.same("a new chat is empty", await page.locator(".message").count(), 0);
  });
  await on("settings", {}, async (page) => {
    await walk(page, results);
    await settings(page, results);
    await theme(page, results);
  });
  await on("print", {}, (page) => checkPrint(page, results));
  for (const screen of ["desktop", "phone"]) {
    for (const theme of ["light", "dark"]) {
      const what = `${screen}, ${theme}`;
      await on(
        what,
        { screen, theme, reducedMotion: "reduce" },
        (page) => look(page, results, what, `${screen}-${theme}`, about),
      );
    }
  }
}
