/**
 * This program once more, in a process of its own.
 * @module
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { AbortError, FileReadError } from "../errors.ts";
import { isBinary, runtime } from "./runtime.ts";

/** How it ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs this program with other words.
 *
 * @param signal Stops it as Ctrl-C would.
 * @throws {AbortError} When the signal says so, after it has ended.
 * @throws {FileReadError} When it cannot be started.
 */
export function runOwnProgram(words: readonly string[], signal?: AbortSignal): Promise<Ended> {
  const [command, ...before] = ownCommand();
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...before, ...words], { stdio: ["ignore", "pipe", "pipe"] });
    const stop = () => void child.kill("SIGINT");
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
    child.on("error", (cause) => {
      signal?.removeEventListener("abort", stop);
      reject(new FileReadError(`cannot start ${command}: ${cause.message}`, { cause }));
    });
    child.on("close", (code: number | null) => {
      signal?.removeEventListener("abort", stop);
      if (signal?.aborted) reject(new AbortError("stopped before the end"));
      else resolve({ code, stdout, stderr });
    });
  });
}

/** What starts this program: the runtime with the main module, or a binary that is both. */
function ownCommand(): string[] {
  if (isBinary()) return [process.execPath];
  const main = process.argv[1];
  return runtime().name === "deno"
    ? [process.execPath, "run", "-A", main]
    : [process.execPath, main];
}
