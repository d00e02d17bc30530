/**
 * Keys that clients come with. The server knows their hashes only.
 * @module
 */
import type { MiddlewareHandler } from "hono";
import { UsageError } from "../errors.ts";
import { hexOf, sha256Of } from "../platform/sha256.ts";
import type { AppEnv } from "./context.ts";
import { ApiError } from "./errors.ts";
import type { ServerSettings } from "./options.ts";

/** A key, by its hash. */
export type Key = ServerSettings["keys"][number];

/** The variable of bundles whose value is what a key file holds; `serve` has a file. */
export const KEYS = "ESPALIER_KEYS";

/** Random bytes of a new key. */
const KEY_BYTES = 24;

/**
 * Lets those in who have a key; everybody where there are none.
 *
 * @throws {ApiError} With the status and words of OpenAI's server.
 */
export function requireKey(keys: readonly Key[]): MiddlewareHandler<AppEnv> {
  return async (context, next) => {
    if (keys.length === 0) return await next();
    const [, given] = /^Bearer +(\S+) *$/i.exec(context.req.header("authorization") ?? "") ?? [];
    if (given === undefined) {
      throw new ApiError(401, "a key is needed: send it as Authorization: Bearer KEY", {
        code: "missing_api_key",
      });
    }
    const hash = await hashOf(given);
    // All are compared, whichever fits: the time that it takes tells nothing.
    let name: string | undefined;
    for (const known of keys) if (areEqual(hash, known.sha256)) name = known.name;
    if (name === undefined) {
      throw new ApiError(401, "the key is wrong: ask whoever runs this server for one", {
        code: "invalid_api_key",
      });
    }
    context.get("record").key(name);
    await next();
  };
}

/** Whether texts are the same, in a time that does not depend on where they differ. */
function areEqual(a: string, b: string): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i);
  return difference === 0;
}

function hashOf(key: string): Promise<string> {
  return sha256Of(new TextEncoder().encode(key));
}

/** A new key, and the line of the key file that lets it in. */
export async function makeKey(name: string): Promise<{ key: string; line: string }> {
  const key = `esp-${hexOf(crypto.getRandomValues(new Uint8Array(KEY_BYTES)))}`;
  return { key, line: `${name} ${await hashOf(key)}` };
}

/**
 * Reads a key file that is there to let somebody in.
 *
 * @throws {UsageError} Naming the line that is wrong, or when there is no key in it.
 */
export function parseKeys(text: string, path: string): Key[] {
  const keys = keysIn(text, path);
  if (keys.length === 0) throw new UsageError(`${path} holds no key: nobody could come in`);
  return keys;
}

/**
 * The keys in a key file: a line a key, its name and its hash; lines that begin with # say nothing.
 *
 * @throws {UsageError} Naming the line that is wrong.
 */
export function keysIn(text: string, path: string): Key[] {
  return text.split(/\r?\n/).flatMap((line, i): Key[] => {
    if (line.trim() === "" || line.trimStart().startsWith("#")) return [];
    const [, name, sha256] = /^\s*([\w.@-]{1,64})\s+([0-9a-fA-F]{64})\s*$/.exec(line) ?? [];
    if (name === undefined) {
      throw new UsageError(
        `${path}, line ${
          i + 1
        }: write a name and the SHA-256 hash of the key, as the command key does`,
      );
    }
    return [{ name, sha256: sha256.toLowerCase() }];
  });
}
