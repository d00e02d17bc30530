/**
 * Other programs, each run to its end.
 * @module
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { AbortError } from "../errors.ts";
import { isDenial } from "./file_errors.ts";

/** How a program ended. */
export interface Ended {
  /** Undefined when it could not be started; `stderr` then ends with the reason. */
  readonly code: number | null | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** Where Deno was not told to allow starting it: its words, which name the flag. */
  readonly denial?: string;
}

/** How a program is run. */
export interface RunOptions {
  /** Stops it. */
  readonly signal?: AbortSignal;
  /** What it is stopped by: SIGINT is what Ctrl-C sends. Default: SIGTERM. */
  readonly stopBy?: "SIGINT" | "SIGTERM";
  /** The folder that it runs in. */
  readonly cwd?: string;
  /** Variables beside ours. */
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * Runs a program to its end.
 *
 * @throws {AbortError} When the signal says so, after the program has ended.
 */
export function runToEnd(
  [command, ...words]: readonly string[],
  { signal, stopBy = "SIGTERM", cwd, env }: RunOptions = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, words, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const stop = () => void child.kill(stopBy);
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    let stdout = "";
    let stderr = "";
    let denial: string | undefined;
    child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
    const end = (code: number | null | undefined) => {
      signal?.removeEventListener("abort", stop);
      if (signal?.aborted) reject(new AbortError("stopped before the end"));
      else resolve({ code, stdout, stderr, denial });
    };
    child.on("error", (error) => {
      stderr += error.message;
      if (isDenial(error)) denial = error.message;
      end(undefined);
    });
    child.on("close", end);
  });
}
