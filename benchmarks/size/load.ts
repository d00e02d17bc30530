/**
 * What it takes to load compiled models in stock ONNX Runtime, and how fast they are then.
 * @module
 */
import { rmSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  findRuntime,
  ownRuntime,
  ProgramError,
  runJson,
  type RuntimeName,
  throwIfInterrupted,
  withFolder,
} from "../support/process.ts";
import { machineLine, markdownTable, seconds } from "../support/print.ts";
import type { Loaded } from "./load_once.ts";
import { compileTo, type Format, pruneTo, type Pruning, toolIn, type Values } from "./models.ts";

const CASES = {
  "dense-f32": ["dense", "dense", "f32"],
  "dense-int8": ["dense", "dense", "int8"],
  "bitmap-f16-50": ["50 %", "bitmap", "f16"],
  "bitmap-int8-50": ["50 %", "bitmap", "int8"],
  "bitmap-int8-50-group-64": ["50 %", "bitmap", "int8", 64],
  "bitmap-int8-70": ["70 %", "bitmap", "int8"],
  "csr-int8-70": ["70 %", "csr", "int8"],
  "nm-int8-8-16": ["8:16", "nm", "int8"],
} satisfies Record<string, [Pruning, Format, Values, number?]>;

/** A model that is loaded. */
export type LoadCase = keyof typeof CASES;
/** Their names: format, values, zeros, inputs that share a scale. */
export const LOAD_CASES = Object.keys(CASES) as LoadCase[];

/** Builds of ONNX Runtime. */
export type BackendName = "node" | "wasm";

/** What to measure. */
export interface LoadOptions {
  readonly model: string;
  readonly cases: readonly LoadCase[];
  readonly runtimes: readonly RuntimeName[];
  readonly backends: readonly BackendName[];
  readonly threads: number;
  /** Tokens to generate after the prompt. */
  readonly tokens: number;
}

/** One model loaded once. */
interface Measured {
  readonly case: LoadCase;
  /** Bytes of the graph and its data. */
  readonly bytes: number;
  readonly runtime: RuntimeName;
  readonly backend: BackendName;
  readonly missing?: string;
  readonly found?: Loaded;
  /** Largest resident memory until the end. */
  readonly peakBytes?: number;
}

/** Everything measured, as `--json` prints it. */
export interface LoadResult {
  readonly machine: string;
  readonly options: LoadOptions;
  readonly runs: readonly Measured[];
}

/**
 * Makes the models, and loads each in every build of ONNX Runtime, in a process of its own.
 *
 * @param say Told of every run.
 */
export async function measureLoad(
  options: LoadOptions,
  say: (line: string) => void,
): Promise<LoadResult> {
  const tool = await toolIn(ownRuntime());
  const runtimes = await Promise.all(options.runtimes.map(async (name) => {
    const { path, version } = await findRuntime(name);
    return { name, path, version: `${title(name)} ${version}` };
  }));
  const script = fileURLToPath(new URL("load_once.ts", import.meta.url));
  const runs: Measured[] = [];
  await withFolder(async (folder) => {
    for (const name of options.cases) {
      const [pruning, format, values, group]: [Pruning, Format, Values, number?] = CASES[name];
      const pruned = await pruneTo(tool, options.model, pruning, folder);
      const output = join(folder, name);
      const { report: { bytes } } = await compileTo(tool, pruned, format, values, output, group);
      if (pruned !== options.model) rmSync(pruned, { recursive: true, force: true });
      for (const backend of options.backends) {
        for (const { name: runtime, path } of runtimes) {
          const about = { case: name, bytes: bytes.graph + bytes.data, runtime, backend };
          try {
            const { value, peakBytes } = await runJson([
              path,
              ...runtime === "deno" ? ["run", "-A"] : [],
              script,
              backend,
              output,
              String(options.threads),
              String(options.tokens),
            ]);
            runs.push({ ...about, found: value as Loaded, peakBytes });
          } catch (error) {
            throwIfInterrupted();
            if (!(error instanceof ProgramError)) throw error;
            runs.push({ ...about, missing: error.message });
          }
          const { missing, found } = runs.at(-1)!;
          say(
            `${name}, ${title(runtime)}, ${backend}: ${
              missing ?? `${seconds(found!.loadSeconds)} s`
            }`,
          );
        }
      }
      rmSync(output, { recursive: true, force: true });
    }
  });
  const products = runs.flatMap(({ found }) => found ? [found.product] : []);
  return {
    machine: machineLine([...runtimes.map(({ version }) => version), ...new Set(products)]),
    options,
    runs,
  };
}

function title(runtime: RuntimeName): string {
  return runtime === "deno" ? "Deno" : "Bun";
}

function megabytes(bytes: number | undefined): string {
  return bytes === undefined ? "" : (bytes / 1e6).toFixed(0);
}

/** The result as a person reads it. */
export function describeLoad({ machine, options, runs }: LoadResult): string {
  const ran = runs.filter(({ found }) => found !== undefined);
  const parts = [
    `${machine}\n${basename(options.model)}, ${options.threads} ${
      options.threads === 1 ? "thread" : "threads"
    }, ${options.tokens} tokens from a cache`,
    markdownTable(
      [
        "",
        "files, MB",
        "load, s",
        "peak to load, MB",
        "wasm memory, MB",
        "peak in all, MB",
        "tokens/s",
      ],
      ran.map(({ case: name, bytes, runtime, backend, found, peakBytes }) => [
        `${name}, ${title(runtime)}, ${backend}`,
        megabytes(bytes),
        seconds(found!.loadSeconds),
        megabytes(found!.loadPeakBytes),
        megabytes(found!.wasmBytes),
        megabytes(peakBytes),
        found!.tokensPerSecond.toFixed(1),
      ]),
    ),
  ];
  for (const { case: name, runtime, backend, missing } of runs) {
    if (missing !== undefined) {
      parts.push(`${name}, ${title(runtime)}, ${backend}, is missing: ${missing}`);
    }
  }
  return parts.join("\n\n");
}
