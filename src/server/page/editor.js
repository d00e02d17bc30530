// @ts-check
/**
 * The view of a model without a chat template: a text, which the model writes on.
 * @module
 */
import { ask, explain, measures } from "./answer.js";
import { button, byId, composes, copyButton, make } from "./dom.js";

/** @typedef {import("./shell.js").Context} Context */

/** Tokens where the settings name no limit: left out, the server would take OpenAI's default of 16. */
const NO_LIMIT = 2 ** 31 - 1;

/** A text that the model continues. */
export class Editor {
  #context;
  #view = byId("editor", HTMLElement);
  #text = byId("text", HTMLTextAreaElement);
  #measures = byId("editor-measures", HTMLElement);
  #failure = byId("editor-failure", HTMLElement);
  #continue = byId("continue", HTMLButtonElement);
  #stop = byId("editor-stop", HTMLButtonElement);
  #again = byId("again", HTMLButtonElement);
  #undo = byId("undo", HTMLButtonElement);
  /** @type {AbortController | undefined} */
  #running;
  /** The text before it was continued, and after. @type {{ before: string, after: string } | undefined} */
  #last;

  /** @param {Context} context */
  constructor(context) {
    this.#context = context;
    this.#continue.addEventListener("click", () => this.#run());
    this.#stop.addEventListener("click", () => this.stop());
    this.#undo.addEventListener("click", () => this.#takeBack());
    this.#again.addEventListener("click", () => {
      this.#takeBack();
      void this.#run();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || composes(event)) return;
      event.preventDefault();
      void this.#run();
    });
    this.#text.addEventListener("input", () => this.#setTools());
    byId("editor-tools", HTMLElement).append(
      copyButton(() => this.#text.value, "the text", "button"),
    );
  }

  /** @param {boolean} visible */
  set visible(visible) {
    this.#view.hidden = !visible;
  }

  focus() {
    this.#text.focus();
  }

  stop() {
    this.#running?.abort();
  }

  clear() {
    this.stop();
    this.#leave();
    this.#text.value = "";
    this.#last = undefined;
    this.#measures.replaceChildren();
    this.#failure.hidden = true;
    this.#setTools();
    this.focus();
  }

  /** The text is the user's again. */
  #leave() {
    this.#running = undefined;
    this.#text.readOnly = false;
    this.#text.removeAttribute("aria-busy");
  }

  #takeBack() {
    if (!this.#last || this.#running) return;
    this.#text.value = this.#last.before;
    this.#last = undefined;
    this.#measures.replaceChildren();
    this.#failure.hidden = true;
    this.#setTools();
    this.focus();
  }

  async #run() {
    if (this.#running || !this.#context.check()) return;
    const { client, settings, announcer } = this.#context;
    const running = new AbortController();
    const before = this.#text.value;
    this.#running = running;
    // What was written before is the user's by now: only this attempt can be taken back.
    this.#last = undefined;
    this.#failure.hidden = true;
    this.#measures.replaceChildren();
    this.#text.readOnly = true;
    this.#text.setAttribute("aria-busy", "true");
    this.#setTools();
    this.focus();
    announcer.begin();

    let waiting = "";
    let frame = 0;
    const flush = () => {
      frame = 0;
      if (this.#running !== running) return;
      const { scrollTop, scrollHeight, clientHeight, value } = this.#text;
      const follows = scrollHeight - scrollTop - clientHeight < 48;
      this.#text.setRangeText(waiting, value.length, value.length, "end");
      waiting = "";
      if (follows) this.#text.scrollTop = this.#text.scrollHeight;
    };
    // JSON is for answers; a text may be of any form.
    const { response_format: _, ...sampling } = settings.sampling;
    const answer = await ask(
      client,
      "v1/completions",
      { model: this.#context.model(), prompt: before, max_tokens: NO_LIMIT, ...sampling },
      running.signal,
      (text) => {
        waiting += text;
        frame ||= requestAnimationFrame(flush);
        announcer.add(text);
      },
    );
    cancelAnimationFrame(frame);
    // Cleared away meanwhile, it is no longer wanted.
    if (this.#running !== running) return;
    flush();
    this.#leave();
    if (answer.text) this.#last = { before, after: this.#text.value };
    this.#measures.replaceChildren(...measures(answer).map((part) => make("span", {}, part)));
    if (answer.error) this.#showFailure(answer.error);
    this.#setTools();
    announcer.end(answer.error ? explain(answer.error) : "End of the text.");
  }

  /** @param {Error} error */
  #showFailure(error) {
    this.#failure.replaceChildren(
      make("p", {}, explain(error)),
      button("Try again", () => {
        // What was edited since would be lost.
        if (this.#last?.after === this.#text.value) this.#takeBack();
        void this.#run();
      }, { class: "button" }),
    );
    this.#failure.hidden = false;
  }

  #setTools() {
    const running = this.#running !== undefined;
    const focused = document.activeElement;
    this.#continue.hidden = running;
    this.#stop.hidden = !running;
    if (focused === this.#continue || focused === this.#stop) this.focus();
    // What was edited since would be lost.
    const intact = this.#last?.after === this.#text.value;
    this.#again.disabled = running || !intact;
    this.#undo.disabled = running || !intact;
  }
}
