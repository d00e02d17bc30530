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

/** A prompt that a model can run. */
export interface PromptTokens {
  readonly tokens: Int32Array;
  /** Whether what is generated continues the prompt's own text, or is a text of its own. */
  readonly continues: boolean;
}

/**
 * Makes tokens of a prompt. Text gets the special tokens that the model's tokenizer adds; a
 * conversation is written by the chat template, which has them in it.
 *
 * @param info The model's; `limit` is the most tokens that are taken, where that is less than it could.
 * @param variables More variables for the chat template.
 * @throws {ChatTemplateError} When messages are given and the template is missing or refuses them.
 * @throws {UsageError} When there is not a single token, or what is given is no prompt.
 * @throws {TokenRangeError} When an id is outside the model's vocabulary.
 * @throws {ContextOverflowError} When the context has no room for the prompt and one more token, or the
 *   prompt is longer than the limit.
 */
export function promptTokens(
  text: ModelText,
  prompt: Prompt,
  info: Pick<ModelInfo, "vocabulary" | "context"> & { readonly limit?: number },
  variables?: Readonly<Record<string, unknown>>,
): PromptTokens {
  const { tokens, continues } = encode(text, prompt, variables);
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
  if (info.limit !== undefined && tokens.length > info.limit) {
    throw new ContextOverflowError(
      `the prompt has ${tokens.length} tokens: at most ${info.limit} are taken`,
    );
  }
  return { tokens: Int32Array.from(tokens), continues };
}

function encode(
  { tokenizer, template }: ModelText,
  prompt: Prompt,
  variables: Readonly<Record<string, unknown>> | undefined,
): { tokens: ArrayLike<number>; continues: boolean } {
  if (typeof prompt === "string") {
    const tokens = tokenizer.encode(prompt, { addSpecialTokens: true });
    if (tokens.length > 0 || tokenizer.beginId === undefined) return { tokens, continues: true };
    // To write from nothing, a model needs the token that texts begin with.
    return { tokens: [tokenizer.beginId], continues: false };
  }
  // Who writes JavaScript may hand over anything.
  if (typeof (prompt as { length?: unknown } | undefined | null)?.length !== "number") {
    throw new UsageError("a prompt is text, a list of messages, or a list of token ids");
  }
  if (isConversation(prompt)) {
    const written = requireTemplate(template).render(prompt, { variables });
    return { tokens: tokenizer.encode(written), continues: false };
  }
  return { tokens: prompt, continues: true };
}

function isConversation(
  prompt: readonly Message[] | ArrayLike<number>,
): prompt is readonly Message[] {
  return Array.isArray(prompt) && typeof prompt[0] === "object";
}
