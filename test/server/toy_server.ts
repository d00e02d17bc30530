/** A server whose model is a toy that does what a test says, when it says so. @module */
import { parseOptions } from "../../src/api/options.ts";
import { Model } from "../../src/generate/model.ts";
import { appOf, type AppOptions } from "../../src/server/app.ts";
import { makeKey, parseKeys } from "../../src/server/keys.ts";
import type { LogEntry } from "../../src/server/log.ts";
import { serverSchema } from "../../src/server/options.ts";
import { Service } from "../../src/server/service.ts";
import { babbler, text } from "../generate/support.ts";
import type { ToyModel, ToyOptions } from "../generate/toy_model.ts";
import { jsonRequest, read } from "./behaviour/support.ts";
import { samplesOf } from "./prometheus.ts";

/** The paths of both kinds of completions. */
export const CHAT = "/v1/chat/completions";
export const TEXT = "/v1/completions";

/** A model of a toy engine, by the name `toy`. */
export function toyModel(engine: ToyModel, name = "toy"): Model {
  return new Model({
    engine,
    text,
    info: { ...engine.info, name, why: "it is a test", loadSeconds: 0 },
    dispose: () => {},
  });
}

/** Holds up the runs of a toy. */
export class Brake {
  #free: Promise<void> = Promise.resolve();
  #release = () => {};
  /** Runs that have come to the brake, those that went through among them. */
  runs = 0;

  /** For `beforeRun`. */
  readonly wait = (): Promise<void> => {
    this.runs++;
    return this.#free;
  };

  hold(): void {
    this.#release();
    this.#free = new Promise((resolve) => this.#release = resolve);
  }

  release(): void {
    this.#release();
    this.#free = Promise.resolve();
  }
}

/** A server with one toy, and what is seen of it. */
export class ToyServer {
  readonly toy: ToyModel;
  readonly service: Service;
  readonly entries: LogEntry[] = [];
  readonly #handle: (request: Request) => Response | Promise<Response>;

  /** @param isReady Whether the model has been loaded. */
  constructor(options: AppOptions = {}, toy: Partial<ToyOptions> = {}, isReady = true) {
    this.toy = babbler(toy);
    this.service = new Service(parseOptions(serverSchema, options));
    this.#handle = appOf(this.service, (entry) => void this.entries.push(entry)).fetch;
    if (isReady) this.load();
  }

  load(): void {
    this.service.add(toyModel(this.toy));
    this.service.ready();
  }

  /** From requests to responses, for those who listen. */
  get handler() {
    return this.#handle;
  }

  fetch = async (path: string, init?: RequestInit): Promise<Response> =>
    await this.#handle(new Request(`http://server.test${path}`, init));

  /** Sends JSON and reads the answer. */
  async post(path: string, body: unknown, init: RequestInit = {}) {
    const { headers, ...rest } = init;
    const request = jsonRequest(body, headers as Record<string, string>);
    return await read(await this.fetch(path, { ...request, ...rest }));
  }

  /** Continues a text that begins with some words of its own. */
  complete(fields: object = {}, init: RequestInit = {}) {
    return this.post(TEXT, { prompt: "The river", temperature: 0, max_tokens: 4, ...fields }, init);
  }

  /** A gauge or counter. */
  async metric(name: string): Promise<number> {
    const { text } = await read(await this.fetch("/metrics"));
    return samplesOf(text).get(`espalier_${name}`) ?? 0;
  }

  /** Sequences that wait, that have a place, and that are open. */
  async counts(): Promise<number[]> {
    const names = ["queue_depth", "generating", "sequences_open"];
    return await Promise.all(names.map((name) => this.metric(name)));
  }

  /** Waits until nobody waits and nothing is generated any more. */
  async quiet(): Promise<void> {
    await until(async () => (await this.counts()).every((count) => count === 0), "it is quiet");
    await until(() => this.toy.opened === this.toy.closed, "all sequences are closed");
  }
}

/** Two keys, and a server that lets them in. */
export async function guarded(options: object = {}) {
  const made = await Promise.all(["till-3", "shop@example.com"].map(makeKey));
  const keys = parseKeys(made.map(({ line }) => line).join("\n"), "keys.txt");
  return { server: new ToyServer({ ...options, keys }), keys: made.map(({ key }) => key) };
}

/** Headers with a key. */
export const bearing = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });

/** Waits until something holds, for some seconds at most. */
export async function until(
  holds: () => boolean | Promise<boolean>,
  what: string,
  seconds = 5,
): Promise<void> {
  const end = performance.now() + 1000 * seconds;
  while (!await holds()) {
    if (performance.now() > end) throw new Error(`it did not come to pass that ${what}`);
    await pause(2);
  }
}

/** Waits for some milliseconds. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
