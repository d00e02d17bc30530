/**
 * Chat templates: messages to the one text that a model was trained to continue.
 *
 * Templates are Jinja, run by `@huggingface/jinja` with what transformers gives them. They come with
 * the model and are hostile input: they see the messages and nothing else, and what they can allocate
 * by a single call is limited.
 *
 * @module
 */
import { Environment } from "@huggingface/jinja";
import { z } from "zod";
import { quote } from "../checks.ts";
import { ChatTemplateError } from "../errors.ts";
import { TemplateInterpreter } from "./jinja_interpreter.ts";
import { type Program, PROGRAM_FUNCTIONS, programOf } from "./jinja_program.ts";
import { formatTime } from "./strftime.ts";
import type { TextFiles } from "./tokenizer.ts";

/** Longest `range()` in a template, as in Jinja's sandbox. */
const LONGEST_RANGE = 100_000;

/** Characters of a template's reason that are passed on. */
const LONGEST_REASON = 200;

/** Names of Jinja's constants, in both spellings. */
const CONSTANTS = { true: true, false: false, none: null, True: true, False: false, None: null };

/** A message of a conversation, from outside. */
export const messageSchema = z.looseObject({
  role: z.string().min(1).describe("who says it: system, user or assistant"),
  content: z.string().describe("what is said"),
});
/** A message of a conversation. Whatever else it holds is the template's to use. */
export interface Message {
  /** Who says it: `system`, `user` or `assistant`, in most templates. */
  readonly role: string;
  readonly content: string;
  /** What else the template writes, e.g. `tool_calls` or `name`. */
  readonly [field: string]: unknown;
}

const messagesSchema = z.array(messageSchema).min(1);

/** How a conversation is written. */
export interface RenderOptions {
  /** Ends with the beginning of the assistant's answer. Default: true. */
  readonly addGenerationPrompt?: boolean;
  /** More variables for the template, e.g. `{ enable_thinking: false }`. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** What `strftime_now` takes for now. Default: the time of the call. */
  readonly now?: Date;
}

/** A model's chat template. */
export class ChatTemplate {
  readonly #source: string;
  readonly #tokens: Readonly<Record<string, string>>;
  #program: Program | undefined;

  /**
   * @param source The template, in Jinja. It is read at the first use, so that a model whose template
   *   is broken can still continue text.
   * @param tokens Special tokens that it can name, e.g. `{ bos_token: "<s>" }`.
   */
  constructor(source: string, tokens: Readonly<Record<string, string>> = {}) {
    this.#source = source;
    this.#tokens = tokens;
  }

  /**
   * Writes a conversation as text. Special tokens are in it as text: encode it without adding any.
   *
   * @param messages At least one.
   * @throws {ChatTemplateError} When the template cannot be read, fails, or refuses the messages.
   */
  render(messages: readonly Message[], options: RenderOptions = {}): string {
    const checked = messagesSchema.safeParse(messages);
    if (!checked.success) {
      const issue = checked.error.issues[0];
      throw new ChatTemplateError(
        `messages ${issue.path.join(".")}: ${issue.message}`.replace("  ", " "),
      );
    }
    const now = options.now ?? new Date();
    const variables = {
      tools: null,
      documents: null,
      ...this.#tokens,
      ...options.variables,
      messages: checked.data,
      add_generation_prompt: options.addGenerationPrompt ?? true,
      raise_exception: (reason: unknown) => {
        throw new ChatTemplateError(`the model's chat template refuses this: ${brief(reason)}`);
      },
      strftime_now: (format: string) => formatTime(now, format),
      range: limitedRange,
      ...PROGRAM_FUNCTIONS,
      ...CONSTANTS,
    };
    try {
      this.#program ??= programOf(this.#source);
      // Not the package's own `Template`, whose functions cannot be replaced.
      const environment = new Environment();
      for (const [name, value] of Object.entries(variables)) environment.set(name, value);
      return String(new TemplateInterpreter(environment).run(this.#program).value);
    } catch (cause) {
      if (cause instanceof ChatTemplateError) throw cause;
      const reason = brief(cause instanceof Error ? cause.message : cause);
      throw new ChatTemplateError(`the model's chat template fails: ${reason}`, { cause });
    }
  }
}

const specialTokenSchema = z.union([
  z.string(),
  z.looseObject({ content: z.string() }).transform(({ content }) => content),
]);
const configSchema = z.looseObject({
  chat_template: z.union([
    z.string(),
    z.array(z.looseObject({ name: z.string(), template: z.string() })),
  ]).nullish(),
});

/**
 * The chat template among a model's files: `chat_template.jinja`, or else `chat_template` of
 * `tokenizer_config.json`; where that has several, the one named `default`.
 *
 * @returns Undefined when there is none.
 * @throws {ChatTemplateError} When there is something that is no template.
 */
export function chatTemplateFrom(
  files: Pick<TextFiles, "chatTemplate" | "tokenizerConfig">,
): ChatTemplate | undefined {
  const config = configSchema.safeParse(files.tokenizerConfig ?? {});
  const source = files.chatTemplate ?? (config.success ? config.data.chat_template : undefined);
  if (source === undefined || source === null) {
    if (config.success) return undefined;
    throw new ChatTemplateError(
      "tokenizer_config.json: chat_template must be a text, or a list of {name, template}",
    );
  }
  const tokens = namedTokens(files.tokenizerConfig);
  if (typeof source === "string") return new ChatTemplate(source, tokens);
  const chosen = source.find(({ name }) => name === "default");
  if (chosen) return new ChatTemplate(chosen.template, tokens);
  throw new ChatTemplateError(
    `tokenizer_config.json: no chat template is named "default"; there are: ${
      source.map(({ name }) => quote(name)).join(", ") || "none"
    }`,
  );
}

/**
 * The template, where there must be one.
 *
 * @throws {ChatTemplateError} When there is none, saying what to do.
 */
export function requireTemplate(template: ChatTemplate | undefined): ChatTemplate {
  if (template) return template;
  throw new ChatTemplateError(
    "the model has no chat template, so it cannot be given messages: give the prompt as text, or put " +
      "the chat_template.jinja of the model that it was made from into its folder",
  );
}

/** `bos_token`, `eos_token` and whatever else of this kind the configuration names. */
function namedTokens(config: unknown): Record<string, string> {
  const entries = Object.entries(config ?? {}).flatMap(([name, value]) => {
    const token = name.endsWith("_token") ? specialTokenSchema.safeParse(value) : undefined;
    return token?.success ? [[name, token.data]] : [];
  });
  return Object.fromEntries(entries);
}

/** Python's `range`, no longer than Jinja's sandbox lets it be. */
function limitedRange(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const length = Math.max(0, Math.ceil((to - from) / step));
  if (!(length <= LONGEST_RANGE)) {
    throw new Error(`range() of ${length} numbers; at most ${LONGEST_RANGE} are allowed`);
  }
  return Array.from({ length }, (_, i) => from + i * step);
}

/** One line of a reason, which may come from a template: of any length, and with any characters. */
function brief(reason: unknown): string {
  const line = String(reason).replace(/[\s\p{Cc}]+/gu, " ").trim();
  return line.length > LONGEST_REASON ? `${line.slice(0, LONGEST_REASON)}…` : line;
}
