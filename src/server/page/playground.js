// @ts-check
/**
 * The playground: waits for the server, chooses the model and its view, and holds them together.
 * @module
 */
import { Announcer } from "./announcer.js";
import { explain } from "./answer.js";
import { ApiError, Client } from "./api.js";
import { sentence, showCard } from "./card.js";
import { Chat } from "./chat.js";
import { button, byId, make } from "./dom.js";
import { Editor } from "./editor.js";
import { setUpPanel } from "./panel.js";
import { Settings } from "./settings.js";

/** @typedef {import("./api.js").Model} Model */

/**
 * What the views work with.
 *
 * @typedef {object} Context
 * @property {Client} client
 * @property {Settings} settings
 * @property {Announcer} announcer
 * @property {() => string} model The id of the chosen model.
 * @property {() => boolean} check Whether the settings can be sent; shows them if not.
 * @property {(text: string) => void} say Tells a screen reader a short fact.
 */

const KEY = "espalier.key";
/** Seconds to wait for the server when it does not say how long. */
const PATIENCE = 2;
const SUGGESTIONS = [
  "Why are fruit trees trained flat against a wall?",
  "Write a haiku about pruning.",
  "Explain sparsity to a gardener, in three sentences.",
];

const notice = byId("notice", HTMLElement);
const noticeTitle = byId("notice-title", HTMLElement);
const noticeText = byId("notice-text", HTMLElement);
const noticeRetry = byId("notice-retry", HTMLButtonElement);
const status = byId("status", HTMLElement);
const select = byId("model-select", HTMLSelectElement);
const newButton = byId("new", HTMLButtonElement);

const panel = setUpPanel();
const settings = new Settings();
const client = new Client(new URL("../", import.meta.url), askForKey);
client.key = storedKey();

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

/** @param {number} seconds */
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** @returns {string | undefined} */
function storedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? undefined;
  } catch {
    return undefined;
  }
}

/** The question that is open: several requests may be refused at once. @type {Promise<string | undefined> | undefined} */
let asking;

/** Asks for a key. @returns {Promise<string | undefined>} Nothing when there is none. */
function askForKey() {
  asking ??= new Promise((/** @type {(key: string | undefined) => void} */ resolve) => {
    const dialog = byId("key-dialog", HTMLDialogElement);
    const form = byId("key-form", HTMLFormElement);
    const input = byId("key", HTMLInputElement);
    const wrong = client.key !== undefined;
    byId("key-title", HTMLElement).textContent = wrong
      ? "The server did not take this key"
      : "This server wants a key";
    input.value = "";
    /** @type {string | undefined} */
    let key;
    form.onsubmit = (event) => {
      event.preventDefault();
      key = input.value.trim() || undefined;
      dialog.close();
    };
    byId("key-cancel", HTMLButtonElement).onclick = () => dialog.close();
    dialog.onclose = () => {
      asking = undefined;
      try {
        if (key) sessionStorage.setItem(KEY, key);
        else sessionStorage.removeItem(KEY);
      } catch {
        // It then lasts as long as the page.
      }
      resolve(key);
    };
    dialog.showModal();
  });
  return asking;
}

/**
 * @param {string} title
 * @param {string} [text]
 */
function tell(title, text = "") {
  noticeTitle.textContent = title;
  noticeText.textContent = text;
}

/** Comes back when the server can answer. */
async function untilReady() {
  for (;;) {
    try {
      const { ready, retryAfter } = await client.ready();
      if (ready) return;
      tell("The model is loading", "The page begins as soon as it is there.");
      await pause(retryAfter ?? PATIENCE);
    } catch {
      tell("The server cannot be reached", "Is it running? The page tries again by itself.");
      await pause(PATIENCE);
    }
  }
}

async function start() {
  notice.hidden = false;
  notice.classList.remove("failed");
  noticeRetry.hidden = true;
  await untilReady();
  try {
    models = await client.models();
  } catch (error) {
    const cause = /** @type {Error} */ (error);
    notice.classList.add("failed");
    tell(
      error instanceof ApiError && error.status === 401
        ? "Without a key there is nothing to see"
        : "The server does not tell its models",
      explain(cause),
    );
    noticeRetry.hidden = false;
    return;
  }
  if (models.length === 0) {
    notice.classList.add("failed");
    noticeRetry.hidden = false;
    return tell("The server has no model", "Start it with one: espalier serve MODEL");
  }
  notice.hidden = true;
  newButton.hidden = false;
  showChoice();
  choose(models[0]);
}

/** Shows the model's name, or a choice where there are several. */
function showChoice() {
  const names = models.map(({ id, espalier }) =>
    make("option", { value: id }, espalier?.name ?? id)
  );
  select.replaceChildren(...names);
  select.hidden = models.length < 2;
  const name = byId("model-name", HTMLElement);
  name.hidden = models.length >= 2;
  name.textContent = models[0].espalier?.name ?? models[0].id;
}

/** @param {Model} chosen */
function choose(chosen) {
  view().stop();
  model = chosen;
  document.title = `${chosen.espalier?.name ?? chosen.id} · Espalier`;
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
  // A sheet on a phone would come up with its keyboard.
  if (matchMedia("(hover: hover)").matches) view().focus();
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
  byId("greeting-title", HTMLElement).textContent = espalier?.name ?? id;
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
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") view().stop();
});
void start();
