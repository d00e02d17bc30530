/**
 * Help texts, made from the commands and the schemas of their options.
 * @module
 */
import { runtime } from "../platform/runtime.ts";
import { type CommandSchema, type Flag, flagsOf } from "./args.ts";

/** What a command says about itself. */
export interface Command {
  readonly name: string;
  /** One line. */
  readonly summary: string;
  readonly usage: string;
  /** Words and what they do. */
  readonly examples: readonly (readonly [string, string])[];
  readonly schema: CommandSchema;
  /** More that one should know. */
  readonly details?: string;
  /** Whether it says itself that it stops when it is told to. */
  readonly tellsOfItsEnd?: boolean;
  /** Carries it out; returns the exit code. */
  run(words: readonly string[], signal: AbortSignal): Promise<number>;
}

/** How a user starts a program that is a file of its own. */
let ownName: string | undefined;

/** Says how a user starts this program, where it is a file of its own. */
export function nameProgram(name: string): void {
  ownName = name;
}

/** How a user starts this program in the runtime that runs it now. */
export function program(): string {
  if (ownName !== undefined) return ownName;
  return runtime().name === "bun" ? "bun mod.ts" : "deno run -A mod.ts";
}

/**
 * Help on everything.
 *
 * @param about What the program does, in a line.
 */
export function overview(about: string, commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length));
  return [
    about,
    "",
    `Usage: ${program()} COMMAND [OPTIONS]`,
    "",
    "Commands:",
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    "",
    `${program()} COMMAND --help tells more. Exit codes: 0 done, 1 failed, 2 wrong usage.`,
  ].join("\n");
}

/** Help on one command. */
export function helpOn(command: Command): string {
  const flags: (Flag & { typed: string })[] = [
    ...flagsOf(command.schema),
    {
      field: "config",
      name: "config",
      kind: "text" as const,
      help: "JSON file with any of these options (names as in the library); flags go over it",
    },
    {
      field: "json",
      name: "json",
      kind: "boolean" as const,
      help: "print one JSON object and nothing else on standard output",
    },
    { field: "help", name: "help", kind: "boolean" as const, help: "print this help" },
  ].map((flag) => ({ ...flag, typed: typed(flag) }));
  const width = Math.max(...flags.map((flag) => flag.typed.length));
  return [
    command.summary,
    "",
    `Usage: ${program()} ${command.usage}`,
    ...(command.details ? ["", command.details] : []),
    "",
    "Options:",
    ...flags.map((flag) =>
      `  ${flag.typed.padEnd(width)}  ${flag.help}${
        flag.fallback === undefined ? "" : ` (default: ${flag.fallback})`
      }`
    ),
    "",
    "Examples:",
    ...command.examples.flatMap(([words, does]) => [`  ${program()} ${words}`, `      ${does}`]),
  ].join("\n");
}

function typed({ name, kind, choices }: Flag): string {
  const short = name === "output" ? "-o, " : name === "help" ? "-h, " : "    ";
  if (kind === "boolean") return `${short}--${name}`;
  const value = choices?.join("|") ?? (kind === "number" ? "N" : "VALUE");
  return `${short}--${name} ${value}`;
}
