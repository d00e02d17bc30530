/**
 * `inspect`: the command.
 * @module
 */
import process from "node:process";
import { inspect, type InspectReport } from "../api/inspect.ts";
import { inspectSchema } from "../api/options.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { bar, percent, table } from "./table.ts";
import { formatBytes } from "./terminal.ts";

/** The `inspect` command. */
export const inspectCommand: Command = {
  name: "inspect",
  summary: "Show a checkpoint's shape and the sparsity of every block and linear.",
  usage: "inspect MODEL_DIR [OPTIONS]",
  schema: inspectSchema,
  details: [
    "With --json: model, architecture, layers, hidden, …, parameters, bytes, files, linears {weights,",
    "zeros, sparsity}, blocks [{index, sparsity, linears [{name, shape, dtype, bytes, zeros, sparsity}]}].",
  ].join("\n"),
  examples: [["inspect examples/tiny", "the example model"]],
  run: (words) => {
    const line = readCommandLine(words, inspectSchema);
    const report = inspect(checkOptions(inspectSchema, line.options));
    process.stdout.write(`${line.json ? JSON.stringify(report) : describe(report)}\n`);
    return Promise.resolve(0);
  },
};

function describe(report: InspectReport): string {
  const { blocks } = report;
  const names = blocks[0].linears.map(({ name }) => name);
  const rows = blocks.map((block) => [
    String(block.index),
    bar(block.sparsity, 16),
    percent(block.sparsity),
    ...block.linears.map(({ sparsity }) => percent(sparsity)),
  ]);
  const short = (name: string) => name.split(".").at(-1)!;
  const shapes = table(
    ["linear", "shape [out, in]", "dtype", "bytes", "in all blocks"],
    blocks[0].linears.map(({ name, shape, dtype, bytes }) => [
      name,
      `${shape[0]} × ${shape[1]}`,
      dtype,
      formatBytes(bytes),
      formatBytes(bytes * blocks.length),
    ]),
  );
  return [
    `${report.model}: ${report.architecture}, ${report.layers} blocks, hidden ${report.hidden}, ` +
    `intermediate ${report.intermediate}, ${report.heads} heads of ${report.headDim} ` +
    `(${report.keyValueHeads} key/value), vocabulary ${report.vocabulary}, context ${report.context}`,
    `${(report.parameters / 1e6).toFixed(1)} million parameters, ${formatBytes(report.bytes)} in ${
      report.files.join(", ")
    }`,
    "",
    shapes,
    "",
    table(["block", "zeros", "", ...names.map(short)], rows),
    "",
    `${percent(report.linears.sparsity)} of the ${
      (report.linears.weights / 1e6).toFixed(1)
    } million weights in the blocks' linears are 0`,
  ].join("\n");
}
