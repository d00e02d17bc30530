// @ts-check
/**
 * Shows a model's text while it comes: paragraphs, lists, headings, code.
 *
 * Only this little of Markdown, and only as elements built here: all of the model's own words become
 * text nodes, so nothing that it writes is ever markup. New text goes to the end of the last text node;
 * what stands is not built again, except a line once, for its bold words and code, when it is whole.
 * How the text was cut into pieces does not show in the result.
 *
 * @module
 */
import { copyButton, make } from "./dom.js";

/** What a line may still turn into, so that it is not shown before it is decided. */
const UNDECIDED = /^\s*(`{0,2}|(#{1,6}|[-*+]|\d{1,3}[.)]?)\s*)$/;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,3})[.)])\s+/;
const HEADING = /^#{1,6}\s+/;
const FENCE = /^\s*```/;
const INLINE = /`([^`]+)`|\*\*(?=\S)(.+?)(?<=\S)\*\*/g;

/** Fills an element with text that comes in pieces. */
export class TextView {
  #root;
  /** The line so far; with text that is not shown while it is undecided. */
  #line = "";
  /** @type {"undecided" | "fence" | "code" | "text"} */
  #kind = "undecided";
  /** Where lines of text go: a paragraph, a heading or an item. @type {HTMLElement | undefined} */
  #block;
  /** The list that the next item belongs to. @type {HTMLElement | undefined} */
  #list;
  /** Where code goes while a fence is open. @type {Text | undefined} */
  #code;
  /** What is shown of the line. @type {Text | undefined} */
  #node;

  /** @param {HTMLElement} root Empty. */
  constructor(root) {
    this.#root = root;
  }

  /** @param {string} text */
  add(text) {
    let from = 0;
    for (;;) {
      const to = text.indexOf("\n", from);
      if (to < 0) break;
      this.#more(text.slice(from, to));
      this.#endLine();
      from = to + 1;
    }
    this.#more(text.slice(from));
  }

  /** The text is whole: shows what was held back. */
  end() {
    if (this.#line !== "") this.#endLine();
  }

  /** @param {string} text Of the same line. */
  #more(text) {
    if (text === "") return;
    this.#line += text;
    if (this.#kind === "undecided") {
      if (UNDECIDED.test(this.#line)) return;
      this.#decide();
    } else if (this.#kind === "code" || this.#kind === "text") {
      this.#node?.appendData(text);
    }
  }

  /** Opens what the line belongs to, and shows what there is of it. */
  #decide() {
    const line = this.#line;
    if (this.#code) {
      if (FENCE.test(line)) return void (this.#kind = "fence");
      this.#kind = "code";
      this.#node = this.#code;
      this.#node.appendData(line);
      return;
    }
    if (FENCE.test(line)) return void (this.#kind = "fence");
    this.#kind = "text";
    const item = ITEM.exec(line);
    const heading = HEADING.exec(line);
    if (item) this.#openItem(item);
    else if (heading) this.#open(make("p", { class: "heading" }));
    else if (this.#block && this.#block.className !== "heading") this.#block.append("\n");
    else this.#open(make("p"));
    const marker = (item ?? heading)?.[0] ?? "";
    // The marker is out; the rest of the line comes after it.
    this.#node = document.createTextNode(line.slice(marker.length));
    /** @type {HTMLElement} */ (this.#block).append(this.#node);
  }

  /** @param {HTMLElement} block */
  #open(block) {
    this.#list = undefined;
    this.#block = block;
    this.#root.append(block);
  }

  /** @param {RegExpExecArray} match */
  #openItem([, indent, number]) {
    const tag = number === undefined ? "ul" : "ol";
    if (this.#list?.localName !== tag) {
      const list = make(tag);
      // An inner list of the other kind stands below the item before it.
      const outer = indent.length > 1 ? this.#list?.lastElementChild : undefined;
      (outer ?? this.#root).append(list);
      this.#list = list;
    }
    const item = make("li", { value: number });
    this.#list.append(item);
    this.#block = item;
  }

  #endLine() {
    if (this.#kind === "undecided" && (this.#line.trim() !== "" || this.#code)) {
      this.#decide();
    }
    if (this.#kind === "fence") this.#toggleCode();
    else if (this.#kind === "code") this.#node?.appendData("\n");
    else if (this.#kind === "text") this.#format();
    else this.#block = undefined; // An empty line ends a paragraph, but not a list.
    this.#kind = "undecided";
    this.#line = "";
    this.#node = undefined;
  }

  #toggleCode() {
    if (this.#code) {
      this.#code = undefined;
      return;
    }
    const language = this.#line.trim().slice(3).trim();
    const code = document.createTextNode("");
    const pre = make("pre", { tabindex: 0 }, make("code", {}, code));
    const top = make(
      "div",
      { class: "code-top" },
      make("span", {}, language || "Code"),
      copyButton(() => code.data, "the code"),
    );
    this.#open(make("div", { class: "code" }, top, pre));
    this.#block = undefined;
    this.#code = code;
  }

  /** Makes bold words and code of a line that is whole. */
  #format() {
    const node = this.#node;
    if (!node) return;
    const { data } = node;
    const parts = [];
    let from = 0;
    for (const match of data.matchAll(INLINE)) {
      parts.push(data.slice(from, match.index));
      parts.push(
        match[1] !== undefined ? make("code", {}, match[1]) : make("strong", {}, match[2]),
      );
      from = match.index + match[0].length;
    }
    if (from > 0) node.replaceWith(...parts.filter((part) => part !== ""), data.slice(from));
  }
}
