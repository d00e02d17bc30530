/** Reads the reference of the API. */
import { checkAccess, checkWidth, picture, withPage } from "./harness.mjs";

/** Checks the page against the description that it shows. */
export async function checkDocs(browser, results, { url, axe, pictures }) {
  for (const screen of ["desktop", "phone"]) {
    for (const theme of ["light", "dark"]) {
      const what = `reference, ${screen}, ${theme}`;
      await results.part(
        what,
        () =>
          withPage(browser, results, what, { screen, theme }, async (page) => {
            await page.goto(new URL("docs", url).href);
            await page.locator(".route").first().waitFor();
            const described = await page.evaluate(async () => {
              const { paths } = await (await fetch("openapi.json")).json();
              return Object.entries(paths).flatMap(([path, item]) =>
                Object.keys(item).filter((key) => ["get", "post", "put", "delete"].includes(key))
                  .map((method) => `${method.toUpperCase()} ${path}`)
              ).sort();
            });
            const shown = await page.locator(".route-path").evaluateAll((elements) =>
              elements.map((e) => [...e.children].map((child) => child.textContent).join(" "))
                .sort()
            );
            results.same(`${what}: every route is there`, shown, described);
            // Opening shows more to open; three levels are enough to see all kinds.
            for (let level = 0; level < 3; level++) {
              await page.evaluate(() => {
                for (const each of document.querySelectorAll("details")) each.open = true;
              });
              await page.waitForTimeout(100);
            }
            const closed = await page.locator(".fields").count();
            results.that(`${what}: schemas unfold`, closed > 3, `${closed} lists of fields`);
            await checkWidth(results, what, page);
            await checkAccess(results, what, page, axe);
            await page.evaluate(() => document.querySelector(".route").scrollIntoView());
            await picture(page, pictures, `${screen}-${theme}-5-reference`);
          }),
      );
    }
  }
}
