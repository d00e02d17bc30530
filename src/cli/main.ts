/**
 * The command line of Espalier: its commands.
 * @module
 */
import process from "node:process";
import { compareCommand } from "./compare.ts";
import { compileCommand, expandCommand, verifyCommand } from "./compile.ts";
import { benchCommand } from "./bench.ts";
import { bundleCommand } from "./bundle.ts";
import { chatCommand } from "./chat.ts";
import { evaluateCommand } from "./eval.ts";
import { exportCommand } from "./export.ts";
import { generateCommand } from "./generate.ts";
import { inspectCommand } from "./inspect.ts";
import { keyCommand } from "./key.ts";
import { type Program, runProgram, runWords } from "./program.ts";
import { pruneCommand } from "./prune.ts";
import { pullCommand } from "./pull.ts";
import { serveCommand } from "./serve.ts";

const ESPALIER: Program = {
  about:
    "Espalier prunes language models, compiles them to compact sparse ONNX, and runs them at the edge.",
  commands: [
    pullCommand,
    pruneCommand,
    compileCommand,
    generateCommand,
    chatCommand,
    serveCommand,
    keyCommand,
    bundleCommand,
    benchCommand,
    compareCommand,
    evaluateCommand,
    inspectCommand,
    exportCommand,
    verifyCommand,
    expandCommand,
  ],
};

/** Runs the command that the process was started with, and ends the process. */
export function main(words: readonly string[] = process.argv.slice(2)): Promise<never> {
  return runProgram(ESPALIER, words);
}

/**
 * Runs a command.
 *
 * @param words What was typed after the program's name.
 * @param signal Stops it.
 * @returns The exit code: 0 done, 1 failed, 2 wrong usage.
 */
export function runCommand(words: readonly string[], signal: AbortSignal): Promise<number> {
  return runWords(ESPALIER, words, signal);
}
