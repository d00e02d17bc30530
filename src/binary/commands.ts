/**
 * The commands of a binary: those that run a model, with the one that it carries for the default.
 * @module
 */
import type { Command } from "../cli/help.ts";
import type { CommandEntry, Program } from "../cli/program.ts";

/**
 * The program that a binary is.
 *
 * @param name What its model is called.
 */
export function binaryProgram(name: string): Program {
  return {
    about: `${name}, a language model, and what runs it: all in this one program.`,
    commands: [
      carrying(name, "generate", async () => (await import("../cli/generate.ts")).generateCommand, {
        summary: `Continue a text with ${name}.`,
        usage: "generate [--prompt TEXT] [OPTIONS]",
        details: [
          "The text goes to standard output as it is made, figures to standard error. Without --prompt",
          "and --prompt-file the prompt is read from standard input. With --json all of it is one object.",
        ],
        examples: [
          ['generate --prompt "Once upon a time"', "the likeliest tokens"],
          ['generate --prompt "Once" --temperature 0.8 --seed 7', "drawn by chance"],
        ],
      }),
      carrying(name, "chat", async () => (await import("../cli/chat.ts")).chatCommand, {
        summary: `Talk to ${name} at the terminal, turn by turn.`,
        usage: "chat [OPTIONS]",
        details: [
          "Answers go to standard output, all else to standard error. Ctrl-C stops an answer; at the",
          "prompt it ends the conversation, as Ctrl-D and /exit do. /reset forgets what was said.",
        ],
        examples: [["chat", "a conversation"]],
      }),
      carrying(name, "serve", async () => (await import("../cli/serve.ts")).serveCommand, {
        summary: `Serve ${name} over HTTP: OpenAI's interface, and a page to talk to it.`,
        usage: "serve [OPTIONS]",
        details: [
          "Clients of OpenAI's interface take http://127.0.0.1:8080/v1 as base URL; the page is at /, the",
          "reference of the interface at /docs, metrics at /metrics. It listens on this machine alone",
          "unless --host says otherwise. Every option can also stand in the environment (ESPALIER_PORT,",
          "ESPALIER_KEY_FILE …) and in the config file; flags go over the environment, and that over the",
          "file. SIGTERM and Ctrl-C let answers end, then it exits with 0.",
        ],
        examples: [
          ["serve", "at http://127.0.0.1:8080"],
          ["serve --host 0.0.0.0 --key-file keys.txt --log json", "for others, with keys"],
        ],
      }),
      { name: "key", load: async () => (await import("../cli/key.ts")).keyCommand },
      carrying(name, "bench", async () => (await import("../cli/bench.ts")).benchCommand, {
        summary: `Measure how fast ${name} loads and runs here.`,
        usage: "bench [OPTIONS]",
        details: [
          "Tokens a second for prompts of 128 and 512 tokens, and one token at a time after 32.",
        ],
        examples: [["bench --engine sparse --threads 1 --json", "for a script"]],
      }),
    ],
  };
}

/** What a command says of itself in a binary. */
interface Words {
  readonly summary: string;
  readonly usage: string;
  readonly details: readonly string[];
  readonly examples: Command["examples"];
}

/** A command that takes the model of a name where none is named, and says so. */
function carrying(
  model: string,
  name: string,
  load: () => Promise<Command>,
  { details, ...words }: Words,
): CommandEntry {
  return {
    name,
    load: async () => ({
      ...await load(),
      ...words,
      details: [
        ...details,
        `A folder of another compiled model may be named; without one it is ${model}.`,
      ].join("\n"),
    }),
  };
}
