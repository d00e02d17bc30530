/**
 * Options of the server's app.
 * @module
 */
import { z } from "zod";
import { bytes } from "../api/options.ts";

const seconds = z.number().positive().max(86_400);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, "must be a SHA-256 hash, 64 digits 0-9a-f");

/** A key that clients may come with: its name, for logs, and the hash of it. */
export const keySchema = z.strictObject({
  name: z.string().regex(/^[\w.@-]{1,64}$/, "a key's name has letters, digits and . _ @ - only"),
  sha256,
});

/** Another spelling is compared with what browsers send, too, and lets nobody in. */
const origin = z.string().refine(
  isOrigin,
  "must be an origin as browsers send it, in small letters, without a path or the scheme's own port, " +
    "e.g. https://example.com, or *",
);

/** As `Host` has it, less the port: what comes with one fits nothing. */
const hostName = z.string().toLowerCase().refine(
  (text) => /^(\*|[\w-]+(\.[\w-]+)*)$/.test(text),
  "must be a name as browsers send it, without scheme, port or path, e.g. llm.example.com, or *",
);

/** The fields that the command line has as well. */
export const serverFields = {
  parallel: z.int().min(1).max(1024).default(8).describe("sequences that generate at once"),
  queue: z.int().min(0).max(100_000).default(64).describe("sequences that may wait for a place"),
  queueTimeout: seconds.default(60).describe("seconds that one waits for a place"),
  requestTimeout: seconds.default(600).describe(
    "seconds that a request may take, waiting included",
  ),
  readTimeout: seconds.default(30).describe(
    "seconds in which a request must have arrived, and in which a client must take what it is sent",
  ),
  bodyLimit: bytes.default(1 << 20).describe("largest request, e.g. 1MB"),
  promptLimit: z.int().min(1).optional().describe(
    "most tokens of a prompt (default: as many as the context holds)",
  ),
  maxTokens: z.int().min(1).optional().describe(
    "most tokens of an answer, whatever a request asks for (default: the context)",
  ),
  cors: z.array(origin).default([]).describe(
    "origin whose pages may call the server, e.g. https://example.com, or *. May be given several times",
  ),
  allowHost: z.array(hostName).default([]).describe(
    "name by which the server may be asked, as behind a proxy, or *. May be given several times (default: " +
      "any; on this machine alone and without keys localhost and addresses)",
  ),
  logPrompts: z.boolean().default(false).describe("write prompts and answers to the log, too"),
};

/** Options of `createApp`. */
export const serverSchema = z.strictObject({
  ...serverFields,
  keys: z.array(keySchema).default([]).describe(
    "keys that clients may come with; none: all may come",
  ),
});

/** Options of `createApp`, checked, with their defaults. */
export type ServerSettings = z.output<typeof serverSchema>;

/** Whether a browser may send this as a page's origin, or it is that of all. */
function isOrigin(text: string): boolean {
  if (text === "*" || text === "null") return true;
  if (!/^[a-z][a-z\d+.-]*:\/\/[^/?#*\s]+$/i.test(text)) return false;
  // Those of apps and extensions have schemes of their own, of which no URL tells the origin.
  return !/^https?:/i.test(text) || (URL.canParse(text) && new URL(text).origin === text);
}
