/**
 * How large compiled models are: every format that fits, beside dense ones.
 * @module
 */
import { readFileSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import {
  ProgramError,
  type RuntimeName,
  throwIfInterrupted,
  withFolder,
} from "../support/process.ts";
import { machineLine, markdownTable, seconds } from "../support/print.ts";
import {
  bytesByFormula,
  compileTo,
  type Format,
  pruneTo,
  type Pruning,
  toolIn,
  type Values,
} from "./models.ts";

const PRUNINGS: readonly Pruning[] = ["dense", "50 %", "70 %", "2:4", "8:16", "4:16"];
/** Bytes a weight of dense int4 in blocks of 32 with a float16 scale each. */
const INT4_BYTES = 0.5 + 2 / 32;
/** Files that others publish of a model of this shape, in bytes. */
const KNOWN_FILES = [{
  shape: { num_hidden_layers: 30, hidden_size: 576, vocab_size: 49152 },
  name: "GGUF Q4_1",
  bytes: 98.4e6,
}];

/** What to measure. */
export interface FilesOptions {
  readonly model: string;
  readonly runtime: RuntimeName;
}

/** One compiled model. */
interface Measured {
  readonly pruning: Pruning;
  readonly format: Format;
  readonly values: Values;
  readonly missing?: string;
  readonly bytesPerWeight?: number;
  readonly byFormula?: number;
  /** Bytes of the graph and its data. */
  readonly bytes?: number;
  readonly seconds?: number;
  readonly peakBytes?: number;
}

/** Everything measured, as `--json` prints it. */
export interface FilesResult {
  readonly machine: string;
  readonly model: string;
  readonly weights: number;
  readonly runs: readonly Measured[];
  /** Models that were not made here: computed, or published by others. */
  readonly others: readonly { name: string; bytesPerWeight?: number; bytes: number }[];
}

/**
 * Prunes a checkpoint in several ways, and compiles each in every format that fits.
 *
 * @param say Told of every run.
 */
export async function measureFiles(
  { model, runtime }: FilesOptions,
  say: (line: string) => void,
): Promise<FilesResult> {
  const tool = await toolIn(runtime);
  const runs: Measured[] = [];
  let weights = 0;
  let dense: { linears: number; rest: number } | undefined;
  await withFolder(async (folder) => {
    for (const pruning of PRUNINGS) {
      const pruned = await pruneTo(tool, model, pruning, folder);
      const pattern = /^(\d+):(\d+)$/.exec(pruning)?.slice(1).map(Number);
      const formats: Format[] = pruning === "dense"
        ? ["dense"]
        : [...pattern ? ["nm" as const] : [], "bitmap", "csr"];
      const types: Values[] = pruning === "dense" ? ["f32", "f16", "int8"] : ["f16", "int8"];
      for (const values of types) {
        for (const format of formats) {
          const about = { pruning, format, values };
          const output = join(folder, "compiled");
          try {
            const run = await compileTo(tool, pruned, format, values, output);
            const { bytes, linears, sparsity } = run.report;
            weights = linears.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
            const all = bytes.graph + bytes.data;
            if (format === "dense" && values === "int8") {
              dense = { linears: bytes.linears, rest: all - bytes.linears };
            }
            // N:M stores N of every M, zeros among them too.
            const kept = format === "nm" ? pattern![0] / pattern![1] : 1 - sparsity;
            runs.push({
              ...about,
              bytesPerWeight: bytes.perWeight,
              byFormula: bytesByFormula(format, values, kept, pattern?.[1]),
              bytes: all,
              seconds: run.seconds,
              peakBytes: run.peakBytes,
            });
          } catch (error) {
            throwIfInterrupted();
            if (!(error instanceof ProgramError)) throw error;
            runs.push({ ...about, missing: error.message });
          }
          rmSync(output, { recursive: true, force: true });
          const { missing, bytesPerWeight } = runs.at(-1)!;
          say(`${pruning}, ${format}, ${values}: ${missing ?? bytesPerWeight!.toFixed(3)}`);
        }
      }
      if (pruned !== model) rmSync(pruned, { recursive: true, force: true });
    }
  });
  const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8"));
  const known = KNOWN_FILES.filter(({ shape }) =>
    Object.entries(shape).every(([key, value]) => config[key] === value)
  );
  return {
    machine: machineLine([tool.version]),
    model: basename(model),
    weights,
    runs,
    others: [
      ...dense
        ? [{
          name: "dense int4 in blocks of 32, the rest int8 (computed)",
          bytesPerWeight: INT4_BYTES,
          bytes: INT4_BYTES * weights + dense.rest,
        }]
        : [],
      ...known.map(({ name, bytes }) => ({ name: `${name} (a published file)`, bytes })),
    ],
  };
}

/** The result as a person reads it. */
export function describeFiles({ machine, model, weights, runs, others }: FilesResult): string {
  const header = [
    "",
    "bytes a weight",
    "by formula",
    "model, MB",
    "compile, s",
    "peak memory, MB",
  ];
  const megabytes = (bytes: number | undefined) =>
    bytes === undefined ? "?" : (bytes / 1e6).toFixed(1);
  const ran = runs.filter(({ missing }) => missing === undefined);
  const parts = [
    `${machine}\n${model}, ${
      (weights / 1e6).toFixed(1)
    } million weights in linears; pruned by magnitude`,
    markdownTable(header, [
      ...ran.map((run) => [
        `${run.pruning === "dense" ? "" : `${run.pruning}, `}${run.format} ${run.values}`,
        run.bytesPerWeight!.toFixed(3),
        run.byFormula!.toFixed(3),
        megabytes(run.bytes),
        seconds(run.seconds!),
        run.peakBytes === undefined ? "?" : (run.peakBytes / 1e6).toFixed(0),
      ]),
      ...others.map(({ name, bytesPerWeight, bytes }) => [
        name,
        bytesPerWeight?.toFixed(3) ?? "",
        "",
        megabytes(bytes),
        "",
        "",
      ]),
    ]),
    ...runs.filter(({ missing }) => missing !== undefined).map((
      { pruning, format, values, missing },
    ) => `${pruning}, ${format} ${values}, is missing: ${missing}`),
  ];
  return parts.join("\n\n");
}
