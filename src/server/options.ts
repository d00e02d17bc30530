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
  cors: z.array(z.string().min(1)).default([]).describe(
    "origin whose pages may call the server, e.g. https://example.com, or *. May be given several times",
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
