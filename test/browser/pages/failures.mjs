/** What goes wrong, on servers that are made for it (`test/server/page/fake_server.ts`). */
import { answered, open, send } from "./playground.mjs";
import { checkAccess, checkWidth, picture, withPage } from "./harness.mjs";

const NETWORK = /Failed to load resource/;
const HALF = "An espalier is a tree that grows flat. Each winter the gardener ";

/** Checks refusals, broken answers, long ones, keys, loading, and the view without a chat. */
export async function checkFailures(browser, results, fakes) {
  const { plain, keyed, lost, loading, axe, pictures } = fakes;
  const on = (what, use, options = {}, allowed = NETWORK) =>
    results.part(what, () => withPage(browser, results, what, options, use, allowed));

  await on("busy", async (page) => {
    await open(page, { url: plain });
    await send(page, `busy ${Math.random()} !429`);
    const failure = page.locator(".message .failure");
    await failure.waitFor();
    results.that(
      "429 tells how long to wait",
      (await failure.innerText()).includes("asks to wait 2 seconds"),
      await failure.innerText(),
    );
    await checkAccess(results, "a failure", page, axe);
    await failure.getByRole("button").click();
    await answered(page, 1);
    results.same("and trying again answers", await page.locator(".message .failure").count(), 0);
  });

  await on("refused", async (page) => {
    await open(page, { url: plain });
    await send(page, `too long ${Math.random()} !429`);
    await page.locator(".message .failure").waitFor();
    const request = page.waitForRequest((request) => request.method() === "POST");
    await send(page, "something else");
    const { messages } = (await request).postDataJSON();
    results.same(
      "what could not be answered is not sent with what follows",
      messages.map(({ content }) => content),
      ["something else"],
    );
  });

  for (const [word, says] of [["!error", "The engine failed."], ["!lost", "connection"]]) {
    await on(word, async (page) => {
      await open(page, { url: plain });
      await send(page, `half ${word}`);
      await page.locator(".message .failure").waitFor();
      const told = await page.locator(".message .failure p").innerText();
      results.that(`${word}: says what happened`, told.includes(says), told);
      const text = await page.locator(".message.model .text").evaluate((e) => e.textContent);
      results.that(`${word}: keeps what came`, HALF.startsWith(text) && text.length > 20, text);
      const announced = await page.locator("#announcer").innerText();
      results.that(`${word}: tells a screen reader`, announced.includes(says), announced);
      const request = page.waitForRequest((request) => request.method() === "POST");
      await page.getByRole("button", { name: "Try again" }).click();
      const { messages } = (await request).postDataJSON();
      results.same(`${word}: half an answer is not sent back`, messages.length, 1);
    });
  }

  await on("long", async (page) => {
    await open(page, { url: plain });
    await page.evaluate(() => {
      globalThis.frames_ = [];
      const tick = (now) => {
        globalThis.frames_.push(now);
        requestAnimationFrame(tick);
      };
      requestAnimationFrame(tick);
    });
    await send(page, "all of it !long");
    await answered(page, 1);
    const found = await page.evaluate(() => {
      const gaps = globalThis.frames_.slice(1).map((now, i) => now - globalThis.frames_[i]);
      gaps.sort((a, b) => a - b);
      const text = document.querySelector(".message.model .text");
      const scroll = document.querySelector("#scroll");
      return {
        words: text.innerText.split(/\s+/).filter(Boolean).length,
        typical: gaps[Math.floor(gaps.length * 0.95)],
        atEnd: scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 50,
      };
    });
    results.same("a long answer is there as a whole, at its end", [found.words, found.atEnd], [
      6000,
      true,
    ]);
    results.that(
      `19 of 20 frames of a long answer take at most ${Math.round(found.typical)} ms`,
      found.typical < 250,
    );
  });

  await on("scrolling", async (page) => {
    await open(page, { url: plain });
    await send(page, "long !long");
    await answered(page, 1);
    await page.locator("#scroll").evaluate((element) => element.scrollTop = 0);
    await send(page, "and more");
    const top = () => page.locator("#scroll").evaluate((element) => element.scrollTop);
    results.that("a new message leads to the end", await top() > 0);
    await drawn(page);
    await page.locator("#scroll").evaluate((element) => element.scrollTop = 0);
    await page.getByRole("button", { name: "To the latest" }).waitFor();
    await answered(page, 2);
    results.same("text that comes does not move who reads above", await top(), 0);
    await page.getByRole("button", { name: "To the latest" }).click();
    results.that("a button leads to the latest", await top() > 0);

    const fromEnd = () =>
      page.locator("#scroll").evaluate(({ scrollHeight, scrollTop, clientHeight }) =>
        Math.round(scrollHeight - scrollTop - clientHeight)
      );
    const { width, height } = page.viewportSize();
    await page.setViewportSize({ width, height: height - 250 });
    await drawn(page);
    results.same("the end stays in sight when a keyboard takes room", await fromEnd(), 0);
    await page.setViewportSize({ width, height });
    await drawn(page);
    await page.locator("#scroll").evaluate((element) => element.scrollTop = 0);
    await page.getByRole("button", { name: "To the latest" }).waitFor();
    await page.locator("#scroll").evaluate((element) => {
      document.querySelector("#latest").click();
      element.style.maxHeight = `${element.clientHeight - 250}px`;
    });
    await drawn(page);
    results.same("also when that comes before word of a scroll", await fromEnd(), 0);
    await page.locator("#scroll").evaluate((element) => element.style.maxHeight = "");
    await drawn(page);

    await send(page, "and all of it once more !long");
    await page.locator(".message.model").nth(2).locator(".text *").first().waitFor();
    const { x, y } = await page.locator("#scroll").boundingBox();
    await page.mouse.move(x + 100, y + 100);
    for (let i = 0; i < 20; i++) {
      await page.mouse.wheel(0, -15);
      await page.waitForTimeout(15);
    }
    results.that("who scrolls up slowly gets there", await fromEnd() > 150, await fromEnd());
    results.that("and is led back", await page.locator("#latest").isVisible());
    await answered(page, 3);
  });

  await on("motion", async (page) => {
    await open(page, { url: plain });
    await send(page, "!slow");
    await page.locator(".waiting").waitFor();
    const running = await page.evaluate(() => document.getAnimations().length);
    results.same("nothing moves for who wants no motion", running, 0);
  }, { reducedMotion: "reduce" });

  await on("key", async (page) => {
    await page.goto(keyed);
    await page.locator("#key-dialog").waitFor();
    await checkAccess(results, "the question for a key", page, axe);
    await picture(page, pictures, "desktop-light-6-key");
    await page.keyboard.type("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("did not take this key").waitFor();
    await page.keyboard.type("open sesame");
    await page.keyboard.press("Enter");
    await page.locator("#prompt").waitFor();
    const stored = await page.evaluate(() => ({
      session: Object.values(sessionStorage),
      local: JSON.stringify(localStorage).includes("sesame"),
      cookies: document.cookie,
    }));
    results.same("the key is kept in the session only", stored, {
      session: ["open sesame"],
      local: false,
      cookies: "",
    });
    await page.reload();
    await page.locator("#prompt").waitFor();
    results.that("and is not asked for again", true);
  });

  await on("no key", async (page) => {
    await page.goto(keyed);
    await page.locator("#key-dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByText("Without a key").waitFor();
    await page.locator("#notice-retry").click();
    await page.locator("#key-dialog").waitFor();
    results.that("without a key one can try again", true);
  });

  await on("loading", async (page) => {
    const url = await loading();
    await page.goto(url);
    await page.getByText("The model is loading").waitFor();
    await picture(page, pictures, "desktop-light-7-loading");
    await page.locator("#prompt").waitFor();
    results.that("a server that loads is waited for", true);
  });

  await on("lost model", async (page) => {
    await page.goto(lost);
    await page.locator("#prompt").waitFor();
    results.that("a server that has lost one of its models has the others", true);
    const names = await page.locator("#model-select option").allInnerTexts();
    results.same("models of one name are told apart", names, [
      "SmolLM2-135M-Instruct-8of16",
      "SmolLM2-135M-Instruct-8of16-2",
    ]);
  });

  await on("editor", async (page) => {
    await open(page, { url: plain });
    await page.locator("#model-select").selectOption("tiny-stories");
    await page.locator("#text").fill("Once upon a time. ");
    await page.locator("#text").press("Control+Enter");
    const value = () => page.locator("#text").inputValue();
    await page.waitForFunction(() => document.querySelector("#text").value.length > 60);
    await page.keyboard.press("Escape");
    await page.getByText("stopped").waitFor();
    const whole = await value();
    results.that(
      "a text is continued, and stopped",
      whole.startsWith("Once upon a time. An espa"),
      whole,
    );
    await checkAccess(results, "editor", page, axe);
    await checkWidth(results, "editor", page);
    await picture(page, pictures, "phone-light-8-editor");
    await page.getByRole("button", { name: "Undo" }).click();
    results.same("and what was written is taken back", await value(), "Once upon a time. ");

    await page.locator("#text").press("Control+Enter");
    await page.locator("#again:enabled").waitFor();
    const mine = ` and MY OWN WORDS ${Math.random()} !429`;
    await page.locator("#text").fill(`${await value()}${mine}`);
    const typed = await value();
    await page.locator("#text").press("Control+Enter");
    await page.locator("#editor-failure button").click();
    await page.locator("#again:enabled").waitFor();
    results.that("trying again keeps what one has written", (await value()).startsWith(typed));

    await page.locator("#text").fill("");
    await page.locator("#text").press("Control+Enter");
    await page.waitForFunction(() => document.querySelector("#text").value.length > 10);
    await page.locator("#new").click();
    await page.locator("#continue").waitFor();
    await page.waitForTimeout(200);
    results.same(
      "a new text has nothing of one that was being written",
      [
        await value(),
        await page.locator("#editor-measures").innerText(),
        await page.locator("#undo").isDisabled(),
        await page.locator("#text").isEditable(),
      ],
      ["", "", true, true],
    );

    await page.locator("#open-panel").click();
    await page.locator("#tab-settings").click();
    await page.locator("#max_tokens").fill("");
    await page.locator("#close-panel").click();
    const asked = page.waitForRequest("**/v1/completions");
    await page.locator("#text").press("Control+Enter");
    const { max_tokens } = (await asked).postDataJSON();
    results.that("no limit of tokens is none, not OpenAI's default", max_tokens > 1e6, max_tokens);

    await page.keyboard.press("Escape");
    await page.locator("#continue").waitFor();
    await page.locator("#text").fill("!slow");
    await page.locator("#text").press("Control+Enter");
    await page.locator("#open-panel").click();
    // On nothing that takes the focus.
    await page.locator("#panel legend").first().click();
    await page.keyboard.press("Escape");
    await page.waitForTimeout(100);
    results.same(
      "to close the settings by Escape does not stop a text",
      [await page.locator("#panel.open").count(), await page.locator("#editor-stop").isVisible()],
      [0, true],
    );
    await page.keyboard.press("Escape");
    await page.locator("#continue").waitFor();
  }, { screen: "phone" });
}

/** Resolves when what has changed was laid out, told to observers, and laid out again. */
function drawn(page) {
  return page.evaluate(() =>
    new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
  );
}
