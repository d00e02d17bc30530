// @ts-check
/**
 * Builds elements. Text enters pages as text nodes only: nothing here takes markup.
 * @module
 */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | undefined | null | false} Child */

/**
 * Makes an element.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | undefined>} [attributes] True means present; false
 *   and undefined mean absent.
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  set(element, attributes);
  add(element, children);
  return element;
}

/**
 * The same for SVG.
 *
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | undefined>} [attributes]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[T]}
 */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  set(element, attributes);
  add(element, children);
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, string | number | boolean | undefined>} attributes
 */
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * @param {Element} element
 * @param {Child[]} children
 */
function add(element, children) {
  for (const child of children) if (child) element.append(child);
}

/**
 * A button that does something.
 *
 * @param {string} text
 * @param {() => void} act
 * @param {Record<string, string | number | boolean | undefined>} [attributes]
 * @returns {HTMLButtonElement}
 */
export function button(text, act, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, text);
  element.addEventListener("click", act);
  return element;
}

/**
 * A button that copies text, and says that it did.
 *
 * @param {() => string} text
 * @param {string} name What is copied, for who does not see where the button stands.
 * @param {string} [style] Its class.
 * @returns {HTMLButtonElement}
 */
export function copyButton(text, name, style = "quiet") {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const label = make("span", {}, "Copy");
  const element = button("", async () => {
    label.textContent = await copy(text()) ? "Copied" : "Not copied";
    clearTimeout(timer);
    timer = setTimeout(() => label.textContent = "Copy", 1600);
  }, { class: style, "data-copy": true });
  element.append(label, make("span", { class: "unseen" }, ` ${name}`));
  return element;
}

/**
 * @param {string} text
 * @returns {Promise<boolean>} Whether it is on the clipboard.
 */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // There is no clipboard object over plain HTTP from another machine; this old way is left there.
    const area = make("textarea", { class: "unseen", readonly: true });
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return done;
  }
}

/**
 * An element of the page that must be there.
 *
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (element instanceof kind) return element;
  throw new TypeError(`the page has no ${kind.name} with the id ${id}`);
}

/**
 * Whether a key belongs to an input method, which makes a word of several: Safari says of the Enter that ends one that
 * nothing is composed, and gives it this number.
 *
 * @param {KeyboardEvent} event
 */
export function composes(event) {
  return event.isComposing || event.keyCode === 229;
}
