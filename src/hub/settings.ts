/**
 * Where the Hub is, who asks, and where its files are kept: the variables of the environment that
 * every client of the Hub reads.
 * @module
 */
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { quote } from "../checks.ts";
import { UsageError } from "../errors.ts";
import { readText } from "../platform/files.ts";
import { fileSize } from "../platform/paths.ts";

const DEFAULT_ENDPOINT = "https://huggingface.co";
/** Bytes of the largest file with a token; tokens have some dozen. */
const LARGEST_TOKEN = 4096;

/** Variables that each name a place for the cache. */
const PLACES = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"];

type Environment = Readonly<Record<string, string | undefined>>;

/** How the Hub is asked. */
export interface HubSettings {
  /** Its address, without a slash at the end. */
  readonly endpoint: string;
  /** Sent to the endpoint, and to no other server. */
  readonly token?: string;
  /** Folder of the cache that all clients of the Hub share. */
  readonly cache: string;
  /** Whether the network must not be asked. */
  readonly offline: boolean;
  /** Milliseconds that a server may say nothing. */
  readonly patience: number;
  /** Milliseconds before the first repetition of what failed; each later one waits twice as long. */
  readonly backoff: number;
}

/**
 * Settings from the environment: `HF_ENDPOINT`, `HF_TOKEN` (or the file that `hf auth login` wrote),
 * `HF_HUB_CACHE`, `HF_HOME` and `HF_HUB_OFFLINE`.
 *
 * @param home Who runs this has it; for tests.
 * @throws {UsageError} When the endpoint is no URL, the token no token, or there is no place for the cache.
 */
export async function readSettings(home: string | null = homeFolder()): Promise<HubSettings> {
  const environment = process.env;
  return {
    endpoint: endpointOf(environment.HF_ENDPOINT || DEFAULT_ENDPOINT),
    token: tokenOf(environment, home),
    cache: await cacheOf(environment, home),
    offline: [environment.HF_HUB_OFFLINE, environment.TRANSFORMERS_OFFLINE].some(isOn),
    patience: 30_000,
    backoff: 500,
  };
}

async function cacheOf(environment: Environment, home: string | null): Promise<string> {
  const isNamed = PLACES.some((name) => environment[name] !== undefined);
  if (!isNamed && home === null) {
    throw new UsageError(
      "there is no home folder to keep models of the Hub in: set HF_HOME to a folder for them",
    );
  }
  // Its rules for the place of the cache, so that all find each other's files.
  const { getHFHubCachePath } = await import("@huggingface/hub");
  return expanded(getHFHubCachePath(), environment, home);
}

/** Nothing for a user whom the system does not know, as containers may have them. */
function homeFolder(): string | null {
  try {
    // Where others throw, Deno gives null.
    return homedir() || null;
  } catch {
    return null;
  }
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.search || url.hash || url.username) {
    throw new UsageError(
      `HF_ENDPOINT: ${quote(text)} is no address of a Hub, as ${DEFAULT_ENDPOINT}`,
    );
  }
  return url.href.replace(/\/+$/, "");
}

/**
 * A path with `~`, `$NAME` and `${NAME}` replaced, as Python's client does it: no shell has seen what stands in
 * a Dockerfile or an .env file. A name that is not set stays as it is.
 */
function expanded(path: string, environment: Environment, home: string | null): string {
  return path.replace(/^~(?=$|[/\\])/, (tilde) => home ?? tilde)
    .replace(/\$(?:(\w+)|\{([^}]*)\})/g, (all, bare, braced) => environment[bare ?? braced] ?? all);
}

function tokenOf(environment: Environment, home: string | null): string | undefined {
  const folder = environment.HF_HOME ||
    join(environment.XDG_CACHE_HOME || join("~", ".cache"), "huggingface");
  const file = expanded(environment.HF_TOKEN_PATH || join(folder, "token"), environment, home);
  const given = (environment.HF_TOKEN || environment.HUGGING_FACE_HUB_TOKEN)?.trim();
  const where = given ? "HF_TOKEN" : file;
  // A variable that is there and empty says nothing, as for Python's client.
  const token = given ||
    (fileSize(file) === undefined ? "" : readText(file, LARGEST_TOKEN)).trim();
  if (token === "") return undefined;
  // It becomes a header; the message must not show it.
  if (!/^[\x21-\x7e]+$/.test(token)) throw new UsageError(`${where}: what is there is no token`);
  return token;
}

function isOn(value: string | undefined): boolean {
  return /^(1|on|yes|true)$/i.test(value ?? "");
}
