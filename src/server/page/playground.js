// @ts-check
/**
 * The playground of a server: waits for it, asks for a key where it wants one.
 * @module
 */
import { explain } from "./answer.js";
import { ApiError, Client } from "./api.js";
import { byId } from "./dom.js";
import { startPlayground } from "./shell.js";

const KEY = "espalier.key";
/** Seconds to wait for the server when it does not say how long. */
const PATIENCE = 2;
/** Seconds after which it is asked again whatever it said. */
const LONGEST = 30;

/** The server serves nothing. */
class NoModelError extends Error {}

const client = new Client(new URL("../", import.meta.url), askForKey);
client.key = storedKey();

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
 * Comes back when the server can be asked: one that has lost a model has others, or says why there are none.
 *
 * @param {import("./shell.js").Tell} tell
 */
async function untilReady(tell) {
  for (;;) {
    try {
      const { status, retryAfter } = await client.ready();
      if (status === "ready" || status === "failed") return;
      if (status === "draining") {
        tell("The server is about to stop", "The page begins as soon as it is there again.");
      } else {
        tell("The model is loading", "The page begins as soon as it is there.");
      }
      await pause(Math.min(LONGEST, Math.max(1, retryAfter ?? PATIENCE)));
    } catch {
      tell("The server cannot be reached", "Is it running? The page tries again by itself.");
      await pause(PATIENCE);
    }
  }
}

startPlayground({
  client: {
    async models() {
      const models = await client.models();
      if (models.length > 0) return models;
      throw new NoModelError("Start it with one: espalier serve MODEL");
    },
    model: (id) => client.model(id),
    stream: (path, body, signal) => client.stream(path, body, signal),
  },
  ready: untilReady,
  explain: (error) => ({
    title: error instanceof NoModelError
      ? "The server has no model"
      : error instanceof ApiError && error.status === 401
      ? "Without a key there is nothing to see"
      : "The server does not tell its models",
    text: explain(error),
  }),
});
