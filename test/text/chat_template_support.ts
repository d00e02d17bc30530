/**
 * What tests of chat templates share.
 * @module
 */
import { expect } from "bun:test";
import { ChatTemplateError } from "../../src/errors.ts";
import { ChatTemplate, type Message } from "../../src/text/chat_template.ts";
import { thrownBy } from "../checkpoint/support.ts";

export const HELLO: Message[] = [{ role: "user", content: "Hello" }];

/** Checks that rendering fails, and gives the one line that says why. */
export function refusal(source: string, messages: Message[] = HELLO): string {
  const error = thrownBy(() => new ChatTemplate(source).render(messages));
  expect(error).toBeInstanceOf(ChatTemplateError);
  expect(error.message).not.toContain("\n");
  return error.message;
}
