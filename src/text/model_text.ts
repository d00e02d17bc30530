/**
 * What stands between a person's text and a model's tokens.
 * @module
 */
import { type ChatTemplate, chatTemplateFrom } from "./chat_template.ts";
import { type TextFiles, type Tokenizer, tokenizerFrom } from "./tokenizer.ts";

/** A model's tokenizer and chat template. */
export interface ModelText {
  readonly tokenizer: Tokenizer;
  /** Undefined for a model that has none: it continues text, but cannot chat. */
  readonly template?: ChatTemplate;
}

/**
 * Makes both of parsed files; it needs no file system.
 *
 * @throws {TokenizerError} Naming the file that cannot be used.
 * @throws {ChatTemplateError} When there is something that is no chat template.
 */
export function modelTextFrom(files: TextFiles): ModelText {
  return { tokenizer: tokenizerFrom(files), template: chatTemplateFrom(files) };
}
