/**
 * What a Prometheus server is told: `GET /metrics`.
 *
 * No label comes from a request's own words, so their number is bounded.
 * @module
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";

/** Seconds, from a token of a small model to a long answer of a large one. */
const TOKEN_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const WAIT_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

/** What is looked up whenever metrics are read. */
export interface Observed {
  readonly waiting: number;
  readonly generating: number;
  readonly sequences: number;
  readonly isReady: boolean;
  /** Bytes of key/value caches, by model: of open sequences, and kept for later ones. */
  readonly caches: readonly {
    readonly model: string;
    readonly inUse: number;
    readonly kept: number;
  }[];
}

/** The metrics of one server. */
export class Metrics {
  readonly #registry = new Registry();
  readonly requests: Counter<"route" | "status">;
  readonly requestSeconds: Histogram<"route">;
  readonly queueSeconds: Histogram;
  readonly firstTokenSeconds: Histogram<"model">;
  readonly betweenTokensSeconds: Histogram<"model">;
  readonly promptTokens: Counter<"model">;
  readonly cachedTokens: Counter<"model">;
  readonly generatedTokens: Counter<"model">;
  readonly prefixHits: Counter<"model">;
  readonly answers: Counter<"model" | "reason">;

  /** @param observe Looked at when metrics are read. */
  constructor(observe: () => Observed) {
    const registers = [this.#registry];
    const counter = <T extends string>(name: string, help: string, labelNames: T[]) =>
      new Counter<T>({ name: `espalier_${name}`, help, labelNames, registers });
    const histogram = <T extends string>(
      name: string,
      help: string,
      labelNames: T[],
      buckets: number[],
    ) => new Histogram<T>({ name: `espalier_${name}`, help, labelNames, buckets, registers });
    const gauge = (name: string, help: string, read: (now: Observed) => number) =>
      new Gauge({
        name: `espalier_${name}`,
        help,
        registers,
        collect() {
          this.set(read(observe()));
        },
      });

    this.requests = counter("requests_total", "Requests that were answered.", ["route", "status"]);
    this.requestSeconds = histogram(
      "request_seconds",
      "Seconds from a request to the end of its answer.",
      ["route"],
      WAIT_SECONDS,
    );
    this.queueSeconds = histogram(
      "queue_seconds",
      "Seconds that a sequence waited for its place.",
      [],
      WAIT_SECONDS,
    );
    this.firstTokenSeconds = histogram(
      "time_to_first_token_seconds",
      "Seconds from a place to the first token.",
      ["model"],
      WAIT_SECONDS,
    );
    this.betweenTokensSeconds = histogram(
      "time_between_tokens_seconds",
      "Seconds between two tokens of a sequence, mean of a piece of text.",
      ["model"],
      TOKEN_SECONDS,
    );
    this.promptTokens = counter("prompt_tokens_total", "Tokens of prompts.", ["model"]);
    this.cachedTokens = counter(
      "cached_tokens_total",
      "Tokens of prompts that needed no run.",
      ["model"],
    );
    this.generatedTokens = counter("generated_tokens_total", "Tokens generated.", ["model"]);
    this.prefixHits = counter(
      "prefix_hits_total",
      "Sequences that began with what the cache still held.",
      ["model"],
    );
    this.answers = counter("answers_total", "Sequences that ended, by reason.", [
      "model",
      "reason",
    ]);
    gauge("queue_depth", "Sequences that wait for a place.", ({ waiting }) => waiting);
    gauge("generating", "Sequences that have a place.", ({ generating }) => generating);
    gauge("sequences_open", "Sequences that hold a cache.", ({ sequences }) => sequences);
    gauge("ready", "Whether the server takes requests.", ({ isReady }) => isReady ? 1 : 0);
    new Gauge({
      name: "espalier_cache_bytes",
      help: "Bytes of key/value caches.",
      labelNames: ["model", "state"],
      registers,
      collect() {
        for (const { model, inUse, kept } of observe().caches) {
          this.set({ model, state: "in_use" }, inUse);
          this.set({ model, state: "kept" }, kept);
        }
      },
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All of them, in Prometheus' text format. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
