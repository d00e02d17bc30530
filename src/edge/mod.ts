/**
 * What the entries of bundles call: `dist/edge.js`, which `bundle` copies. It is no export of the package.
 * @module
 */
export { cloudflareWorker } from "./cloudflare.ts";
export { denoProgram } from "./deno.ts";
