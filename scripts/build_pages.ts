/**
 * Writes the server's pages into a module, so that they come along wherever code comes along: into
 * binaries, bundles for edge functions, and packages.
 *
 *     bun scripts/build_pages.ts
 *
 * A text import (`with { type: "text" }`) would do in today's Deno and Bun, but not in older ones
 * without a flag, nor in bundlers without a loader each; and TypeScript takes a `.js` file that is
 * imported as text for a module. The module is part of the repository; a test compares it with its
 * sources.
 * @module
 */
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const FOLDER = resolve(dirname(fileURLToPath(import.meta.url)), "../src/server/page");

/** The module that is written. */
export const PAGES_MODULE = join(FOLDER, "generated.ts");

/** Pages by the path that they are served at; what they load is served at `/page/NAME`. */
const PAGES: Record<string, string> = { "/": "playground.html", "/docs": "docs.html" };

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Makes the text of the module. */
export async function pagesModule(): Promise<string> {
  const loaded = (await readdir(FOLDER))
    .filter((name) => extname(name) in TYPES && extname(name) !== ".html")
    .sort();
  const files = { ...PAGES, ...Object.fromEntries(loaded.map((name) => [`/page/${name}`, name])) };
  const entries = [];
  for (const [path, name] of Object.entries(files)) {
    const body = await readFile(join(FOLDER, name), "utf8");
    const hash = createHash("sha256").update(body).digest("hex").slice(0, 16);
    const text = body.replaceAll(/[\\`]|\$\{/g, "\\$&");
    entries.push(
      `  ${JSON.stringify(path)}: {\n    type: ${JSON.stringify(TYPES[extname(name)])},\n` +
        `    hash: "${hash}",\n    body: \`${text}\`,\n  },\n`,
    );
  }
  return [
    "// deno-fmt-ignore-file",
    "// Written by scripts/build_pages.ts: change the files beside this one, and run it again.\n",
    'import type { PageFile } from "./mod.ts";\n',
    "/** The pages' files by the path that they are served at. */",
    `export const files: Record<string, PageFile> = {\n${entries.join("")}};\n`,
  ].join("\n");
}

if (import.meta.main) {
  const text = await pagesModule();
  await writeFile(PAGES_MODULE, text);
  console.log(`src/server/page/generated.ts: ${text.length} characters`);
}
