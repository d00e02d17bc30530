/**
 * The pages: the playground at `/`, the reference of the interface at `/docs`, and what they need.
 * @module
 */
import { pageFiles, pageHeaders } from "../page/mod.ts";
import type { App } from "../context.ts";

/** Adds a route for each file; there is no other way to one. */
export function addPages(app: App): void {
  for (const [path, { type, body, hash }] of Object.entries(pageFiles)) {
    const etag = `"${hash}"`;
    app.get(path, (context) => {
      const headers = { ...pageHeaders, "content-type": type, etag };
      return isKnown(context.req.header("if-none-match"), etag)
        ? context.body(null, 304, headers)
        : context.body(body, 200, headers);
    });
  }
}

/** Whether a browser has it already: proxies that compress make the tag a weak one, which is as good here. */
function isKnown(tags: string | undefined, etag: string): boolean {
  return tags?.split(",").some((tag) => ["*", etag, `W/${etag}`].includes(tag.trim())) ?? false;
}
