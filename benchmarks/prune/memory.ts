/**
 * How much memory pruning takes: the peak must not grow with the model, only with one block of it.
 * @module
 */
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import {
  ownRuntime,
  ProgramError,
  run,
  type RuntimeName,
  throwIfInterrupted,
} from "../support/process.ts";
import { gigabytes, machineLine, markdownTable, seconds } from "../support/print.ts";
import { type BackendName, type PruneRun, runPrune, title } from "./report.ts";

/** Bytes that the process may hold at most. */
const LIMIT = 1.5e9;
const BLOCKS = 16;
const WINDOWS = 4;
const SEQLEN = 512;
const SPARSITY = 0.7;

/** What to measure. */
export interface MemoryOptions {
  /** Size of the checkpoint in 10^9 bytes. */
  readonly gb: number;
  /** Where the checkpoints are kept. */
  readonly dir: string;
  readonly threads: number;
  readonly runtimes: readonly RuntimeName[];
  readonly backends: readonly BackendName[];
}

/** One checkpoint pruned once. */
interface Measured {
  readonly name: string;
  readonly blocks: number;
  /** Bytes of the checkpoint's weights. */
  readonly bytes: number;
  readonly missing?: string;
  /** Largest resident memory, as seen from outside; undefined where the system does not tell. */
  readonly peakBytes?: number;
  /** The same, as our report says it. */
  readonly reportedPeakBytes?: number;
  readonly phases?: Record<string, number>;
  readonly wall?: number;
  readonly versions: readonly string[];
}

/** Everything measured, as `--json` prints it. */
export interface MemoryResult {
  readonly machine: string;
  readonly options: MemoryOptions;
  readonly peaksFrom: string;
  readonly limitBytes: number;
  readonly runs: readonly Measured[];
}

interface Checkpoint {
  readonly folder: string;
  readonly blocks: number;
  readonly bytes: number;
}

/**
 * Makes the checkpoints where they are missing, and prunes each of them.
 *
 * @param say Told of every run.
 */
export async function measureMemory(
  options: MemoryOptions,
  say: (line: string) => void,
): Promise<MemoryResult> {
  mkdirSync(options.dir, { recursive: true });
  const whole = await makeCheckpoint(options, BLOCKS, undefined, say);
  const config = JSON.parse(readFileSync(join(whole.folder, "config.json"), "utf8"));
  const half = await makeCheckpoint(options, BLOCKS / 2, config.intermediate_size, say);
  const windows = `${whole.folder}-windows.json`;

  const runs: Measured[] = [];
  for (const runtime of options.runtimes) {
    for (const backend of options.backends) {
      for (const checkpoint of [half, whole]) {
        const measured = await measure(options, runtime, backend, checkpoint, windows);
        runs.push(measured);
        say(
          `${measured.name}, ${measured.blocks} blocks: ` +
            (measured.missing ??
              `${gigabytes(peakOf(measured))} GB, ${seconds(total(measured))} s`),
        );
      }
    }
  }
  return {
    machine: machineLine([...new Set(runs.flatMap(({ versions }) => versions))]),
    options,
    peaksFrom: runs.some(({ peakBytes }) => peakBytes !== undefined)
      ? "VmHWM in /proc, read from outside"
      : "the program's own report",
    limitBytes: LIMIT,
    runs,
  };
}

async function measure(
  options: MemoryOptions,
  runtime: RuntimeName,
  backend: BackendName,
  { folder, blocks, bytes }: Checkpoint,
  windows: string,
): Promise<Measured> {
  const about = { name: `${title(runtime)}, ${backend}`, blocks, bytes };
  let run: PruneRun;
  try {
    run = await runPrune(runtime, [
      folder,
      "--sparsity",
      String(SPARSITY),
      "--calibration",
      windows,
      "--samples",
      String(WINDOWS),
      "--seqlen",
      String(SEQLEN),
      "--backend",
      backend,
      "--threads",
      String(options.threads),
    ], options.dir);
  } catch (error) {
    throwIfInterrupted();
    if (!(error instanceof ProgramError)) throw error;
    return { ...about, missing: error.message, versions: [] };
  }
  return {
    ...about,
    peakBytes: run.peakBytes,
    reportedPeakBytes: run.report.peakBytes,
    phases: run.report.seconds,
    wall: run.seconds,
    versions: [run.runtime, run.report.backend!.replace(/,.*/, "")],
  };
}

/** A random checkpoint, made once: a run that is stopped leaves none that looks complete. */
async function makeCheckpoint(
  { gb, dir }: MemoryOptions,
  blocks: number,
  intermediate: number | undefined,
  say: (line: string) => void,
): Promise<Checkpoint> {
  const folder = join(dir, `random-${gb}gb-${blocks}-of-${BLOCKS}`);
  if (!existsSync(folder)) {
    say(`making ${basename(folder)}`);
    const script = fileURLToPath(new URL("make_large.ts", import.meta.url));
    const unfinished = `${folder}-${process.pid}.tmp`;
    await run([
      process.execPath,
      ...(ownRuntime() === "deno" ? ["run", "-A"] : []),
      script,
      unfinished,
      `--gb=${gb}`,
      `--blocks=${blocks}`,
      ...(intermediate === undefined ? [] : [`--intermediate=${intermediate}`]),
      `--windows=${WINDOWS}`,
      `--seqlen=${SEQLEN}`,
    ]);
    renameSync(`${unfinished}-windows.json`, `${folder}-windows.json`);
    renameSync(unfinished, folder);
  }
  const index = readFileSync(join(folder, "model.safetensors.index.json"), "utf8");
  return { folder, blocks, bytes: JSON.parse(index).metadata.total_size };
}

function peakOf({ peakBytes, reportedPeakBytes }: Measured): number | undefined {
  return peakBytes ?? reportedPeakBytes;
}

function total({ phases }: Measured): number {
  return Object.values(phases!).reduce((sum, s) => sum + s, 0);
}

/** The result as a person reads it. */
export function describeMemory({ machine, options, peaksFrom, runs }: MemoryResult): string {
  const ran = runs.filter(({ missing }) => missing === undefined);
  const parts = [
    `${machine}\n${options.threads} threads, ${WINDOWS} windows of ${SEQLEN} tokens, wanda with dlp at ` +
    `${SPARSITY}; peaks from ${peaksFrom}`,
  ];
  if (ran.length > 0) {
    const phases = Object.keys(ran[0].phases!);
    parts.push(
      markdownTable(
        ["", "blocks", "weights, GB", "peak, GB", `below ${LIMIT / 1e9} GB`, "own report, GB"],
        ran.map((run) => [
          run.name,
          String(run.blocks),
          gigabytes(run.bytes),
          gigabytes(peakOf(run)),
          peakOf(run)! < LIMIT ? "yes" : "no",
          gigabytes(run.reportedPeakBytes),
        ]),
      ),
      markdownTable(
        ["", "blocks", ...phases.map((phase) => `${phase}, s`), "all, s", "all, s a block"],
        ran.map((run) => [
          run.name,
          String(run.blocks),
          ...phases.map((phase) => seconds(run.phases![phase])),
          seconds(total(run)),
          seconds(total(run) / run.blocks),
        ]),
      ),
      describeGrowth(ran),
    );
  }
  for (const { name, blocks, missing } of runs) {
    if (missing !== undefined) parts.push(`${name}, ${blocks} blocks, is missing: ${missing}`);
  }
  return parts.join("\n\n");
}

/** Half the model beside all of it. */
function describeGrowth(runs: readonly Measured[]): string {
  const lines: string[] = [];
  for (const whole of runs) {
    const half = runs.find(({ name, blocks }) => name === whole.name && blocks < whole.blocks);
    if (!half) continue;
    const time = total(whole) / whole.blocks / (total(half) / half.blocks);
    const peak = peakOf(whole)! / peakOf(half)!;
    lines.push(
      `- ${whole.name}: from ${half.blocks} to ${whole.blocks} blocks, time a block × ${
        time.toFixed(2)
      }, peak × ${peak.toFixed(2)}`,
    );
  }
  return lines.join("\n");
}
