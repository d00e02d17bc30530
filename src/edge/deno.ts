/**
 * A program for Deno and Deno Deploy, its model in files beside it.
 * @module
 */
import process from "node:process";
import { EspalierError, UsageError } from "../errors.ts";
import { readAsset } from "../platform/assets.ts";
import { type Bundle, makeHandler } from "./handler.ts";
import { bundledSource } from "./source.ts";
import { VARIABLES } from "./variables.ts";

/** Where to listen. */
export interface Listen {
  readonly hostname: string;
  readonly port: number;
}

/** What `deno serve` listens on; nothing where it has not said so. */
export type Served = Partial<Pick<Listen, "hostname">>;

/** What `Deno.serve` takes. */
export interface DenoProgram {
  readonly fetch: (request: Request) => Promise<Response>;
  /** Undefined on Deno Deploy and in `deno serve`, which say where by themselves. */
  readonly listen: Listen | undefined;
}

/** Variables that say where to listen, as those of `serve`. */
const [PORT, HOST] = ["ESPALIER_PORT", "ESPALIER_HOST"];
/** One of them is set on Deno Deploy. */
const DEPLOYED = ["DENO_DEPLOY", "DENO_DEPLOYMENT_ID"];

/**
 * Makes the program, and begins to load the model: who asks meanwhile waits. When a variable is wrong, it
 * says so and ends the process; nobody is served then.
 *
 * @param bundle What `bundle` has settled.
 * @param base URL of the folder that holds the model's folder.
 * @param served Where `deno serve` listens, if that does.
 */
export function denoProgram(bundle: Bundle, base: string | URL, served?: Served): DenoProgram {
  try {
    return programOf(bundle, base, served);
  } catch (error) {
    if (!(error instanceof EspalierError)) throw error;
    console.error(`error ${error.code}: ${error.message}`);
    return process.exit(error.exitCode);
  }
}

/** @throws {UsageError} When a variable is wrong. */
function programOf(bundle: Bundle, base: string | URL, served?: Served): DenoProgram {
  const variables = Object.fromEntries(
    [...VARIABLES, PORT, HOST, ...DEPLOYED].map((name) => [name, process.env[name]]),
  );
  const isDeployed = DEPLOYED.some((name) => variables[name] !== undefined);
  const listen = served || isDeployed ? undefined : listenOf(variables);
  const folder = new URL("model/", base);
  const handler = makeHandler({
    bundle,
    // Where there are no threads, as on Deno Deploy, the engine computes on this one.
    engine: { background: true },
    variables,
    hostname: isDeployed ? undefined : (served ?? listen)?.hostname,
    open: () =>
      bundledSource(
        bundle.name,
        bundle.files,
        (path) => readAsset(new URL(path.split("/").map(encodeURIComponent).join("/"), folder)),
      ),
  });
  void handler.warm();
  return { fetch: (request) => handler.fetch(request), listen };
}

/** @throws {UsageError} When there is no such port. */
function listenOf(variables: Readonly<Record<string, string | undefined>>): Listen {
  const port = Number(variables[PORT] || 8080);
  if (Number.isInteger(port) && port >= 0 && port < 65_536) {
    return { hostname: variables[HOST] || "127.0.0.1", port };
  }
  throw new UsageError(`${PORT}: ${JSON.stringify(variables[PORT])} is no port`);
}
