/**
 * `serve`: the command.
 * @module
 */
import process from "node:process";
import { parseOptions, type ProgressEvent } from "../api/options.ts";
import { AbortError, UsageError } from "../errors.ts";
import { load } from "../generate/load.ts";
import type { LoadOptions } from "../generate/load_options.ts";
import type { Model } from "../generate/model.ts";
import { readText } from "../platform/files.ts";
import { listen, type Listening } from "../platform/listen.ts";
import { print } from "../platform/output.ts";
import { aborted } from "../platform/sleep.ts";
import { appOf } from "../server/app.ts";
import { hostsOf, isLoopback } from "../server/hosts.ts";
import { KEYS, parseKeys } from "../server/keys.ts";
import { jsonLine, type Log, textLine } from "../server/log.ts";
import { serverFields, serverSchema } from "../server/options.ts";
import { serveCommandSchema } from "../server/serve_options.ts";
import { Service } from "../server/service.ts";
// For requests that want JSON, of which the first may come when there is no network any more.
import "../text/structured/mod.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { describeEngine, loadingOf, type Options, pick, say } from "./model.ts";
import { loadOwn } from "./own_model.ts";
import { ProgressView } from "./terminal.ts";

/** Bytes of the largest key file. */
const LARGEST_KEY_FILE = 1 << 20;
/** Caches of closed sequences that are kept for each place: a conversation's turns come back. */
const KEPT_PER_PLACE = 2;

/** The `serve` command. */
export const serveCommand: Command = {
  name: "serve",
  summary: "Serve models over HTTP: OpenAI's interface, and a page to talk to them.",
  usage: "serve [MODEL …] [OPTIONS]",
  schema: serveCommandSchema,
  tellsOfItsEnd: true,
  details: [
    "Clients of OpenAI's interface take http://127.0.0.1:8080/v1 as base URL; the page is at /, the",
    "reference of the interface at /docs, metrics at /metrics. Without MODEL it serves the example,",
    "pruned and compiled on the way. It listens on this machine alone unless --host says otherwise.",
    "Every option can also stand in the environment (ESPALIER_PORT, ESPALIER_QUEUE_TIMEOUT …,",
    "ESPALIER_MODEL: lists have commas) and in the config file; flags go over the environment, and that",
    "over the file. SIGTERM and Ctrl-C let answers end, then it exits with 0.",
    "With --json: {url, models} on standard output when it is ready.",
  ].join("\n"),
  examples: [
    ["serve", "the example, at http://127.0.0.1:8080"],
    ["serve MODEL --parallel 4 --context 2048", "four sequences at once, of at most 2048 tokens"],
    [
      "serve MODEL --host 0.0.0.0 --key-file keys.txt --log json",
      "for others, with keys (see key --help)",
    ],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, serveCommandSchema, {
      modelIsOptional: true,
      severalModels: true,
      environment: process.env,
    });
    const options = checkOptions(serveCommandSchema, line.options, line.sources);
    if (process.env[KEYS]) {
      throw new UsageError(
        `${KEYS} is a variable of bundles: write its lines into a file, and name that by --key-file or ESPALIER_KEY_FILE`,
      );
    }
    const keys = options.keyFile === undefined
      ? []
      : parseKeys(readText(options.keyFile, LARGEST_KEY_FILE), options.keyFile);
    const write = options.log === "json" ? jsonLine : textLine;
    const log: Log = (entry) => say(write(entry));
    const tell = (message: string) =>
      log({ time: new Date().toISOString(), event: "server", message });

    const settings = parseOptions(serverSchema, { ...pick(options, serverFields), keys });
    const service = new Service({ ...settings, allowHost: hostsOf(settings, options.host) });
    // The port first: who asks while models are loaded is told to wait.
    const listening = listen(appOf(service, log).fetch, {
      hostname: options.host,
      port: options.port,
      patience: options.readTimeout,
    });
    const url = urlOf(options.host, listening.port);
    const models: Model[] = [];
    try {
      tell(`listening on ${url}`);
      if (keys.length === 0 && !isLoopback(options.host)) {
        tell("warning: whoever reaches this address may use the models: no --key-file was given");
      }
      if ((options.model?.length ?? 1) > 1 && options.memory === undefined) {
        tell(
          "warning: the cache of each model may take all that is free: say how much each may have with --memory",
        );
      }
      for (const model of options.model ?? [undefined]) {
        models.push(await open(model, options, tell, signal));
        service.add(models.at(-1)!);
      }
      service.ready();
      const ids = service.models.map(({ id }) => id);
      tell(`ready: ${ids.join(", ")}; ${url}/ is the page, ${url}/v1 the base URL for clients`);
      if (line.json) print(`${JSON.stringify({ url, models: ids })}\n`);
      await aborted(signal);
      await drain(service, options.drain, tell);
      return 0;
    } catch (error) {
      service.fail();
      // To stop while models are loaded is as good as later.
      if (error instanceof AbortError && signal.aborted) return 0;
      throw error;
    } finally {
      await stop(listening, models);
    }
  },
};

/** Loads a model; the program's own where none is named. */
async function open(
  model: string | undefined,
  options: Options & {
    readonly parallel: number;
    readonly keptSequences?: number;
    readonly log: "text" | "json";
  },
  tell: (message: string) => void,
  signal: AbortSignal,
): Promise<Model> {
  const view = new ProgressView();
  const show = (event: ProgressEvent) => {
    if (options.log === "text") view.show(event);
    else if (event.type === "note") tell(event.text);
  };
  const hooks = { signal, onProgress: show };
  const settings: LoadOptions = {
    ...loadingOf(options),
    keptSequences: options.keptSequences ?? KEPT_PER_PLACE * options.parallel,
    background: true,
  };
  try {
    const loaded = model === undefined
      ? await loadOwn(settings, hooks)
      : await load(model, settings, hooks);
    view.finish();
    tell(`${loaded.info.name}: ${describeEngine(loaded.info)}`);
    return loaded;
  } finally {
    view.finish();
  }
}

async function drain(service: Service, seconds: number, tell: (message: string) => void) {
  tell("stopping: no more requests are taken");
  const isDone = await service.drain(seconds);
  tell(isDone ? "all requests have been answered" : "requests were stopped: time was up");
}

async function stop(listening: Listening, models: readonly Model[]): Promise<void> {
  await listening.stop();
  for (const model of models) await model.close();
}

/** What a person types to reach the server from this machine. */
function urlOf(host: string, port: number): string {
  const name = host === "0.0.0.0" || host === "::" ? "localhost" : host;
  return `http://${name.includes(":") && !name.startsWith("[") ? `[${name}]` : name}:${port}`;
}
