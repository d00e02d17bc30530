/**
 * A program of commands: finds the command, runs it, turns errors into one line and an exit code.
 * @module
 */
import process from "node:process";
import { AbortError, EspalierError, UsageError } from "../errors.ts";
import { VERSION } from "../version.ts";
import { suggestion } from "./args.ts";
import { type Command, helpOn, overview, program } from "./help.ts";
import { offerInterrupt } from "./interrupts.ts";

/** A command that is loaded when it is asked for: none waits for what others need. */
export interface CommandEntry {
  readonly name: string;
  load(): Promise<Command>;
}

/** What a program is made of. */
export interface Program {
  /** What it does, in a line. */
  readonly about: string;
  readonly commands: readonly CommandEntry[];
}

/**
 * Runs the command that the process was started with, and ends the process.
 *
 * The first Ctrl-C stops the work and cleans up; a second one ends the process at once. A command that
 * has another use for Ctrl-C takes it.
 */
export async function runProgram(
  program: Program,
  words: readonly string[] = process.argv.slice(2),
): Promise<never> {
  const stop = new AbortController();
  let running: Command | undefined;
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
    if (!running?.tellsOfItsEnd) process.stderr.write("\nstopping …\n");
  };
  process.on("SIGINT", () => {
    if (!offerInterrupt()) onSignal();
  });
  process.on("SIGTERM", onSignal);
  // A reader that goes away (`… | head`) is no error of ours.
  process.stdout.on("error", () => process.exit(0));
  // exit, not return: the threads of ONNX Runtime would keep the process alive.
  process.exit(await runWords(program, words, stop.signal, (command) => running = command));
}

/**
 * Runs a command.
 *
 * @param words What was typed after the program's name.
 * @param signal Stops it.
 * @param onStart Is told which command it is, before that runs.
 * @returns The exit code: 0 done, 1 failed, 2 wrong usage.
 */
export async function runWords(
  { about, commands }: Program,
  words: readonly string[],
  signal: AbortSignal,
  onStart: (command: Command) => void = () => {},
): Promise<number> {
  const [name, ...rest] = words;
  let command: Command | undefined;
  try {
    command = await commandOf(commands, name);
    if (command) {
      if (rest.includes("--help") || rest.includes("-h")) {
        process.stdout.write(`${helpOn(command)}\n`);
        return 0;
      }
      onStart(command);
      return await command.run(rest, signal);
    }
    if (name === undefined || name === "help" || name === "--help" || name === "-h") {
      const asked = await commandOf(commands, rest[0]);
      const all = () => Promise.all(commands.map(({ load }) => load()));
      process.stdout.write(`${asked ? helpOn(asked) : overview(about, await all())}\n`);
      return 0;
    }
    if (name === "--version" || name === "version") {
      process.stdout.write(`espalier ${VERSION}\n`);
      return 0;
    }
    const names = commands.map((command) => command.name);
    throw new UsageError(
      `unknown command ${name}${suggestion(name, names)} (commands: ${names.join(", ")})`,
    );
  } catch (error) {
    return report(error, command);
  }
}

/** The command of a name. */
async function commandOf(
  commands: readonly CommandEntry[],
  name: string | undefined,
): Promise<Command | undefined> {
  return await commands.find((entry) => entry.name === name)?.load();
}

/** Writes an error to standard error; returns its exit code. */
function report(error: unknown, command: Command | undefined): number {
  if (error instanceof EspalierError) {
    const line = `${error.code}: ${error.message}`.replaceAll("\n", " ");
    process.stderr.write(`error ${line}\n`);
    if (error instanceof UsageError) {
      process.stderr.write(`try ${program()} ${command ? `${command.name} ` : ""}--help\n`);
    }
    return error instanceof AbortError ? 1 : error.exitCode;
  }
  // Not an error that we know the cause of: its stack is what a report of it needs.
  const text = error instanceof Error ? error.stack ?? error.message : String(error);
  process.stderr.write(`internal error, please report it: ${text}\n`);
  return 1;
}
