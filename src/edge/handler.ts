/**
 * The server of a bundle: the same app, and a model that is loaded when it is first asked for.
 * @module
 */
import type { ExecutionContext } from "hono";
import { partsSource } from "../engine/parts_source.ts";
import type { ModelSource } from "../engine/source.ts";
import { EspalierError } from "../errors.ts";
import { runCompiled, type SparseOptions } from "../generate/run.ts";
import { appOf } from "../server/app.ts";
import { type AppContext, executionOf } from "../server/context.ts";
import { QueueFullError } from "../server/errors.ts";
import { hostsOf } from "../server/hosts.ts";
import { jsonLine, type Log } from "../server/log.ts";
import { Service } from "../server/service.ts";
import { type Execution, Loading } from "./loading.ts";
import { serverSettings, type Variables } from "./variables.ts";

/** What `bundle` has settled; it stands in the entry. */
export interface Bundle {
  /** What the model is called. */
  readonly name: string;
  /** Paths of its files, parts of them included. */
  readonly files: readonly string[];
  /** Sequences that generate at once. */
  readonly parallel: number;
  /** How the engine runs it. */
  readonly engine: Pick<SparseOptions, "context" | "kv" | "memory">;
}

/** Seconds after which to ask again where too many wait for the model. */
const LOADING_RETRY = 5;

/** What makes a handler. */
export interface HandlerOptions {
  readonly bundle: Bundle;
  readonly engine: SparseOptions;
  readonly variables: Variables;
  /** The name or address that it listens on, where it is known. */
  readonly hostname?: string;
  /** Opens the model's files. */
  open(): ModelSource;
  readonly log?: Log;
}

/** What answers requests. */
export interface Handler {
  fetch(request: Request, execution?: ExecutionContext): Promise<Response>;
  /** Loads the model before somebody asks; that it fails is in the log. */
  warm(): Promise<void>;
}

/** Lines of JSON, on the console: that is what `wrangler tail` and the pages of others show. */
const toConsole: Log = (entry) => {
  if (entry.event === "error") console.error(jsonLine(entry));
  else console.log(jsonLine(entry));
};

/**
 * Makes the handler. Keys are looked at before the model is loaded, and pages are there without it.
 *
 * @throws {UsageError} When a variable is wrong.
 */
export function makeHandler(options: HandlerOptions): Handler {
  const { bundle, variables, hostname, engine, open, log = toConsole } = options;
  const settings = serverSettings(variables, bundle.parallel);
  const service = new Service({ ...settings, allowHost: hostsOf(settings, hostname) });
  const loading = new Loading(async ({ signal, onProgress }) => {
    const source = await partsSource(watched(open(), onProgress));
    return await runCompiled(source, { ...bundle.engine, ...engine, signal });
  });
  let isServed = false;
  const load = async (execution?: Execution) => {
    // Nobody replaces a process here whose model is lost: it loads it again.
    if (service.hasLost) {
      service.drop();
      loading.drop();
      isServed = false;
    }
    try {
      const model = await loading.get(execution);
      if (isServed) return;
      isServed = true;
      service.add(model, bundle.name);
      service.ready();
    } catch (error) {
      service.fail();
      const { stack, message } = error as Error;
      // Classes have no names in a bundle.
      const why = error instanceof EspalierError ? `${error.code}: ${message}` : stack ?? message;
      const time = new Date().toISOString();
      log({ time, event: "error", message: `the model could not be loaded: ${why}` });
    }
  };
  let waiting = 0;
  /** As long as a request may take, and its client is there: what is then not loaded is told to wait. */
  const awaitModel = async (context: AppContext) => {
    const { parallel, queue, requestTimeout } = settings;
    if (waiting >= parallel + queue) throw new QueueFullError(waiting, LOADING_RETRY);
    const { signal } = context.get("work");
    let end = () => {};
    const ended = new Promise<void>((resolve) => end = resolve);
    const timer = setTimeout(end, 1000 * requestTimeout);
    signal.addEventListener("abort", end);
    waiting++;
    try {
      await Promise.race([load(executionOf(context)), ended]);
    } finally {
      waiting--;
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
    }
  };
  const app = appOf(service, log, async (context, next) => {
    if (!isServed || service.hasLost) await awaitModel(context);
    await next();
  });
  return {
    fetch: async (request, execution) => await app.fetch(request, {}, execution),
    warm: () => load(),
  };
}

/** The same source, and word of every file that has been read. */
function watched(source: ModelSource, onRead: () => void): ModelSource {
  const { readInto } = source;
  return {
    name: source.name,
    has: (path) => source.has(path),
    open: (path) => source.open(path),
    readInto: readInto && (async (path, target) => {
      await readInto.call(source, path, target);
      onRead();
    }),
    async read(path, largest) {
      const bytes = await source.read(path, largest);
      onRead();
      return bytes;
    },
  };
}
