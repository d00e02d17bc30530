/**
 * `inspect`: the command.
 * @module
 */
import { percent } from "../api/percent.ts";
import { CompiledModel } from "../../compile/compiled_model.ts";
import { type CompiledInspectReport, inspectCompiledInSteps } from "../../compile/inspect.ts";
import { inspectInSteps, type InspectReport } from "../api/inspect.ts";
import { inspectSchema, type RunHooks } from "../api/options.ts";
import { print } from "../platform/output.ts";
import { withPauses } from "../platform/steps.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { withFolders } from "./pull.ts";
import { bar, table } from "./table.ts";
import { formatBytes, ProgressView } from "./terminal.ts";

/** The `inspect` command. */
export const inspectCommand: Command = {
  name: "inspect",
  summary: "Show a checkpoint or compiled model: shape, sparsity and bytes of every linear.",
  usage: "inspect MODEL_DIR [OPTIONS]",
  schema: inspectSchema,
  details: [
    "With --json: model, architecture, layers, hidden, …, parameters, bytes, files, linears {weights,",
    "zeros, sparsity}, blocks [{index, sparsity, linears [{name, shape, dtype, bytes, zeros, sparsity}]}].",
    "Of a compiled model: model, kind, architecture, linears [{name, shape, format, pattern, values,",
    "sparsity, bytes, bytesPerWeight}], totals {weights, sparsity, bytes, bytesPerWeight, fileBytes, dense}.",
  ].join("\n"),
  examples: [["inspect examples/tiny", "the example model"]],
  run: async (words, signal) => {
    const line = readCommandLine(words, inspectSchema);
    const view = new ProgressView();
    const hooks: RunHooks = { signal, onProgress: (event) => view.show(event) };
    const options = await withFolders(
      checkOptions(inspectSchema, line.options, line.sources),
      hooks,
    )
      .finally(() => view.finish());
    let text: string;
    if (CompiledModel.isAt(options.model)) {
      const report = await withPauses(inspectCompiledInSteps(options.model), signal);
      text = line.json ? JSON.stringify(report) : describeCompiled(report);
    } else {
      const report = await withPauses(inspectInSteps(options), signal);
      text = line.json ? JSON.stringify(report) : describe(report);
    }
    print(`${text}\n`);
    return 0;
  },
};

function describe(report: InspectReport): string {
  const { blocks } = report;
  // Blocks of some models do not all have the same linears.
  const byName = Map.groupBy(blocks.flatMap(({ linears }) => linears), ({ name }) => name);
  const names = [...byName.keys()];
  const rows = blocks.map((block) => [
    String(block.index),
    bar(block.sparsity, 16),
    percent(block.sparsity),
    ...names.map((name) => {
      const linear = block.linears.find((linear) => linear.name === name);
      return linear ? percent(linear.sparsity) : "";
    }),
  ]);
  const last = (name: string) => name.split(".").at(-1)!;
  const short = (name: string) =>
    names.filter((other) => last(other) === last(name)).length > 1 ? name : last(name);
  // Nor do those of one name all have the same shape.
  const byShape = Map.groupBy(
    [...byName.values()].flat(),
    ({ name, shape, dtype }) => `${name} ${shape} ${dtype}`,
  );
  const shapes = table(
    ["linear", "shape [out, in]", "dtype", "bytes", "in all blocks"],
    [...byShape.values()].map((linears) => [
      linears[0].name,
      `${linears[0].shape[0]} × ${linears[0].shape[1]}`,
      linears[0].dtype,
      formatBytes(linears[0].bytes),
      formatBytes(linears.reduce((sum, { bytes }) => sum + bytes, 0)),
    ]),
  );
  return [
    `${report.model}: ${report.architecture}, ${report.layers} blocks, hidden ${report.hidden}, ` +
    `intermediate ${report.intermediate}, ${report.heads} heads of ${
      report.headDims.join(" and ")
    } ` +
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

function describeCompiled({ model, architecture, linears, totals }: CompiledInspectReport): string {
  const rows = linears.map(({ name, shape, format, pattern, values, ...linear }) => [
    name,
    `${shape[0]} × ${shape[1]}`,
    pattern ? `${format} ${pattern}` : format,
    values,
    percent(linear.sparsity),
    formatBytes(linear.bytes),
    linear.bytesPerWeight.toFixed(3),
  ]);
  const { dense } = totals;
  return [
    `${model}: ${architecture}, compiled, ${formatBytes(totals.fileBytes)} in onnx/`,
    "",
    table(["linear", "shape", "format", "values", "zeros", "bytes", "bytes a weight"], rows),
    "",
    `${(totals.weights / 1e6).toFixed(1)} million weights, ${
      percent(totals.sparsity)
    } of them 0, in ${formatBytes(totals.bytes)}: ${
      totals.bytesPerWeight.toFixed(3)
    } bytes a weight`,
    `dense they would take ${formatBytes(dense.f16)} in float16, ${
      formatBytes(dense.int8)
    } in int8, ${formatBytes(dense.int4)} in int4 (blocks of 32)`,
  ].join("\n");
}
