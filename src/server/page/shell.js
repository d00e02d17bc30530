// @ts-check
/**
 * The playground around its views: shows how the beginning goes, then the model with the view that fits
 * it. Who answers is not its matter: a server (`playground.js`), or an engine in the page itself
 * (`src/bundle/page/page.js`).
 * @module
 */
import { Announcer } from "./announcer.js";
import { sentence, showCard } from "./card.js";
import { Chat } from "./chat.js";
import { button, byId, composes, make } from "./dom.js";
import { Editor } from "./editor.js";
import { setUpPanel } from "./panel.js";
import { Settings } from "./settings.js";

/** @typedef {import("./api.js").Model} Model */

/**
 * Who answers.
 *
 * @typedef {object} Asked
 * @property {() => Promise<Model[]>} models
 * @property {(id: string) => Promise<Model>} model All that is known of one.
 * @property {(path: string, body: object, signal: AbortSignal) => AsyncGenerator<any>} stream Chunks as
 *   OpenAI's protocol has them.
 */

/**
 * What is told while the page waits: a title, a sentence, and how much is done, from 0 to 1, with the
 * figures for it.
 *
 * @typedef {(title: string, text?: string, part?: number, figures?: string) => void} Tell
 */

/**
 * @typedef {object} Backend
 * @property {Asked} client
 * @property {(tell: Tell) => Promise<void>} ready Comes back when models can be asked for.
 * @property {(error: Error) => { title: string, text: string }} explain Why there are none.
 */

/**
 * What the views work with.
 *
 * @typedef {object} Context
 * @property {Asked} client
 * @property {Settings} settings
 * @property {Announcer} announcer
 * @property {() => string} model The id of the chosen model.
 * @property {() => boolean} check Whether the settings can be sent; shows them if not.
 * @property {(text: string) => void} say Tells a screen reader a short fact.
 */

const SUGGESTIONS = [
  "Why are fruit trees trained flat against a wall?",
  "Write a haiku about pruning.",
  "Explain sparsity to a gardener, in three sentences.",
];

/**
 * Begins.
 *
 * @param {Backend} backend
 */
export function startPlayground({ client, ready, explain }) {
  const notice = byId("notice", HTMLElement);
  const noticeTitle = byId("notice-title", HTMLElement);
  const noticeText = byId("notice-text", HTMLElement);
  const noticeRetry = byId("notice-retry", HTMLButtonElement);
  const noticeProgress = byId("notice-progress", HTMLProgressElement);
  const noticeFigures = byId("notice-figures", HTMLElement);
  const status = byId("status", HTMLElement);
  const select = byId("model-select", HTMLSelectElement);
  const newButton = byId("new", HTMLButtonElement);

  const panel = setUpPanel();
  const settings = new Settings();

  /** @type {Model[]} */
  let models = [];
  /** @type {Model | undefined} */
  let model;

  /** @type {Context} */
  const context = {
    client,
    settings,
    announcer: new Announcer(byId("announcer", HTMLElement)),
    model: () => model?.id ?? "",
    check() {
      const { wrong } = settings;
      if (!wrong) return true;
      panel.show("settings");
      wrong.focus();
      return false;
    },
    say: (text) => status.textContent = text,
  };
  const chat = new Chat(context);
  const editor = new Editor(context);
  const view = () => model?.espalier?.canChat === false ? editor : chat;

  /** @type {Tell} */
  const tell = (title, text = "", part, figures = "") => {
    // The notice is read aloud when it changes, so that it must not without need.
    if (noticeTitle.textContent !== title) noticeTitle.textContent = title;
    if (noticeText.textContent !== text) noticeText.textContent = text;
    noticeProgress.hidden = part === undefined;
    if (part !== undefined) noticeProgress.value = part;
    noticeFigures.textContent = figures;
  };

  async function start() {
    notice.hidden = false;
    notice.classList.remove("failed");
    noticeRetry.hidden = true;
    try {
      await ready(tell);
      models = await client.models();
      if (models.length === 0) throw new Error("There is no model");
    } catch (error) {
      const { title, text } = explain(/** @type {Error} */ (error));
      notice.classList.add("failed");
      tell(title, text);
      noticeRetry.hidden = false;
      return;
    }
    notice.hidden = true;
    newButton.hidden = false;
    showChoice();
    choose(models[0]);
    // A sheet on a phone would come up with its keyboard. Who chooses another model stays where they are.
    if (matchMedia("(hover: hover)").matches) view().focus();
  }

  /** Shows the model's name, or a choice where there are several. */
  function showChoice() {
    select.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
    select.hidden = models.length < 2;
    const name = byId("model-name", HTMLElement);
    name.hidden = models.length >= 2;
    name.textContent = models[0].id;
  }

  /** @param {Model} chosen */
  function choose(chosen) {
    view().stop();
    model = chosen;
    document.title = `${chosen.id} · Espalier`;
    const chats = chosen.espalier?.canChat !== false;
    chat.visible = chats;
    editor.visible = !chats;
    byId("system-field", HTMLElement).hidden = !chats;
    byId("json", HTMLInputElement).closest("label")?.toggleAttribute("hidden", !chats);
    byId("skip", HTMLAnchorElement).href = chats ? "#prompt" : "#text";
    const text = newButton.querySelector(".tool-text");
    if (text) text.textContent = chats ? "New chat" : "New text";
    newButton.title = chats ? "New chat" : "New text";
    show(chosen, false);
    client.model(chosen.id).then(
      (whole) => {
        if (model === chosen) show(whole, true);
      },
      () => {
        if (model === chosen) show(chosen, true);
      },
    );
  }

  /**
   * Shows what is known of a model.
   *
   * @param {Model} of
   * @param {boolean} complete
   */
  function show({ id, espalier }, complete) {
    byId("greeting-title", HTMLElement).textContent = id;
    byId("greeting-text", HTMLElement).textContent = espalier ? sentence(espalier) : "";
    byId("card", HTMLElement).replaceChildren(
      espalier
        ? showCard(espalier, complete)
        : make("p", { class: "hint" }, "Nothing is known of it."),
    );
  }

  byId("suggestions", HTMLUListElement).append(
    ...SUGGESTIONS.map((text) => make("li", {}, button(text, () => chat.say(text)))),
  );
  select.addEventListener("change", () => {
    const chosen = models.find(({ id }) => id === select.value);
    if (chosen) choose(chosen);
  });
  newButton.addEventListener("click", () => {
    view().clear();
    context.say(view() === chat ? "New chat" : "New text");
  });
  noticeRetry.addEventListener("click", () => void start());
  document.addEventListener("keydown", (event) => {
    // Escape that ends an input method's word stops nothing.
    if (event.key === "Escape" && !composes(event)) view().stop();
  });
  void start();
}
