/**
 * What stands behind the routes: the models, who may compute when, and whether there is service at all.
 * @module
 */
import { VERSION } from "../version.ts";
import type { Model } from "../generate/model.ts";
import { Turns } from "../generate/turns.ts";
import { ApiError } from "./errors.ts";
import { Gate } from "./gate.ts";
import { Metrics } from "./metrics.ts";
import type { ServerSettings } from "./options.ts";

/** A model that is served. */
export interface Served {
  readonly id: string;
  /** When it came, in seconds since 1970. */
  readonly created: number;
  /** Its sequences take turns with all others of the server. */
  readonly model: Model;
}

/** Whether requests are taken. */
export type ServiceState = "loading" | "ready" | "draining" | "failed";

/** What tells one build of the server from another. */
export const FINGERPRINT = `espalier-${VERSION}`;

/** Seconds after which to ask again while models are loaded. */
const LOADING_RETRY = 2;
/** Seconds in which requests that were stopped end. */
const STOPPING = 5;

/** Models and all that requests share. */
export class Service {
  readonly gate: Gate;
  readonly turns = new Turns();
  readonly metrics: Metrics;
  readonly #models = new Map<string, Served>();
  #state: ServiceState = "loading";
  #hasLost = false;
  /** What stops each request that is being answered. */
  readonly #active = new Set<AbortController>();
  #onIdle: (() => void) | undefined;

  constructor(readonly settings: ServerSettings) {
    this.gate = new Gate({
      parallel: settings.parallel,
      queue: settings.queue,
      patience: 1000 * settings.queueTimeout,
    });
    this.metrics = new Metrics(() => ({
      waiting: this.gate.waiting,
      generating: this.gate.inside,
      sequences: this.turns.open,
      isReady: this.state === "ready",
      caches: this.models.flatMap(({ id, model }) => {
        const use = model.cacheUse();
        return use ? [{ model: id, inUse: use.bytes, kept: use.keptBytes }] : [];
      }),
    }));
  }

  /** As those are told who keep the server running: without one of its models it has failed, and is to be replaced. */
  get state(): ServiceState {
    return this.#state === "ready" && this.#hasLost ? "failed" : this.#state;
  }

  get models(): readonly Served[] {
    return [...this.#models.values()];
  }

  /**
   * Serves one model more.
   *
   * @param id What it is asked for by (default: its name). One that is taken gets a number.
   */
  add(model: Model, id = model.info.name): void {
    let free = id;
    for (let i = 2; this.#models.has(free); i++) free = `${id}-${i}`;
    this.#models.set(free, {
      id: free,
      created: Math.floor(Date.now() / 1000),
      model: model.through((engine) => this.turns.share(engine)),
    });
  }

  /** All models are there, if only after another try. */
  ready(): void {
    if (this.#state !== "draining") this.#state = "ready";
  }

  /** A model could not be loaded. */
  fail(): void {
    this.#state = "failed";
  }

  /** Whether one of the models answers no more: only another process has it again, or who drops it and loads it anew. */
  get hasLost(): boolean {
    return this.#hasLost;
  }

  /** A model answers no more; the others do. One that was dropped before is nobody's any more. */
  lose(served: Served): void {
    if (this.#models.get(served.id) === served) this.#hasLost = true;
  }

  /** Forgets all models, to be given others. */
  drop(): void {
    this.#models.clear();
    this.#hasLost = false;
    if (this.#state !== "draining") this.#state = "loading";
  }

  /**
   * The model that a request asks for.
   *
   * @param id Left out, the first one.
   * @throws {ApiError} When it is not there, or there is no service.
   */
  find(id: string | undefined): Served {
    this.assertServing();
    const served = id === undefined ? this.models[0] : this.#models.get(id);
    if (served) return served;
    const names = [...this.#models.keys()].join(", ");
    throw new ApiError(404, `the model ${JSON.stringify(id)} does not exist; there is ${names}`, {
      param: "model",
      code: "model_not_found",
    });
  }

  /** @throws {ApiError} When requests are not taken now. */
  assertServing(): void {
    if (this.#state === "ready") return;
    const why = {
      loading: "the model is being loaded: try again in a moment",
      draining: "the server is about to stop",
      failed: "the model could not be loaded: the server's log says why",
    }[this.#state];
    throw new ApiError(503, why, { code: `server_${this.#state}`, retryAfter: LOADING_RETRY });
  }

  /**
   * Counts a request as being answered.
   *
   * @param work Stops it.
   * @returns Says that it has been; a second call does nothing.
   */
  begin(work: AbortController): () => void {
    this.#active.add(work);
    return () => {
      if (this.#active.delete(work) && this.#active.size === 0) this.#onIdle?.();
    };
  }

  /**
   * Takes no more requests, and waits until those that are there have been answered.
   *
   * @param seconds After so many, what is left is stopped.
   * @returns Whether all could be answered.
   */
  async drain(seconds: number): Promise<boolean> {
    this.#state = "draining";
    if (this.#active.size === 0) return true;
    const idle = (seconds: number) =>
      new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => resolve(false), 1000 * seconds);
        this.#onIdle = () => {
          clearTimeout(timer);
          resolve(true);
        };
      });
    if (await idle(seconds)) return true;
    const reason = new ApiError(503, "the server is stopping", { code: "server_stopping" });
    for (const work of this.#active) work.abort(reason);
    await idle(STOPPING);
    return false;
  }
}
