/**
 * The page of a folder, made from the playground of the server.
 * @module
 */
import { pageFiles } from "../../server/page/mod.ts";
import type { PageSettings } from "./protocol.ts";

/**
 * What the page may do, as a tag: many hosts let nobody set headers. The worker has a policy of its own,
 * which is that of its headers, so it may compile WebAssembly and start threads.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "worker-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

/** What differs from the server's page. */
const CHANGES: readonly (readonly [string | RegExp, string])[] = [
  // Keys, and links to a server's other pages.
  [/ *<!-- server -->[\s\S]*?<!-- \/server -->\n/g, ""],
  [
    '<script type="module" src="page/playground.js">',
    '<script src="page/unloaded.js"></script>\n    <script type="module" src="page/page.js">',
  ],
  ["Try the model that this server runs.", "A language model that runs in this page."],
  [">Asking the server<", ">Loading the model<"],
];

/** Files that the page loads beside its scripts, by their names in `page/`. */
export const STYLES: readonly string[] = ["base.css", "playground.css", "theme.js", "mark.svg"];

/**
 * A script that is no module, for when the page's own cannot be loaded: modules are taken from web servers alone,
 * and by their type. The page would say for ever that it loads the model.
 */
export const UNLOADED = `addEventListener("error", ({ target }) => {
  if (!(target instanceof HTMLScriptElement)) return;
  const script = target.getAttribute("src");
  const [title, text] = location.protocol === "file:"
    ? [
      "This page was opened as a file",
      "Browsers take it from a web server only. Start one in its folder, python3 -m http.server, and open " +
      "http://localhost:8000/",
    ]
    : [
      "The page cannot be loaded",
      "Its script " + script + " did not come. Is all of the folder on the server, and does it send files that end " +
      "with .js as text/javascript?",
    ];
  const tell = () => {
    document.getElementById("notice").classList.add("failed");
    document.getElementById("notice-title").textContent = title;
    document.getElementById("notice-text").textContent = text;
  };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", tell);
  else tell();
}, true);
`;

/**
 * Makes `index.html`.
 *
 * @throws {Error} When the playground has changed so that it does not fit any more.
 */
export function indexHtml(settings: PageSettings): string {
  let html = pageFiles["/"].body;
  for (const [from, to] of CHANGES) {
    const changed = html.replaceAll(from, () => to);
    if (changed === html) throw new Error(`the playground has no ${from} any more`);
    html = changed;
  }
  const charset = '<meta charset="utf-8">';
  const tags = [
    charset,
    `<meta http-equiv="content-security-policy" content="${POLICY}">`,
    '<meta name="referrer" content="no-referrer">',
    `<meta name="espalier" content="${attribute(JSON.stringify(settings))}">`,
  ];
  return html.replace(charset, () => tags.join("\n    "));
}

/** Text as the value of an attribute. */
function attribute(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
}
