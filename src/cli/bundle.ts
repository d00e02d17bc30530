/**
 * `bundle`: the command.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { assertBundles, bundle, type BundleReport } from "../bundle/bundle.ts";
import { bundleSchema } from "../bundle/options.ts";
import { print } from "../platform/output.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { EXAMPLE_NAME, prunedExample } from "./example.ts";
import { say } from "./model.ts";
import { formatBytes, ProgressView } from "./terminal.ts";

/** The `bundle` command. */
export const bundleCommand: Command = {
  name: "bundle",
  summary: "Put a model and what serves it into one binary, one edge function or one folder.",
  usage: "bundle [MODEL] --target TARGET [-o OUTPUT] [OPTIONS]",
  schema: bundleSchema,
  details: [
    "Without MODEL it is the example, pruned and compiled on the way. A checkpoint is compiled on the way.",
    "With --json: model, target, output, bytes {all, model}, memory {limit, total, parts}, next, notes,",
    "seconds.",
  ].join("\n"),
  examples: [
    [
      "bundle MODEL --target binary -o ./my-model",
      "one file: ./my-model serve, generate, chat, bench",
    ],
    ["bundle MODEL --target cloudflare -o worker", "a Worker, with the model as its assets"],
    ["bundle MODEL --target deno -o deploy", "an entry for Deno Deploy"],
    ["bundle MODEL --target static -o site", "a page that runs the model in the browser"],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, bundleSchema, { modelIsOptional: true });
    const options = checkOptions(bundleSchema, line.options, line.sources);
    const view = new ProgressView();
    const hooks: RunHooks = { signal, onProgress: view.show.bind(view) };
    const given = line.options as { readonly target: "binary" };
    let report: BundleReport;
    try {
      if (options.model === undefined) {
        assertBundles(given, EXAMPLE_NAME);
        const example = await prunedExample(hooks);
        try {
          report = await bundle({ ...given, model: example.folder }, hooks);
        } finally {
          example.dispose();
        }
      } else report = await bundle({ ...given, model: options.model }, hooks);
    } finally {
      view.finish();
    }
    print(line.json ? `${JSON.stringify(report)}\n` : `${describe(report)}\n`);
    if (!line.json) { for (const note of report.notes) say(note); }
    return 0;
  },
};

function describe({ model, target, output, bytes, memory, next }: BundleReport): string {
  const rows = [
    ["model", model],
    ["target", target],
    ["output", output],
    ["bytes", `${formatBytes(bytes.all)}, ${formatBytes(bytes.model)} of them the model`],
    ...(memory
      ? [
        ["memory", `${formatBytes(memory.total)} of ${formatBytes(memory.limit)}`],
        ...Object.entries(memory.parts).map(([part, size]) => ["", `${formatBytes(size)} ${part}`]),
      ]
      : []),
    ...next.map((command, i) => [i === 0 ? "next" : "", command]),
  ];
  return rows.map(([about, value]) => `${about.padEnd(8)}${value}`).join("\n");
}
