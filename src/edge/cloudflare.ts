/**
 * A Worker of Cloudflare, its model in static assets.
 * @module
 */
import type { ExecutionContext } from "hono";
import type { KernelModules } from "../engine/sparse/kernels.ts";
import { type Bundle, type Handler, makeHandler } from "./handler.ts";
import { bundledSource } from "./source.ts";
import type { Variables } from "./variables.ts";

/** What the Worker's environment has besides variables and secrets. */
export interface WorkerEnvironment extends Variables {
  readonly ASSETS: { fetch(url: string): Promise<Response> };
}

/** What a Worker's module exports. */
export interface Worker {
  fetch(request: Request, env: WorkerEnvironment, execution: ExecutionContext): Promise<Response>;
}

/** Assets have paths only; a URL needs a host. */
const HOST = "https://assets.invalid/";

/**
 * Makes the Worker. The model is loaded at the first request that needs it, and stays as long as the
 * isolate does.
 *
 * @param bundle What `bundle` has settled.
 * @param kernels As modules: nothing is compiled from bytes there.
 */
export function cloudflareWorker(bundle: Bundle, kernels: KernelModules): Worker {
  let handler: Handler | undefined;
  return {
    async fetch(request, env, execution) {
      try {
        handler ??= makeHandler({
          bundle,
          engine: { threads: 1, kernels },
          variables: env,
          open: () => bundledSource(bundle.name, bundle.files, (path) => readAsset(env, path)),
        });
      } catch (error) {
        // A variable is wrong: nobody is let in, and what is wrong is for the log.
        console.error(String((error as Error).message));
        const message = "the function's settings are wrong: its log says which";
        return Response.json({ error: { message, type: "server_error" } }, { status: 500 });
      }
      return await handler.fetch(request, execution);
    },
  };
}

/** One copy of the bytes: there is little memory. */
async function readAsset(
  { ASSETS }: WorkerEnvironment,
  path: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const url = HOST + path.split("/").map(encodeURIComponent).join("/");
  const response = await ASSETS.fetch(url);
  if (response.ok) return new Uint8Array(await response.arrayBuffer());
  await response.body?.cancel();
  throw new Error(`the assets answered ${response.status}`);
}
