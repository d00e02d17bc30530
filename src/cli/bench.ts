/**
 * `bench`: the command.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { Phases } from "../api/shared.ts";
import { BackendError } from "../errors.ts";
import { assertTogether } from "../generate/choose_engine.ts";
import { bench, type BenchReport } from "../generate/bench.ts";
import { benchCommandSchema } from "../generate/command_options.ts";
import { compileFirst } from "../generate/compile_first.ts";
import { type LoadOptions, loadSchema } from "../generate/load_options.ts";
import { findPlace } from "../generate/place.ts";
import { runOwnProgram } from "../platform/own_process.ts";
import { print } from "../platform/output.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { loadingOf, type Options } from "./model.ts";
import { ownIsExample, ownSettings, type PlacedModel, placeOwn } from "./own_model.ts";
import { table } from "./table.ts";
import { formatBytes, formatSeconds, ProgressView } from "./terminal.ts";

/** The `bench` command. */
export const benchCommand: Command = {
  name: "bench",
  summary: "Measure how fast a model loads and runs, in every engine that is here.",
  usage: "bench [MODEL] [OPTIONS]",
  schema: benchCommandSchema,
  details: [
    "Tokens a second for prompts of 128 and 512 tokens, and one token at a time after 32. Each engine",
    "has a process of its own, and so a peak of memory of its own. Without MODEL it is the example.",
    "With --json: model, fileBytes, repeat, context, results [{engine, device, threads, background, why,",
    "loadSeconds, weightBytes, tokenBytes, memoryBytes, cacheBytesPerToken, together,",
    "prefill [{tokens, tokensPerSecond}], decode {after, tokensPerSecond}, peakBytes}],",
    "missing [{engine, device, reason}].",
  ].join("\n"),
  examples: [
    ["bench MODEL", "all engines"],
    ["bench MODEL --engine sparse --threads 1 --json", "one engine, for a script"],
    ["bench MODEL --device webgpu", "ONNX Runtime on the GPU"],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, benchCommandSchema, { modelIsOptional: true });
    const options = checkOptions(benchCommandSchema, line.options, line.sources);
    const view = new ProgressView();
    const hooks: RunHooks = { signal, onProgress: (event) => view.show(event) };
    const report = await measure(options, hooks).finally(() => view.finish());
    print(`${line.json ? JSON.stringify(report) : describe(report)}\n`);
    return 0;
  },
};

/** What one engine gave. */
interface Result extends Omit<BenchReport, "model" | "repeat"> {
  readonly engine: string;
  readonly device: string;
  readonly threads: number;
  readonly why: string;
  readonly loadSeconds: number;
  readonly weightBytes: number;
  readonly cacheBytesPerToken: number;
}

/** What all gave. */
interface Report {
  readonly model: string;
  readonly fileBytes?: number;
  readonly context: number;
  readonly repeat: number;
  readonly results: readonly Result[];
  readonly missing: readonly { engine: string; device: string; reason: string }[];
}

type BenchOptions = Options & {
  readonly engine: "all" | "auto" | "sparse" | "ort";
  readonly repeat: number;
};

async function measure(options: BenchOptions, hooks: RunHooks): Promise<Report> {
  const { engine } = options;
  assertTogether({ ...loadingOf(options), engine: engine === "all" ? "auto" : engine });
  // What a binary carries, each of its processes finds by itself.
  const { folder, dispose } = options.model === undefined && !ownIsExample()
    ? { folder: undefined, dispose: () => {} }
    : await compiledFolder(options, hooks);
  try {
    return engine === "all"
      ? await measureAll(folder, options, hooks)
      : await measureHere(folder, options, hooks);
  } finally {
    dispose();
  }
}

/** The compiled model of the command, made now where there is none. */
async function compiledFolder(
  options: Options,
  hooks: RunHooks,
): Promise<{ folder: string; dispose: () => void }> {
  const loading = { ...loadingOf(options), engine: "auto" } as LoadOptions;
  const settings = loadSchema.parse(loading);
  if (options.model !== undefined) {
    const model = options.model as string;
    // What is on the web has no folder: each process reads it there.
    const { folder = model, dispose } = await findPlace(model, settings, hooks);
    return { folder, dispose };
  }
  const pruned = await placeOwn(loading, hooks);
  try {
    return await compileFirst(pruned.location as string, settings, hooks);
  } finally {
    pruned.dispose();
  }
}

/** One engine, in this process. */
async function measureHere(
  folder: string | undefined,
  options: BenchOptions,
  hooks: RunHooks,
): Promise<Report> {
  const asked = loadingOf(options) as LoadOptions;
  // The folder's model has been compiled as asked, or was before: who cannot choose any more has been told.
  const loading: LoadOptions = folder === undefined
    ? ownSettings(asked)
    : { ...asked, values: "auto", format: "auto" };
  const placed: PlacedModel = folder === undefined
    ? await placeOwn(loading, hooks)
    : { location: folder, dispose: () => {} };
  const { model, repeat, ...rates } = await bench(
    placed.location,
    { ...loading, repeat: options.repeat },
    hooks,
  ).finally(() => placed.dispose());
  const { name, fileBytes, context, vocabulary: _, ...engine } = model;
  return {
    model: placed.name ?? name,
    fileBytes,
    context,
    repeat,
    results: [{ ...engine, ...rates }],
    missing: [],
  };
}

/** Every engine, each in a process of its own. */
async function measureAll(
  folder: string | undefined,
  options: BenchOptions,
  hooks: RunHooks,
): Promise<Report> {
  const engines = [["sparse", "wasm"], ["ort", "wasm"], ["ort", "cpu"], ["ort", "webgpu"]]
    .filter(([, device]) => device === (options.device ?? device))
    // A GPU made of software is slower than anything else: only for who asks for it.
    .filter(([, device]) => device !== "webgpu" || options.device === "webgpu");
  const reports: Report[] = [];
  const missing: { engine: string; device: string; reason: string }[] = [];
  await new Phases(hooks).run("measure", "engines", engines.length, async (step) => {
    for (const [i, [engine, device]] of engines.entries()) {
      const words = ["bench", ...(folder === undefined ? [] : [folder]), "--json"];
      words.push(...flagsFor(options, engine, device));
      const { code, stdout, stderr } = await runOwnProgram(words, hooks.signal);
      if (code === 0) reports.push(JSON.parse(stdout) as Report);
      else missing.push({ engine, device, reason: reasonIn(stderr) });
      step(i + 1);
    }
  });
  const [first] = reports;
  if (!first) {
    // What is wrong with the model is the same for all.
    const reasons = [...Map.groupBy(missing, ({ reason }) => reason)].map(([reason, those]) =>
      `${those.map(({ engine, device }) => `${engine} on ${device}`).join(", ")}: ${reason}`
    );
    throw new BackendError(`no engine runs this model here: ${reasons.join("; ")}`);
  }
  return { ...first, results: reports.flatMap(({ results }) => results), missing };
}

/** The options again, as words for one engine. */
function flagsFor(options: BenchOptions, engine: string, device: string): string[] {
  const ofSparse = engine === "sparse" ? ["kv", "activations", "embeddings"] : [];
  return [
    `--engine=${engine}`,
    `--device=${device}`,
    ...["threads", "context", "memory", "repeat", ...ofSparse]
      .filter((name) => options[name] !== undefined)
      .map((name) => `--${name}=${options[name]}`),
    ...(options.unchecked ? ["--unchecked"] : []),
  ];
}

/** What a process said of its end: its error line, else its last. */
function reasonIn(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "");
  return lines.find((line) => /^error \S+: /.test(line)) ?? lines.at(-1) ?? "it said nothing";
}

function describe(report: Report): string {
  const { results, missing } = report;
  const lengths = results[0].prefill.map(({ tokens }) => tokens);
  const rate = (value: number | undefined) => value === undefined ? "" : value.toFixed(1);
  const rows = results.map((result) => [
    `${result.engine}: ${result.device}`,
    formatSeconds(result.loadSeconds),
    ...lengths.map((length) =>
      rate(result.prefill.find(({ tokens }) => tokens === length)?.tokensPerSecond)
    ),
    rate(result.decode?.tokensPerSecond),
    formatBytes(result.weightBytes),
    formatBytes(result.peakBytes),
  ]);
  const header = [
    "engine",
    "load",
    ...lengths.map((length) => `prefill ${length}`),
    "decode",
    "weights",
    "peak memory",
  ];
  return [
    "",
    `${report.model}: ${
      report.fileBytes === undefined ? "" : `${formatBytes(report.fileBytes)} on disk, `
    }context ${report.context}; tokens a second, medians of ${report.repeat}`,
    "",
    table(header, rows),
    ...missing.map(({ engine, device, reason }) => `missing: ${engine} on ${device}: ${reason}`),
  ].join("\n");
}
