/**
 * The command line of Espalier: its commands.
 * @module
 */
import process from "node:process";
import { type Program, runProgram, runWords } from "./program.ts";

const ESPALIER: Program = {
  about:
    "Espalier prunes language models, compiles them to compact sparse ONNX, and runs them at the edge.",
  commands: [
    { name: "pull", load: async () => (await import("./pull.ts")).pullCommand },
    { name: "prune", load: async () => (await import("./prune.ts")).pruneCommand },
    { name: "compile", load: async () => (await import("./compile.ts")).compileCommand },
    { name: "generate", load: async () => (await import("./generate.ts")).generateCommand },
    { name: "chat", load: async () => (await import("./chat.ts")).chatCommand },
    { name: "serve", load: async () => (await import("./serve.ts")).serveCommand },
    { name: "key", load: async () => (await import("./key.ts")).keyCommand },
    { name: "bundle", load: async () => (await import("./bundle.ts")).bundleCommand },
    { name: "bench", load: async () => (await import("./bench.ts")).benchCommand },
    { name: "compare", load: async () => (await import("./compare.ts")).compareCommand },
    { name: "eval", load: async () => (await import("./eval.ts")).evaluateCommand },
    { name: "inspect", load: async () => (await import("./inspect.ts")).inspectCommand },
    { name: "export", load: async () => (await import("./export.ts")).exportCommand },
    { name: "verify", load: async () => (await import("./compile.ts")).verifyCommand },
    { name: "expand", load: async () => (await import("./compile.ts")).expandCommand },
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
