// @ts-check
/**
 * The playground of a folder: its model runs here, in a worker.
 * @module
 */
import { explain } from "../../server/page/answer.js";
import { size } from "../../server/page/card.js";
import { startPlayground } from "../../server/page/shell.js";
import { Engine, EngineFailure } from "./engine.ts";

/** What is said of a failure, by its code. */
const TITLES = new Map([
  ["FILE_UNREADABLE", "The model cannot be read"],
  ["INTEGRITY", "The model is damaged"],
  ["MEMORY_BUDGET", "There is not enough memory"],
  ["BACKEND_FAILED", "This browser cannot run the model"],
]);
/** And what to do, beside what the failure says itself. */
const ADVICE = new Map([
  ["FILE_UNREADABLE", "Is all of the folder on the server?"],
  ["MEMORY_BUDGET", "Close other pages, or open this one on a larger machine."],
]);

const here = new URL(".", import.meta.url);
const MODEL = new URL("../model/", here).href;
const described = document.querySelector("meta[name=espalier]")?.getAttribute("content") ?? "{}";
/** @type {import("./protocol.ts").PageSettings} */
const settings = JSON.parse(described);
/** @type {Engine | undefined} */
let engine;

/** @param {import("../../server/page/shell.js").Tell} tell */
async function ready(tell) {
  if (!isSecureContext) {
    throw new EngineFailure({
      code: "BACKEND_FAILED",
      message: "browsers check files and share memory over https or on localhost only: serve it so",
      offline: false,
    });
  }
  engine?.close();
  engine = new Engine(new URL("worker.js", here), settings);
  const show = (/** @type {number} */ done, /** @type {number} */ total) =>
    tell(
      "Loading the model",
      "It runs on this machine: what you write stays here.",
      total > 0 ? Math.min(1, done / total) : undefined,
      `${size(done)} of ${size(total)}`,
    );
  show(0, settings.bytes);
  await engine.load(
    MODEL,
    ({ done, total = settings.bytes }) => show(done, total),
  );
}

const loaded = () => /** @type {Engine} */ (engine);

startPlayground({
  client: {
    models: async () => [/** @type {any} */ (await loaded().model())],
    model: async () => /** @type {any} */ (await loaded().model()),
    stream: (_, body, signal) => loaded().stream(body, signal),
  },
  ready,
  explain(error) {
    if (error instanceof EngineFailure && error.offline) {
      return {
        title: "The connection was lost",
        text: "What has come is kept. Try again when there is a network.",
      };
    }
    const code = error instanceof EngineFailure ? error.code ?? "" : "";
    const advice = ADVICE.get(code);
    return {
      title: TITLES.get(code) ?? "The model cannot be loaded",
      text: `${explain(error).replaceAll(MODEL, "model/")}${advice ? ` ${advice}` : ""}`,
    };
  },
});
