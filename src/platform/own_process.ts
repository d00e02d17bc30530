/**
 * This program once more, in a process of its own.
 * @module
 */
import process from "node:process";
import { FileReadError } from "../errors.ts";
import { type Ended, runToEnd } from "./run_to_end.ts";
import { isBinary, runtime } from "./runtime.ts";

/**
 * Runs this program with other words.
 *
 * @param signal Stops it as Ctrl-C would.
 * @throws {AbortError} When the signal says so, after it has ended.
 * @throws {FileReadError} When it cannot be started.
 */
export async function runOwnProgram(
  words: readonly string[],
  signal?: AbortSignal,
): Promise<Ended> {
  const command = ownCommand();
  const ended = await runToEnd([...command, ...words], { signal, stopBy: "SIGINT" });
  if (ended.code !== undefined) return ended;
  throw new FileReadError(`cannot start ${command[0]}: ${ended.stderr}`);
}

/** What starts this program: the runtime with the main module, or a binary that is both. */
function ownCommand(): string[] {
  if (isBinary()) return [process.execPath];
  const main = process.argv[1];
  return runtime().name === "deno"
    ? [process.execPath, "run", "-A", main]
    : [process.execPath, main];
}
