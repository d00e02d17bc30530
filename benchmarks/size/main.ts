/**
 * Measures how large compiled models are, and what it takes to load them. See `benchmarks/README.md`.
 *
 *     main.ts files --model DIR [--runtime deno|bun] [--json]
 *     main.ts load  --model DIR [--case NAME]… [--runtime deno|bun]… [--backend node|wasm]… [--threads 1]
 *                   [--tokens 16] [--json]
 *
 * Runs under Deno (`deno run -A`) and Bun, and measures in the same runtime unless `--runtime` names
 * another. The result goes to standard output, progress to standard error.
 */
import { resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { oneOf, runMain, say, UsageError, whole } from "../support/arguments.ts";
import { catchInterrupts, ownRuntime } from "../support/process.ts";
import { describeFiles, measureFiles } from "./files.ts";
import { describeLoad, LOAD_CASES, measureLoad } from "./load.ts";

const USAGE = `usage: main.ts files --model DIR [--runtime deno|bun] [--json]
       main.ts load --model DIR [--case NAME]... [--runtime deno|bun]... [--backend node|wasm]...
                    [--threads 1] [--tokens 16] [--json]
cases: ${LOAD_CASES.join(", ")}`;

async function main(): Promise<void> {
  const { values, positionals: [command, ...others] } = parseArgs({
    args: process.argv.slice(2),
    allowPositionals: true,
    options: {
      model: { type: "string" },
      case: { type: "string", multiple: true, default: [...LOAD_CASES] },
      runtime: { type: "string", multiple: true, default: [ownRuntime()] },
      backend: { type: "string", multiple: true, default: ["wasm", "node"] },
      threads: { type: "string", default: "1" },
      tokens: { type: "string", default: "16" },
      json: { type: "boolean", default: false },
    },
  });
  if (others.length > 0) throw new UsageError(`too many arguments: ${others.join(" ")}`);
  if (command !== "files" && command !== "load") {
    throw new UsageError(command ? `unknown command ${command}` : "name a benchmark");
  }
  if (!values.model) throw new UsageError(`${command} needs --model`);
  const model = resolve(values.model);
  const runtimes = oneOf("runtime", values.runtime, ["deno", "bun"]);
  const print = <T>(result: T, describe: (result: T) => string) =>
    void process.stdout.write(`${values.json ? JSON.stringify(result) : describe(result)}\n`);

  if (command === "files") {
    if (runtimes.length > 1) throw new UsageError("files takes one --runtime");
    return print(await measureFiles({ model, runtime: runtimes[0] }, say), describeFiles);
  }
  const result = await measureLoad({
    model,
    runtimes,
    cases: oneOf("case", values.case, LOAD_CASES),
    backends: oneOf("backend", values.backend, ["node", "wasm"]),
    threads: whole("threads", values.threads),
    tokens: whole("tokens", values.tokens),
  }, say);
  print(result, describeLoad);
}

catchInterrupts();
await runMain(main, USAGE);
