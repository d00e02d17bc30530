/**
 * `compile`, `expand` and `verify`: the commands.
 * @module
 */
import { percent } from "../api/percent.ts";
import { compile, type CompileReport } from "../../compile/compile.ts";
import { expand } from "../../compile/expand.ts";
import { compileSchema, expandSchema, verifySchema } from "../../compile/options.ts";
import { verify } from "../../compile/verify.ts";
import { prune } from "../api/prune.ts";
import type { RunHooks } from "../api/options.ts";
import { exists } from "../platform/paths.ts";
import { print } from "../platform/output.ts";
import { pathWord } from "../platform/shell.ts";
import { checkOptions, type CommandSchema, readCommandLine, readConfigFile } from "./args.ts";
import { type Command, program } from "./help.ts";
import { EXAMPLE_CONFIG } from "./prune.ts";
import { withFolders } from "./pull.ts";
import { style, table } from "./table.ts";
import { formatBytes, formatSeconds, ProgressView } from "./terminal.ts";

/** The `compile` command. */
export const compileCommand: Command = {
  name: "compile",
  summary: "Compile a pruned checkpoint to a compact sparse ONNX model.",
  usage: "compile [PRUNED_DIR] [-o OUT] [OPTIONS]",
  schema: compileSchema,
  details: [
    "Without PRUNED_DIR it compiles the pruned example, and prunes it first where it must.",
    "OUT is laid out as transformers.js expects it; any ONNX Runtime runs it, at dense speed.",
    "With --json: model, output, options, linears [{name, shape, format, pattern, values, sparsity,",
    "bytes}], sparsity, bytes {linears, embeddings, graph, data, perWeight}, notes, seconds, peakBytes.",
  ].join("\n"),
  examples: [
    ["compile", "the example"],
    ["compile PRUNED_DIR -o OUT", "int8, each linear in the smallest format its zeros allow"],
    ["compile PRUNED_DIR -o OUT --values f16 --head f16", "half-precision values"],
    ["compile PRUNED_DIR -o OUT --group 64", "int8 with a scale for every 64 inputs"],
    ["compile PRUNED_DIR -o OUT --values int4", "half a byte for each kept weight"],
  ],
  run: (words, signal) =>
    runCommand(words, compileSchema, signal, async (options, hooks) => {
      if (options.model === undefined) {
        const { output, ...example } = await prunedExample(hooks);
        // What may be replaced is the example's own output, and no folder that somebody else names.
        const own = options.output === undefined ? { output, force: true } : {};
        options = { ...example, ...own, ...options };
      }
      return await compile(options as Parameters<typeof compile>[0], hooks);
    }, describeCompiled),
};

/** The `expand` command. */
export const expandCommand: Command = {
  name: "expand",
  summary: "Turn a compiled model back into a dense checkpoint.",
  usage: "expand OUT [-o DIR] [OPTIONS]",
  schema: expandSchema,
  details: "With --json: model, output, dtype, tensors, seconds, notes.",
  examples: [["expand OUT -o DIR", "a checkpoint that transformers and PEFT load"]],
  run: (words, signal) =>
    runCommand(
      words,
      expandSchema,
      signal,
      (options, hooks) => expand(options as Parameters<typeof expand>[0], hooks),
      ({ output, tensors, dtype, seconds }) =>
        `${tensors} tensors in ${dtype} written to ${output}, ${formatSeconds(seconds)}`,
    ),
};

/** The `verify` command. */
export const verifyCommand: Command = {
  name: "verify",
  summary: "Compare a compiled model's logits with its checkpoint's.",
  usage: "verify OUT --against PRUNED_DIR --text FILE [OPTIONS]",
  schema: verifySchema,
  details: [
    "Both run on ONNX Runtime. With --json: model, against, windows, seqlen, largestDifference,",
    "relativeDifference, agreement, perplexity {compiled, checkpoint}, backend, seconds, notes.",
  ].join("\n"),
  examples: [[
    "verify OUT --against PRUNED_DIR --text held-out.txt",
    "eight windows of 256 tokens",
  ]],
  run: (words, signal) =>
    runCommand(
      words,
      verifySchema,
      signal,
      (options, hooks) => verify(options as Parameters<typeof verify>[0], hooks),
      (report) =>
        [
          `largest difference of a logit ${report.largestDifference.toPrecision(3)} (${
            report.relativeDifference.toExponential(1)
          } of the largest logit)`,
          `same next token at ${percent(report.agreement)} of the positions`,
          `perplexity ${report.perplexity.compiled.toFixed(3)} compiled, ${
            report.perplexity.checkpoint.toFixed(3)
          } checkpoint, on ${report.windows} windows of ${report.seqlen} tokens`,
          report.backend,
        ].join("\n"),
    ),
};

/** What these commands do alike: read words, run, show. */
async function runCommand<T>(
  words: readonly string[],
  schema: CommandSchema,
  signal: AbortSignal,
  work: (options: Record<string, unknown>, hooks: RunHooks) => Promise<T>,
  describe: (report: T) => string,
): Promise<number> {
  const bare = schema === compileSchema;
  const line = readCommandLine(words, schema, { modelIsOptional: bare });
  // Before the example is pruned, which takes its time: a model will be there by then.
  checkOptions(schema, { model: ".", ...line.options }, line.sources);
  const view = new ProgressView();
  const hooks: RunHooks = { signal, onProgress: (event) => view.show(event) };
  const report = await withFolders(line.options, hooks)
    .then((options) => work(options, hooks))
    .finally(() => view.finish());
  print(`${line.json ? JSON.stringify(report) : describe(report)}\n`);
  return 0;
}

/** The pruned example, pruned now if it is not there. */
async function prunedExample(hooks: RunHooks): Promise<{ model: string; output: string }> {
  const options = readConfigFile(EXAMPLE_CONFIG) as Parameters<typeof prune>[0];
  const output = options.output!;
  if (!exists(output)) await prune({ ...options, text: undefined, compare: false }, hooks);
  return { model: output, output: `${output}-onnx` };
}

function describeCompiled(report: CompileReport): string {
  const { bytes, linears, options } = report;
  const weights = linears.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
  // With a scale for each row.
  const dense = linears.reduce((sum, { shape }) => sum + shape[0] * (shape[1] + 4), 0);
  const formats = new Map<string, { count: number; bytes: number; weights: number }>();
  for (const { format, pattern, bytes, shape } of linears) {
    const key = pattern ? `${format} ${pattern}` : format;
    const entry = formats.get(key) ?? { count: 0, bytes: 0, weights: 0 };
    entry.count++;
    entry.bytes += bytes;
    entry.weights += shape[0] * shape[1];
    formats.set(key, entry);
  }
  return [
    "",
    table(
      ["format", "linears", "bytes", "bytes a weight"],
      [...formats].map(([name, { count, bytes, weights }]) => [
        `${name}, ${options.values}`,
        String(count),
        formatBytes(bytes),
        (bytes / weights).toFixed(3),
      ]),
    ),
    "",
    `${style.dim("linears")}      ${formatBytes(bytes.linears)} for ${
      (weights / 1e6).toFixed(1)
    } million weights, ${percent(report.sparsity)} of them 0 (dense int8: ${formatBytes(dense)})`,
    `${style.dim("embeddings")}   ${formatBytes(bytes.embeddings)}, ${options.head}`,
    `${style.dim("in all")}       ${
      formatBytes(bytes.graph + bytes.data)
    }, context ${options.context}`,
    `${style.dim("time")}         ${formatSeconds(report.seconds)}, peak memory ${
      formatBytes(report.peakBytes)
    }`,
    "",
    `written to ${report.output}`,
    `look at it: ${program()} inspect ${pathWord(report.output)}`,
  ].join("\n");
}
