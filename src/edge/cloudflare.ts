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

/** Bytes that a stream gives at once. */
const ROOM = 1 << 18;
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
          // A Worker has little memory, of which a sketch would take more than it saves time.
          engine: { threads: 1, kernels, sketch: false },
          variables: env,
          open: () => {
            const assets = new Assets(env);
            const { name, files } = bundle;
            return bundledSource(
              name,
              files,
              (path) => assets.read(path),
              (path, target) => assets.fill(path, target),
            );
          },
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

/** The project's static assets. */
class Assets {
  readonly #env: WorkerEnvironment;

  constructor(env: WorkerEnvironment) {
    this.#env = env;
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const response = await this.#ask(path);
    return new Uint8Array(await response.arrayBuffer());
  }

  /** The stream writes into one small buffer again and again: a part leaves no garbage of its size. */
  async fill(path: string, target: Uint8Array): Promise<void> {
    const { body } = await this.#ask(path);
    const reader = body!.getReader({ mode: "byob" });
    let room = new ArrayBuffer(ROOM);
    for (let filled = 0;;) {
      const { done, value } = await reader.read(new Uint8Array(room));
      if (done) {
        if (filled === target.length) return;
        throw new Error(`it has ${filled} of ${target.length} bytes`);
      }
      if (filled + value.length > target.length) {
        await reader.cancel();
        throw new Error(`it has more than ${target.length} bytes`);
      }
      target.set(value, filled);
      filled += value.length;
      room = value.buffer;
    }
  }

  async #ask(path: string): Promise<Response> {
    const url = HOST + path.split("/").map(encodeURIComponent).join("/");
    const response = await this.#env.ASSETS.fetch(url);
    if (response.ok && response.body) return response;
    await response.body?.cancel();
    throw new Error(`the assets answered ${response.status}`);
  }
}
