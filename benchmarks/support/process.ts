/**
 * Running other programs for a benchmark: what they print, how long they take, how much they hold.
 * @module
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** Milliseconds between two looks at a program's memory; the kernel keeps the peak in between. */
const LOOK = 50;

/** Folder of the repository. */
export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** What a program did. */
export interface Finished {
  readonly stdout: string;
  /** From its start to its end. */
  readonly seconds: number;
  /** Largest resident memory as the kernel counts it; undefined where there is no /proc. */
  readonly peakBytes?: number;
}

/** A program that could not be run, or that failed; the message is the reason. */
export class ProgramError extends Error {}

/**
 * Runs a program to its end.
 *
 * @param command The program and its arguments.
 * @throws {ProgramError} When it cannot be started, or ends with another code than 0.
 */
export function run(command: readonly string[]): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const child = spawn(command[0], command.slice(1), {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
    let peakBytes: number | undefined;
    const look = () => {
      const seen = child.pid === undefined ? undefined : peakOf(child.pid);
      if (seen !== undefined) peakBytes = Math.max(peakBytes ?? 0, seen);
    };
    const timer = setInterval(look, LOOK);
    child.on("error", (error) => {
      clearInterval(timer);
      reject(new ProgramError(`${command[0]}: ${error.message}`));
    });
    child.on("close", (code, signal) => {
      clearInterval(timer);
      const seconds = (performance.now() - started) / 1000;
      if (code === 0) return resolve({ stdout, seconds, peakBytes });
      const reason = signal === null ? reasonIn(stderr) : `ended by ${signal}`;
      reject(new ProgramError(reason ?? `ended with code ${code}`));
    });
  });
}

/** Runs a program that prints one JSON value, and parses it. */
export async function runJson(command: readonly string[]): Promise<Finished & { value: unknown }> {
  const finished = await run(command);
  try {
    return { ...finished, value: JSON.parse(finished.stdout) };
  } catch {
    throw new ProgramError(`${command[0]} printed no JSON: ${finished.stdout.slice(0, 200)}`);
  }
}

/** What a program's standard error says of its end: our own error line, npm's first, what was thrown, else the last. */
function reasonIn(stderr: string): string | undefined {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "");
  const npm = lines.filter((line) => line.startsWith("npm error ")).slice(0, 4);
  if (npm.length > 0) return npm.map((line) => line.slice("npm error ".length)).join("; ");
  return lines.find((line) => /^error \S+: /.test(line)) ??
    lines.find((line) => /^\w*Error: /.test(line)) ?? lines.at(-1);
}

/** `VmHWM` of a process: the largest number of bytes that it has held since its start. */
function peakOf(pid: number): number | undefined {
  try {
    const found = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return found ? Number(found[1]) * 1024 : undefined;
  } catch {
    // It has ended, or this system has no /proc.
    return undefined;
  }
}

/** The JavaScript runtimes that prune is measured in. */
export type RuntimeName = "deno" | "bun";

/** The runtime that runs this program. */
export function ownRuntime(): RuntimeName {
  return process.versions.bun ? "bun" : "deno";
}

/** A runtime's own binary and version: what is on the path may be a script that starts it. */
export async function findRuntime(
  name: RuntimeName,
): Promise<{ path: string; version: string }> {
  if (name === ownRuntime()) {
    return { path: process.execPath, version: process.versions[name]! };
  }
  const ask = "console.log(JSON.stringify([process.execPath, process.versions]))";
  const words = name === "deno" ? ["deno", "eval", ask] : ["bun", "-e", ask];
  const [path, versions] = (await runJson(words)).value as [string, Record<string, string>];
  return { path, version: versions[name] };
}

/** Where the first program of these names lies on the path. */
export async function findProgram(names: readonly string[]): Promise<string | undefined> {
  for (const name of names) {
    try {
      return (await run(["sh", "-c", `command -v ${name}`])).stdout.trim();
    } catch (error) {
      if (!(error instanceof ProgramError)) throw error;
    }
  }
  return undefined;
}

/** Words that start Espalier's command line in a runtime. */
export function espalier(name: RuntimeName, path: string): string[] {
  return name === "deno" ? [path, "run", "-A", join(ROOT, "mod.ts")] : [path, join(ROOT, "mod.ts")];
}

/**
 * Calls `use` with a folder that is removed afterwards.
 *
 * Ctrl-C reaches the program that is running, too: it ends, `use` fails, and the folder goes.
 *
 * @param parent Where to make it; the system's place for temporary files when left out.
 */
export async function withFolder<T>(
  use: (folder: string) => Promise<T>,
  parent = tmpdir(),
): Promise<T> {
  const folder = mkdtempSync(join(parent, "espalier-benchmark-"));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

let interrupted = false;

/**
 * Lets work end by itself on Ctrl-C; see {@linkcode throwIfInterrupted}.
 *
 * @param stop Called on the first one, to end what would not.
 */
export function catchInterrupts(stop: () => void = () => {}): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (interrupted) process.exit(130);
      interrupted = true;
      stop();
    });
  }
}

/** @throws {Error} After Ctrl-C: a run that failed then says nothing of its program. */
export function throwIfInterrupted(): void {
  if (interrupted) throw new Error("interrupted");
}
