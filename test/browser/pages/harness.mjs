/**
 * What the drivers of pages share: a count of checks, a page that notes what it should not say, and
 * small questions to a page.
 */
import { join } from "node:path";

/** Milliseconds for what a page waits for; models are slow. */
export const PATIENCE = 60_000;

/** Screens: a phone, a desktop. */
export const SCREENS = {
  phone: { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
  desktop: { viewport: { width: 1280, height: 800 } },
};

/** Collects what was checked. */
export class Results {
  checks = [];

  that(what, ok, why = "") {
    this.checks.push({ what, ok: Boolean(ok), why: String(why) });
  }

  same(what, found, expected) {
    const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
    this.that(what, a === b, `${a} where ${b} was expected`);
  }

  /** Runs a part; that it throws is one failure. */
  async part(what, work) {
    try {
      await work();
    } catch (error) {
      this.that(what, false, error.stack ?? error);
    }
  }
}

/**
 * Gives a part a page of its own, and checks that nothing went wrong in it that nobody looks at:
 * errors in its console, and what its policy forbade.
 *
 * @param allowed What the console may say in this part.
 */
export async function withPage(browser, results, what, options, use, allowed = undefined) {
  const { screen = "desktop", theme = "light", ...rest } = options;
  const context = await browser.newContext({ ...SCREENS[screen], colorScheme: theme, ...rest });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const said = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") said.push(message.text());
  });
  page.on("pageerror", (error) => said.push(error.message));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
      console.error(`policy: ${violatedDirective} ${blockedURI}`);
    });
  });
  try {
    await use(page);
    const wrong = said.filter((line) => !allowed?.test(line));
    results.same(`${what}: no error in the console`, wrong, []);
  } finally {
    await context.close();
  }
}

/** Checks that nothing is wider than the screen, and that nothing but code scrolls sideways. */
export async function checkWidth(results, what, page) {
  const wide = await page.evaluate(() => {
    const found = [];
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth > clientWidth) found.push(`page: ${scrollWidth} > ${clientWidth}`);
    for (const element of document.querySelectorAll("body *")) {
      if (element.closest("pre, svg, .unseen, .skip, textarea, input")) continue;
      if (element.getClientRects().length === 0) continue;
      const overflow = getComputedStyle(element).overflowX;
      if (overflow === "visible" || overflow === "clip") continue;
      if (getComputedStyle(element).textOverflow === "ellipsis") continue;
      if (element.scrollWidth > element.clientWidth + 1) {
        found.push(`${element.localName}.${element.className}: ${element.scrollWidth}`);
      }
    }
    return found;
  });
  results.same(`${what}: nothing overflows sideways`, wide, []);
}

/** Checks a page with axe-core. */
export async function checkAccess(results, what, page, axe) {
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes[0].html}`);
  });
  results.same(`${what}: axe finds nothing`, violations, []);
}

/** Takes a picture, where they are wanted. */
export async function picture(page, folder, name) {
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
}
