/**
 * How long pruning takes beside the released code's steps in PyTorch.
 * @module
 */
import { fileURLToPath } from "node:url";
import { ProgramError, runJson, type RuntimeName, throwIfInterrupted } from "../support/process.ts";
import { gigabytes, machineLine, markdownTable, median, seconds } from "../support/print.ts";
import { type BackendName, runPrune, title } from "./report.ts";

/** How both prune. */
export type Method = "wanda" | "sparsegpt";

/** What to compare, and on what. */
export interface SpeedOptions {
  readonly model: string;
  readonly windows: string;
  readonly python: string;
  readonly threads: number;
  readonly repeat: number;
  readonly method: Method;
  readonly sparsity: number;
  readonly runtimes: readonly RuntimeName[];
  readonly backends: readonly BackendName[];
}

/** One run of one of the programs compared. */
interface Measured {
  /** What is compared: the reference without loading the model, ours with everything. */
  readonly seconds: number;
  readonly phases: Record<string, number>;
  /** The whole process. */
  readonly wall: number;
  readonly peakBytes?: number;
  /** Fraction of weights that each block keeps. */
  readonly densities: number[];
  /** Fraction of zeros of each block's linears. */
  readonly zeros: Record<string, number>[];
  readonly versions: string[];
}

/** One of the programs compared. */
interface Peer {
  readonly name: string;
  run(): Promise<Measured>;
  readonly runs: Measured[];
  /** Why it could not run. */
  missing?: string;
}

/** What `reference.py` prints. */
interface ReferenceOutput {
  readonly seconds: number;
  readonly phases: Record<string, number>;
  readonly densities: number[];
  /** Names and sizes of a block's linears. */
  readonly linears: [name: string, weights: number][];
  /** `[block][linear]`. */
  readonly zeros: number[][];
  readonly versions: Record<string, string>;
}

const REFERENCE = "PyTorch reference";

/** Everything measured, as `--json` prints it. */
export interface SpeedResult {
  readonly machine: string;
  readonly options: SpeedOptions;
  readonly peers: {
    readonly name: string;
    readonly missing?: string;
    readonly medianSeconds?: number;
    /** Our time over the reference's, run by run. */
    readonly ratios?: number[];
    readonly agreement?: Agreement;
    readonly runs: readonly Measured[];
  }[];
}

/** How far two programs did the same. */
interface Agreement {
  /** Largest difference of a block's density. */
  readonly density: number;
  /** Linears with another number of zeros, of how many, and the largest difference as a fraction. */
  readonly linearsThatDiffer: number;
  readonly linears: number;
  readonly zeros: number;
}

/**
 * Runs all programs in turn, as often as asked.
 *
 * @param say Told of every run.
 */
export async function measureSpeed(
  options: SpeedOptions,
  say: (line: string) => void,
): Promise<SpeedResult> {
  const peers: Peer[] = [
    { name: REFERENCE, run: () => runReference(options), runs: [] },
    ...options.runtimes.flatMap((runtime) =>
      options.backends.map((backend) => ({
        name: `Espalier, ${title(runtime)}, ${backend}`,
        run: () => runOurs(options, runtime, backend),
        runs: [],
      }))
    ),
  ];
  for (let round = 1; round <= options.repeat; round++) {
    for (const peer of peers) {
      if (peer.missing !== undefined) continue;
      try {
        const measured = await peer.run();
        peer.runs.push(measured);
        say(`${round} of ${options.repeat}: ${peer.name}: ${seconds(measured.seconds)} s`);
      } catch (error) {
        throwIfInterrupted();
        if (!(error instanceof ProgramError)) throw error;
        peer.missing = error.message;
        say(`${peer.name} cannot run: ${error.message}`);
      }
    }
  }
  const [reference] = peers;
  const complete = peers.filter(({ missing }) => missing === undefined);
  return {
    machine: machineLine([...new Set(complete.flatMap(({ runs }) => runs[0].versions))]),
    options,
    peers: peers.map((peer) => {
      const { name, missing, runs } = peer;
      if (missing !== undefined) return { name, missing, runs };
      const compared = peer !== reference && reference.missing === undefined;
      return {
        name,
        medianSeconds: median(runs.map((run) => run.seconds)),
        ratios: compared
          ? runs.map((run, i) => run.seconds / reference.runs[i].seconds)
          : undefined,
        agreement: peer === complete[0] ? undefined : agreementOf(runs[0], complete[0].runs[0]),
        runs,
      };
    }),
  };
}

async function runReference(options: SpeedOptions): Promise<Measured> {
  const { python, model, windows, method, sparsity, threads } = options;
  const script = fileURLToPath(new URL("reference.py", import.meta.url));
  const { value, seconds, peakBytes } = await runJson([
    python,
    script,
    model,
    windows,
    "--method",
    method,
    "--sparsity",
    String(sparsity),
    "--threads",
    String(threads),
  ]);
  const output = value as ReferenceOutput;
  return {
    seconds: output.seconds,
    phases: output.phases,
    wall: seconds,
    peakBytes,
    densities: output.densities,
    zeros: output.zeros.map((block) =>
      Object.fromEntries(output.linears.map(([name, weights], i) => [name, block[i] / weights]))
    ),
    versions: Object.entries(output.versions).map(([name, version]) => `${name} ${version}`),
  };
}

async function runOurs(
  options: SpeedOptions,
  runtime: RuntimeName,
  backend: BackendName,
): Promise<Measured> {
  const { model, windows, method, sparsity, threads } = options;
  const run = await runPrune(runtime, [
    model,
    "--method",
    method,
    "--allocation",
    "dlp",
    "--reducer",
    "mean",
    "--sparsity",
    String(sparsity),
    "--calibration",
    windows,
    "--backend",
    backend,
    "--threads",
    String(threads),
  ]);
  const { report } = run;
  return {
    seconds: run.phaseSeconds,
    phases: report.seconds,
    wall: run.seconds,
    peakBytes: run.peakBytes ?? report.peakBytes,
    densities: report.blocks.map(({ density }) => density),
    zeros: report.blocks.map(({ linears }) => linears!),
    versions: [run.runtime, report.backend!.replace(/,.*/, "")],
  };
}

function agreementOf(ours: Measured, theirs: Measured): Agreement {
  const density = Math.max(...ours.densities.map((d, i) => Math.abs(d - theirs.densities[i])));
  const differences = ours.zeros.flatMap((block, i) =>
    Object.entries(block).map(([name, zeros]) => Math.abs(zeros - theirs.zeros[i][name]))
  );
  return {
    density,
    // A name that the other lacks gives NaN, and counts.
    linearsThatDiffer: differences.filter((difference) => difference !== 0).length,
    linears: differences.length,
    zeros: Math.max(...differences),
  };
}

/** The result as a person reads it. */
export function describeSpeed({ machine, options, peers }: SpeedResult): string {
  const { repeat, threads, method, sparsity } = options;
  const range = (values: readonly number[] | undefined, digits: number) =>
    values
      ? [Math.min(...values), median(values), Math.max(...values)].map((v) => v.toFixed(digits))
      : ["", "", ""];
  const ran = peers.filter(({ missing }) => missing === undefined);
  const parts = [
    `${machine}\n${threads} threads, ${method}, sparsity ${sparsity}, ${repeat} ${
      repeat === 1 ? "run" : "runs"
    } each, in turn`,
  ];
  if (ran.length > 0) {
    parts.push(
      markdownTable(
        ["", "seconds", "ratio min", "median", "max", "whole process, s", "peak, GB"],
        ran.map(({ name, medianSeconds, ratios, runs }) => [
          name,
          seconds(medianSeconds!),
          ...range(ratios, 3),
          seconds(median(runs.map(({ wall }) => wall))),
          gigabytes(Math.max(...runs.map(({ peakBytes }) => peakBytes ?? NaN))),
        ]),
      ),
      "Seconds are medians. The reference's are without loading the model; ours are with everything:\n" +
        "copying and checking the weights, and writing the result. Ratios are of runs of the\n" +
        "same round.",
      markdownTable(
        ["phase", "seconds"],
        ran.flatMap(({ name, runs }) =>
          Object.keys(runs[0].phases).map((phase) => [
            `${name}: ${phase}`,
            seconds(median(runs.map(({ phases }) => phases[phase]))),
          ])
        ),
      ),
    );
  }
  const compared = ran.filter(({ agreement }) => agreement !== undefined);
  if (compared.length > 0) {
    parts.push(
      `Against ${ran[0].name}:\n` + compared.map(({ name, agreement }) => {
        const { density, linearsThatDiffer, linears, zeros } = agreement!;
        return `- ${name}: densities differ by at most ${density.toExponential(1)}; ` +
          (linearsThatDiffer === 0
            ? `the number of zeros is the same in all ${linears} linears`
            : `the number of zeros differs in ${linearsThatDiffer} of ${linears} linears, by at most ` +
              `${(100 * zeros).toPrecision(2)} % of one's weights`);
      }).join("\n"),
    );
  }
  for (const { name, missing } of peers) {
    if (missing !== undefined) parts.push(`${name} is missing: ${missing}`);
  }
  return parts.join("\n\n");
}
