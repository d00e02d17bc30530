/**
 * Times all engines in turn, so that whatever else the machine does meets them alike.
 * @module
 */
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathsIn } from "../../src/platform/folders.ts";
import { counted } from "../support/print.ts";
import { ProgramError, throwIfInterrupted } from "../support/process.ts";
import type { Generated, Prompt } from "./adapters/engine.ts";
import { openReader } from "./bandwidth.ts";
import { Child, type Loaded } from "./child.ts";
import type { Startable } from "./peers.ts";
import type { Prompts } from "./prompts.ts";

/** Tokens of the prompt that decoding goes on from, and after it. */
const [PROMPT, DECODED] = [32, 64];
/** Tokens of the prompts whose reading is timed. */
const PREFILLS = [128, 512] as const;
/** Tokens of a full context, after what of them decoding is timed, and for how many, here and after 128. */
const CONTEXT = 2048;
const [LONG, LONG_DECODED] = [2016, 32];
/** Tokens generated before anything counts: WebAssembly is compiled better as it runs. */
const WARM = 32;
/** Room for all that. */
const ROOM = CONTEXT + 256;
/** Milliseconds between two engines: threads of ONNX Runtime look for work that long before they sleep. */
const REST = 1000;

/** Tokens of the prompts. */
export const PROMPTS = { short: [PROMPT, ...PREFILLS], long: LONG };

/** What is timed. */
export type Measure = "decode" | "decode128" | "decode2048" | "prefill128" | "prefill512";
/** What is timed, in the order of a round. */
export const MEASURES: readonly Measure[] = [
  "decode",
  "prefill128",
  "prefill512",
  "decode128",
  "decode2048",
];

/** An engine that is to be measured, or why it cannot be. */
export interface Candidate {
  readonly name: string;
  readonly ours: boolean;
  readonly start?: Startable;
  readonly missing?: string;
}

/** One engine with one number of threads. */
export interface Measured {
  readonly name: string;
  readonly ours: boolean;
  readonly threads: number;
  /** Why it is not measured, or not to the end. */
  missing?: string;
  fileBytes?: number;
  /** Bytes of weights that a token reads. */
  tokenBytes?: number;
  loaded?: Loaded;
  /** Largest resident memory when the model was loaded. */
  loadPeakBytes?: number;
  /** The same at the end, so with the longest context. */
  peakBytes?: number;
  /** The times of every round. */
  readonly runs: Record<Measure, Generated[]>;
}

/** How much is measured. */
export interface Work {
  readonly measures: readonly Measure[];
  readonly repeat: number;
}

/** Everything of one number of threads. */
export interface Group {
  readonly threads: number;
  /** Bytes a second that this many threads read, every round. */
  readonly bandwidth: number[];
  readonly engines: Measured[];
}

/** Tokens a second of one run. */
export function rate(measure: Measure, { seconds }: Generated): number {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  switch (measure) {
    case "decode":
    case "decode128":
      // The first token is the prompt's.
      return (seconds.length - 1) / sum(seconds.slice(1));
    case "decode2048":
      return seconds.length / sum(seconds);
    case "prefill128":
      return PREFILLS[0] / seconds[0];
    case "prefill512":
      return PREFILLS[1] / seconds[0];
  }
}

/**
 * Loads all engines and times them, round after round.
 *
 * @param say Told of every step.
 */
export async function measureGroup(
  candidates: readonly Candidate[],
  threads: number,
  { measures, repeat }: Work,
  prompts: Prompts,
  say: (line: string) => void,
): Promise<Group> {
  const hold = measures.includes("decode2048");
  const group: Group = { threads, bandwidth: [], engines: [] };
  const running: { engine: Measured; child: Child }[] = [];
  const reader = await openReader(threads);
  try {
    for (const { name, ours, start, missing } of candidates) {
      const runs = { decode: [], decode128: [], decode2048: [], prefill128: [], prefill512: [] };
      const engine: Measured = { name, ours, threads, missing, runs };
      group.engines.push(engine);
      if (!start) continue;
      const child = await attempt(engine, say, () => begin(engine, start, prompts, hold));
      if (child) running.push({ engine, child });
      if (child) say(`${name}, ${counted(threads, "thread")}: ${engine.loaded!.product}`);
    }
    for (let round = 0; round < repeat; round++) {
      await rest();
      group.bandwidth.push(await reader.measure());
      for (const measure of MEASURES.filter((measure) => measures.includes(measure))) {
        // Back and forth: who comes after whom is not always the same.
        const turn = round % 2 === 0 ? running : running.toReversed();
        for (const { engine, child } of turn) {
          if (engine.missing !== undefined) continue;
          await rest();
          const found = await attempt(engine, say, () => run(child, measure, prompts));
          if (found) engine.runs[measure].push(found);
        }
      }
      say(`${counted(threads, "thread")}: round ${round + 1} of ${repeat}`);
    }
    for (const { engine, child } of running) {
      if (engine.missing !== undefined) continue;
      engine.peakBytes = await attempt(engine, say, () => child.call("memory"));
    }
    return group;
  } finally {
    reader.close();
    await Promise.all(running.map(({ child }) => child.close()));
  }
}

/**
 * Reads what an engine will load, so that the system has it in memory: a file with those that are called as it and more,
 * as its weights are, or all of a folder.
 */
function readFiles(path: string): void {
  const isFolder = statSync(path).isDirectory(), folder = isFolder ? path : dirname(path);
  const buffer = new Uint8Array(1 << 24);
  for (const name of pathsIn(folder)) {
    if (!isFolder && !name.startsWith(basename(path))) continue;
    const file = openSync(join(folder, name), "r");
    while (readSync(file, buffer) > 0);
    closeSync(file);
  }
}

/** Starts an engine, warms it up, and gives it the long prompt to hold if it is needed. */
async function begin(
  engine: Measured,
  start: Startable,
  prompts: Prompts,
  hold: boolean,
): Promise<Child> {
  const { runtime, adapter, config, file } = start;
  readFiles(file.path);
  const full = { ...config, threads: engine.threads, context: ROOM };
  const { child, loaded } = await Child.start(runtime, adapter, full);
  try {
    engine.loaded = loaded;
    engine.fileBytes = file.bytes;
    engine.tokenBytes = loaded.tokenBytes ?? file.tokenBytes;
    engine.loadPeakBytes = await child.call("memory");
    await child.call("generate", prompts.short(PROMPT), WARM);
    await child.call("generate", prompts.short(PREFILLS[0]), 0);
    if (hold) await child.call("hold", prompts.long);
    return child;
  } catch (error) {
    await child.close();
    throw error;
  }
}

function run(child: Child, measure: Measure, prompts: Prompts): Promise<Generated> {
  const prompt = (count: number): Prompt => prompts.short(count);
  switch (measure) {
    case "decode":
      return child.call("generate", prompt(PROMPT), DECODED);
    case "prefill128":
      return child.call("generate", prompt(PREFILLS[0]), 0);
    case "prefill512":
      return child.call("generate", prompt(PREFILLS[1]), 0);
    case "decode128":
      return child.call("generate", prompt(PREFILLS[0]), LONG_DECODED);
    case "decode2048":
      return child.call("resume", LONG_DECODED);
  }
}

/** Does something with an engine; when it fails, the engine is missing, and says why. */
async function attempt<T>(
  engine: Measured,
  say: (line: string) => void,
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    throwIfInterrupted();
    if (!(error instanceof ProgramError)) throw error;
    engine.missing = error.message;
    say(`${engine.name} cannot run: ${error.message}`);
    return undefined;
  }
}

function rest(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, REST));
}
