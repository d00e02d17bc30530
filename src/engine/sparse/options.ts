/**
 * What may be chosen when the sparse engine loads a model.
 * @module
 */
import { checkObject, checkSignal, quote } from "../../checks.ts";
import { UsageError } from "../../errors.ts";
import type { SetupOptions } from "./setup.ts";
import type { Embeddings } from "./weights/file_rows.ts";

/** Options of `loadSparse`. */
export interface SparseOptions extends SetupOptions {
  /** Most tokens of a sequence (default: what the model's tables hold). */
  readonly context?: number;
  /** How keys and values are kept; `auto` is float32 for small models and for those of floats. */
  readonly kv?: "auto" | "f32" | "int8";
  /** What int8 weights are multiplied with: 7 or 14 bits; `auto` is 14 for small models. */
  readonly activations?: "auto" | "int8" | "int16";
  /**
   * Closed sequences whose cache is kept for prompts that begin alike, as far as memory goes (default: 4,
   * and no more than fit into the pages of one context).
   */
  readonly keptSequences?: number;
  /**
   * Whether the head has a sketch in 4 bits beside it, by which the likeliest tokens are found without
   * reading all of it (default: where that saves time, and its memory is small beside what is left).
   */
  readonly sketch?: boolean;
  /**
   * Where tables of tokens are that no product multiplies with: in `memory`, or in the `file`, out of which each
   * token's row is read when it comes, as long as the model is open; `auto` is the file for tables of 64 MiB or more
   * (default). Where files are in memory anyway, or come over a network, so are all tables.
   */
  readonly embeddings?: Embeddings;
  /**
   * Bytes of weights, and of cache, that one memory of WebAssembly is to have: a model that takes more is cut into
   * several, each with as much (default: 3.2 GB, of the 4 that can be addressed).
   */
  readonly shardBytes?: number;
  readonly signal?: AbortSignal;
}

/** Options that are whole numbers: the least and the most that they may be. */
const COUNTS = { threads: [1, 256], context: [1, 2 ** 20], keptSequences: [0, 10_000] } as const;
/** Options that are bytes or milliseconds: the least. */
const AMOUNTS = { memory: 0, shortRun: 0, patience: 1, shardBytes: 1 } as const;
/** Options that are words, and which. */
const WORDS = {
  kv: ["auto", "f32", "int8"],
  activations: ["auto", "int8", "int16"],
  embeddings: ["auto", "memory", "file"],
} as const;

/** Options that are on or off. */
const SWITCHES = { background: true, sketch: true } as const;

type Checked =
  | keyof typeof SWITCHES
  | keyof typeof COUNTS
  | keyof typeof AMOUNTS
  | keyof typeof WORDS;
/** All others. */
const OTHERS: Readonly<Record<Exclude<keyof SparseOptions, Checked>, true>> = {
  kernels: true,
  build: true,
  signal: true,
};

/** @throws {UsageError} Naming an option that is out of its range, or that there is not. */
export function checkOptions(options: SparseOptions): void {
  checkObject(options, "options", "{ threads: 1 }");
  const unknown = Object.keys(options).filter((name) =>
    ![COUNTS, AMOUNTS, WORDS, SWITCHES, OTHERS].some((known) => Object.hasOwn(known, name))
  );
  if (unknown.length > 0) throw new UsageError(`unknown option ${unknown.join(", ")}`);
  for (const [name, [least, most]] of Object.entries(COUNTS)) {
    const value = options[name as keyof typeof COUNTS] ?? least;
    if (Number.isInteger(value) && value >= least && value <= most) continue;
    throw new UsageError(`${name}: ${value} is no whole number from ${least} to ${most}`);
  }
  for (const [name, least] of Object.entries(AMOUNTS)) {
    const value = options[name as keyof typeof AMOUNTS] ?? least;
    if (!(value >= least)) throw new UsageError(`${name}: ${value} is no number from ${least} on`);
  }
  for (const name of Object.keys(SWITCHES)) {
    const value: unknown = options[name as keyof typeof SWITCHES];
    if (value === undefined || typeof value === "boolean") continue;
    throw new UsageError(`${name} is neither true nor false`);
  }
  checkSignal(options.signal);
  for (const [name, words] of Object.entries(WORDS)) {
    const value: string | undefined = options[name as keyof typeof WORDS];
    if (value === undefined || words.some((word) => word === value)) continue;
    throw new UsageError(`${name}: ${quote(String(value))} is none of ${words.join(", ")}`);
  }
}
