/**
 * Runs the tests in every runtime the project is for, and adds up what they report.
 *
 * ```
 * bun scripts/test.ts [--only bun|deno|node] [--all] [--serial] [--twice] [paths or parts of paths…]
 * ```
 *
 * - Bun runs all of `test/`.
 * - Deno runs all of `test/`, a process for each folder, if there is a Deno: on PATH, in
 *   `node_modules/.bin`, or, with `--all` or `CI=true`, fetched by npx. Where both run, a few files that take
 *   minutes run in one of them (`test/once.ts`), and of formats times architectures and of fuzz each runs every second
 *   case (`../test/support/turns.ts`), unless paths are named, or `--twice`.
 * - Node runs `test/prune/`, bundled to JavaScript, if there is a Node on PATH.
 *
 * Most tests keep one core busy, or wait. So, where there are two or more, Deno and Node run their tests
 * while Bun does; what they print comes after what Bun prints. `--serial` runs one after the other.
 *
 * The last line of stdout is `N passed, N failed`, with `, N skipped` where some were. A runner that
 * crashes, or hangs twice, and a test file that reports nothing, count as a failed test each, so that the last line
 * never says `0 failed` of a run that went wrong. The exit code is 1 if anything failed or nothing
 * ran.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import process from "node:process";
import { shareOf, turnOf } from "./test/once.ts";
import {
  installedDeno,
  type LeftOut,
  type Plan,
  planRuns,
  ROOT,
  type Runtime,
  RUNTIMES,
} from "./test/plans.ts";
import { TEST_TIMEOUT_MS } from "../test/support/limit.ts";
import { judge, type Outcome } from "./test/report.ts";
import { runWatched } from "./test/run_watched.ts";

/** A runner that prints nothing for so long hangs: the limit that holds for each test did not end it. */
const SILENCE_MS = 2 * TEST_TIMEOUT_MS;

/** Where tests of all runtimes keep what ONNX Runtime made of compiled models; see `test/compile/references.ts`. */
const REFERENCES = "references";

interface Options {
  runtimes: readonly Runtime[];
  /** Whether Deno may be fetched if it is not installed. */
  fetchDeno: boolean;
  /** Whether one runtime begins when the one before has ended. */
  serial: boolean;
  /** Whether Bun and Deno run all files, those too that one of them would do for. */
  twice: boolean;
  filters: string[];
}

/** What one runtime made of its tests. */
interface Row extends Outcome {
  readonly runtime: Runtime;
  readonly version: string;
  readonly seconds: number;
}

/** Takes what a runner prints. */
type Write = (text: Uint8Array | string) => void;

const print: Write = (text) => void process.stdout.write(text);

class UsageError extends Error {}

function parseArguments(args: readonly string[]): Options {
  const options: Options = {
    runtimes: RUNTIMES,
    fetchDeno: ["true", "1"].includes(process.env.CI ?? ""),
    serial: availableParallelism() < 2,
    twice: false,
    filters: [],
  };
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === "--all") {
      options.fetchDeno = true;
    } else if (arg === "--serial") {
      options.serial = true;
    } else if (arg === "--twice") {
      options.twice = true;
    } else if (arg === "--only" || arg.startsWith("--only=")) {
      const value = arg === "--only" ? rest.shift() : arg.slice("--only=".length);
      const runtime = RUNTIMES.find((each) => each === value);
      if (runtime === undefined) throw new UsageError(`--only takes ${RUNTIMES.join(", ")}`);
      options.runtimes = [runtime];
    } else if (arg.startsWith("-")) {
      throw new UsageError(`unknown option ${arg}; there are --only, --all, --serial and --twice`);
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

/**
 * Runs a process to its end. One that hangs runs a second time: it is the runtime that hangs where the limit of a
 * test does not end it. That is told, and does not fail alone.
 */
async function execute(
  plan: Plan,
  { references, turn }: { references: string; turn: string },
  write: Write,
): Promise<Outcome> {
  let printed = "";
  const decoder = new TextDecoder();
  const once = () =>
    runWatched(plan.command, {
      cwd: ROOT,
      env: {
        ...process.env,
        DENO_NO_UPDATE_CHECK: "1",
        DENO_NO_PROMPT: "1",
        ESPALIER_TEST_REFERENCES: references,
        ESPALIER_TEST_TURN: turn,
      },
      write: (text) => {
        printed += typeof text === "string" ? text : decoder.decode(text, { stream: true });
        write(text);
      },
      silence: SILENCE_MS,
    });
  const first = await once();
  if (!first.hung) return await judge(plan, first, printed);
  await rm(plan.reportPath, { force: true });
  const folders = [...new Set(plan.files.map((file) => dirname(file)))].join(", ");
  printed = "";
  const outcome = await judge(plan, await once(), printed);
  const hung = `the runner of ${folders} hung: it ${first.ending}, and was started a second time`;
  return { ...outcome, troubles: [hung, ...outcome.troubles] };
}

/** Whether Bun and Deno both run all tests there are, so that one of them will do for some. */
function isShared({ runtimes, fetchDeno, twice, filters }: Options): boolean {
  const both = runtimes.includes("bun") && runtimes.includes("deno");
  return both && !twice && filters.length === 0 && (fetchDeno || installedDeno() !== undefined);
}

/** Carries out the runs of one runtime, or says why it is left out. */
async function runRuntime(
  runtime: Runtime,
  options: Options,
  files: string[],
  temporary: string,
  write: Write,
): Promise<Row | LeftOut> {
  const start = performance.now();
  const { fetchDeno, filters } = options;
  try {
    const isHalf = runtime !== "node" && isShared(options);
    const share = isHalf ? shareOf(runtime, files) : files;
    const plans = await planRuns(runtime, {
      files: share,
      filtered: filters.length > 0 || share.length < files.length,
      temporary,
      fetchDeno,
    });
    if ("why" in plans) return plans;
    const { version } = plans[0];
    write(
      `\n=== ${runtime} ${version}: ${sumOf(plans, ({ files }) => files.length)} test files\n\n`,
    );
    const given = {
      references: join(temporary, REFERENCES),
      turn: isHalf ? turnOf(runtime) : "0/1",
    };
    const outcomes: Outcome[] = [];
    for (const plan of plans) outcomes.push(await execute(plan, given, write));
    return {
      runtime,
      version,
      seconds: (performance.now() - start) / 1000,
      passed: sumOf(outcomes, ({ passed }) => passed),
      failed: sumOf(outcomes, ({ failed }) => failed),
      skipped: sumOf(outcomes, ({ skipped }) => skipped),
      troubles: outcomes.flatMap(({ troubles }) => troubles),
    };
  } catch (error) {
    // A test that cannot be bundled for Node is a failed test; the other runtimes still run.
    console.error(error);
    const troubles = [`the run could not be made: ${error}`];
    return { runtime, version: "", passed: 0, failed: 1, skipped: 0, seconds: 0, troubles };
  }
}

function sumOf<T>(all: readonly T[], of: (each: T) => number): number {
  return all.reduce((sum, each) => sum + of(each), 0);
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
      await mkdir(join(temporary, REFERENCES));
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
  const passed = sumOf(rows, ({ passed }) => passed);
  const failed = sumOf(rows, ({ failed }) => failed);
  const skipped = sumOf(rows, ({ skipped }) => skipped);
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
