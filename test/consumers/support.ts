/**
 * What the drivers of stock runtimes share: programs, installations, a count of checks.
 * @module
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

/** Whether what cannot be installed is a failure, not a reason to skip. */
const CI = ["true", "1"].includes(process.env.CI ?? "");

/** The oldest Python that the packages in use support. */
const OLDEST_PYTHON = [3, 11];

/** How a program ended. */
export interface Ended {
  /** Undefined when it could not be started. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end.
 *
 * @param words The program and its arguments.
 * @param cwd The folder it runs in.
 */
export function run(words: readonly string[], cwd?: string): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(words[0], words.slice(1), {
      cwd,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
    child.on("error", ({ message }) => resolve({ code: undefined, stdout, stderr: message }));
    child.on("close", (code) => resolve({ code: code ?? 1, stdout, stderr }));
  });
}

/** A program that failed; the message is the end of what it said. */
export class ProgramError extends Error {}

/**
 * Runs a program that prints one JSON value.
 *
 * @throws {ProgramError} When it fails or prints something else.
 */
export async function runJson<T>(words: readonly string[], cwd?: string): Promise<T> {
  const { code, stdout, stderr } = await run(words, cwd);
  if (code !== 0) throw new ProgramError(`${words[0]} ended with ${code}: ${lastLines(stderr)}`);
  try {
    return JSON.parse(stdout) as T;
  } catch {
    throw new ProgramError(`${words[0]} printed no JSON: ${stdout.slice(0, 400)}`);
  }
}

/** The end of what a program said. */
export function lastLines(text: string, count = 6): string {
  return text.trim().split("\n").slice(-count).join("\n    ");
}

/** Whether there is a program of this name that tells its version. */
export async function has(program: string): Promise<boolean> {
  return (await run([program, "--version"])).code === 0;
}

/**
 * Installs npm packages into a folder, without running their scripts.
 *
 * @returns What npm said when it failed, else nothing.
 */
export async function npmInstall(folder: string, packages: string[]): Promise<string | undefined> {
  const npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const { code, stderr } = await run([...npm, "--prefix", folder, ...packages], folder);
  if (code === 0) return undefined;
  // What went wrong comes first, a stack and advice after it.
  const reason = stderr.replaceAll("npm error ", "").trim().split("\n").slice(0, 4).join("; ");
  return `npm could not install ${packages.join(", ")}: ${reason}`;
}

/**
 * Makes a Python environment with packages.
 *
 * @returns Its Python, or why there is none, and whether that is the network's fault.
 */
export async function makePython(
  folder: string,
  packages: readonly string[],
): Promise<{ path: string } | { why: string; net: boolean }> {
  const python = process.env.PYTHON ?? "python3";
  const ask = "import sys, venv, ensurepip; print(*sys.version_info[:2])";
  const { code, stdout } = await run([python, "-c", ask]);
  if (code !== 0) return { why: `no ${python} with venv`, net: false };
  const [major, minor] = stdout.trim().split(" ").map(Number);
  if (major < OLDEST_PYTHON[0] || (major === OLDEST_PYTHON[0] && minor < OLDEST_PYTHON[1])) {
    return { why: `Python ${major}.${minor} is older than ${OLDEST_PYTHON.join(".")}`, net: false };
  }
  const venv = join(folder, "venv");
  const made = await run([python, "-m", "venv", venv]);
  if (made.code !== 0) return { why: lastLines(made.stdout + made.stderr), net: false };
  const path = join(venv, process.platform === "win32" ? "Scripts/python.exe" : "bin/python");
  const pip = [path, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
  const installed = await run([...pip, "--only-binary=:all:", ...packages]);
  return installed.code === 0
    ? { path }
    : { why: `pip could not install: ${lastLines(installed.stderr)}`, net: true };
}

/** Calls `use` with a folder that is removed afterwards. */
export async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "espalier-consumers-"));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Counts what was checked, and says it as it comes. */
export class Checks {
  #passed = 0;
  #failed = 0;
  #skipped = 0;

  /** Notes one check. `why` is shown when it failed. */
  that(what: string, ok: boolean, why: () => string = () => ""): void {
    if (ok) this.#passed++;
    else this.#failed++;
    console.log(ok ? `  ok      ${what}` : `  FAILED  ${what}: ${why()}`);
  }

  /** Notes that two values are the same, as JSON. */
  same(what: string, found: unknown, expected: unknown): void {
    const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
    this.that(what, a === b, () => `${a} where ${b} was expected`);
  }

  /** Notes a part that this machine cannot run. */
  skip(what: string, why: string): void {
    this.#skipped++;
    console.log(`  skipped ${what}: ${why}`);
  }

  /** Notes that something could not be installed: a reason to skip, but in CI a failure. */
  missing(what: string, why: string): void {
    if (CI) this.that(what, false, () => why);
    else this.skip(what, why);
  }

  /** Runs a part; that it throws is one failure. */
  async part(what: string, run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      this.that(what, false, () => (error as Error).stack ?? String(error));
    }
  }

  /** Prints the counts; returns the exit code. */
  end(): number {
    const skipped = this.#skipped ? `, ${this.#skipped} skipped` : "";
    console.log(`\n${this.#passed} checks passed, ${this.#failed} failed${skipped}`);
    return this.#failed > 0 ? 1 : 0;
  }
}
