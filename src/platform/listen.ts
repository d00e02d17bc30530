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
  ): { addr: { port: number }; finished: Promise<void>; shutdown(): Promise<void> };
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
/** Milliseconds after which Deno listens again when it has run out of file descriptors. */
const LISTEN_AGAIN = 500;
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

/**
 * Deno sees who goes away only when it sends, or when head and body of a request came at once: for others
 * that ask for an answer as a whole, the work goes on.
 *
 * It watches no time until the head of a request is there, and has no limit of connections: each that
 * says nothing costs a file descriptor for as long as its client likes. When there are none left, its
 * server fails. It does not end the process here: answers that are under way are sent, and the port is
 * listened on again.
 */
function denoListen(deno: DenoServe, handler: Handler, options: ListenOptions): Listening {
  const start = (port: number) => {
    const server = deno.serve({ hostname: options.hostname, port, onListen: () => {} }, handler);
    server.finished.catch(again);
    return server;
  };
  const again = () => {
    timer = setTimeout(() => {
      try {
        server = start(port);
      } catch {
        again();
      }
    }, LISTEN_AGAIN);
  };
  let timer: ReturnType<typeof setTimeout> | undefined;
  let server = start(options.port);
  const { port } = server.addr;
  return {
    port,
    stop: () => {
      clearTimeout(timer);
      return soon(server.shutdown().catch(() => {}));
    },
  };
}

/** Bun's idle time is for the head of a request, and for connections that wait for the next one. */
function bunListen(bun: BunServe, handler: Handler, { hostname, port, patience }: ListenOptions) {
  const idleTimeout = Math.min(LONGEST_IDLE, Math.ceil(patience));
  const server = bun.serve({
    hostname,
    port,
    idleTimeout,
    fetch: async (request, server) => {
      // An answer may take its time; the app has limits of its own.
      server.timeout(request, 0);
      const response = await handler(withHost(request));
      // What is said of a request's time stays with its connection, so it has to be taken back; but
      // events may come slowly, so their connection ends with them.
      if (isByAndBy(response)) response.headers.set("Connection", "close");
      else server.timeout(request, idleTimeout);
      return response;
    },
  });
  return { port: server.port, stop: () => soon(server.stop()) };
}

/** Bun's request has a path for its URL when it came without a host, as HTTP/1.0 allows. */
function withHost(request: Request): Request {
  return request.url.startsWith("/")
    ? new Request(`http://localhost${request.url}`, request)
    : request;
}

/** Whether an answer is events that come as they happen. */
function isByAndBy({ headers }: Response): boolean {
  return headers.get("content-type")?.startsWith("text/event-stream") ?? false;
}

/** Waits, but not for ever: for a client that keeps its connection open, say. */
async function soon(done: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  await Promise.race([done, new Promise<void>((end) => timer = setTimeout(end, LAST_WAIT))]);
  clearTimeout(timer);
}
