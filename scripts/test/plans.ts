/**
 * How each runtime runs the tests.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { TEST_TIMEOUT_MS } from "../../test/support/limit.ts";
import { bundle, type BundlerPlugin } from "../build.ts";

/** The Deno that npx fetches; `.ci/run` installs the same. */
const DENO_VERSION = "2.9.6";

/** The first Node whose test runner writes JUnit reports and supports hooks as the tests need. */
const MIN_NODE_MAJOR = 20;

/** Written with slashes on every system, as in the runners' reports. */
export const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replaceAll("\\", "/").replace(
  /\/$/,
  "",
);

/** Where the tests are that need no particular runtime. */
const CORE_TESTS = "test/prune/";

export const RUNTIMES = ["bun", "deno", "node"] as const;
export type Runtime = typeof RUNTIMES[number];

/** A runtime that does not run. */
export interface LeftOut {
  readonly runtime: Runtime;
  readonly why: string;
}

/** A process that runs tests, and can be started. */
export interface Plan {
  runtime: Runtime;
  version: string;
  /** Test files, relative to {@linkcode ROOT}. */
  files: string[];
  command: string[];
  reportPath: string;
  /** In Node: which of `files` a bundle was made of, by the bundle's file name. */
  bundles?: Map<string, string>;
}

/** What is run where. */
export interface PlanOptions {
  /** Test files, relative to {@linkcode ROOT}. */
  readonly files: string[];
  /** Whether they are not all that there are. */
  readonly filtered: boolean;
  /** A folder for reports and bundles. */
  readonly temporary: string;
  /** Whether Deno may be fetched if it is not installed. */
  readonly fetchDeno: boolean;
}

/** The processes that run a runtime's tests, one after the other, or why there are none. */
export async function planRuns(
  runtime: Runtime,
  { files, filtered, temporary, fetchDeno }: PlanOptions,
): Promise<Plan[] | LeftOut> {
  if (runtime === "bun") return planBun(files, filtered, temporary);
  if (runtime === "deno") return planDeno(files, temporary, fetchDeno);
  return await planNode(files, temporary);
}

/** What `command --version` prints first, or undefined if there is no such program. */
function versionOf(command: string): string | undefined {
  const { status, stdout } = spawnSync(command, ["--version"], { encoding: "utf8" });
  return status === 0 ? /\d+\.\d+\.\d+\S*/.exec(stdout)?.[0] : undefined;
}

/** The Deno on PATH, or among installed packages. */
export function installedDeno(): { command: string; version?: string } | undefined {
  return ["deno", `${ROOT}/node_modules/.bin/deno`]
    .map((command) => ({ command, version: versionOf(command) }))
    .find(({ version }) => version !== undefined);
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

/** All of Bun's tests in one process. */
function planBun(files: string[], filtered: boolean, temporary: string): Plan[] {
  const reportPath = join(temporary, "bun.xml");
  return [{
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
  }];
}

/**
 * A process for each folder of Deno's tests: what engines and models leave behind is given back then, and one
 * that hangs does not take the others' results with it.
 */
function planDeno(files: string[], temporary: string, fetchDeno: boolean): Plan[] | LeftOut {
  const installed = installedDeno();
  if (installed === undefined && !fetchDeno) {
    return {
      runtime: "deno",
      why: "no deno on PATH or in node_modules/.bin (--all or CI=true fetches it with npx)",
    };
  }
  const deno = installed ? [installed.command] : ["npx", "-y", `deno@${DENO_VERSION}`];
  const folders = Map.groupBy(files, dirname);
  return [...folders].map(([folder, files]) => {
    const reportPath = join(temporary, `deno+${folder.replaceAll("/", "+")}.xml`);
    return {
      runtime: "deno",
      version: installed?.version ?? DENO_VERSION,
      files,
      command: [...deno, "test", "-A", "--no-check", `--junit-path=${reportPath}`, ...files],
      reportPath,
    };
  });
}

/** Puts our own modules in the place of those that only Bun or an import map knows. */
const forNode: BundlerPlugin = {
  name: "for-node",
  setup(build) {
    build.onResolve({ filter: /^bun:test$/ }, () => ({
      path: `${ROOT}/test/support/bun_test_for_node.ts`,
    }));
    build.onResolve({ filter: /^@std\/expect$/ }, () => ({
      path: `${ROOT}/node_modules/@std/cli/expect/mod.js`,
    }));
    // The bundle lies in a temporary folder; a test must still find the fixtures beside its source.
    build.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      const source = await readFile(path, "utf8");
      const url = JSON.stringify(pathToFileURL(path).href);
      return { contents: source.replace(/\bimport\.meta\.url\b/g, () => url), loader: "ts" };
    });
  },
};

/** All of Node's tests in one process. */
async function planNode(allFiles: string[], temporary: string): Promise<Plan[] | LeftOut> {
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
  return [{
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
  }];
}
