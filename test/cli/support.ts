/**
 * What the tests of the command line share: the program in a process of its own, in the runtime that
 * runs the tests.
 * @module
 */
import { expect } from "bun:test";
import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { runtime } from "../../src/platform/runtime.ts";
import { fromRoot } from "../support/paths.ts";

/** What the runtime is given to run the program. */
export const COMMAND = runtime().name === "deno"
  ? ["run", "-A", "--no-check", "mod.ts"]
  : ["mod.ts"];

export const ROOT = fromRoot("");
/** The example model, what it is calibrated on, and what it is measured on. */
export const TINY = fromRoot("examples/tiny");
export const TEXT = join(TINY, "calibration.txt");
export const HELD_OUT = join(TINY, "evaluation.txt");
/** Where the model runs, and on how little: enough to see that it does. */
export const QUICK = ["--seqlen", "32", "--backend", "wasm", "--threads", "1"];
export const CALIBRATED = ["--calibration", TEXT, "--samples", "4", ...QUICK];
/** No model needs to run for this. */
export const PLAIN = ["--method", "magnitude", "--allocation", "uniform"];

/** How a run ended. */
export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A running program. */
export interface Running {
  readonly ended: Promise<Ended>;
  /** What it has written so far. */
  readonly heard: Readonly<Pick<Ended, "stdout" | "stderr">>;
  /** Waits until its standard error has some text. */
  says(text: string): Promise<void>;
  /** Waits until its standard output has some text. */
  prints(text: string): Promise<void>;
  /** Writes to its standard input, which was to be left open; waits until it has read nearly all. */
  feed(text: string): Promise<void>;
  kill(signal: "SIGINT" | "SIGTERM" | "SIGHUP"): void;
}

/** What a program starts with. */
export interface Start {
  /** Where it lies: the project, or a copy. */
  readonly root?: string;
  /** Its standard input; empty when left out. */
  readonly input?: string;
  /** Whether that does not end. */
  readonly staysOpen?: boolean;
  /** Variables of its environment, beside ours. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts the program. */
export function start(words: readonly string[], options: Start = {}): Running {
  return startOf(process.execPath, [...COMMAND, ...words], options);
}

function startOf(file: string, words: readonly string[], options: Start): Running {
  const child = spawn(file, words, {
    cwd: options.root ?? ROOT,
    stdio: [options.input === undefined && !options.staysOpen ? "ignore" : "pipe", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...options.env },
  });
  if (!options.staysOpen) child.stdin?.end(options.input);
  const heard = { stdout: "", stderr: "" };
  const waiting = new Set<() => void>();
  for (const name of ["stdout", "stderr"] as const) {
    child[name]!.setEncoding("utf8").on("data", (text: string) => {
      heard[name] += text;
      for (const look of waiting) look();
    });
  }
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code: number | null) => resolve({ code, ...heard }));
  });
  const has = (name: "stdout" | "stderr", text: string) =>
    Promise.race([
      new Promise<void>((resolve) => {
        const look = () => {
          if (heard[name].includes(text)) resolve();
        };
        waiting.add(look);
        look();
      }),
      ended.then(() => {
        throw new Error(`it ended without ${JSON.stringify(text)}: ${heard.stderr}`);
      }),
    ]);
  return {
    ended,
    heard,
    says: (text) => has("stderr", text),
    prints: (text) => has("stdout", text),
    feed: (text) => new Promise((resolve) => void child.stdin!.write(text, () => resolve())),
    // Not child.kill(): after that Deno reports the signal, whatever code the program ends with.
    kill: (signal) => void process.kill(child.pid!, signal),
  };
}

/** Runs the program to its end. */
export function run(...words: string[]): Promise<Ended> {
  return start(words).ended;
}

/** Runs a line of a shell, in which `"$@"` is the program, to its end. */
export function runInShell(line: string): Promise<Ended> {
  return startOf("sh", ["-c", line, "sh", process.execPath, ...COMMAND], {}).ended;
}

/** Runs it, and checks that it succeeds. */
export async function succeed(...words: string[]): Promise<Ended> {
  const ended = await run(...words);
  expect({ words, code: ended.code, stderr: ended.code === 0 ? "" : ended.stderr })
    .toEqual({ words, code: 0, stderr: "" });
  return ended;
}

/** Runs it with `--json`, and parses the one line that it prints. */
// deno-lint-ignore no-explicit-any
export async function report(...words: string[]): Promise<any> {
  const { stdout } = await succeed(...words, "--json");
  expect(stdout).toMatch(/^\{[^\n]*\}\n$/);
  return JSON.parse(stdout);
}

/** `toMatchObject` on a copy: Bun leaves the matchers in the object in place of what they matched. */
export function matches(found: object, expected: object): void {
  expect(structuredClone(found)).toMatchObject(expected);
}

/** Runs it, and checks that it fails with one line of an error, and with nothing on stdout. */
export async function fail(exit: 1 | 2, code: string, words: string[], ...parts: string[]) {
  const { code: status, stdout, stderr } = await run(...words);
  const errors = stderr.split("\n").filter((line) => line.startsWith("error "));
  expect({
    words,
    status,
    stdout,
    errors: errors.length,
    stderr: errors.length === 1 ? "" : stderr,
  })
    .toEqual({ words, status: exit, stdout: "", errors: 1, stderr: "" });
  for (const part of [`error ${code}: `, ...parts]) expect(errors[0]).toContain(part);
  expect(stderr).not.toContain("internal error");
  if (exit === 2) expect(stderr).toMatch(/\ntry .* --help\n$/);
  return stderr;
}

/** Checks that commands fail, a few at a time. */
export async function failAll(
  exit: 1 | 2,
  code: string,
  cases: readonly (readonly [words: string[], ...parts: string[]])[],
) {
  const waiting = [...cases];
  const worker = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) await fail(exit, code, ...next);
  };
  await Promise.all([worker(), worker(), worker()]);
}
