/**
 * Times pruning against PyTorch, and measures its memory. See `benchmarks/README.md`.
 *
 *     main.ts speed --model DIR --windows FILE.json [--python python3] [--threads N] [--repeat 3]
 *                   [--method wanda|sparsegpt] [--sparsity 0.7] [--runtime deno|bun]… [--backend node|wasm]…
 *                   [--json]
 *     main.ts memory [--gb 3] [--dir DIR] [--threads N] [--runtime deno|bun]… [--backend node|wasm]…
 *                    [--json]
 *
 * Runs under Deno (`deno run -A`) and Bun, and measures in the same runtime unless `--runtime` names
 * another. The result goes to standard output, progress to standard error.
 */
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { oneOf, positive, runMain, say, UsageError, whole } from "../support/arguments.ts";
import { catchInterrupts, ownRuntime, type RuntimeName } from "../support/process.ts";
import { describeMemory, measureMemory } from "./memory.ts";
import type { BackendName } from "./report.ts";
import { describeSpeed, measureSpeed, type Method } from "./speed.ts";

const USAGE = `usage: main.ts speed --model DIR --windows FILE.json [--python python3] [--threads N]
                     [--repeat 3] [--method wanda|sparsegpt] [--sparsity 0.7] [--runtime deno|bun]...
                     [--backend node|wasm]... [--json]
       main.ts memory [--gb 3] [--dir DIR] [--threads N] [--runtime deno|bun]... [--backend node|wasm]...
                      [--json]`;

async function main(): Promise<void> {
  const { values, positionals: [command, ...others] } = parseArgs({
    args: process.argv.slice(2),
    allowPositionals: true,
    options: {
      model: { type: "string" },
      windows: { type: "string" },
      python: { type: "string", default: "python3" },
      threads: { type: "string", default: String(availableParallelism()) },
      repeat: { type: "string", default: "3" },
      method: { type: "string", default: "wanda" },
      sparsity: { type: "string", default: "0.7" },
      runtime: { type: "string", multiple: true, default: [ownRuntime()] },
      backend: { type: "string", multiple: true, default: ["node", "wasm"] },
      gb: { type: "string", default: "3" },
      dir: { type: "string", default: join(tmpdir(), "espalier-benchmarks") },
      json: { type: "boolean", default: false },
    },
  });
  if (others.length > 0) throw new UsageError(`too many arguments: ${others.join(" ")}`);
  const common = {
    threads: whole("threads", values.threads),
    runtimes: oneOf<RuntimeName>("runtime", values.runtime, ["deno", "bun"]),
    backends: oneOf<BackendName>("backend", values.backend, ["node", "wasm"]),
  };
  const print = <T>(result: T, describe: (result: T) => string) =>
    process.stdout.write(`${values.json ? JSON.stringify(result) : describe(result)}\n`);

  switch (command) {
    case "speed": {
      const { model, windows, python } = values;
      if (!model || !windows) throw new UsageError("speed needs --model and --windows");
      const result = await measureSpeed({
        ...common,
        model: resolve(model),
        windows: resolve(windows),
        python,
        repeat: whole("repeat", values.repeat),
        method: oneOf<Method>("method", [values.method], ["wanda", "sparsegpt"])[0],
        sparsity: positive("sparsity", values.sparsity),
      }, say);
      return void print(result, describeSpeed);
    }
    case "memory": {
      const gb = positive("gb", values.gb);
      const result = await measureMemory({ ...common, gb, dir: resolve(values.dir) }, say);
      return void print(result, describeMemory);
    }
    default:
      throw new UsageError(command ? `unknown command ${command}` : "name a benchmark");
  }
}

catchInterrupts();
await runMain(main, USAGE);
