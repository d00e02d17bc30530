// @ts-check
/**
 * Tells a screen reader an answer while it comes: by sentences, not by tokens.
 * @module
 */

/** Milliseconds between two announcements, so that short sentences come together. */
const PAUSE = 1000;
const SENTENCE_END = /[.!?…:;。！？]["')\]]*(?=\s)|\n/g;

/** Announces an answer in a live region. */
export class Announcer {
  #region;
  #waiting = "";
  #last = 0;

  /** @param {HTMLElement} region With role `log`: what is added to it is read. */
  constructor(region) {
    this.#region = region;
  }

  /** Begins an answer. What was announced before goes: it has been read, and the page has it. */
  begin() {
    this.#region.replaceChildren();
    this.#waiting = "";
    this.#last = 0;
  }

  /** @param {string} text The next piece. */
  add(text) {
    this.#waiting += text;
    const now = performance.now();
    if (now - this.#last < PAUSE) return;
    let end = 0;
    for (const match of this.#waiting.matchAll(SENTENCE_END)) end = match.index + match[0].length;
    if (end === 0) return;
    this.#last = now;
    this.#say(this.#waiting.slice(0, end));
    this.#waiting = this.#waiting.slice(end);
  }

  /** @param {string} [closing] Said after the rest. */
  end(closing = "") {
    this.#say(`${this.#waiting} ${closing}`);
    this.#waiting = "";
  }

  /** @param {string} text */
  #say(text) {
    const words = text.trim();
    if (words === "") return;
    const line = document.createElement("p");
    line.textContent = words;
    this.#region.append(line);
  }
}
