/**
 * `compare`: the command.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { OutputExistsError, UsageError } from "../errors.ts";
import { assertReplaceable, replaceText } from "../platform/files.ts";
import { exists, realPath } from "../platform/paths.ts";
import { print } from "../platform/output.ts";
import { compare, type CompareReport, stateFileOf } from "../workflow/compare/compare.ts";
import {
  compareCommandSchema,
  compareFields,
  type CompareOptions,
} from "../workflow/compare/options.ts";
import { panelsOf } from "../workflow/compare/points.ts";
import { comparisonSvg } from "../workflow/compare/svg.ts";
import { atText, HEADER, markdownTable, measuredOn, rowsOf } from "../workflow/compare/table.ts";
import { terminalPlot } from "../workflow/compare/terminal_plot.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { pick } from "./model.ts";
import { withFolders } from "./pull.ts";
import { style, table } from "./table.ts";
import { columns, formatSeconds, ProgressView } from "./terminal.ts";

/** Names of points in the plot. */
const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const PLOT_ROWS = 20;

/** The `compare` command. */
export const compareCommand: Command = {
  name: "compare",
  summary: "Compare a model's variants, dense and pruned: perplexity by bytes and by speed.",
  usage: "compare MODEL_DIR --text FILE [--calibration FILE] [OPTIONS]",
  schema: compareCommandSchema,
  details: [
    "Each variant is pruned and compiled in a temporary folder (TMPDIR) and measured as it would be run.",
    "Variants are written with commas: dense:int8, 8:16:int8, unstructured@0.7, mixed:16@60%:f16,",
    "2:4:int8:magnitude, fit@60MB. A pattern that does not say its sparsity needs one; values, method",
    "and allocation follow in any order (default: int8, --method, --allocation). The frontier is what no",
    "other beats: lower perplexity at no more bytes (size), or at no less speed (speed). Speed is taken",
    "in rounds beside dense int8, so that a busy machine slows both; tokens/s is the ratio times what dense",
    "int8 had in all rounds. After Ctrl-C the same command goes on with the next variant.",
    "With --json: model, text {file, windows, seqlen, sha256}, calibration, variants [{name, kind, values,",
    "pattern, method, allocation, sparsity, bytes, bytesPerWeight, perplexity, tokensPerSecond,",
    "referenceTokensPerSecond, speedup, engine, device}], frontier {size, speed}, at [{bytes, best,",
    "sparse, dense, unreachable}], state, measured, notes, seconds.",
  ].join("\n"),
  examples: [
    [
      "compare MODEL_DIR --text held-out.txt --calibration text.txt --at 60MB,80MB --svg plot.svg",
      "the usual variants, and what prune --fit finds for two sizes",
    ],
    [
      "compare MODEL_DIR --text held-out.txt --calibration text.txt --variants dense:int8,8:16,4:16",
      "these three",
    ],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, compareCommandSchema);
    const { svg, markdown, force } = checkOptions(compareCommandSchema, line.options, line.sources);
    if (markdown && line.json) throw new UsageError("--markdown and --json: give one of them");
    // Before hours of work.
    if (svg !== undefined) {
      if (exists(svg) && !force) {
        throw new OutputExistsError(`${svg} is there: name another file, or pass --force`);
      }
      const { text, calibration } = line.options;
      for (const other of [text, calibration]) assertOther(svg, other);
      assertReplaceable(svg);
    }
    const view = new ProgressView();
    const hooks: RunHooks = { signal, onProgress: (event) => view.show(event) };
    const report = await withFolders(line.options, hooks)
      .then((options) => {
        const asked = pick(options, compareFields) as CompareOptions;
        if (svg !== undefined) assertOther(svg, stateFileOf(asked));
        return compare(asked, hooks);
      })
      .finally(() => view.finish());
    if (svg !== undefined) {
      replaceText(svg, comparisonSvg(report.model, measuredOn(report), report.variants), {
        private: false,
      });
    }
    const text = line.json
      ? JSON.stringify(report)
      : markdown
      ? markdownTable(report)
      : describe(report, svg);
    print(`${text}\n`);
    return 0;
  },
};

/** Refuses to draw into a file that the command reads, or keeps its results in. */
function assertOther(svg: string, other: unknown): void {
  if (typeof other !== "string" || realPath(other) !== realPath(svg)) return;
  throw new UsageError(`--svg ${svg} is a file that the command needs: name another one`);
}

function describe(report: CompareReport, svg: string | undefined): string {
  const { variants, at, seconds, measured, state } = report;
  const letters = new Map(variants.map((variant, i) => [variant, LETTERS[i % LETTERS.length]]));
  const [name, ...columnsAfter] = HEADER;
  const rows = rowsOf(report).map((
    [name, ...cells],
    i,
  ) => [`${LETTERS[i % LETTERS.length]}  ${name}`, ...cells]);
  const size = { columns: columns(), rows: PLOT_ROWS };
  return [
    "",
    `${report.model}: ${measuredOn(report)}`,
    "",
    table([`   ${name}`, ...columnsAfter], rows),
    ...panelsOf(variants).map((panel) =>
      `\n${terminalPlot(panel, (variant) => letters.get(variant)!, size)}`
    ),
    "",
    ...at.map((one) => style.bold(atText(report, one))),
    `${measured} of ${variants.length} variants measured now, in ${
      formatSeconds(seconds)
    }; all are kept in ${state}`,
    ...svg === undefined ? [] : [`drawn into ${svg}`],
  ].join("\n");
}
