/**
 * Measures the server on this machine. See `benchmarks/README.md`.
 *
 *     main.ts load     --model DIR [--runtime deno|bun] [--seconds 60] [--tokens 64] [--threads N] [--json]
 *     main.ts overhead --model DIR [--repeat 9] [--tokens 128] [--threads N] [--json]
 *
 * Runs under Deno (`deno run -A`) and Bun. The result goes to standard output, progress to standard
 * error.
 */
import { resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { oneOf, positive, runMain, say, UsageError, whole } from "../support/arguments.ts";
import { machineLine } from "../support/print.ts";
import { catchInterrupts, ownRuntime } from "../support/process.ts";
import { describeLoad, measureLoad } from "./load.ts";
import { describeOverhead, measureOverhead } from "./overhead.ts";

const USAGE =
  `usage: main.ts load --model DIR [--runtime deno|bun] [--seconds 60] [--tokens 64] [--threads N] [--json]
       main.ts overhead --model DIR [--repeat 9] [--tokens 128] [--threads N] [--json]`;

async function main(): Promise<void> {
  const { values, positionals: [command, ...others] } = parseArgs({
    args: process.argv.slice(2),
    allowPositionals: true,
    options: {
      model: { type: "string" },
      runtime: { type: "string", default: ownRuntime() },
      seconds: { type: "string", default: "60" },
      tokens: { type: "string" },
      repeat: { type: "string", default: "9" },
      threads: { type: "string" },
      json: { type: "boolean", default: false },
    },
  });
  if (others.length > 0) throw new UsageError(`too many arguments: ${others.join(" ")}`);
  if (command !== "load" && command !== "overhead") {
    throw new UsageError(command ? `unknown command ${command}` : "name a benchmark");
  }
  if (!values.model) throw new UsageError(`${command} needs --model`);
  const model = resolve(values.model);
  const threads = values.threads === undefined ? undefined : whole("threads", values.threads);
  const print = <T>(result: T, describe: (result: T) => string) =>
    void process.stdout.write(
      `${values.json ? JSON.stringify(result) : `${machineLine([])}\n${describe(result)}`}\n`,
    );
  catchInterrupts();
  if (command === "load") {
    const result = await measureLoad({
      model,
      threads,
      runtime: oneOf("runtime", [values.runtime], ["deno", "bun"])[0],
      seconds: positive("seconds", values.seconds),
      tokens: whole("tokens", values.tokens ?? "64"),
    }, say);
    return print(result, describeLoad);
  }
  const result = await measureOverhead({
    model,
    threads,
    repeat: whole("repeat", values.repeat),
    tokens: whole("tokens", values.tokens ?? "128"),
  }, say);
  print(result, describeOverhead);
}

await runMain(main, USAGE);
// The engine's threads would keep the process alive.
process.exit(0);
