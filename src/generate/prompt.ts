/**
 * A prompt in any of its forms, as tokens.
 * @module
 */
import { ContextOverflowError, TokenRangeError, UsageError } from "../errors.ts";
import type { ModelInfo } from "../engine/model.ts";
import { type Message, requireTemplate } from "../text/chat_template.ts";
import type { ModelText } from "../text/model_text.ts";

/** Text to continue, a conversation to answer, or token ids as they are. */
export type Prompt = string | readonly Message[] | ArrayLike<number>;

/** A prompt that a model can run; several texts may begin with it. */
export class PromptTokens {
  /** @param continues Whether what is generated continues the prompt's own text, or is a text of its own. */
  constructor(readonly tokens: Int32Array, readonly continues: boolean) {}
}

/** How a prompt is made into tokens. */
export interface PromptOptions {
  /** Most tokens of it, where less is wanted than the context holds. */
  readonly promptLimit?: number;
  /**
   * Most UTF-16 units of its text, as the chat template writes it, for those who cannot wait until tokens have been
   * made of a text that is too long.
   */
  readonly longestText?: number;
  /** More variables for the chat template, e.g. `{ enable_thinking: false }`. */
  readonly templateVariables?: Readonly<Record<string, unknown>>;
}

/**
 * Makes tokens of a prompt. Text gets the special tokens that the model's tokenizer adds; a
 * conversation is written by the chat template, which has them in it.
 *
 * @param info The model's.
 * @throws {ChatTemplateError} When messages are given and the template is missing or refuses them.
 * @throws {UsageError} When there is not a single token, or what is given is no prompt.
 * @throws {TokenRangeError} When an id is outside the model's vocabulary.
 * @throws {ContextOverflowError} When the context has no room for the prompt and one more token, or the
 *   prompt is longer than a limit.
 */
export function promptTokens(
  text: ModelText,
  prompt: Prompt,
  info: Pick<ModelInfo, "vocabulary" | "context">,
  options: PromptOptions = {},
): PromptTokens {
  const { promptLimit, longestText } = options;
  for (const [name, most] of Object.entries({ promptLimit, longestText })) {
    if (most === undefined || (typeof most === "number" && most >= 0)) continue;
    throw new UsageError(`${name}: a number of 0 or more was expected`);
  }
  const { tokens, continues } = encode(text, prompt, options);
  if (tokens.length === 0) {
    throw new UsageError(
      "the prompt is empty, and the model's tokenizer puts nothing before a text",
    );
  }
  const outside = Array.from(tokens).findIndex((id) =>
    !(Number.isInteger(id) && id >= 0 && id < info.vocabulary)
  );
  if (outside >= 0) {
    throw new TokenRangeError(
      `token ${outside} of the prompt: id ${
        tokens[outside]
      } is outside the model's vocabulary of ` +
        `${info.vocabulary}`,
    );
  }
  if (tokens.length >= info.context) {
    throw new ContextOverflowError(
      `the prompt has ${tokens.length} tokens, the context holds ${info.context}: give a prompt of at ` +
        `most ${info.context - 1}`,
    );
  }
  if (promptLimit !== undefined && tokens.length > promptLimit) {
    throw new ContextOverflowError(
      `the prompt has ${tokens.length} tokens: at most ${promptLimit} are taken`,
    );
  }
  return new PromptTokens(Int32Array.from(tokens), continues);
}

function encode(
  { tokenizer, template }: ModelText,
  prompt: Prompt,
  { longestText = Infinity, templateVariables: variables }: PromptOptions,
): { tokens: ArrayLike<number>; continues: boolean } {
  if (typeof prompt === "string") {
    assertShort(prompt, longestText);
    const tokens = tokenizer.encode(prompt, { addSpecialTokens: true });
    // What follows nothing is a text of its own, also where the tokenizer begins it.
    if (tokens.length > 0) return { tokens, continues: prompt !== "" };
    if (tokenizer.beginId === undefined) return { tokens, continues: true };
    // To write from nothing, a model needs the token that texts begin with.
    return { tokens: [tokenizer.beginId], continues: false };
  }
  // Who writes JavaScript may hand over anything.
  if (typeof (prompt as { length?: unknown } | undefined | null)?.length !== "number") {
    throw new UsageError("a prompt is text, a list of messages, or a list of token ids");
  }
  if (typeof prompt[0] === "string") {
    throw new UsageError(
      "a prompt is one text, a list of messages, or a list of token ids, not a list of texts: each is a prompt",
    );
  }
  if (prompt.length === 0) throw new UsageError("the prompt is an empty list");
  if (isConversation(prompt)) {
    const written = requireTemplate(template).render(prompt, { variables });
    assertShort(written, longestText);
    return { tokens: tokenizer.encode(written), continues: false };
  }
  return { tokens: prompt, continues: true };
}

/** @throws {ContextOverflowError} When a text is too long to make tokens of it. */
function assertShort({ length }: string, longest: number): void {
  if (length <= longest) return;
  throw new ContextOverflowError(
    `the prompt has ${length} characters: at most ${longest} are taken`,
  );
}

function isConversation(
  prompt: readonly Message[] | ArrayLike<number>,
): prompt is readonly Message[] {
  return Array.isArray(prompt) && typeof prompt[0] === "object";
}
