/**
 * A conversation as it grows: messages for a model with a chat template, else one text.
 * @module
 */
import type { Model } from "../generate/model.ts";
import type { Prompt } from "../generate/prompt.ts";
import type { Message } from "../text/chat_template.ts";

/** What was said so far. */
export interface Conversation {
  /** What the model is to answer when a person says this. */
  promptFor(said: string): Prompt;
  /** Keeps what was said and answered. */
  keep(said: string, answer: string): void;
  /** Forgets all of it. */
  reset(): void;
}

/**
 * A new conversation with a model.
 *
 * @param system What the model is told before it, where it has a chat template.
 */
export function conversationWith(model: Model, system: string | undefined): Conversation {
  return model.canChat ? new Messages(system) : new Continuation(system);
}

class Messages implements Conversation {
  readonly #first: readonly Message[];
  #messages: Message[];

  constructor(system: string | undefined) {
    this.#first = system === undefined ? [] : [{ role: "system", content: system }];
    this.#messages = [...this.#first];
  }

  promptFor(said: string): Prompt {
    return [...this.#messages, { role: "user", content: said }];
  }

  keep(said: string, answer: string): void {
    this.#messages.push({ role: "user", content: said }, { role: "assistant", content: answer });
  }

  reset(): void {
    this.#messages = [...this.#first];
  }
}

/** For a model that only continues text: every line is put behind what is there. */
class Continuation implements Conversation {
  readonly #first: string;
  #text: string;

  constructor(system: string | undefined) {
    this.#first = system === undefined ? "" : `${system}\n`;
    this.#text = this.#first;
  }

  promptFor(said: string): Prompt {
    return this.#text + said;
  }

  keep(said: string, answer: string): void {
    this.#text += `${said}${answer}\n`;
  }

  reset(): void {
    this.#text = this.#first;
  }
}
