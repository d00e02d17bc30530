/**
 * The pages of the server: the playground at `/`, the reference of its API at `/docs`, and the files
 * that they load from `/page/`.
 *
 * They need no build, no other host and no markup from models. All are strings in a module
 * (`generated.ts`, by `scripts/build_pages.ts`), so they are there in every runtime and bundle, and no
 * path of a request ever reaches a file system.
 *
 * @example
 * ```ts
 * for (const [path, { type, body, hash }] of Object.entries(pageFiles)) {
 *   app.get(path, (c) => {
 *     const headers = { ...pageHeaders, "content-type": type, etag: `"${hash}"` };
 *     return c.req.header("if-none-match") === `"${hash}"`
 *       ? c.body(null, 304, headers)
 *       : c.body(body, 200, headers);
 *   });
 * }
 * ```
 *
 * @module
 */
import { files } from "./generated.ts";

/** A file of a page. */
export interface PageFile {
  /** For `content-type`. */
  readonly type: string;
  /** The first 64 bits of the body's SHA-256, in hexadecimal: for `etag`, in quotes. */
  readonly hash: string;
  readonly body: string;
}

/** The files by path, which begins with a slash. */
export const pageFiles: Readonly<Record<string, PageFile>> = files;

/**
 * Headers that all of them want. The policy allows what the pages do and nothing else: their own
 * files, their own server. `no-cache` means: ask with the hash whether it is still the same.
 */
export const pageHeaders: Readonly<Record<string, string>> = {
  "content-security-policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};
