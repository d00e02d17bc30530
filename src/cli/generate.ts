/**
 * `generate`: the command.
 * @module
 */
import process from "node:process";
import type { ProgressEvent } from "../api/options.ts";
import type { EndPiece } from "../generate/generate.ts";
import { generateCommandSchema } from "../generate/command_options.ts";
import type { Model } from "../generate/model.ts";
import { UsageError } from "../errors.ts";
import { readJson, readText } from "../platform/files.ts";
import { peakResidentBytes } from "../platform/runtime.ts";
import { print } from "../platform/output.ts";
import type { TokenConstraint } from "../text/constraint.ts";
import type { ChoiceLogprobs } from "../text/logprobs.ts";
import type { TextForm } from "../text/structured/mod.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import type { Command } from "./help.ts";
import { readInput } from "./input.ts";
import {
  describeEngine,
  describeFigures,
  figuresOf,
  generationOf,
  idleSampling,
  openModel,
  type Options,
  say,
} from "./model.ts";
import { ownIsExample } from "./own_model.ts";
import { ProgressView, shownText } from "./terminal.ts";

/** Bytes of the longest prompt that is read: no context holds more. */
const LONGEST_PROMPT = 16 << 20;
/** Bytes of the longest file with a JSON schema; longer ones are refused when they are read, too. */
const LONGEST_SCHEMA = 1 << 20;
/** What the example continues when it is not told. */
const EXAMPLE_PROMPT = "The population of the country";

/** The `generate` command. */
export const generateCommand: Command = {
  name: "generate",
  summary: "Continue a text with a compiled model, or with a checkpoint compiled on the way.",
  usage: "generate [MODEL] [--prompt TEXT] [OPTIONS]",
  schema: generateCommandSchema,
  details: [
    "The text goes to standard output as it is made, figures to standard error.",
    "Without MODEL the example is pruned, compiled and run, all in temporary folders. Without --prompt",
    "and --prompt-file the prompt is read from standard input, where that is no terminal (the example",
    "has one of its own).",
    "With --json-schema the text ends with the value; --max-tokens may end it before.",
    "With --json: model, prompt, text, tokens, logprobs [{token, logprob, top [{token, logprob}]}],",
    "finishReason, stopString, promptTokens, cachedTokens, completionTokens, secondsToFirstToken,",
    "tokensPerSecond, seed, engine {engine, device, threads, context, why, …}, notes, peakBytes.",
  ].join("\n"),
  examples: [
    ["generate", "the example, pruned and compiled on the way, continues a text"],
    ['generate MODEL --prompt "The population of"', "the likeliest tokens"],
    [
      'generate MODEL --prompt "Once upon a time" --temperature 0.8 --top-p 0.95 --seed 7',
      "drawn by chance; the same seed draws the same text",
    ],
    ["generate MODEL --prompt-file - --max-tokens 400 < text.txt", "a prompt from elsewhere"],
    [
      'generate MODEL --prompt "Ada is 36:" --json-schema person.json',
      "JSON that a program can read",
    ],
    ['generate MODEL --engine ort --device webgpu --prompt "Hello"', "ONNX Runtime on the GPU"],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, generateCommandSchema, { modelIsOptional: true });
    const options = checkOptions(generateCommandSchema, line.options, line.sources);
    const prompt = await readPrompt(options, signal);
    const form = await readForm(options);
    if (options.logprobs !== undefined && !line.json) {
      say("--logprobs shows nothing without --json");
    }
    if (isExample(options) && !line.json) say(`prompt: ${prompt}`);
    const view = new ProgressView();
    const notes: string[] = [];
    const onProgress = (event: ProgressEvent) => {
      if (event.type === "note") notes.push(event.text);
      view.show(event);
    };
    for (const text of idleSampling(options, line.options)) onProgress({ type: "note", text });
    const model = await openModel(options, { signal, onProgress }).finally(() => view.finish());
    try {
      const constraint = form && await model.constrain(form);
      const made = await stream(model, prompt, options, { signal, constraint }, !line.json);
      const figures = figuresOf(made.end);
      if (line.json) {
        const { finishReason, stopString, seed } = made.end;
        const { text, tokens, logprobs } = made;
        const { name, ...engine } = model.info;
        const report = { model: name, prompt, text, tokens, logprobs, finishReason, stopString };
        const about = { seed, engine, notes, peakBytes: peakResidentBytes() };
        print(`${JSON.stringify({ ...report, ...figures, ...about })}\n`);
      } else {
        // A stop string may be a part of the token that makes it whole.
        if (constraint && !(constraint.complete && made.end.stopString === undefined)) {
          say("the JSON is not whole: the text was cut short, see --max-tokens and --stop");
        }
        say(describeFigures(figures));
        say(`${describeEngine(model.info)}; seed ${made.end.seed}`);
      }
      return 0;
    } finally {
      await model.close();
    }
  },
};

/** Whether it is the example that runs. */
function isExample({ model }: Options): boolean {
  return model === undefined && ownIsExample();
}

/** The prompt, from where the options say. */
async function readPrompt(options: Options, signal: AbortSignal): Promise<string> {
  const { prompt, promptFile } = options;
  if (prompt !== undefined && promptFile !== undefined) {
    throw new UsageError("--prompt and --prompt-file: give one of them");
  }
  if (prompt !== undefined) return prompt as string;
  if (promptFile !== undefined && promptFile !== "-") {
    return withoutLastBreak(readText(promptFile as string, LONGEST_PROMPT));
  }
  // Not for the example: who starts it from a script may have left standard input open.
  if (isExample(options) && promptFile === undefined) return EXAMPLE_PROMPT;
  if (promptFile === undefined && process.stdin.isTTY) {
    throw new UsageError("no prompt: give --prompt, --prompt-file, or text on standard input");
  }
  return await readPromptInput(signal);
}

/** What the text must be; it is checked before a model is loaded. */
async function readForm({ jsonSchema }: Options): Promise<TextForm | undefined> {
  if (jsonSchema === undefined) return undefined;
  const file = jsonSchema as string;
  const name = `--json-schema ${file}`;
  const schema = readJson(file, LONGEST_SCHEMA);
  const { readSchema } = await import("../text/structured/schema.ts");
  readSchema(schema, name);
  return { schema, name };
}

/** Without the line break that editors and shells put at the end: a model would go on below it. */
function withoutLastBreak(text: string): string {
  return text.replace(/\r?\n$/, "");
}

/** The prompt on standard input. */
async function readPromptInput(signal: AbortSignal): Promise<string> {
  const text = await readInput(LONGEST_PROMPT, () =>
    new UsageError(
      `standard input has more than ${LONGEST_PROMPT} bytes: no context holds it`,
    ), signal);
  if (text.trim() === "") throw new UsageError("no prompt: standard input is empty");
  return withoutLastBreak(text);
}

/** What was generated. */
interface Made {
  readonly text: string;
  readonly tokens: number[];
  readonly logprobs?: ChoiceLogprobs[];
  readonly end: EndPiece;
}

/** Generates, and writes text as it comes where `shown`. */
async function stream(
  model: Model,
  prompt: string,
  options: Options,
  running: { readonly signal: AbortSignal; readonly constraint: TokenConstraint | undefined },
  shown: boolean,
): Promise<Made> {
  let text = "";
  const tokens: number[] = [];
  const logprobs: ChoiceLogprobs[] = [];
  let end: EndPiece | undefined;
  const write = (piece: string) => void (shown && piece !== "" && print(shownText(piece)));
  try {
    for await (const piece of model.generate(prompt, { ...generationOf(options), ...running })) {
      if (piece.type === "end") {
        end = piece;
      } else {
        text += piece.text;
        tokens.push(...piece.tokens);
        logprobs.push(...piece.logprobs ?? []);
        write(piece.text);
      }
    }
  } finally {
    if (text !== "" || end) write("\n");
  }
  return { text, tokens, logprobs: logprobs.length > 0 ? logprobs : undefined, end: end! };
}
