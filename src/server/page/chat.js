// @ts-check
/**
 * The conversation: what was said, the answer that is coming, and what can be done with it.
 * @module
 */
import { ask, explain, measures } from "./answer.js";
import { button, byId, composes, copyButton, make } from "./dom.js";
import { TextView } from "./text.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./shell.js").Context} Context */
/**
 * @typedef {{ role: "user" | "assistant", content: string, element: HTMLElement, failed?: boolean }} Entry
 * `failed`: an answer of which nothing came.
 */

/** How near to its end, in pixels, the conversation must be to follow new text. */
const NEAR = 48;

/** The view of a model that has a chat template. */
export class Chat {
  #context;
  #view = byId("chat", HTMLElement);
  #scroll = byId("scroll", HTMLElement);
  #greeting = byId("greeting", HTMLElement);
  #list = byId("messages", HTMLOListElement);
  #form = byId("composer", HTMLFormElement);
  #prompt = byId("prompt", HTMLTextAreaElement);
  #send = byId("send", HTMLButtonElement);
  #stop = byId("stop", HTMLButtonElement);
  #latest = byId("latest", HTMLButtonElement);
  /** @type {Entry[]} */
  #entries = [];
  /** Of the answer that is coming. @type {AbortController | undefined} */
  #running;
  #follows = true;
  /** Where the conversation was scrolled to when that was looked at last, and how much of it could be seen. */
  #seen = { top: 0, height: 0 };

  /** @param {Context} context */
  constructor(context) {
    this.#context = context;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      // Enter that ends an input method's word sends nothing.
      if (event.key !== "Enter" || event.shiftKey || composes(event)) return;
      event.preventDefault();
      this.#submit();
    });
    this.#prompt.addEventListener("input", () => this.#fit());
    this.#stop.addEventListener("click", () => this.stop());
    this.#latest.addEventListener("click", () => this.#toLatest());
    this.#scroll.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    // A keyboard that comes up on a phone takes room from it, as does a message of several lines.
    new ResizeObserver(() => this.#follows ? this.#keepUp() : this.#noteScroll()).observe(
      this.#scroll,
    );
  }

  /** @param {boolean} visible */
  set visible(visible) {
    this.#view.hidden = !visible;
  }

  focus() {
    this.#prompt.focus();
  }

  stop() {
    this.#running?.abort();
  }

  /** Begins anew. */
  clear() {
    this.stop();
    // An engine in this page may be busy with a prompt for a while yet: who asks anew need not wait for that.
    this.#setRunning(undefined);
    this.#entries = [];
    this.#list.replaceChildren();
    this.#greeting.hidden = false;
    this.#note();
    this.#noteScroll();
    this.focus();
  }

  /** @param {string} text Sent as if it had been typed. */
  say(text) {
    this.#prompt.value = text;
    this.#submit();
  }

  #submit() {
    const content = this.#prompt.value.trim();
    if (content === "" || this.#running || !this.#context.check()) return;
    this.#prompt.value = "";
    this.#fit();
    this.#greeting.hidden = true;
    const element = make(
      "li",
      { class: "message user" },
      make("h2", { class: "unseen" }, "You"),
      make("p", { class: "said" }, content),
    );
    this.#list.append(element);
    this.#entries.push({ role: "user", content, element });
    this.#toLatest();
    void this.#answer();
  }

  /** Answers the last message. */
  async #answer() {
    const { client, settings, announcer } = this.#context;
    const running = new AbortController();
    this.#setRunning(running);
    for (const old of this.#list.querySelectorAll("[data-again]")) old.remove();
    const body = make("div", { class: "text" });
    const element = make(
      "li",
      { class: "message model waiting" },
      make("h2", { class: "unseen" }, "Model"),
      body,
    );
    this.#list.append(element);
    this.#toLatest();
    announcer.begin();

    const view = new TextView(body);
    // Text that came between two frames goes into the page at once.
    let waiting = "";
    let frame = 0;
    const flush = () => {
      frame = 0;
      view.add(waiting);
      waiting = "";
      this.#keepUp();
    };
    const { system } = settings;
    // A message that could not be answered, for its length say, would keep all that follow from being answered.
    const kept = this.#entries.filter((entry, i) => !entry.failed && !this.#entries[i + 1]?.failed);
    const messages = kept.map(({ role, content }) => ({ role, content }));
    const answer = await ask(
      client,
      "v1/chat/completions",
      {
        model: this.#context.model(),
        messages: system ? [{ role: "system", content: system }, ...messages] : messages,
        ...settings.sampling,
      },
      running.signal,
      (text) => {
        // An answer that was cleared away says nothing into the next one.
        if (this.#running !== running) return;
        element.classList.remove("waiting");
        waiting += text;
        frame ||= requestAnimationFrame(flush);
        announcer.add(text);
      },
    );
    cancelAnimationFrame(frame);
    flush();
    view.end();
    element.classList.remove("waiting");
    // It may have been cleared away meanwhile.
    if (!element.isConnected) {
      if (this.#running === running) this.#setRunning(undefined);
      return;
    }
    const failed = Boolean(answer.error) && answer.text === "";
    this.#entries.push({ role: "assistant", content: answer.text, element, failed });
    this.#close(element, answer);
    this.#setRunning(undefined);
    this.#keepUp();
    const closing = answer.error ? "" : measures(answer)[0] ?? "The answer is empty.";
    announcer.end(answer.error ? explain(answer.error) : `End of the answer. ${closing}`);
  }

  /**
   * Puts below an answer what it took and what can be done with it.
   *
   * @param {HTMLElement} element
   * @param {Answer} answer
   */
  #close(element, answer) {
    const again = () => this.#again();
    if (answer.error) {
      element.append(
        make(
          "div",
          { class: "failure" },
          make("p", {}, explain(answer.error)),
          button("Try again", again, { class: "button", "data-again": true }),
        ),
      );
    }
    const tools = make("div", { class: "tools" });
    if (answer.text) tools.append(copyButton(() => answer.text, "the answer"));
    if (!answer.error) {
      tools.append(button("Regenerate", again, { class: "quiet", "data-again": true }));
    }
    const parts = measures(answer);
    if (!answer.text && !answer.error) parts.unshift("empty answer");
    if (parts.length > 0) {
      tools.append(
        make("p", { class: "measures" }, ...parts.map((part) => make("span", {}, part))),
      );
    }
    if (tools.childElementCount > 0) element.append(tools);
  }

  /** Answers the last message anew, in place of the answer that there is. */
  #again() {
    if (this.#running || !this.#context.check()) return;
    const last = this.#entries.at(-1);
    if (last?.role === "assistant") {
      last.element.remove();
      this.#entries.pop();
    }
    this.focus();
    void this.#answer();
  }

  /** @param {AbortController | undefined} running */
  #setRunning(running) {
    const focused = document.activeElement;
    this.#running = running;
    this.#list.setAttribute("aria-busy", String(running !== undefined));
    this.#send.hidden = running !== undefined;
    this.#stop.hidden = running === undefined;
    // A button that goes takes the focus along.
    if (focused === this.#send || focused === this.#stop) this.focus();
  }

  /** Makes the field as high as its text, where CSS cannot. */
  #fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#prompt.style.height = "auto";
    this.#prompt.style.height = `${this.#prompt.scrollHeight}px`;
  }

  #keepUp() {
    if (!this.#follows) return;
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#note();
  }

  #toLatest() {
    this.#follows = true;
    this.#keepUp();
    this.#latest.hidden = true;
  }

  #noteScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroll;
    // Word of a scroll can come after the room for the conversation has changed: who was at its end is, still.
    if (this.#follows && clientHeight !== this.#seen.height) return this.#keepUp();
    // However slowly: each new piece of an answer would take back what is less than that.
    const goesUp = scrollTop < this.#seen.top && clientHeight === this.#seen.height;
    this.#follows = !goesUp && scrollHeight - scrollTop - clientHeight < NEAR;
    this.#latest.hidden = this.#follows;
    this.#note();
  }

  #note() {
    const { scrollTop, clientHeight } = this.#scroll;
    this.#seen = { top: scrollTop, height: clientHeight };
  }
}
