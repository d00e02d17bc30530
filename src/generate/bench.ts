/**
 * How fast a model runs in one engine.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { checkObject, throwIfAborted } from "../checks.ts";
import { UsageError } from "../errors.ts";
import { letEventsIn } from "../platform/events.ts";
import { peakResidentBytes } from "../platform/runtime.ts";
import { Sampler } from "../text/sampler.ts";
import { samplingSchema } from "../text/sampling_options.ts";
import { load } from "./load.ts";
import type { LoadOptions } from "./load_options.ts";
import type { LoadedInfo, Model } from "./model.ts";
import type { ModelLocation } from "./place.ts";

/** Lengths of the prompts that are run. */
const PROMPTS = [128, 512];
/** Tokens in the cache before those that are timed one by one, and how many these are. */
const DECODE = { after: 32, tokens: 32 };
/** Tokens that {@linkcode decodeRate} takes. */
export const DECODE_CONTEXT = DECODE.after + DECODE.tokens;

/** What was measured; rates in tokens a second, the medians of all repeats. */
export interface BenchReport {
  readonly model: LoadedInfo;
  /** Prompts that the context holds. */
  readonly prefill: readonly { readonly tokens: number; readonly tokensPerSecond: number }[];
  /** One token at a time; undefined where the context is too short. */
  readonly decode?: { readonly after: number; readonly tokensPerSecond: number };
  readonly repeat: number;
  /** Of the process since its start, loading included. */
  readonly peakBytes: number;
}

/**
 * Loads a model and measures prefill and decode. Loading is measured once: a second time would find
 * the files in the system's cache, and memory that was not given back.
 *
 * @param options As of `load`; `repeat` is how often each figure is taken (default: 3).
 * @throws {EspalierError} As `load` does.
 */
export async function bench(
  model: ModelLocation,
  options: LoadOptions & { readonly repeat?: number } = {},
  hooks: RunHooks = {},
): Promise<BenchReport> {
  checkObject(options, "options", "{ repeat: 5 }");
  const { repeat = 3, ...loading } = options;
  if (!Number.isSafeInteger(repeat) || repeat < 1) {
    throw new UsageError(`repeat: a whole number from 1 on was expected, got ${repeat}`);
  }
  const loaded = await load(model, loading, hooks);
  try {
    const { context } = loaded.info;
    const { signal } = hooks;
    const prompts = PROMPTS.filter((length) => length <= context);
    const decodes = DECODE_CONTEXT <= context;
    const prefill = prompts.map((): number[] => []);
    const decode: number[] = [];
    // The first round warms up: runtimes compile WebAssembly again, and better, once it has run.
    for (let round = 0; round <= repeat; round++) {
      const keep = round > 0;
      for (const [i, length] of prompts.entries()) {
        const rate = await prefillRate(loaded, length, signal);
        if (keep) prefill[i].push(rate);
      }
      if (decodes) {
        const rate = await decodeRate(loaded, signal);
        if (keep) decode.push(rate);
      }
    }
    return {
      model: loaded.info,
      prefill: prompts.map((tokens, i) => ({ tokens, tokensPerSecond: median(prefill[i]) })),
      ...(decodes ? { decode: { after: DECODE.after, tokensPerSecond: median(decode) } } : {}),
      repeat,
      peakBytes: peakResidentBytes(),
    };
  } finally {
    await loaded.close();
  }
}

/** Tokens that look like a prompt as far as speed goes: no two alike near each other. */
function tokensOf(model: Model, first: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (first + i) * 7919 % model.info.vocabulary);
}

async function prefillRate(
  model: Model,
  length: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  await letEventsIn();
  throwIfAborted(signal);
  // Without the prompt: what another sequence left must not be used.
  const sequence = model.open();
  try {
    const tokens = tokensOf(model, 1, length);
    const start = performance.now();
    await sequence.run(tokens, { signal });
    return 1000 * length / (performance.now() - start);
  } finally {
    sequence.close();
  }
}

/**
 * Tokens a second, one at a time, after some in the cache; the likeliest each time, as `generate` takes it
 * unless told otherwise.
 *
 * @throws {ContextOverflowError} When the context has no room for {@linkcode DECODE_CONTEXT} tokens.
 */
export async function decodeRate(
  model: Model,
  signal: AbortSignal | undefined,
): Promise<number> {
  await letEventsIn();
  const sequence = model.open();
  try {
    const sampler = new Sampler(samplingSchema.parse({}), model.info.vocabulary);
    const options = { signal, within: sampler.within };
    let logits = await sequence.run(tokensOf(model, 1, DECODE.after), options);
    const start = performance.now();
    for (let i = 0; i < DECODE.tokens; i++) {
      throwIfAborted(signal);
      logits = await sequence.run([sampler.next(logits, sequence.likeliest).token], options);
    }
    return 1000 * DECODE.tokens / (performance.now() - start);
  } finally {
    sequence.close();
  }
}

/** The middle of some values; of an even number the mean of both. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
