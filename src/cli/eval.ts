/**
 * `eval`: the command.
 * @module
 */
import { evaluate } from "../api/evaluate.ts";
import { evaluateSchema, type RunHooks } from "../api/options.ts";
import { print } from "../platform/output.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { withFolders } from "./pull.ts";
import { style } from "./table.ts";
import { formatBytes, formatSeconds, ProgressView } from "./terminal.ts";

/** The `eval` command. */
export const evaluateCommand: Command = {
  name: "eval",
  summary: "Measure a checkpoint's perplexity on a text.",
  usage: "eval MODEL_DIR --text FILE [OPTIONS]",
  schema: evaluateSchema,
  details: [
    "exp of the mean loss over consecutive windows; the first token of each is not predicted.",
    "With --json: model, text, perplexity, losses [nats a window], windows, tokens, seqlen, backend,",
    "notes, seconds, peakBytes.",
  ].join("\n"),
  examples: [
    [
      "eval examples/tiny --text examples/tiny/evaluation.txt --seqlen 256",
      "the example model on its held-out text",
    ],
    ["eval MODEL_DIR --text text.txt --seqlen 512 --windows 16 --json", "for a script"],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, evaluateSchema);
    checkOptions(evaluateSchema, line.options, line.sources);
    const view = new ProgressView();
    const hooks: RunHooks = { signal, onProgress: (event) => view.show(event) };
    const report = await withFolders(line.options, hooks)
      .then((options) => evaluate(options as Parameters<typeof evaluate>[0], hooks))
      .finally(() => view.finish());
    if (line.json) {
      print(`${JSON.stringify(report)}\n`);
      return 0;
    }
    const { perplexity, windows, seqlen, tokens, backend, seconds, peakBytes } = report;
    print(
      `perplexity ${
        style.bold(perplexity.toFixed(3))
      } on ${windows} windows of ${seqlen} tokens (${tokens} tokens) of ${report.text}\n` +
        `${backend}, ${formatSeconds(seconds)}, peak memory ${formatBytes(peakBytes)}\n`,
    );
    return 0;
  },
};
