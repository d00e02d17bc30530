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
  ["page/playground.js", "page/page.js"],
  ["Try the model that this server runs.", "A language model that runs in this page."],
  [">Asking the server<", ">Loading the model<"],
];

/** Files that the page loads beside its scripts, by their names in `page/`. */
export const STYLES: readonly string[] = ["base.css", "playground.css", "theme.js", "mark.svg"];

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
