/**
 * `chat`: the command.
 * @module
 */
import { throwIfAborted } from "../checks.ts";
import { AbortError, ContextOverflowError } from "../errors.ts";
import { chatCommandSchema } from "../generate/command_options.ts";
import type { EndPiece } from "../generate/generate.ts";
import type { Model } from "../generate/model.ts";
import { print } from "../platform/output.ts";
import { checkOptions, readCommandLine } from "./args.ts";
import { type Conversation, conversationWith } from "./conversation.ts";
import type { Command } from "./help.ts";
import { takeInterrupts } from "./interrupts.ts";
import { isTerminal, type LineReader, openLines } from "./lines.ts";
import {
  describeEngine,
  describeFigures,
  type Figures,
  figuresOf,
  generationOf,
  idleSampling,
  openModel,
  type Options,
  say,
} from "./model.ts";
import { aside } from "./table.ts";
import { ProgressView, shownText } from "./terminal.ts";

/** The `chat` command. */
export const chatCommand: Command = {
  name: "chat",
  summary: "Talk to a model at the terminal, turn by turn.",
  usage: "chat [MODEL] [OPTIONS]",
  schema: chatCommandSchema,
  details: [
    "Answers go to standard output, all else to standard error. Ctrl-C stops an answer; at the prompt",
    "it ends the conversation, as Ctrl-D and /exit do. /reset forgets what was said. Where standard",
    "input is no terminal, each line of it is a turn. A model without a chat template continues what",
    "you write instead of answering it. Without MODEL it is the example, pruned and compiled on the way.",
    "With --json: model, turns [{user, assistant, finishReason, promptTokens, cachedTokens,",
    "completionTokens, secondsToFirstToken, tokensPerSecond}], engine, notes.",
  ].join("\n"),
  examples: [
    ["chat MODEL", "a conversation"],
    ['chat MODEL --system "Answer in one sentence." --temperature 0.7', "with instructions"],
    ["chat MODEL --json < questions.txt", "a turn a line, for a script"],
  ],
  run: async (words, signal) => {
    const line = readCommandLine(words, chatCommandSchema, { modelIsOptional: true });
    const options = checkOptions(chatCommandSchema, line.options, line.sources);
    const view = new ProgressView();
    const notes: string[] = [];
    const note = (text: string) => {
      notes.push(text);
      view.show({ type: "note", text });
    };
    idleSampling(options, line.options).forEach(note);
    const model = await openModel(options, {
      signal,
      onProgress: (event) => event.type === "note" ? note(event.text) : view.show(event),
    }).finally(() => view.finish());
    const lines = openLines(signal);
    try {
      if (!line.json) say(describeEngine(model.info));
      if (!model.canChat) note("the model has no chat template: it continues what you write");
      if (isTerminal()) say(aside("Ctrl-C stops an answer, /reset forgets, /exit ends"));
      const turns = await talk(model, lines, options, signal, !line.json);
      if (line.json) {
        const { name, ...engine } = model.info;
        print(`${JSON.stringify({ model: name, turns, engine, notes })}\n`);
      }
      return 0;
    } finally {
      lines.close();
      await model.close();
    }
  },
};

/** One turn, for a script. */
interface Turn extends Partial<Figures> {
  readonly user: string;
  readonly assistant: string;
  /** `stopped` by Ctrl-C. */
  readonly finishReason: "stop" | "length" | "stopped";
}

/** Takes turns until the lines end. */
async function talk(
  model: Model,
  lines: LineReader,
  options: Options & { readonly system?: string },
  signal: AbortSignal,
  shown: boolean,
): Promise<Turn[]> {
  const conversation = conversationWith(model, options.system);
  const turns: Turn[] = [];
  for (;;) {
    const said = await lines.next("> ");
    throwIfAborted(signal);
    if (said === undefined || said.trim() === "/exit") return turns;
    if (said.trim() === "") continue;
    if (said.trim() === "/reset") {
      conversation.reset();
      if (shown) say("forgotten");
      continue;
    }
    try {
      const turn = await takeTurn(model, conversation, said, options, signal, shown);
      turns.push(turn);
      if (turn.finishReason === "stopped") lines.drop();
    } catch (error) {
      // At a terminal the conversation can go on; a script has to know.
      if (!(error instanceof ContextOverflowError) || !isTerminal()) throw error;
      say(`${error.message}; /reset begins anew`);
    }
  }
}

/** Answers, until the answer ends or Ctrl-C stops it; what was answered until then is kept. */
async function takeTurn(
  model: Model,
  conversation: Conversation,
  said: string,
  options: Options,
  signal: AbortSignal,
  shown: boolean,
): Promise<Turn> {
  const stop = new AbortController();
  const giveBack = takeInterrupts(() => {
    // A second Ctrl-C while the first one is being obeyed is for the program.
    if (stop.signal.aborted) return false;
    stop.abort();
    return true;
  });
  let answer = "";
  let end: EndPiece | undefined;
  try {
    const prompt = conversation.promptFor(said);
    const either = AbortSignal.any([signal, stop.signal]);
    for await (
      const piece of model.generate(prompt, { ...generationOf(options), signal: either })
    ) {
      if (piece.type === "end") {
        end = piece;
      } else {
        answer += piece.text;
        if (shown) print(shownText(piece.text));
      }
    }
  } catch (error) {
    if (!(error instanceof AbortError) || signal.aborted) throw error;
  } finally {
    giveBack();
    if (shown && (answer !== "" || end)) print("\n");
  }
  conversation.keep(said, answer);
  const turn = { user: said, assistant: answer };
  if (!end) {
    if (shown) say(aside("stopped"));
    return { ...turn, finishReason: "stopped" };
  }
  const figures = figuresOf(end);
  if (shown && isTerminal()) say(aside(describeFigures(figures)));
  return { ...turn, finishReason: end.finishReason, ...figures };
}
