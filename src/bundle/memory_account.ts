/**
 * What a model takes in an isolate of Cloudflare, counted before it is deployed.
 *
 * The engine's part is its own figures: the model is loaded once, as the Worker will load it. The rest is
 * JavaScript's, and was measured in workerd (`benchmarks/ship/edge.ts`) on tokenizers of 0.27 and
 * 3.5 MB: the figures here are those, and a little more.
 * @module
 */
import { join } from "node:path";
import { PAGE } from "../engine/sparse/layout.ts";
import { PART_BYTES } from "../engine/parts_source.ts";
import { folderSource } from "../engine/folder_source.ts";
import { MemoryBudgetError, TargetUnfitError } from "../errors.ts";
import type { ModelCard } from "../generate/card.ts";
import { type Model, runCompiled } from "../generate/run.ts";
import { readJson } from "../platform/files.ts";
import { fileSize } from "../platform/paths.ts";
import type { TargetReport } from "./target.ts";

/** Bytes that an isolate may have. */
export const LIMIT = 128_000_000;
/** Bytes that a model may take while it is measured: what takes more does not fit whatever one does. */
const MOST_MEASURED = 8 * LIMIT;
/** Bytes of the program before it has a model: code, schemas, pages. */
const PROGRAM = 8_000_000;
/** Bytes of a tokenizer for each byte of `tokenizer.json`. */
const TOKENIZER = 5;
/** Bytes for each token of the vocabulary that JSON schemas keep: the tree of tokens, masks. */
const SCHEMAS = 128;
/** Bytes for each token of the vocabulary that a sequence has at hand: logits, and what sorts them. */
const SAMPLING = 16;
/** Bytes of texts that are on their way. */
const TEXTS = 1_000_000;
/** Parts that are in memory while a model is loaded: two that are checked and kept, one that comes. */
const PARTS = 3;
/** Bytes by which WebAssembly memory grows. */
const GRAIN = 65_536;
/**
 * Ways to make a model smaller, the least harmful first, and their bytes a weight in the engine's memory
 * (`docs/engine.md`, Layouts): of linears, and of embedding and head.
 */
const SMALLER = [
  { how: "pruned to 8:16 and compiled as int8", linears: 0.75, others: 1.06 },
  {
    how: "pruned by `prune --method espalier --pattern 8:16 --values int4 --head int4`",
    // What is foretold must hold: a little more than 0.53.
    linears: 0.54,
    others: 0.54,
  },
  { how: "pruned to 4:16 and compiled as int8", linears: 0.38, others: 1.06 },
] as const;
/** Bytes of the largest `config.json` that is read. */
const LARGEST_CONFIG = 1 << 20;
/** Bytes of a value in a file. */
const VALUE_BYTES: Readonly<Record<string, number>> = { f32: 4, f16: 2, int8: 1 };

/** What is known of a model that was loaded. */
export interface Measured {
  /** Bytes of weights, and of all that the engine holds without a cache, for the longest context. */
  readonly weights: number;
  readonly engine: number;
  /** Bytes of that for each token of the context: rotary tables, and room for attention. */
  readonly enginePerToken: number;
  readonly cacheBytesPerToken: number;
  /** Bytes of a sequence's state. */
  readonly stateBytes: number;
  /** Tokens that its context may have at most. */
  readonly context: number;
  readonly vocabulary: number;
  /** Numbers in a hidden state; 0 where the configuration does not say. */
  readonly hidden: number;
  /** Bytes of `tokenizer.json`. */
  readonly tokenizer: number;
  readonly card: ModelCard | undefined;
}

/** How many sequences, and how long. */
export interface Shape {
  readonly context: number;
  readonly parallel: number;
}

/**
 * Loads a model as a Worker will, on one thread, for its longest context and for a short one.
 *
 * @param model Its folder.
 * @param options As the bundle has them.
 * @throws {TargetUnfitError} When it is far too large.
 * @throws {EspalierError} When it cannot be loaded.
 */
export async function measure(
  model: string,
  options: {
    readonly context?: number;
    readonly kv: "auto" | "f32" | "int8";
    readonly signal?: AbortSignal;
  },
): Promise<Measured> {
  const loaded = await load(model, options);
  await loaded.close();
  const { info, card } = loaded;
  const engine = info.memoryBytes!;
  let enginePerToken = 0;
  if (info.context > LEAST_CONTEXT) {
    const short = await load(model, { ...options, context: LEAST_CONTEXT });
    await short.close();
    enginePerToken = (engine - short.info.memoryBytes!) / (info.context - LEAST_CONTEXT);
  }
  return {
    weights: info.weightBytes,
    engine,
    enginePerToken,
    cacheBytesPerToken: info.cacheBytesPerToken,
    stateBytes: info.stateBytes ?? 0,
    context: info.context,
    vocabulary: info.vocabulary,
    hidden: hiddenOf(model),
    tokenizer: fileSize(join(model, "tokenizer.json")) ?? 0,
    card,
  };
}

async function load(model: string, options: Parameters<typeof measure>[1]): Promise<Model> {
  try {
    const limits = { threads: 1, memory: MOST_MEASURED, sketch: false };
    return await runCompiled(folderSource(model), { ...options, ...limits });
  } catch (cause) {
    if (!(cause instanceof MemoryBudgetError)) throw cause;
    throw new TargetUnfitError(
      `${model} takes more than ${MOST_MEASURED / 1e6} MB, and a Worker has ${LIMIT / 1e6} MB: ` +
        `take a model of far fewer parameters; one of 135 million at 8:16 in int4 fits`,
      { cause },
    );
  }
}

function hiddenOf(model: string): number {
  const path = join(model, "config.json");
  const config = fileSize(path) === undefined ? {} : readJson(path, LARGEST_CONFIG);
  interface Sized {
    readonly hidden_size?: unknown;
    /** The decoder of a model with images. */
    readonly text_config?: Sized | null;
  }
  const sized = config as Sized | null;
  const hidden = sized?.text_config?.hidden_size ?? sized?.hidden_size;
  return typeof hidden === "number" && hidden > 0 ? hidden : 0;
}

/** Bytes of the caches when every sequence is as long as may be. */
export function cacheBytes(
  { cacheBytesPerToken, stateBytes }: Measured,
  { context, parallel }: Shape,
): number {
  return (Math.ceil(context / PAGE) * PAGE * cacheBytesPerToken + stateBytes) * parallel;
}

/** Bytes of all that the engine holds without a cache. */
function engineWithoutCache(measured: Measured, { context }: Pick<Shape, "context">): number {
  return measured.engine - Math.floor((measured.context - context) * measured.enginePerToken);
}

/** Bytes that the engine may come to: the Worker is held to it. */
export function engineBytes(measured: Measured, shape: Shape): number {
  const pages = Math.ceil(shape.context / PAGE) * shape.parallel;
  const bytes = engineWithoutCache(measured, shape) + cacheBytes(measured, shape);
  // Each page begins at a multiple of 64 bytes; lists of tokens and pages lie beside.
  return Math.ceil((bytes + 64 * pages) / GRAIN + 1) * GRAIN;
}

/** Bytes by part, at the moment that takes most: while the model is loaded, or when all sequences run. */
export function account(measured: Measured, shape: Shape): Required<TargetReport>["memory"] {
  const { weights, vocabulary, tokenizer } = measured;
  const engine = engineWithoutCache(measured, shape);
  const cache = engineBytes(measured, shape) - engine;
  const always = {
    weights,
    "buffers of the engine": engine - weights,
    program: PROGRAM,
    tokenizer: TOKENIZER * tokenizer,
  };
  const running = {
    "keys and values": cache,
    "JSON schemas": SCHEMAS * vocabulary,
    requests: SAMPLING * vocabulary * shape.parallel + TEXTS,
  };
  const loading = { "parts while loading": PARTS * PART_BYTES };
  const parts = { ...always, ...(sum(running) >= sum(loading) ? running : loading) };
  return { limit: LIMIT, total: sum(parts), parts };
}

function sum(parts: Readonly<Record<string, number>>): number {
  return Object.values(parts).reduce((total, bytes) => total + bytes, 0);
}

/**
 * The longest context that fits, in whole pages.
 *
 * @returns 0 when there is none.
 */
export function longestContext(measured: Measured, parallel: number): number {
  const fits = (context: number) => account(measured, { context, parallel }).total <= LIMIT;
  if (fits(measured.context)) return measured.context;
  let pages = Math.floor(measured.context / PAGE);
  while (pages > 0 && !fits(pages * PAGE)) pages--;
  return pages * PAGE;
}

/** Tokens below which a context is of little use, and is not proposed. */
export const LEAST_CONTEXT = 128;

/**
 * What would fit, computed, for a model that does not.
 *
 * @returns Advice in words: at least one sentence.
 */
export function advice(measured: Measured, { parallel }: Pick<Shape, "parallel">): string {
  const ways: string[] = [];
  for (const sequences of new Set([parallel, 1])) {
    const context = longestContext(measured, sequences);
    if (context >= LEAST_CONTEXT) ways.push(`--context ${context} --parallel ${sequences}`);
  }
  if (ways.length > 0) return `it fits with ${ways.join(", or with ")}`;
  const sparser = sparserWays(measured);
  if (sparser.length > 0) return `no context is short enough; ${sparser.join(", or ")}`;
  const least = account(measured, { context: LEAST_CONTEXT, parallel: 1 }).total;
  const share = Math.max(0, measured.weights - (least - LIMIT)) / measured.weights;
  return `no context is short enough: a model fits whose weights take ${
    Math.floor(100 * share)
  } % of this one's`;
}

/** How it would fit, pruned and compiled otherwise. */
function sparserWays(measured: Measured): string[] {
  const { card } = measured;
  if (!card) return [];
  // Embedding and head: one matrix where they are tied. Beside them there is little.
  const rest = (card.dense.f16 - 2 * card.parameters) / (VALUE_BYTES[card.values] ?? 1);
  const matrix = measured.vocabulary * measured.hidden;
  const others = matrix > 0 ? Math.max(1, Math.round(rest / matrix)) * matrix : rest;
  return SMALLER.flatMap((way) => {
    const weights = way.others * others + way.linears * card.parameters;
    if (weights >= measured.weights) return [];
    const smaller = { ...measured, weights, engine: measured.engine - measured.weights + weights };
    const context = longestContext(smaller, 1);
    if (context < LEAST_CONTEXT) return [];
    return [
      `${way.how} its weights would take about ${Math.round(weights / 1e6)} MB, which fits with ` +
      `--context ${context} --parallel 1`,
    ];
  });
}
