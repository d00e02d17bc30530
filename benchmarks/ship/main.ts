/**
 * Measures what `bundle` makes, on this machine. See `benchmarks/README.md`.
 *
 *     main.ts binary|static|cloudflare|deno [--model DIR …] [--repeat 9] [--tokens 64] [--json]
 *
 * Runs under Deno (`deno run -A`) and Bun. The result goes to standard output, progress to standard
 * error.
 */
import { resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { runMain, say, UsageError, whole } from "../support/arguments.ts";
import { machineLine } from "../support/print.ts";
import { catchInterrupts } from "../support/process.ts";
import { describeBinaries, measureBinaries } from "./binary.ts";
import { describeEdge, measureDeno, measureWorkers } from "./edge.ts";
import { describeStatic, measureStatic } from "./static.ts";

const USAGE =
  "usage: main.ts binary|static|cloudflare|deno [--model DIR …] [--repeat 9] [--tokens 64] [--json]";

/** What is measured how often. */
export interface ShipSettings {
  /** Folders of models; the example is measured as well. */
  readonly models: readonly string[];
  readonly repeat: number;
  readonly tokens: number;
}

/** A benchmark: what it measures, and how that is shown. */
interface Benchmark<T> {
  measure(settings: ShipSettings, say: (line: string) => void): Promise<T>;
  describe(result: T): string;
}

/** A benchmark together with its result's type. */
const run = async <T>(
  { measure, describe }: Benchmark<T>,
  settings: ShipSettings,
  json: boolean,
) => {
  const result = await measure(settings, say);
  return json ? JSON.stringify(result) : `${machineLine([])}\n\n${describe(result)}`;
};

/** One a target. */
const TARGETS = {
  binary: (settings: ShipSettings, json: boolean) =>
    run({ measure: measureBinaries, describe: describeBinaries }, settings, json),
  cloudflare: (settings: ShipSettings, json: boolean) =>
    run({ measure: measureWorkers, describe: describeEdge }, settings, json),
  deno: (settings: ShipSettings, json: boolean) =>
    run({ measure: measureDeno, describe: describeEdge }, settings, json),
  static: (settings: ShipSettings, json: boolean) =>
    run({ measure: measureStatic, describe: describeStatic }, settings, json),
};

async function main(): Promise<void> {
  const { values, positionals: [target, ...others] } = parseArgs({
    args: process.argv.slice(2),
    allowPositionals: true,
    options: {
      model: { type: "string", multiple: true, default: [] },
      repeat: { type: "string", default: "9" },
      tokens: { type: "string", default: "64" },
      json: { type: "boolean", default: false },
    },
  });
  if (others.length > 0) throw new UsageError(`too many arguments: ${others.join(" ")}`);
  if (target === undefined || !Object.hasOwn(TARGETS, target)) {
    throw new UsageError(`name a target: ${Object.keys(TARGETS).join(", ")}`);
  }
  catchInterrupts();
  const settings = {
    models: values.model.map((folder) => resolve(folder)),
    repeat: whole("repeat", values.repeat),
    tokens: whole("tokens", values.tokens),
  };
  const text = await TARGETS[target as keyof typeof TARGETS](settings, values.json);
  process.stdout.write(`${text}\n`);
}

await runMain(main, USAGE);
