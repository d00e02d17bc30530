/**
 * Listening for HTTP requests, in Deno and in Bun.
 * @module
 */
import { ListenError } from "../errors.ts";
import { runtime } from "./runtime.ts";

/** Where to listen, and how patiently. */
export interface ListenOptions {
  readonly hostname: string;
  /** 0 takes any that is free. */
  readonly port: number;
  /** Seconds in which the head of a request must have arrived, where the runtime can watch that. */
  readonly patience: number;
}

/** A server that listens. */
export interface Listening {
  /** The port that it got. */
  readonly port: number;
  /** Takes no more connections, and ends those that are idle. */
  stop(): Promise<void>;
}

/** From a request to its response. */
export type Handler = (request: Request) => Response | Promise<Response>;

/** As much of Deno as is used. */
interface DenoServe {
  serve(
    options: { hostname: string; port: number; onListen: () => void },
    handler: Handler,
  ): { addr: { port: number }; shutdown(): Promise<void> };
}

/** As much of Bun as is used. */
interface BunServer {
  port: number;
  stop(closeActive?: boolean): Promise<void>;
  timeout(request: Request, seconds: number): void;
}
interface BunServe {
  serve(options: {
    hostname: string;
    port: number;
    idleTimeout: number;
    fetch(request: Request, server: BunServer): Response | Promise<Response>;
  }): BunServer;
}

/** Bun takes no longer idle time. */
const LONGEST_IDLE = 255;
/** Milliseconds after which connections that are still open are left to end with the process. */
const LAST_WAIT = 2000;

/**
 * Listens.
 *
 * @throws {ListenError} When the address cannot be had.
 */
export function listen(handler: Handler, options: ListenOptions): Listening {
  const { hostname, port } = options;
  try {
    const { Deno, Bun } = globalThis as unknown as { Deno?: DenoServe; Bun?: BunServe };
    if (Deno) return denoListen(Deno, handler, options);
    if (Bun) return bunListen(Bun, handler, options);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ListenError(
      `cannot listen on ${hostname}, port ${port}: ${reason}: name another --port or --host`,
      { cause },
    );
  }
  throw new ListenError(`${runtime().name} is no server here: start it with deno or bun`);
}

function denoListen(deno: DenoServe, handler: Handler, { hostname, port }: ListenOptions) {
  const server = deno.serve({ hostname, port, onListen: () => {} }, handler);
  return { port: server.addr.port, stop: () => soon(server.shutdown()) };
}

function bunListen(bun: BunServe, handler: Handler, { hostname, port, patience }: ListenOptions) {
  const server = bun.serve({
    hostname,
    port,
    idleTimeout: Math.min(LONGEST_IDLE, Math.ceil(patience)),
    fetch: (request, server) => {
      // An answer may take its time; the app has limits of its own.
      server.timeout(request, 0);
      return handler(request);
    },
  });
  return { port: server.port, stop: () => soon(server.stop()) };
}

/** Waits, but not for ever: for a client that keeps its connection open, say. */
async function soon(done: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  await Promise.race([done, new Promise<void>((end) => timer = setTimeout(end, LAST_WAIT))]);
  clearTimeout(timer);
}
