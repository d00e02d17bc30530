/**
 * A program of commands: finds the command, runs it, turns errors into one line and an exit code.
 * @module
 */
import process from "node:process";
import { withoutControls } from "../checks.ts";
import { AbortError, EspalierError, PackageMissingError, UsageError } from "../errors.ts";
import { denied } from "../platform/file_errors.ts";
import { onHangup } from "../platform/hangup.ts";
import { aborted, sleep } from "../platform/sleep.ts";
import { allPrinted, onOutputFailure, print, tell } from "../platform/output.ts";
import { VERSION } from "../version.ts";
import { asksForHelp, suggestion } from "./args.ts";
import { type Command, helpOn, overview, program } from "./help.ts";
import { offerInterrupt } from "./interrupts.ts";

/** A command that is loaded when it is asked for: none waits for what others need. */
export interface CommandEntry {
  readonly name: string;
  load(): Promise<Command>;
}

/** Milliseconds that a reader of output has when the work has been stopped. */
const LAST_WAIT = 500;

/** What a program is made of. */
export interface Program {
  /** What it does, in a line. */
  readonly about: string;
  readonly commands: readonly CommandEntry[];
}

/**
 * Runs the command that the process was started with, and ends the process.
 *
 * The first Ctrl-C stops the work and cleans up; a second one ends the process at once, as a terminal that
 * is closed does. A command that has another use for Ctrl-C takes it.
 */
export async function runProgram(
  program: Program,
  words: readonly string[] = process.argv.slice(2),
): Promise<never> {
  const stop = new AbortController();
  let running: Command | undefined;
  /** @param number The signal's, by which shells tell what has ended a process. */
  const onSignal = (number: number) => {
    if (stop.signal.aborted) process.exit(128 + number);
    stop.abort();
    if (!running?.tellsOfItsEnd) tell("\nstopping …\n");
  };
  // An exit removes what must not stay, and nobody is left to be told of more.
  onHangup((terminalHasGone) => terminalHasGone ? process.exit(129) : onSignal(1));
  process.on("SIGINT", () => {
    if (!offerInterrupt()) onSignal(2);
  });
  process.on("SIGTERM", () => onSignal(15));
  onOutputFailure((error) => process.exit(error ? report(error, running) : 0));
  const code = await runWords(program, words, stop.signal, (command) => running = command);
  const isRead = await Promise.race([allPrinted().then(() => true), stopped(stop.signal)]);
  // exit, not return: the threads of ONNX Runtime would keep the process alive.
  if (isRead || code !== 0) process.exit(code);
  process.exit(report(new AbortError("stopped before all output was read"), running));
}

/** Waits until the signal says so, and a little longer; its value is false. */
async function stopped(signal: AbortSignal): Promise<boolean> {
  await aborted(signal);
  await sleep(LAST_WAIT);
  return false;
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
      if (asksForHelp(rest)) {
        print(`${helpOn(command)}\n`);
        return 0;
      }
      onStart(command);
      return await command.run(rest, signal);
    }
    if (name === undefined || name === "help" || asksForHelp([name])) {
      const [word] = rest;
      const asked = await commandOf(commands, word);
      if (name === "help" && word !== undefined && !asked) throw unknownCommand(word, commands);
      const all = () => Promise.all(commands.map(({ load }) => load()));
      print(`${asked ? helpOn(asked) : overview(about, await all())}\n`);
      return 0;
    }
    if (name === "--version" || name === "version") {
      print(`espalier ${VERSION}\n`);
      return 0;
    }
    throw unknownCommand(name, commands);
  } catch (error) {
    return report(missing(error, name) ?? denied(error, name ?? "help") ?? error, command);
  }
}

function unknownCommand(name: string, commands: readonly CommandEntry[]): UsageError {
  const names = commands.map((command) => command.name);
  return new UsageError(
    `unknown command ${name}${suggestion(name, names)} (commands: ${names.join(", ")})`,
  );
}

/** The command of a name. */
async function commandOf(
  commands: readonly CommandEntry[],
  name: string | undefined,
): Promise<Command | undefined> {
  return await commands.find((entry) => entry.name === name)?.load();
}

/** What says how to get a package, where an error is that one could not be loaded: at the start, or later. */
function missing(cause: unknown, name = "help"): PackageMissingError | undefined {
  if (cause instanceof EspalierError) return undefined;
  const { code, message } = Object(cause) as { code?: unknown; message?: unknown };
  if (code !== "ERR_MODULE_NOT_FOUND" && !/^Failed loading /.test(String(message))) {
    return undefined;
  }
  return new PackageMissingError(
    `${name} needs a package that could not be loaded: ${
      String(message)
    }: connect this machine once, or ` +
      "fetch everything before (deno cache mod.ts, bun install)",
    { cause },
  );
}

/** Writes an error to standard error; returns its exit code. */
function report(error: unknown, command: Command | undefined): number {
  if (error instanceof EspalierError) {
    const line = withoutControls(`${error.code}: ${error.message}`.replaceAll("\n", " "));
    tell(`error ${line}\n`);
    if (error instanceof UsageError) {
      tell(`try ${program()} ${command ? `${command.name} ` : ""}--help\n`);
    }
    return error instanceof AbortError ? 1 : error.exitCode;
  }
  // Not an error that we know the cause of: its stack is what a report of it needs.
  const text = error instanceof Error ? error.stack ?? error.message : String(error);
  tell(`internal error, please report it: ${withoutControls(text, "\n\t")}\n`);
  return 1;
}
