/**
 * Shows texts with `text.js`, whole and in pieces, and compares what comes of it with what was written
 * down by hand.
 */
import { withPage } from "./harness.mjs";

const BUTTON =
  '<button type="button" class="quiet" data-copy=""><span>Copy</span><span class="unseen"> the code</span></button>';
const code = (language, text) =>
  `<div class="code"><div class="code-top"><span>${language}</span>${BUTTON}</div>` +
  `<pre tabindex="0"><code>${text}</code></pre></div>`;

/** Texts, and the markup that is right for them. */
const CASES = [
  ["One.\n\nTwo\nlines.", "<p>One.</p><p>Two\nlines.</p>"],
  ["\n\n\nOne.\n\n\n\n", "<p>One.</p>"],
  [
    "A **bold** word, `code` and **a `b**`.",
    "<p>A <strong>bold</strong> word, <code>code</code> and <strong>a `b</strong>`.</p>",
  ],
  ["2 ** 3 ** 4, a*b, `open", "<p>2 ** 3 ** 4, a*b, `open</p>"],
  ["# Head\ntext", '<p class="heading">Head</p><p>text</p>'],
  ["#nothead, 1.5 and -x", "<p>#nothead, 1.5 and -x</p>"],
  ["- a\n- b\n\nc", "<ul><li>a</li><li>b</li></ul><p>c</p>"],
  ["1. a\n\n2. b\n   more", '<ol><li value="1">a</li><li value="2">b\n   more</li></ol>'],
  ["1. a\n   - b\n   - c", '<ol><li value="1">a<ul><li>b</li><li>c</li></ul></li></ol>'],
  ["```js\nlet a = `b`;\n\n- **c**\n```\nd", `${code("js", "let a = `b`;\n\n- **c**\n")}<p>d</p>`],
  ["```\nnever closed", code("Code", "never closed\n")],
  ["a\n```\n```\nb", `<p>a</p>${code("Code", "")}<p>b</p>`],
  [
    "-  x\n#   Head\n10.   y\n- ",
    '<ul><li>x</li></ul><p class="heading">Head</p><ol><li value="10">y</li></ol><ul><li></li></ul>',
  ],
  ["12  trees", "<p>12  trees</p>"],
  ["-", "<p>-</p>"],
  ["``", "<p>``</p>"],
  [
    "<img src=x onerror=alert(1)> <script>1</script> **<b>x</b>**",
    "<p>&lt;img src=x onerror=alert(1)&gt; &lt;script&gt;1&lt;/script&gt; " +
    "<strong>&lt;b&gt;x&lt;/b&gt;</strong></p>",
  ],
  ["```<script>\n</code><script>1\n```", code("&lt;script&gt;", "&lt;/code&gt;&lt;script&gt;1\n")],
  ["Ein Blümchen 🌱 und 枝。", "<p>Ein Blümchen 🌱 und 枝。</p>"],
];

/** Checks all cases, each in many cuts. */
export async function checkText(browser, results, { url }) {
  await results.part("text", () =>
    withPage(browser, results, "text", {}, async (page) => {
      await page.goto(new URL("docs", url).href);
      const shown = await page.evaluate(async (texts) => {
        const { TextView } = await import("/page/text.js");
        const show = (pieces) => {
          const root = document.createElement("div");
          const view = new TextView(root);
          for (const piece of pieces) view.add(piece);
          view.end();
          return root.innerHTML;
        };
        return texts.map((text) => {
          const cuts = [[text], [...text], text.split(/(?<=\s)/)];
          for (let size = 2; size < 8; size++) {
            cuts.push(text.match(new RegExp(`[^]{1,${size}}`, "gu")));
          }
          return [...new Set(cuts.map(show))];
        });
      }, CASES.map(([text]) => text));
      CASES.forEach(([text, expected], i) =>
        results.same(`text ${JSON.stringify(text.slice(0, 30))}`, shown[i], [expected])
      );
    }));
}
