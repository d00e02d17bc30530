/**
 * `prune`: the command.
 * @module
 */
import { fileURLToPath } from "node:url";
import { percent } from "../api/percent.ts";
import { pruneSchema, type RunHooks } from "../api/options.ts";
import type { FitReport } from "../api/fit.ts";
import { storedAs } from "../api/compiled_sizes.ts";
import { calibrationText, type PruneReport, writtenAllocation } from "../api/prune_report.ts";
import { print } from "../platform/output.ts";
import { pathWord } from "../platform/shell.ts";
import { prune } from "../workflow/prune.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import { type Command, program } from "./help.ts";
import { takeInterrupts } from "./interrupts.ts";
import { withFolders } from "./pull.ts";
import { bar, style, table } from "./table.ts";
import { columns, formatBytes, formatSeconds, ProgressView } from "./terminal.ts";

/** What a bare `prune` does: the example that comes with the code. */
export const EXAMPLE_CONFIG = fileURLToPath(
  new URL("../../examples/tiny/prune.json", import.meta.url),
);

/** The `prune` command. */
export const pruneCommand: Command = {
  name: "prune",
  summary: "Prune a Hugging Face checkpoint: its least important weights become 0.",
  usage: "prune [MODEL_DIR] [-o OUT] [OPTIONS]",
  schema: pruneSchema,
  details: [
    "Without MODEL_DIR it prunes the example in examples/tiny, with the options in its prune.json.",
    "The result is a checkpoint of the same form, with espalier.json beside it.",
    "With --json: model, architecture, output, method, values, head, allocation, reducer, pattern, skip,",
    "sparsity {asked, reached},",
    "blocks [{index, density, densities, kept, score, outlierPercent, sparsity, linears}],",
    "trials [{allocation, on, perplexity}], distillation {steps, divergence},",
    "search {from, budget, evaluations, slice, loss, perplexity, taken},",
    "calibration, fit {asked, bytes, trials}, compile {values, head, group}, perplexity {dense, pruned},",
    "backend, notes, seconds {phase: s}, peakBytes.",
  ].join("\n"),
  examples: [
    ["prune", "prune the example at 70 % and compare the allocations on held-out text"],
    [
      "prune MODEL_DIR -o OUT --sparsity 0.6 --calibration text.txt",
      "Wanda with DLP's allocation, 60 % of the weights",
    ],
    [
      "prune MODEL_DIR -o OUT --pattern 8:16 --calibration text.txt",
      "keep 8 of every 16 weights",
    ],
    [
      "prune MODEL_DIR -o OUT --pattern mixed:16 --sparsity 0.6 --calibration text.txt",
      "N of every 16 weights, N chosen for each block",
    ],
    [
      "prune MODEL_DIR -o OUT --method espalier --pattern 8:16 --values int4 --calibration text.txt",
      "the least loss: what stays is mended, and rounded to int4 for compile",
    ],
    [
      "prune MODEL_DIR -o OUT --pattern slots --sparsity 0.5 --calibration text.txt",
      "as many weights where they matter most, in the form that our engine runs at their cost",
    ],
    [
      "prune MODEL_DIR --allocation search --calibration text.txt --text held-out.txt",
      "search the densities from the best allocation on; Ctrl-C ends the search",
    ],
    [
      "prune MODEL_DIR --allocation auto --calibration text.txt --text held-out.txt",
      "try every allocation, keep the best",
    ],
    [
      "prune MODEL_DIR -o OUT --pattern 8:16 --calibration self",
      "calibrate on text that the model writes itself",
    ],
    [
      "prune MODEL_DIR -o OUT --fit 64MB --calibration text.txt",
      "the best that has at most 64 MB when it is compiled",
    ],
    ["prune MODEL_DIR --dry-run --calibration text.txt", "show the allocation, write nothing"],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, pruneSchema, { config: EXAMPLE_CONFIG });
    checkOptions(pruneSchema, line.options, line.sources);
    const view = new ProgressView();
    const hooks: RunHooks = {
      signal,
      onProgress: (event) => view.show(event),
      onSearch: (end) => endByInterrupt(end, view),
    };
    const report = await withFolders(line.options, hooks)
      .then((options) => prune(options as Parameters<typeof prune>[0], hooks))
      .finally(() => view.finish());
    print(`${line.json ? JSON.stringify(report) : describe(report)}\n`);
    return 0;
  },
};

/** Lets the first Ctrl-C end a search; the next one is the program's. */
function endByInterrupt(end: () => void, view: ProgressView): () => void {
  let ended = false;
  const say = (text: string) => view.show({ type: "note", text });
  say("Ctrl-C ends the search, and the work goes on with the best so far");
  return takeInterrupts(() => {
    if (ended) return false;
    ended = true;
    say("the search ends; Ctrl-C once more stops all");
    end();
    return true;
  });
}

/** The report as a person reads it. */
function describe(report: PruneReport): string {
  const parts = [blocksOf(report), summaryOf(report)];
  if (report.trials.length > 0) parts.push(trialsOf(report));
  if (report.fit) parts.push(fitOf(report.fit));
  if (report.output) {
    const lines = [
      `written to ${report.output}`,
      `look at it: ${program()} inspect ${pathWord(report.output)}`,
    ];
    if (report.fit) {
      const { values } = report.compile!;
      lines.push(`compile it: ${program()} compile ${pathWord(report.output)} --values ${values}`);
    }
    parts.push(lines.join("\n"));
  }
  return `\n${parts.join("\n\n")}`;
}

function blocksOf({ blocks }: PruneReport): string {
  const width = Math.max(12, Math.min(48, columns() - 48));
  // Not what was asked: bounds of single blocks may move it.
  const mean = blocks.reduce((sum, { density }) => sum + density, 0) / blocks.length;
  const rows = blocks.map((block) => [
    String(block.index),
    bar(block.density, width),
    percent(block.density) + (block.kept === undefined ? "" : ` (${block.kept})`),
    block.sparsity === undefined ? "" : percent(block.sparsity),
    block.score === undefined ? "" : block.score.toPrecision(4),
    block.outlierPercent === undefined ? "" : `${block.outlierPercent.toFixed(3)} %`,
  ]);
  const header = [
    "block",
    `density (all together ${percent(mean)})`.padEnd(width),
    "kept",
    "zeros",
    "score S",
    "outliers",
  ];
  const used = header.map((_, i) => rows.some((row) => row[i] !== ""));
  return table(
    header.filter((_, i) => used[i]),
    rows.map((row) => row.filter((_, i) => used[i])),
  );
}

function summaryOf(report: PruneReport): string {
  const { sparsity, perplexity, calibration, seconds } = report;
  const phases = Object.entries(seconds);
  const rows = [
    ["model", `${report.model} (${report.architecture}, ${report.blocks.length} blocks)`],
    [
      "method",
      `${report.method}, ${report.pattern}, allocation ${report.allocation}${
        report.allocation === "dlp" ? ` (${report.reducer})` : ""
      }`,
    ],
    [
      "sparsity",
      `asked ${percent(sparsity.asked)}${
        sparsity.reached === undefined ? "" : `, reached ${percent(sparsity.reached)}`
      }`,
    ],
  ];
  if (calibration) {
    rows.push(["calibration", calibrationText(calibration)]);
  }
  const { distillation } = report;
  if (distillation) {
    const { steps, divergence: { start, end } } = distillation;
    rows.push([
      "distilled",
      `${steps} steps: ${
        start.toFixed(3)
      } nats a token from the dense model's predictions before, ${
        end.toFixed(3)
      } after, on calibration text`,
    ]);
  }
  if (perplexity) {
    rows.push([
      "perplexity",
      `${perplexity.dense.toFixed(2)} before, ${
        style.bold(perplexity.pruned.toFixed(2))
      } after, on ${perplexity.windows} windows of ${perplexity.seqlen} tokens of ${perplexity.text}`,
    ]);
  }
  const { search } = report;
  if (search) {
    rows.push([
      "search",
      `from ${search.from}, ${search.evaluations} allocations measured on ${search.slice.windows} windows of ${search.slice.seqlen} tokens: ` +
      `loss ${search.loss.start.toFixed(4)} before, ${search.loss.end.toFixed(4)} after`,
    ]);
  }
  if (report.backend) rows.push(["ran on", report.backend]);
  const parts = phases.map(([phase, s]) => `${phase} ${formatSeconds(s)}`).join(", ");
  const all = formatSeconds(phases.reduce((sum, [, s]) => sum + s, 0));
  rows.push(["time", parts === "" ? all : `${all} (${parts})`]);
  rows.push(["peak memory", formatBytes(report.peakBytes)]);
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${style.dim(name.padEnd(width))}  ${value}`).join("\n");
}

/** What `--fit` tried, the best first. */
function fitOf({ asked, bytes, trials }: FitReport): string {
  const rows = trials.map(({ pattern, sparsity, compile, bytes, perplexity }, i) => [
    sparsity === 0 ? "dense" : pattern,
    percent(sparsity),
    storedAs(compile),
    formatBytes(bytes),
    perplexity.toFixed(2),
    i === 0 ? "written" : "",
  ]);
  const title = `plans for ${formatBytes(asked)}, on calibration text kept apart, best first`;
  return `${style.dim(title)}\n${
    table(["pattern", "zeros", "values", "bytes", "perplexity", ""], rows)
  }\ncompiled it has ${bytes} bytes at most`;
}

/** The allocations side by side, the best first: DLP does not win on every model. */
function trialsOf(report: PruneReport): string {
  const { trials, perplexity } = report;
  const written = writtenAllocation(report);
  // Where both were measured, the held-out text is what counts.
  const on = trials.at(-1)!.on;
  const all = trials.filter((trial) => trial.on === on)
    .map(({ allocation, perplexity }) => ({ allocation, perplexity }));
  if (on === "text" && perplexity && written !== "given") {
    all.push({ allocation: written, perplexity: perplexity.pruned });
  }
  all.sort((a, b) => a.perplexity - b.perplexity);
  const rows = all.map((trial) => [
    trial.allocation,
    trial.perplexity.toFixed(2),
    trial.allocation === written ? "written" : "",
  ]);
  const where = on === "text" ? "the held-out text" : "calibration text kept apart";
  return `${style.dim(`allocations on ${where}, best first`)}\n${
    table(["allocation", "perplexity", ""], rows)
  }`;
}
