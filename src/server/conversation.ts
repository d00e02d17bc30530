/**
 * Messages of a request as a prompt.
 * @module
 */
import type { Model } from "../generate/model.ts";
import type { Prompt } from "../generate/prompt.ts";
import type { Message } from "../text/chat_template.ts";
import { badRequest } from "./errors.ts";
import type { ChatRequestMessage } from "./schemas/chat.ts";

/**
 * The prompt that messages are.
 *
 * A model without a chat template cannot tell who says what: it continues the text of all messages, one
 * below the other. What it has written itself goes on in the line that it continued, as the command `chat` has
 * it: such an answer begins with white space.
 *
 * @throws {ApiError} For what is no text.
 */
export function promptOf(model: Model, messages: readonly ChatRequestMessage[]): Prompt {
  const said = messages.map(messageOf);
  return model.canChat ? said : said.reduce(
    (text, { role, content }, i) =>
      text + (i === 0 || (role === "assistant" && /^\s/.test(content)) ? "" : "\n") + content,
    "",
  );
}

function messageOf(message: ChatRequestMessage, index: number): Message {
  const at = `messages[${index}]`;
  const { role, content, ...rest } = message;
  if (role === "tool" || role === "function") {
    throw badRequest(`${at}: tools are not supported`, `${at}.role`, "unsupported_parameter");
  }
  if (isThere(rest.tool_calls) || isThere(rest.function_call)) {
    throw badRequest(`${at}: tool calls are not supported`, at, "unsupported_parameter");
  }
  if (content === null || content === undefined) {
    throw badRequest(`${at}: content is needed`, `${at}.content`);
  }
  return {
    ...(rest.name === undefined ? {} : { name: rest.name }),
    role: role === "developer" ? "system" : role,
    content: wellFormed(typeof content === "string" ? content : textOf(content, at)),
  };
}

/** The text of parts, each below the one before. */
function textOf(
  parts: Exclude<ChatRequestMessage["content"], string | null | undefined>,
  at: string,
) {
  return parts.map(({ type, text }, i) => {
    if (type === "text" && text !== undefined) return text;
    throw badRequest(
      type === "text"
        ? `${at}.content[${i}]: text is needed`
        : `${at}.content[${i}]: a part of type ${
          JSON.stringify(type.slice(0, 40))
        } is not supported, ` +
          `only text is`,
      `${at}.content`,
      type === "text" ? undefined : "unsupported_parameter",
    );
  }).join("\n");
}

function isThere(value: unknown): boolean {
  return value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0);
}

/** JSON can hold halves of characters, which no tokenizer knows: U+FFFD stands for them. */
export function wellFormed(text: string): string {
  return text.toWellFormed();
}
