/**
 * Names under which a server may be asked. A page of any site can have its own name lead to this machine (DNS
 * rebinding); for the browser the server is then of that page's origin, and CORS keeps nothing from it. What
 * tells such a request from others is the name in `Host`.
 * @module
 */
import type { MiddlewareHandler } from "hono";
import type { AppEnv } from "./context.ts";
import { ApiError } from "./errors.ts";
import type { ServerSettings } from "./options.ts";

/** What lets in those alone who ask for this machine, by a name of its own or by an address. */
const LOCAL_NAMES = ["localhost"];
/** Longest part of a name that a client is told of. */
const LONGEST_SHOWN = 100;

/**
 * Lets requests pass that ask for one of these hosts, for this machine (`localhost` and names under it) or for
 * an address, which no name server can lead elsewhere.
 *
 * @param allowed Names in small letters, without a port; `*` is any.
 * @throws {ApiError} 403, naming the host and what lets it in.
 */
export function requireHost(allowed: readonly string[]): MiddlewareHandler<AppEnv> {
  return async (context, next) => {
    const host = context.req.header("host");
    // Browsers always send it; who does not is none.
    if (host === undefined || isAllowed(nameOf(host), allowed)) return await next();
    throw new ApiError(
      403,
      `this server is not to be asked as ${
        host.slice(0, LONGEST_SHOWN)
      }: whoever runs it lets that name in ` +
        "with --allow-host (ESPALIER_ALLOW_HOST)",
      { code: "host_not_allowed" },
    );
  };
}

/**
 * The names by which a server may be asked: those allowed or, where there are none, any; but without keys, on
 * this machine alone, its own names only. A page of any site could ask it, and read what it answers.
 *
 * @param host What it listens on, where that is known.
 */
export function hostsOf(
  { allowHost, keys }: Pick<ServerSettings, "allowHost" | "keys">,
  host: string | undefined,
): string[] {
  const isLocal = host !== undefined && isLoopback(host);
  return allowHost.length === 0 && keys.length === 0 && isLocal ? LOCAL_NAMES : allowHost;
}

/** Whether an address to listen on is reached from this machine alone. */
export function isLoopback(host: string): boolean {
  return /^(127\.|::1$|\[::1\]$|localhost$)/i.test(host);
}

/** The host of `Host`: without its port, in small letters, without the dot that ends a full name. */
function nameOf(host: string): string {
  return host.replace(/:\d*$/, "").toLowerCase().replace(/\.$/, "");
}

function isAllowed(name: string, allowed: readonly string[]): boolean {
  if (name === "localhost" || name.endsWith(".localhost")) return true;
  // What ends in a number or stands in brackets is no name to a browser.
  if (/^(\d+(\.\d+){3}|\[[\da-f:.]+\])$/.test(name)) return true;
  return allowed.some((one) => one === "*" || one === name);
}
