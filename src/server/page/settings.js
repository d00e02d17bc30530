// @ts-check
/**
 * The settings: read from their form, checked, and kept in this browser.
 * @module
 */
import { byId, make } from "./dom.js";

const STORED = "espalier.settings";
/** Fields whose names are those of the protocol. */
const NUMBERS = [
  "temperature",
  "top_p",
  "top_k",
  "max_tokens",
  "repetition_penalty",
  "seed",
  "frequency_penalty",
  "presence_penalty",
];
/** As many as the server takes. */
const STOPS = 16;

/** The form of settings. */
export class Settings {
  #form = byId("settings", HTMLFormElement);
  #system = byId("system", HTMLTextAreaElement);
  #stop = byId("stop-strings", HTMLTextAreaElement);
  #json = byId("json", HTMLInputElement);
  #numbers = NUMBERS.map((id) => byId(id, HTMLInputElement));

  constructor() {
    this.#restore();
    for (const input of [...this.#numbers, this.#stop]) {
      input.addEventListener("input", () => this.#check(input));
      this.#check(input);
    }
    this.#form.addEventListener("input", () => this.#store());
    // Enter in a field does not leave the page.
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    byId("reset-settings", HTMLButtonElement).addEventListener("click", () => {
      this.#form.reset();
      for (const input of [...this.#numbers, this.#stop]) this.#check(input);
      this.#store();
    });
  }

  /** @returns {string} Empty for none. */
  get system() {
    return this.#system.value.trim();
  }

  /** What goes into a request: only what was set, and only what is in range. */
  get sampling() {
    /** @type {Record<string, unknown>} */
    const body = {};
    for (const input of this.#numbers) {
      if (input.value !== "" && input.validity.valid) body[input.id] = input.valueAsNumber;
    }
    const stop = this.#stops();
    if (stop.length > 0) body.stop = stop.slice(0, STOPS);
    if (this.#json.checked) body.response_format = { type: "json_object" };
    return body;
  }

  /** The first field whose value cannot be used. @returns {HTMLElement | undefined} */
  get wrong() {
    return [...this.#numbers, this.#stop].find((input) => !input.validity.valid);
  }

  #stops() {
    return this.#stop.value.split("\n").filter((line) => line !== "")
      .map((line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t"));
  }

  /**
   * Says below a field what is wrong with it.
   *
   * @param {HTMLInputElement | HTMLTextAreaElement} input
   */
  #check(input) {
    if (input === this.#stop) {
      const count = this.#stops().length;
      input.setCustomValidity(count > STOPS ? `${count} are too many: ${STOPS} at most` : "");
    }
    const id = `${input.id}-wrong`;
    document.getElementById(id)?.remove();
    const described = (input.getAttribute("aria-describedby") ?? "").split(" ")
      .filter((name) => name && name !== id);
    if (!input.validity.valid) {
      const message = make("p", { id, class: "wrong" }, wordsFor(input));
      input.closest(".field")?.append(message);
      described.push(id);
    }
    input.setAttribute("aria-invalid", String(!input.validity.valid));
    if (described.length > 0) input.setAttribute("aria-describedby", described.join(" "));
    else input.removeAttribute("aria-describedby");
  }

  #fields() {
    return [...this.#numbers, this.#system, this.#stop];
  }

  #store() {
    const values = Object.fromEntries(this.#fields().map(({ id, value }) => [id, value]));
    try {
      localStorage.setItem(STORED, JSON.stringify({ ...values, json: this.#json.checked }));
    } catch {
      // They then last as long as the page.
    }
  }

  #restore() {
    try {
      const stored = JSON.parse(localStorage.getItem(STORED) ?? "{}");
      for (const field of this.#fields()) {
        if (typeof stored[field.id] === "string") field.value = stored[field.id];
      }
      this.#json.checked = stored.json === true;
    } catch {
      // Nothing that can be read is stored.
    }
  }
}

/**
 * @param {HTMLInputElement | HTMLTextAreaElement} input
 * @returns {string}
 */
function wordsFor(input) {
  const { validity } = input;
  if (validity.customError) return input.validationMessage;
  const { min, max, step } = /** @type {HTMLInputElement} */ (input);
  if (validity.badInput) return "Not a number";
  if (validity.stepMismatch && step === "1") return "A whole number";
  return max === "" ? `At least ${min}` : `From ${min.replace("-", "−")} to ${max}`;
}
