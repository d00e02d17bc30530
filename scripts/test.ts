/**
 * Runs the tests in every runtime the project is for, and adds up what they report.
 *
 * ```
 * bun scripts/test.ts [--only bun|deno|node] [--all] [--serial] [paths or parts of paths…]
 * ```
 *
 * - Bun runs all of `test/`.
 * - Deno runs all of `test/`, if there is a Deno: on PATH, in `node_modules/.bin`, or, with `--all`
 *   or `CI=true`, fetched by npx.
 * - Node runs `test/prune/`, bundled to JavaScript, if there is a Node on PATH.
 *
 * Most tests keep one core busy, or wait. So, where there are two or more, Deno and Node run their tests
 * while Bun does; what they print comes after what Bun prints. `--serial` runs one after the other.
 *
 * The last line of stdout is `N passed, N failed`, with `, N skipped` where some were. A runner that
 * crashes or hangs, and a test file that reports nothing, count as a failed test each, so that the last line
 * never says `0 failed` of a run that went wrong. The exit code is 1 if anything failed or nothing
 * ran.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join, relative, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { bundle, type BundlerPlugin } from "./build.ts";
import { runWatched } from "./run_watched.ts";

/** The Deno that npx fetches; `.ci/run` installs the same. */
const DENO_VERSION = "2.9.6";

/**
 * The limit for a test that names none. Bun's own is 5 s, too short for tests that load models; beside
 * another runtime's tests, on two cores, the longest took 88 s.
 */
const TEST_TIMEOUT_MS = 240_000;

/** A runner that prints nothing for so long hangs: the limit that holds for each test did not end it. */
const SILENCE_MS = 2.5 * TEST_TIMEOUT_MS;

/** The first Node whose test runner writes JUnit reports and supports hooks as the tests need. */
const MIN_NODE_MAJOR = 20;

/** Written with slashes on every system, as in the runners' reports. */
const ROOT = fileURLToPath(new URL("..", import.meta.url)).replaceAll("\\", "/").replace(/\/$/, "");

/** Where the tests are that need no particular runtime. */
const CORE_TESTS = "test/prune/";

const RUNTIMES = ["bun", "deno", "node"] as const;
type Runtime = typeof RUNTIMES[number];

interface Options {
  runtimes: readonly Runtime[];
  /** Whether Deno may be fetched if it is not installed. */
  fetchDeno: boolean;
  /** Whether one runtime begins when the one before has ended. */
  serial: boolean;
  filters: string[];
}

/** What one runtime made of its tests. */
interface Row {
  runtime: Runtime;
  version: string;
  passed: number;
  failed: number;
  skipped: number;
  seconds: number;
  /** What went wrong beyond failed tests, a sentence each. */
  troubles: string[];
}

/** A runtime that did not run. */
interface LeftOut {
  runtime: Runtime;
  why: string;
}

/** Takes what a runner prints. */
type Write = (text: Uint8Array | string) => void;

const print: Write = (text) => void process.stdout.write(text);

/** A test run that can be started. */
interface Plan {
  runtime: Runtime;
  version: string;
  /** Test files, relative to {@linkcode ROOT}. */
  files: string[];
  command: string[];
  reportPath: string;
  /** In Node: which of `files` a bundle was made of, by the bundle's file name. */
  bundles?: Map<string, string>;
}

/** One test in a JUnit report. */
interface TestCase {
  name: string;
  /** The test file. Only Bun's report tells it; Deno's tells who called `Deno.test`, our shim. */
  file: string | undefined;
  outcome: "passed" | "failed" | "skipped";
}

class UsageError extends Error {}

function parseArguments(args: readonly string[]): Options {
  const options: Options = {
    runtimes: RUNTIMES,
    fetchDeno: ["true", "1"].includes(process.env.CI ?? ""),
    serial: availableParallelism() < 2,
    filters: [],
  };
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === "--all") {
      options.fetchDeno = true;
    } else if (arg === "--serial") {
      options.serial = true;
    } else if (arg === "--only" || arg.startsWith("--only=")) {
      const value = arg === "--only" ? rest.shift() : arg.slice("--only=".length);
      const runtime = RUNTIMES.find((each) => each === value);
      if (runtime === undefined) throw new UsageError(`--only takes ${RUNTIMES.join(", ")}`);
      options.runtimes = [runtime];
    } else if (arg.startsWith("-")) {
      throw new UsageError(`unknown option ${arg}; there are --only, --all and --serial`);
    } else {
      options.filters.push(arg);
    }
  }
  return options;
}

/** The test files that a filter selects, relative to {@linkcode ROOT}. */
async function findTests(filters: readonly string[]): Promise<string[]> {
  const entries = await readdir(`${ROOT}/test`, { recursive: true });
  const files = entries
    .map((entry) => `test/${entry.replaceAll("\\", "/")}`)
    // The names that Bun and Deno both take for tests.
    .filter((file) => /[._]test\.tsx?$/.test(file))
    .sort();
  if (filters.length === 0) return files;
  return files.filter((file) =>
    filters.some((filter) => {
      const path = relative(ROOT, resolve(filter)).replaceAll("\\", "/");
      return existsSync(filter)
        ? path === "" || file === path || file.startsWith(`${path}/`)
        : file.includes(filter);
    })
  );
}

/** What `command --version` prints first, or undefined if there is no such program. */
function versionOf(command: string): string | undefined {
  const { status, stdout } = spawnSync(command, ["--version"], { encoding: "utf8" });
  return status === 0 ? /\d+\.\d+\.\d+\S*/.exec(stdout)?.[0] : undefined;
}

/** The version of Node on PATH. Where there is none, `bun run` puts Bun there by that name. */
function nodeVersion(): string | undefined {
  const probe = "process.versions.bun ? '' : process.versions.node";
  const { status, stdout } = spawnSync("node", ["-p", probe], { encoding: "utf8" });
  return status === 0 ? stdout.trim() || undefined : undefined;
}

/**
 * Whether this Bun can give each test file globals of its own. What earlier files have left behind makes
 * collections slow, WebAssembly memories above all: the engine's tests took 370 s together, 258 s so.
 */
function isolates(): boolean {
  const { stdout } = spawnSync(process.execPath, ["test", "--help"], { encoding: "utf8" });
  return stdout.includes("--isolate");
}

function planBun(files: string[], filtered: boolean, temporary: string): Plan {
  const reportPath = join(temporary, "bun.xml");
  return {
    runtime: "bun",
    version: process.versions.bun ?? "",
    files,
    command: [
      process.execPath,
      "test",
      `--timeout=${TEST_TIMEOUT_MS}`,
      ...(isolates() ? ["--isolate"] : []),
      "--reporter=junit",
      `--reporter-outfile=${reportPath}`,
      // Without "./" Bun would take a path for a part of one.
      ...(filtered ? files.map((file) => `./${file}`) : []),
    ],
    reportPath,
  };
}

function planDeno(
  files: string[],
  filtered: boolean,
  temporary: string,
  fetchDeno: boolean,
): Plan | LeftOut {
  const installed = ["deno", `${ROOT}/node_modules/.bin/deno`]
    .map((command) => ({ command, version: versionOf(command) }))
    .find(({ version }) => version !== undefined);
  if (installed === undefined && !fetchDeno) {
    return {
      runtime: "deno",
      why: "no deno on PATH or in node_modules/.bin (--all or CI=true fetches it with npx)",
    };
  }
  const reportPath = join(temporary, "deno.xml");
  return {
    runtime: "deno",
    version: installed?.version ?? DENO_VERSION,
    files,
    command: [
      ...(installed ? [installed.command] : ["npx", "-y", `deno@${DENO_VERSION}`]),
      "test",
      "-A",
      "--no-check",
      `--junit-path=${reportPath}`,
      ...(filtered ? files : ["test/"]),
    ],
    reportPath,
  };
}

/** Puts our own modules in the place of those that only Bun or an import map knows. */
const forNode: BundlerPlugin = {
  name: "for-node",
  setup(build) {
    build.onResolve({ filter: /^bun:test$/ }, () => ({
      path: `${ROOT}/test/support/bun_test_for_node.ts`,
    }));
    build.onResolve({ filter: /^@std\/expect$/ }, () => ({
      path: `${ROOT}/node_modules/deno-std/expect/mod.js`,
    }));
    // The bundle lies in a temporary folder; a test must still find the fixtures beside its source.
    build.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      const source = await readFile(path, "utf8");
      const url = JSON.stringify(pathToFileURL(path).href);
      return { contents: source.replace(/\bimport\.meta\.url\b/g, () => url), loader: "ts" };
    });
  },
};

async function planNode(allFiles: string[], temporary: string): Promise<Plan | LeftOut> {
  const files = allFiles.filter((file) => file.startsWith(CORE_TESTS));
  if (files.length === 0) return { runtime: "node", why: `no file in ${CORE_TESTS} is selected` };
  const version = nodeVersion();
  if (version === undefined) return { runtime: "node", why: "no node on PATH" };
  if (Number.parseInt(version) < MIN_NODE_MAJOR) {
    return { runtime: "node", why: `Node ${version} is older than ${MIN_NODE_MAJOR}` };
  }

  const bundles = new Map<string, string>();
  for (const file of files) {
    const name = file.slice(CORE_TESTS.length).replaceAll("/", "+").replace(/\.tsx?$/, ".mjs");
    await bundle({
      entrypoints: [`${ROOT}/${file}`],
      outdir: temporary,
      naming: name,
      target: "node",
      plugins: [forNode],
    });
    bundles.set(name, file);
  }
  const reportPath = join(temporary, "node.xml");
  return {
    runtime: "node",
    version,
    files,
    command: [
      "node",
      "--test",
      "--test-reporter=spec",
      "--test-reporter-destination=stdout",
      "--test-reporter=junit",
      `--test-reporter-destination=${reportPath}`,
      ...[...bundles.keys()].map((name) => join(temporary, name)),
    ],
    reportPath,
    bundles,
  };
}

/**
 * Reads the test cases of a JUnit report.
 *
 * The three runners agree on `testcase` with a child `failure`, `error` or `skipped`, and on little
 * else: totals are missing, or count something else.
 */
function parseReport(xml: string): TestCase[] {
  const cases: TestCase[] = [];
  let open: TestCase | undefined;
  // Comments and CDATA hold what tests print, and may look like tags.
  const markup = xml.replace(/<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>/g, "");
  const tags = /<(\/?)([\w:.-]+)((?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(\/?)>/g;
  for (const [, close, tag, attributes, selfClosing] of markup.matchAll(tags)) {
    if (tag === "testcase") {
      open = undefined;
      if (close) continue;
      const attribute = (name: string) => new RegExp(`\\s${name}="([^"]*)"`).exec(attributes)?.[1];
      const testCase: TestCase = {
        name: attribute("name") ?? "",
        file: attribute("file"),
        outcome: "passed",
      };
      cases.push(testCase);
      if (!selfClosing) open = testCase;
    } else if (open && (tag === "failure" || tag === "error")) {
      open.outcome = "failed";
    } else if (open && tag === "skipped" && open.outcome === "passed") {
      open.outcome = "skipped";
    }
  }
  return cases;
}

/** Reads a run's report, and turns all that went wrong without a failed test into a failure. */
async function judge(
  plan: Plan,
  exit: { code: number; ending: string },
): Promise<Pick<Row, "passed" | "failed" | "skipped" | "troubles">> {
  const tally = { passed: 0, failed: 0, skipped: 0 };
  const troubles: string[] = [];
  const trouble = (sentence: string) => {
    tally.failed++;
    troubles.push(sentence);
  };

  const xml = await readFile(plan.reportPath, "utf8").catch(() => undefined);
  if (xml === undefined) {
    trouble(`the runner crashed: it ${exit.ending} and left no report`);
    return { ...tally, troubles };
  }

  const silent = new Set(plan.files);
  for (const { name, file, outcome } of parseReport(xml)) {
    // Node reports a file as if it were a test, passed unless its process failed, when it has no
    // tests to report or ended outside of them.
    const bundled = plan.bundles?.get(basename(name));
    if (bundled === undefined) {
      tally[outcome]++;
      if (file !== undefined) silent.delete(relative(ROOT, resolve(ROOT, file)));
    } else if (outcome === "failed") {
      trouble(`${bundled} crashed`);
    } else {
      trouble(`${bundled} reported no test: it exited early, or holds none`);
    }
  }
  // A test that calls process.exit() ends all of Bun's run, with whatever code it likes.
  if (plan.runtime === "bun") {
    for (const file of silent) trouble(`${file} reported no test: it crashed, or holds none`);
  }
  if (exit.code !== 0 && tally.failed === 0) {
    trouble(`the runner crashed: it ${exit.ending} though no test failed`);
  }
  return { ...tally, troubles };
}

async function execute(plan: Plan, write: Write): Promise<Row> {
  write(`\n=== ${plan.runtime} ${plan.version}: ${plan.files.length} test files\n\n`);
  const start = performance.now();
  const exit = await runWatched(plan.command, {
    cwd: ROOT,
    env: { ...process.env, DENO_NO_UPDATE_CHECK: "1", DENO_NO_PROMPT: "1" },
    write,
    silence: SILENCE_MS,
  });
  const seconds = (performance.now() - start) / 1000;
  return { runtime: plan.runtime, version: plan.version, seconds, ...await judge(plan, exit) };
}

/** Makes the run of one runtime and carries it out, or says why it is left out. */
async function runRuntime(
  runtime: Runtime,
  options: Options,
  files: string[],
  temporary: string,
  write: Write,
): Promise<Row | LeftOut> {
  const filtered = options.filters.length > 0;
  try {
    const plan = runtime === "bun"
      ? planBun(files, filtered, temporary)
      : runtime === "deno"
      ? planDeno(files, filtered, temporary, options.fetchDeno)
      : await planNode(files, temporary);
    return "why" in plan ? plan : await execute(plan, write);
  } catch (error) {
    // A test that cannot be bundled for Node is a failed test; the other runtimes still run.
    console.error(error);
    const troubles = [`the run could not be made: ${error}`];
    return { runtime, version: "", passed: 0, failed: 1, skipped: 0, seconds: 0, troubles };
  }
}

/**
 * Runs the first runtime with its output going to ours, and meanwhile the others, one after the other; what
 * they print comes when it has ended.
 */
async function runTogether(
  [first, ...others]: readonly Runtime[],
  run: (runtime: Runtime, write: Write) => Promise<Row | LeftOut>,
): Promise<(Row | LeftOut)[]> {
  let kept: (Uint8Array | string)[] | undefined = [];
  const keep: Write = (text) => kept ? void kept.push(text) : print(text);
  const aside = async () => {
    const outcomes: (Row | LeftOut)[] = [];
    for (const runtime of others) outcomes.push(await run(runtime, keep));
    return outcomes;
  };
  const rest = aside();
  const outcome = await run(first, print);
  kept.forEach(print);
  kept = undefined;
  return [outcome, ...await rest];
}

function printSummary(outcomes: readonly (Row | LeftOut)[]): void {
  const line = (...cells: string[]) =>
    console.log(cells.map((cell, i) => i < 2 ? cell.padEnd(10) : cell.padStart(9)).join(""));
  console.log("\n=== summary\n");
  line("runtime", "version", "passed", "failed", "skipped", "time");
  for (const outcome of outcomes) {
    if ("why" in outcome) {
      console.log(`${outcome.runtime.padEnd(10)}left out: ${outcome.why}`);
    } else {
      const { runtime, version, passed, failed, skipped, seconds } = outcome;
      line(runtime, version, `${passed}`, `${failed}`, `${skipped}`, `${seconds.toFixed(1)} s`);
    }
  }
  console.log();
  for (const outcome of outcomes) {
    if ("why" in outcome) continue;
    for (const trouble of outcome.troubles) console.log(`${outcome.runtime}: ${trouble}`);
  }
}

async function main(): Promise<number> {
  const options = parseArguments(process.argv.slice(2));
  const files = await findTests(options.filters);
  const outcomes: (Row | LeftOut)[] = [];
  if (files.length > 0) {
    const temporary = await mkdtemp(join(tmpdir(), "espalier-test-"));
    try {
      const run = (runtime: Runtime, write: Write) =>
        runRuntime(runtime, options, files, temporary, write);
      if (options.serial) {
        for (const runtime of options.runtimes) outcomes.push(await run(runtime, print));
      } else {
        outcomes.push(...await runTogether(options.runtimes, run));
      }
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  }

  const rows = outcomes.filter((outcome) => "passed" in outcome);
  const sum = (key: "passed" | "failed" | "skipped") =>
    rows.reduce((total, row) => total + row[key], 0);
  const [passed, failed, skipped] = [sum("passed"), sum("failed"), sum("skipped")];
  printSummary(outcomes);
  if (files.length === 0) console.log("no test file is selected");
  if (passed + failed === 0) console.log("no test ran");
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  return failed > 0 || passed === 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
