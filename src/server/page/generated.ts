// deno-fmt-ignore-file
// Written by scripts/build_pages.ts: change the files beside this one, and run it again.

import type { PageFile } from "./mod.ts";

/** The pages' files by the path that they are served at. */
export const files: Record<string, PageFile> = {
  "/": {
    type: "text/html; charset=utf-8",
    hash: "2930e716c5f76873",
    body: `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport"
      content="width=device-width, initial-scale=1, interactive-widget=resizes-content">
    <meta name="color-scheme" content="light dark">
    <meta name="description" content="Try the model that this server runs.">
    <title>Espalier</title>
    <link rel="icon" type="image/svg+xml" href="page/mark.svg">
    <link rel="stylesheet" href="page/base.css">
    <link rel="stylesheet" href="page/playground.css">
    <script src="page/theme.js"></script>
    <script type="module" src="page/playground.js"></script>
  </head>
  <body>
    <a class="skip" href="#prompt" id="skip">Skip to the text field</a>

    <header class="bar">
      <a class="brand" href="./" aria-label="Espalier">
        <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
          <path
            d="M16 29V4M16 29c0-3-2-5-5-5H3M16 29c0-3 2-5 5-5h8M16 21c0-3-2-5-5-5H5M16 21c0-3 2-5 5-5h6M16 13c0-3-2-5-5-5H8M16 13c0-3 2-5 5-5h3" />
        </svg>
        <span class="wordmark">Espalier</span>
      </a>
      <div class="model-choice">
        <span class="model-name" id="model-name" hidden></span>
        <label class="unseen" for="model-select">Model</label>
        <select id="model-select" hidden></select>
      </div>
      <nav class="bar-end" aria-label="Site">
        <button class="tool" type="button" id="new" hidden>
          <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
            <path d="M10 4v12M4 10h12" />
          </svg>
          <span class="tool-text">New chat</span>
        </button>
        <!-- server -->
        <a class="tool wide-only" href="docs">API reference</a>
        <!-- /server -->
        <button class="tool icon-only" type="button" data-theme-toggle
          aria-label="Change the theme">
          <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
            <circle cx="10" cy="10" r="6.5" />
            <path class="filled" d="M10 3.5a6.5 6.5 0 0 1 0 13z" />
          </svg>
        </button>
        <button class="tool icon-only narrow-only" type="button" id="open-panel"
          aria-expanded="false" aria-controls="panel" aria-label="Model and settings"
          title="Model and settings">
          <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
            <path d="M3 6h7M14 6h3M3 14h3M10 14h7" />
            <circle cx="12" cy="6" r="2" />
            <circle cx="8" cy="14" r="2" />
          </svg>
        </button>
      </nav>
    </header>

    <main id="main">
      <h1 class="unseen">Espalier playground</h1>

      <section class="notice" id="notice" aria-live="polite">
        <svg class="mark growing" viewBox="0 0 32 32" aria-hidden="true">
          <path pathLength="1" d="M16 29V4" />
          <path pathLength="1" d="M16 29c0-3-2-5-5-5H3" />
          <path pathLength="1" d="M16 29c0-3 2-5 5-5h8" />
          <path pathLength="1" d="M16 21c0-3-2-5-5-5H5" />
          <path pathLength="1" d="M16 21c0-3 2-5 5-5h6" />
          <path pathLength="1" d="M16 13c0-3-2-5-5-5H8" />
          <path pathLength="1" d="M16 13c0-3 2-5 5-5h3" />
        </svg>
        <p class="notice-title" id="notice-title">Asking the server</p>
        <p class="notice-text" id="notice-text"></p>
        <p class="without-files">This page lacks its files: does its address end with a slash?</p>
        <progress class="notice-progress" id="notice-progress" max="1" aria-label="Loaded"
          hidden></progress>
        <p class="notice-figures" id="notice-figures" aria-hidden="true"></p>
        <button class="button" type="button" id="notice-retry" hidden>Try again</button>
      </section>

      <section class="view" id="chat" aria-label="Chat" hidden>
        <div class="scroll" id="scroll" tabindex="0" role="region" aria-label="Conversation">
          <div class="column">
            <div class="greeting" id="greeting">
              <h2 id="greeting-title"></h2>
              <p id="greeting-text"></p>
              <ul class="suggestions" id="suggestions" aria-label="Questions to begin with"></ul>
            </div>
            <ol class="messages" id="messages" aria-label="Messages"></ol>
          </div>
        </div>
        <form class="composer column" id="composer">
          <button class="latest" type="button" id="latest" hidden>To the latest</button>
          <div class="composer-box">
            <label class="unseen" for="prompt">Message</label>
            <textarea id="prompt" rows="1" placeholder="Ask the model"
              aria-describedby="composer-hint" autocomplete="off"></textarea>
            <button class="send" type="submit" id="send" aria-label="Send" title="Send">
              <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
                <path d="M10 16V4.5M5 9.5l5-5 5 5" />
              </svg>
            </button>
            <button class="send" type="button" id="stop" aria-label="Stop" title="Stop" hidden>
              <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
                <rect class="filled" x="5.5" y="5.5" width="9" height="9" rx="1.5" />
              </svg>
            </button>
          </div>
          <p class="hint"
            id="composer-hint"><kbd>Enter</kbd> sends, <kbd>Shift</kbd>&thinsp;<kbd>Enter</kbd> begins a line, <kbd>Esc</kbd> stops. Small models make things up.</p>
        </form>
      </section>

      <section class="view" id="editor" aria-label="Continue a text" hidden>
        <div class="editor column">
          <p class="hint"
            id="editor-hint">This model has no chat template. Begin a text, and it writes on. <span class="keys"><kbd>Ctrl</kbd>&thinsp;<kbd>Enter</kbd> continues, <kbd>Esc</kbd> stops.</span></p>
          <label class="unseen" for="text">Text</label>
          <textarea id="text" aria-describedby="editor-hint" placeholder="Once upon a time"
            autocomplete="off"></textarea>
          <p class="measures" id="editor-measures"></p>
          <div class="failure" id="editor-failure" hidden></div>
          <div class="editor-tools" id="editor-tools">
            <button class="button main" type="button" id="continue">Continue</button>
            <button class="button main" type="button" id="editor-stop" hidden>Stop</button>
            <button class="button" type="button" id="again" disabled>Retry</button>
            <button class="button" type="button" id="undo" disabled>Undo</button>
            <span class="spring"></span>
          </div>
        </div>
      </section>
    </main>

    <aside class="panel" id="panel" aria-label="Model and settings">
      <div class="panel-top">
        <div class="tabs" role="tablist" aria-label="Model and settings">
          <button class="tab" type="button" role="tab" id="tab-model" aria-controls="pane-model"
            aria-selected="true">Model</button>
          <button class="tab" type="button" role="tab" id="tab-settings"
            aria-controls="pane-settings" aria-selected="false" tabindex="-1">Settings</button>
        </div>
        <button class="tool icon-only narrow-only" type="button" id="close-panel" aria-label="Close"
          title="Close">
          <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
            <path d="M5 5l10 10M15 5L5 15" />
          </svg>
        </button>
      </div>
      <div class="pane" role="tabpanel" id="pane-model" aria-labelledby="tab-model" tabindex="0">
        <div id="card">
          <p class="hint">What the model is made of stands here as soon as it is there.</p>
        </div>
      </div>
      <div class="pane" role="tabpanel" id="pane-settings" aria-labelledby="tab-settings" hidden>
        <form id="settings" autocomplete="off">
          <div class="field" id="system-field">
            <label for="system">System prompt</label>
            <textarea id="system" rows="4" placeholder="None of your own"></textarea>
            <p class="hint">Holds from the next message on.</p>
          </div>
          <fieldset>
            <legend>Sampling</legend>
            <div class="pair">
              <div class="field">
                <label for="temperature">Temperature</label>
                <input id="temperature" type="number" inputmode="decimal" min="0" max="2" step="any"
                  value="0.7" placeholder="1">
              </div>
              <div class="field">
                <label for="top_p">Top p</label>
                <input id="top_p" type="number" inputmode="decimal" min="0" max="1" step="any"
                  value="0.95" placeholder="1">
              </div>
              <div class="field">
                <label for="top_k">Top k</label>
                <input id="top_k" type="number" inputmode="numeric" min="0" step="1"
                  placeholder="all">
              </div>
              <div class="field">
                <label for="max_tokens">Max tokens</label>
                <input id="max_tokens" type="number" inputmode="numeric" min="1" step="1"
                  value="512" placeholder="no limit">
              </div>
              <div class="field">
                <label for="repetition_penalty">Repetition penalty</label>
                <input id="repetition_penalty" type="number" inputmode="decimal" min="0.01" max="10"
                  step="any" placeholder="1">
              </div>
              <div class="field">
                <label for="seed">Seed</label>
                <input id="seed" type="number" inputmode="numeric" min="0" step="1"
                  placeholder="random">
              </div>
              <div class="field">
                <label for="frequency_penalty">Frequency penalty</label>
                <input id="frequency_penalty" type="number" inputmode="decimal" min="-2" max="2"
                  step="any" placeholder="0">
              </div>
              <div class="field">
                <label for="presence_penalty">Presence penalty</label>
                <input id="presence_penalty" type="number" inputmode="decimal" min="-2" max="2"
                  step="any" placeholder="0">
              </div>
            </div>
          </fieldset>
          <div class="field">
            <label for="stop-strings">Stop at</label>
            <textarea id="stop-strings" rows="2" placeholder="One string a line"
              aria-describedby="stop-hint"></textarea>
            <p class="hint"
              id="stop-hint"><code>\\n</code> stands for the end of a line.</p>
          </div>
          <label class="switch" for="json">
            <input id="json" type="checkbox" role="switch">
            <span>Answer in JSON</span>
          </label>
          <button class="button" type="button" id="reset-settings">Reset</button>
        </form>
      </div>
      <!-- server -->
      <p class="panel-end narrow-only"><a href="docs">API reference</a></p>
      <!-- /server -->
    </aside>

    <!-- server -->
    <dialog class="dialog" id="key-dialog" aria-labelledby="key-title">
      <form id="key-form">
        <h2 id="key-title">This server wants a key</h2>
        <p id="key-text">It is kept until this tab is closed, and sent to this server only.</p>
        <div class="field">
          <label for="key">Key</label>
          <input id="key" type="password" autocomplete="off" autocapitalize="off" spellcheck="false"
            required>
        </div>
        <div class="dialog-tools">
          <button class="button" type="button" id="key-cancel">Cancel</button>
          <button class="button main" type="submit">Use the key</button>
        </div>
      </form>
    </dialog>
    <!-- /server -->

    <div class="unseen" id="announcer" role="log" aria-live="polite" aria-relevant="additions"
      aria-label="Answers"></div>
    <p class="unseen" id="status" role="status"></p>
  </body>
</html>
`,
  },
  "/docs": {
    type: "text/html; charset=utf-8",
    hash: "7c0da7b1d0859294",
    body: `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <meta name="description" content="The API of this server.">
    <title>API reference · Espalier</title>
    <link rel="icon" type="image/svg+xml" href="page/mark.svg">
    <link rel="stylesheet" href="page/base.css">
    <link rel="stylesheet" href="page/docs.css">
    <script src="page/theme.js"></script>
    <script type="module" src="page/docs.js"></script>
  </head>
  <body>
    <a class="skip" href="#routes">Skip to the routes</a>

    <header class="bar">
      <a class="brand" href="./" aria-label="Espalier">
        <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
          <path
            d="M16 29V4M16 29c0-3-2-5-5-5H3M16 29c0-3 2-5 5-5h8M16 21c0-3-2-5-5-5H5M16 21c0-3 2-5 5-5h6M16 13c0-3-2-5-5-5H8M16 13c0-3 2-5 5-5h3" />
        </svg>
        <span class="wordmark">Espalier</span>
      </a>
      <nav class="bar-end" aria-label="Site">
        <a class="tool" href="./">Playground</a>
        <button class="tool icon-only" type="button" data-theme-toggle
          aria-label="Change the theme">
          <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
            <circle cx="10" cy="10" r="6.5" />
            <path class="filled" d="M10 3.5a6.5 6.5 0 0 1 0 13z" />
          </svg>
        </button>
      </nav>
    </header>

    <div class="page">
      <nav class="side" id="contents" aria-label="Routes"></nav>
      <main class="content">
        <div class="intro">
          <h1>API reference</h1>
          <p id="about"></p>
          <p
            class="facts-line">Version <span id="version"></span>, at <code id="base"></code>. The whole description: <a href="openapi.json">openapi.json</a>.</p>
        </div>
        <div id="routes" tabindex="-1"></div>
      </main>
    </div>
  </body>
</html>
`,
  },
  "/page/announcer.js": {
    type: "text/javascript; charset=utf-8",
    hash: "e7fa50f9d876d7e3",
    body: `// @ts-check
/**
 * Tells a screen reader an answer while it comes: by sentences, not by tokens.
 * @module
 */

/** Milliseconds between two announcements, so that short sentences come together. */
const PAUSE = 1000;
const SENTENCE_END = /[.!?…:;。！？]["')\\]]*(?=\\s)|\\n/g;

/** Announces an answer in a live region. */
export class Announcer {
  #region;
  #waiting = "";
  #last = 0;

  /** @param {HTMLElement} region With role \`log\`: what is added to it is read. */
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
    this.#say(\`\${this.#waiting} \${closing}\`);
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
`,
  },
  "/page/answer.js": {
    type: "text/javascript; charset=utf-8",
    hash: "d08923c8a9b5146d",
    body: `// @ts-check
/**
 * One answer of a model: its text as it comes, and how fast it came.
 * @module
 */
import { ApiError, LostError } from "./api.js";

/** @typedef {import("./shell.js").Asked} Asked */
/** @typedef {import("./api.js").Usage} Usage */

/**
 * @typedef {object} Answer
 * @property {string} text
 * @property {string} [finish] \`stop\`, \`length\` …; \`stopped\` when the user stopped it.
 * @property {Usage} [usage]
 * @property {number} pieces Chunks with text: about as many as tokens.
 * @property {number} [firstSeconds] From the question to the first text.
 * @property {number} [seconds] From the first text to the last.
 * @property {Error} [error] Why it ended early. What had come until then is in \`text\`.
 */

/**
 * Asks for an answer.
 *
 * @param {Asked} client
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} signal
 * @param {(text: string) => void} onText Gets each piece.
 * @returns {Promise<Answer>} It never rejects: an answer may end early with half of its text.
 */
export async function ask(client, path, body, signal, onText) {
  /** @type {Answer} */
  const answer = { text: "", pieces: 0 };
  const asked = performance.now();
  let first = 0;
  let last = 0;
  const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
  try {
    for await (const chunk of client.stream(path, streamed, signal)) {
      const choice = chunk.choices?.[0];
      const text = choice?.delta?.content ?? choice?.text;
      if (text) {
        last = performance.now();
        first ||= last;
        answer.pieces++;
        answer.text += text;
        onText(text);
      }
      if (choice?.finish_reason) answer.finish = choice.finish_reason;
      if (chunk.usage) answer.usage = chunk.usage;
    }
  } catch (error) {
    if (signal.aborted) answer.finish = "stopped";
    else answer.error = readable(error);
  }
  if (first > 0) {
    answer.firstSeconds = (first - asked) / 1000;
    answer.seconds = (last - first) / 1000;
  }
  return answer;
}

/**
 * @param {unknown} error
 * @returns {Error}
 */
function readable(error) {
  if (error instanceof ApiError || error instanceof LostError) return error;
  // fetch and its streams report every failure of the network as a TypeError of unclear words.
  if (error instanceof TypeError) return new LostError("The connection to the server was lost.");
  return error instanceof Error ? error : new Error(String(error));
}

/**
 * What to do about a failure, in a sentence.
 *
 * @param {Error} error
 */
export function explain(error) {
  if (!(error instanceof ApiError)) return asSentence(error.message);
  if (error.status === 429 || error.status === 503) {
    const { retryAfter } = error;
    const wait = retryAfter
      ? \`It asks to wait \${retryAfter} \${retryAfter === 1 ? "second" : "seconds"}.\`
      : "Wait a moment.";
    const what = error.status === 429 ? "The server is busy." : asSentence(error.message);
    return \`\${what} \${wait}\`;
  }
  return asSentence(error.message);
}

/** @param {string} message As servers write them: small, and without an end. */
function asSentence(message) {
  const end = /[.!?…]$/.test(message) ? "" : ".";
  // A path or an address is written as it is.
  const isName = /^\\S*[/:]\\S/.test(message);
  return (isName ? message : message.charAt(0).toUpperCase() + message.slice(1)) + end;
}

/**
 * How fast an answer came, and how long it is, in short parts.
 *
 * @param {Answer} answer
 * @returns {string[]}
 */
export function measures({ usage, pieces, firstSeconds, seconds, finish }) {
  const parts = [];
  const tokens = usage?.completion_tokens ?? pieces;
  // The first text needed the prompt; the rest tells the pace.
  if (seconds && tokens > 1) parts.push(\`\${rate((tokens - 1) / seconds)} tokens/s\`);
  if (firstSeconds !== undefined) parts.push(\`first after \${duration(firstSeconds)}\`);
  if (tokens > 0 || usage) {
    const asked = usage ? \` for \${count(usage.prompt_tokens)} of prompt\` : "";
    parts.push(
      \`\${usage ? "" : "about "}\${count(tokens)} \${tokens === 1 ? "token" : "tokens"}\${asked}\`,
    );
  }
  if (finish === "length") parts.push("ended at the token limit");
  if (finish === "stopped") parts.push("stopped");
  return parts;
}

/** @param {number} value */
const rate = (value) => value < 10 ? value.toFixed(1) : value.toFixed(0);

/** @param {number} value */
const count = (value) => value.toLocaleString("en");

/** @param {number} seconds */
const duration = (seconds) =>
  seconds < 1 ? \`\${Math.round(seconds * 1000)} ms\` : \`\${seconds.toFixed(1)} s\`;
`,
  },
  "/page/api.js": {
    type: "text/javascript; charset=utf-8",
    hash: "e7e68f09afb366b0",
    body: `// @ts-check
/**
 * Talks to the server: as much of OpenAI's protocol as the pages use.
 * @module
 */

/**
 * What the server says of a model, beside what OpenAI's protocol has.
 *
 * @typedef {object} Card
 * @property {string} name
 * @property {string} [architecture]
 * @property {"sparse" | "ort"} engine
 * @property {string} device
 * @property {number} threads
 * @property {number} context Longest sequence, in tokens.
 * @property {boolean} canChat Whether it has a chat template.
 * @property {number} [fileBytes]
 * @property {number} weightBytes In memory.
 * @property {number} cacheBytesPerToken
 * @property {number} [stateBytes]
 * @property {Weights} [card] Only from \`GET /v1/models/{id}\`, and not always.
 */

/**
 * @typedef {object} Weights
 * @property {number} parameters Weights of the blocks' linears, zeros included.
 * @property {number} sparsity Fraction of them that is 0.
 * @property {Record<string, number>} formats How many linears have each.
 * @property {string} values
 * @property {{ index: number, sparsity: number, bytes: number }[]} blocks
 * @property {{ f16: number, int8: number, int4: number }} dense Bytes of the same model unpruned.
 */

/** @typedef {{ id: string, espalier?: Card }} Model */
/** @typedef {{ prompt_tokens: number, completion_tokens: number, total_tokens: number }} Usage */

/** The server refused, or failed. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{ status?: number, code?: string | null, retryAfter?: number }} [about] \`retryAfter\` in
   *   seconds; no status where the answer had begun.
   */
  constructor(message, about = {}) {
    super(message);
    this.name = "ApiError";
    this.status = about.status;
    this.code = about.code ?? undefined;
    this.retryAfter = about.retryAfter;
  }
}

/** The connection ended before the answer did. */
export class LostError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "LostError";
  }
}

/** Asks the server, with the key that it wants. */
export class Client {
  #base;
  #askForKey;

  /** @type {string | undefined} */
  key;

  /**
   * @param {string | URL} base Where the server's paths begin; it ends with a slash.
   * @param {() => Promise<string | undefined>} askForKey Called when the server answers 401. Nothing
   *   means that there is no key.
   */
  constructor(base, askForKey) {
    this.#base = base;
    this.#askForKey = askForKey;
  }

  /**
   * Whether the server takes requests.
   *
   * @returns {Promise<{ status: string, retryAfter?: number }>} \`ready\`, \`loading\`, \`draining\`, or \`failed\`: it can
   *   be asked all the same, since some of its models may answer.
   */
  async ready() {
    const response = await this.#fetch("ready", {});
    const retryAfter = retryAfterOf(response);
    // What stands before the server does not reach it.
    if (response.status === 502 || response.status === 504) throw await refusalOf(response);
    if (response.status !== 503 && response.status !== 429) {
      await response.body?.cancel();
      return { status: "ready", retryAfter };
    }
    // Of what stands between us and the server nothing is known.
    const { status } = await response.json().catch(() => ({}));
    return { status: typeof status === "string" ? status : "loading", retryAfter };
  }

  /** @returns {Promise<Model[]>} */
  async models() {
    return (await (await this.#ask("v1/models", {})).json()).data;
  }

  /**
   * @param {string} id
   * @returns {Promise<Model>}
   */
  async model(id) {
    return await (await this.#ask(\`v1/models/\${encodeURIComponent(id)}\`, {})).json();
  }

  /**
   * Asks for a streamed answer, and gives its chunks.
   *
   * @param {string} path
   * @param {object} body
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<any>} The JSON of each event.
   * @throws {ApiError} When the server refuses, or says in mid-stream that it failed.
   * @throws {LostError} When the stream ends before its end was said.
   */
  async *stream(path, body, signal) {
    const response = await this.#ask(path, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify(body),
      signal,
    });
    if (!response.body) throw new LostError("The server sent no answer.");
    const events = readEvents(response.body);
    let isWhole = false;
    try {
      for (let next = await events.next(); !next.done; next = await events.next()) {
        isWhole = next.value === "[DONE]";
        if (isWhole) return;
        const chunk = JSON.parse(next.value);
        if (chunk.error) {
          const { message = "The server broke off.", code } = chunk.error;
          throw new ApiError(message, { code });
        }
        yield chunk;
      }
    } finally {
      // To cancel what is whole would look to the server as if nobody had wanted it.
      if (isWhole) events.next().catch(() => {});
      else await events.return(undefined);
    }
    throw new LostError("The connection ended in the middle of the answer.");
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   * @returns {Promise<Response>} One that is ok.
   */
  async #ask(path, init) {
    for (;;) {
      const response = await this.#fetch(path, init);
      if (response.ok) return response;
      const refusal = await refusalOf(response);
      if (response.status !== 401) throw refusal;
      const key = await this.#askForKey();
      if (!key) throw refusal;
      this.key = key;
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   */
  async #fetch(path, init) {
    const headers = new Headers(init.headers);
    try {
      if (this.key) headers.set("authorization", \`Bearer \${this.key}\`);
    } catch {
      // No header can hold it, so it is none of the server's keys, which then asks for one.
    }
    return await fetch(new URL(path, this.#base), { ...init, headers });
  }
}

/**
 * @param {Response} response
 * @returns {Promise<ApiError>}
 */
async function refusalOf(response) {
  const { status } = response;
  const retryAfter = retryAfterOf(response);
  try {
    const { error } = await response.json();
    const message = typeof error === "string" ? error : error.message;
    if (typeof message !== "string" || message === "") throw new TypeError("it says nothing");
    return new ApiError(message, { status, code: error.code, retryAfter });
  } catch {
    // Something between us and the server answered in its own way.
    return new ApiError(\`The server answered \${status}.\`, { status, retryAfter });
  }
}

/**
 * @param {Response} response
 * @returns {number | undefined} Seconds.
 */
function retryAfterOf({ headers }) {
  const value = headers.get("retry-after");
  if (!value) return undefined;
  const seconds = /^\\d+$/.test(value)
    ? Number(value)
    : Math.ceil((Date.parse(value) - Date.now()) / 1000);
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}

/**
 * The data of server-sent events.
 *
 * Lines end with LF or CRLF; a lone CR, which the standard allows too, is sent by nobody and would make
 * each piece wait for the next. Other fields than \`data\` are left out.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<string>}
 */
export async function* readEvents(body) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  /** @type {string[]} */
  let data = [];
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const lines = rest.split("\\n");
      rest = lines.pop() ?? "";
      for (const raw of lines) {
        const line = raw.endsWith("\\r") ? raw.slice(0, -1) : raw;
        if (line === "") {
          if (data.length > 0) yield data.join("\\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } else if (line === "data") {
          data.push("");
        }
      }
      // An event without its empty line is not complete, so it counts for nothing.
      if (done) return;
    }
  } finally {
    // Who stops reading wants no more of it.
    reader.cancel().catch(() => {});
  }
}
`,
  },
  "/page/base.css": {
    type: "text/css; charset=utf-8",
    hash: "cd694f73f7f1bd0c",
    body: `/*
 * What both pages share: colours, type, controls. Two themes from one set of names, for browsers of
 * 2024 and later (light-dark()).
 */

:root {
  color-scheme: light dark;

  --paper: light-dark(#fcfcfa, #131613);
  --raised: light-dark(#ffffff, #1a1e1a);
  --sunken: light-dark(#f3f4ef, #0f120f);
  --ink: light-dark(#1b211c, #e4e8e1);
  --soft: light-dark(#555e56, #a2aca2);
  --line: light-dark(#dfe2da, #2b312b);
  --edge: light-dark(#868e85, #6f796f);
  --leaf: light-dark(#2c6039, #93c49b);
  --on-leaf: light-dark(#ffffff, #10160f);
  --leaf-tint: light-dark(#e9f0e7, #202b21);
  --branch: light-dark(#4b8458, #6da377);
  --bare: light-dark(#e3e7de, #2a312a);
  --warn: light-dark(#8a3a1c, #e9a98c);
  --warn-tint: light-dark(#faefe9, #2b1d16);

  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  --serif:
    ui-serif, "Iowan Old Style", "Palatino Linotype", Palatino, "URW Palladio L", P052, Georgia,
    serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "Segoe UI Mono", Menlo, Consolas, monospace;

  --small: 0.8125rem;
  --radius: 8px;
}

:root[data-theme="light"] {
  color-scheme: light;
}

:root[data-theme="dark"] {
  color-scheme: dark;
}

*,
*::before,
*::after {
  box-sizing: border-box;
}

html {
  -webkit-text-size-adjust: 100%;
  text-size-adjust: 100%;
}

body {
  margin: 0;
  background: var(--paper);
  color: var(--ink);
  font: 1rem/1.6 var(--sans);
  font-kerning: normal;
  text-rendering: optimizeLegibility;
}

[hidden] {
  display: none !important;
}

h1,
h2,
h3,
p,
ol,
ul,
dl,
dd,
fieldset,
figure {
  margin: 0;
  padding: 0;
}

fieldset {
  min-width: 0;
  border: 0;
}

a {
  color: var(--leaf);
  text-decoration-thickness: 1px;
  text-underline-offset: 0.18em;
}

code,
kbd,
pre {
  font-family: var(--mono);
  font-size: 0.875em;
}

kbd {
  padding: 0 0.35em;
  border: 1px solid var(--line);
  border-radius: 4px;
  font-family: var(--sans);
  font-size: 0.92em;
}

button,
input,
select,
textarea {
  color: inherit;
  font: inherit;
}

button,
select,
summary {
  cursor: pointer;
}

:focus-visible {
  outline: 2px solid var(--leaf);
  outline-offset: 2px;
}

:is(input, select, textarea):focus-visible {
  outline-offset: -1px;
}

/* There for screen readers. */
.unseen {
  position: absolute;
  width: 1px;
  height: 1px;
  margin: -1px;
  padding: 0;
  border: 0;
  overflow: hidden;
  clip-path: inset(50%);
  white-space: nowrap;
}

.skip {
  position: fixed;
  inset-block-start: 0.5rem;
  inset-inline-start: 0.5rem;
  z-index: 10;
  padding: 0.5rem 0.875rem;
  border-radius: var(--radius);
  background: var(--leaf);
  color: var(--on-leaf);
  transform: translateY(-200%);
}

.skip:focus {
  transform: none;
}

/* The bar at the top. */

.bar {
  display: flex;
  align-items: center;
  gap: 1rem;
  min-height: 3.5rem;
  padding-inline: max(1.25rem, env(safe-area-inset-left)) max(0.75rem, env(safe-area-inset-right));
  border-block-end: 1px solid var(--line);
}

.brand {
  display: inline-flex;
  flex: none;
  align-items: center;
  gap: 0.5rem;
  border-radius: 4px;
  color: var(--ink);
  text-decoration: none;
}

.mark {
  width: 1.75rem;
  height: 1.75rem;
  fill: none;
  stroke: var(--branch);
  stroke-width: 2;
  stroke-linecap: round;
  stroke-linejoin: round;
}

.wordmark {
  font-family: var(--serif);
  font-size: 1.25rem;
  letter-spacing: 0.005em;
}

.bar-end {
  display: flex;
  flex: none;
  align-items: center;
  gap: 0.25rem;
  margin-inline-start: auto;
}

.icon {
  flex: none;
  width: 1.25rem;
  height: 1.25rem;
  fill: none;
  stroke: currentColor;
  stroke-width: 1.5;
  stroke-linecap: round;
  stroke-linejoin: round;
}

.icon .filled {
  fill: currentColor;
  stroke: none;
}

.tool {
  display: inline-flex;
  align-items: center;
  justify-content: center;
  gap: 0.375rem;
  min-height: 2.5rem;
  padding: 0 0.75rem;
  border: 0;
  border-radius: var(--radius);
  background: none;
  color: var(--soft);
  font-size: 0.875rem;
  text-decoration: none;
}

.tool.icon-only {
  width: 2.5rem;
  padding: 0;
}

.tool:hover {
  background: var(--sunken);
  color: var(--ink);
}

/* Controls. */

.button {
  min-height: 2.5rem;
  padding: 0 1rem;
  border: 1px solid var(--line);
  border-radius: var(--radius);
  background: var(--raised);
  font-size: 0.9375rem;
}

.button:hover {
  border-color: var(--edge);
}

.button.main {
  border-color: var(--leaf);
  background: var(--leaf);
  color: var(--on-leaf);
}

.button:disabled {
  border-color: var(--line);
  color: var(--soft);
  cursor: default;
  opacity: 0.65;
}

.quiet {
  min-height: 1.75rem;
  padding: 0 0.5rem;
  border: 0;
  border-radius: 6px;
  background: none;
  color: var(--soft);
  font-size: var(--small);
}

.quiet:hover {
  background: var(--sunken);
  color: var(--ink);
}

input,
select,
textarea {
  border: 1px solid var(--edge);
  border-radius: var(--radius);
  background: var(--raised);
}

::placeholder {
  color: var(--soft);
  opacity: 1;
}

.hint {
  color: var(--soft);
  font-size: var(--small);
  line-height: 1.5;
}

table {
  width: 100%;
  border-collapse: collapse;
  font-size: var(--small);
  font-variant-numeric: tabular-nums;
}

th,
td {
  padding: 0.25rem 0;
  text-align: start;
  font-weight: inherit;
}

/* Code with its head. */

.code {
  border: 1px solid var(--line);
  border-radius: var(--radius);
  background: var(--sunken);
}

.code-top {
  display: flex;
  align-items: center;
  justify-content: space-between;
  padding: 0.25rem 0.375rem 0.25rem 0.875rem;
  border-block-end: 1px solid var(--line);
  color: var(--soft);
  font-size: var(--small);
}

.code pre {
  margin: 0;
  padding: 0.75rem 0.875rem;
  overflow-x: auto;
  line-height: 1.55;
  overflow-wrap: normal;
  tab-size: 4;
}

@media (prefers-reduced-motion: reduce) {
  *,
  *::before,
  *::after {
    animation: none !important;
    transition: none !important;
    scroll-behavior: auto !important;
  }
}

@media (forced-colors: active) {
  .icon .filled {
    fill: CanvasText;
  }
}
`,
  },
  "/page/card.js": {
    type: "text/javascript; charset=utf-8",
    hash: "75c6379d82a17dc8",
    body: `// @ts-check
/**
 * A model's card: what it is, what it weighs beside the dense model, and what pruning left of each
 * block.
 * @module
 */
import { draw, make } from "./dom.js";

/** @typedef {import("./api.js").Card} Card */
/** @typedef {import("./api.js").Weights} Weights */

/**
 * Bytes as people write them.
 *
 * @param {number} bytes
 */
export function size(bytes) {
  const [value, unit] = bytes >= 1e9
    ? [bytes / 1e9, "GB"]
    : bytes >= 1e6
    ? [bytes / 1e6, "MB"]
    : [bytes / 1e3, "kB"];
  return \`\${value < 10 ? value.toFixed(1) : Math.round(value)}\\u00a0\${unit}\`;
}

/**
 * A number of weights.
 *
 * @param {number} count
 */
function weights(count) {
  if (count >= 1e9) return \`\${(count / 1e9).toFixed(count < 1e10 ? 2 : 0)} billion\`;
  return \`\${count >= 1e7 ? Math.round(count / 1e6) : (count / 1e6).toFixed(1)} million\`;
}

/** @param {number} part */
const percent = (part) => \`\${(part * 100).toFixed(0)}\\u00a0%\`;

/**
 * What a model is, in a sentence or two.
 *
 * @param {Card} card
 */
export function sentence({ card, fileBytes, weightBytes }) {
  const bytes = size(fileBytes ?? weightBytes);
  if (!card) return \`\${bytes}, on this machine.\`;
  const { sparsity, dense } = card;
  const pruned = sparsity > 0.005 ? \`, \${percent(sparsity)} of them pruned away\` : "";
  return \`\${weights(card.parameters)} weights in its blocks\${pruned}. \` +
    \`\${bytes} where the dense model takes \${size(dense.f16)}.\`;
}

/**
 * The whole card.
 *
 * @param {Card} model
 * @param {boolean} complete Whether nothing more of it is on its way.
 * @returns {HTMLElement}
 */
export function showCard(model, complete) {
  const { card } = model;
  const root = make("div", { class: "card" }, make("h2", {}, model.name));
  if (card) root.append(sizes(model, card));
  if (card && card.blocks.length > 0) root.append(blocks(card));
  if (!card && !complete) root.append(make("p", { class: "hint" }, "Reading its weights …"));
  root.append(facts(model));
  return root;
}

/**
 * Bars of bytes, this model's and those of dense ones.
 *
 * @param {Card} model
 * @param {Weights} card
 */
function sizes({ fileBytes, weightBytes }, { dense }) {
  /** @type {[name: string, bytes: number, own: boolean][]} */
  const rows = [
    ["This model", fileBytes ?? weightBytes, true],
    ["Dense, float16", dense.f16, false],
    ["Dense, int8", dense.int8, false],
    ["Dense, int4", dense.int4, false],
  ];
  const most = Math.max(...rows.map(([, bytes]) => bytes));
  const body = rows.map(([name, bytes, own]) =>
    make(
      "tr",
      { class: own ? "own" : undefined },
      make("th", { scope: "row" }, name),
      make("td", { class: "bar-cell" }, bar(bytes / most)),
      make("td", { class: "number" }, size(bytes)),
    )
  );
  return make(
    "section",
    {},
    make("h3", { id: "sizes-title" }, "Size of the files"),
    make("table", { class: "sizes", "aria-labelledby": "sizes-title" }, make("tbody", {}, ...body)),
  );
}

/** @param {number} part Of the full width. */
function bar(part) {
  return draw(
    "svg",
    { class: "size-bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("rect", { width: Math.max(0.5, part * 100), height: 8 }),
  );
}

/** Up to so many blocks have higher rows, and a number each. */
const FEW = 12;
/** Units of the plot: room for the numbers, and the length of a whole bar. */
const LEFT = 26;
const WIDE = 274;

/**
 * What is left of each block: a branch a block, the first at the bottom, as trees grow.
 *
 * @param {Weights} card
 */
function blocks({ blocks, sparsity }) {
  const few = blocks.length <= FEW;
  const [row, thick] = few ? [14, 8] : [9, 5];
  const height = blocks.length * row;
  const kept = blocks.map((block) => 1 - block.sparsity);
  const least = Math.min(...kept);
  const most = Math.max(...kept);
  const summary =
    \`\${blocks.length} blocks, which keep from \${percent(least)} to \${percent(most)} \` +
    \`of their weights; \${percent(1 - sparsity)} together.\`;
  const every = few ? 1 : Math.ceil(blocks.length / 8);
  const plot = draw("svg", {
    class: "blocks",
    viewBox: \`0 0 \${LEFT + WIDE + 1} \${height + 24}\`,
    role: "img",
    "aria-label": \`Bar plot. \${summary}\`,
  });
  for (const part of [0, 0.5, 1]) {
    const x = LEFT + part * WIDE;
    plot.append(
      draw("path", { class: part === 0 ? "trunk" : "rule", d: \`M\${x} 0V\${height + 4}\` }),
      draw(
        "text",
        { x, y: height + 18, "text-anchor": ["start", "middle", "end"][part * 2] },
        \`\${part * 100}\\u00a0%\`,
      ),
    );
  }
  blocks.forEach((block, i) => {
    const y = height - (i + 1) * row + (row - thick) / 2;
    const line = draw(
      "g",
      {},
      draw("title", {}, \`Block \${block.index}: \${percent(kept[i])} kept, \${size(block.bytes)}\`),
      // The whole row answers to the pointer.
      draw("rect", { class: "reach", x: 0, y: y - 2, width: LEFT + WIDE, height: row }),
      draw("rect", { class: "bare", x: LEFT, y, width: WIDE, height: thick }),
      draw("rect", { class: "branch", x: LEFT, y, width: kept[i] * WIDE, height: thick }),
    );
    if (i % every === 0) {
      line.append(
        draw(
          "text",
          { x: LEFT - 7, y: y + thick / 2 + 3.5, "text-anchor": "end" },
          \`\${block.index}\`,
        ),
      );
    }
    plot.append(line);
  });
  const rows = blocks.map(({ index, sparsity, bytes }) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, String(index)),
      make("td", { class: "number" }, percent(1 - sparsity)),
      make("td", { class: "number" }, percent(sparsity)),
      make("td", { class: "number" }, size(bytes)),
    )
  );
  const head = ["Block", "Kept", "Pruned", "Bytes"].map((name, i) =>
    make("th", { scope: "col", class: i > 0 ? "number" : undefined }, name)
  );
  const table = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...rows),
  );
  return make(
    "section",
    {},
    make("h3", {}, "What is left of each block"),
    plot,
    make("details", { class: "as-table" }, make("summary", {}, "As a table"), table),
  );
}

/** @param {Card} model */
function facts(model) {
  const { card } = model;
  /** @type {[name: string, value: string | undefined][]} */
  const rows = [
    ["Architecture", model.architecture],
    ["Weights in blocks", card && weights(card.parameters)],
    ["Pruned", card && percent(card.sparsity)],
    ["Format", card && formats(card.formats)],
    ["Values", card?.values],
    ["Engine", \`\${model.engine}, \${model.device}\`],
    ["Threads", String(model.threads)],
    ["Context", \`\${model.context.toLocaleString("en")} tokens\`],
    ["Weights in memory", size(model.weightBytes)],
    ["Cache", \`\${size(model.cacheBytesPerToken)} a token\`],
    ["Full cache", size(model.cacheBytesPerToken * model.context + (model.stateBytes ?? 0))],
  ];
  const list = make("dl", { class: "facts" });
  for (const [name, value] of rows) {
    if (value) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  }
  return make("section", {}, make("h3", {}, "Details"), list);
}

/** @param {Record<string, number>} formats */
function formats(formats) {
  const parts = Object.entries(formats).sort(([, a], [, b]) => b - a);
  if (parts.length === 1) return parts[0][0];
  return parts.map(([name, count]) => \`\${name} (\${count})\`).join(", ");
}
`,
  },
  "/page/chat.js": {
    type: "text/javascript; charset=utf-8",
    hash: "e2a36c8f2f3c42b5",
    body: `// @ts-check
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
 * \`failed\`: an answer of which nothing came.
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
    announcer.end(answer.error ? explain(answer.error) : \`End of the answer. \${closing}\`);
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
    this.#prompt.style.height = \`\${this.#prompt.scrollHeight}px\`;
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
`,
  },
  "/page/docs.css": {
    type: "text/css; charset=utf-8",
    hash: "f31619e6316d4768",
    body: `/* The reference of the API: contents at the side, routes below one another. */

html {
  scroll-padding-block-start: 1.5rem;
}

.page {
  display: grid;
  grid-template-columns: 15rem minmax(0, 46rem);
  gap: 3rem;
  max-width: 70rem;
  margin-inline: auto;
  padding: 2.5rem 1.5rem 6rem;
}

.side {
  position: sticky;
  inset-block-start: 1.5rem;
  align-self: start;
  max-height: calc(100dvh - 3rem);
  padding: 0.25rem;
  overflow-y: auto;
  font-size: 0.875rem;
}

.contents-tag {
  margin-block: 1.25rem 0.25rem;
  color: var(--soft);
  font-size: var(--small);
}

.contents-tag:first-child {
  margin-block-start: 0;
}

.side ul {
  list-style: none;
}

.side a {
  display: block;
  padding-block: 0.25rem;
  color: var(--ink);
  text-decoration: none;
}

.side a:hover {
  color: var(--leaf);
}

.intro h1 {
  font: 400 clamp(1.875rem, 5vw, 2.375rem) / 1.2 var(--serif);
  letter-spacing: -0.01em;
}

.intro p {
  margin-block-start: 0.625rem;
  text-wrap: pretty;
}

.facts-line {
  color: var(--soft);
  font-size: 0.9375rem;
  overflow-wrap: anywhere;
}

.tag {
  margin-block-start: 3.5rem;
}

.tag > h2 {
  padding-block-end: 0.5rem;
  border-block-end: 1px solid var(--line);
  font: 400 1.5rem/1.3 var(--serif);
}

.tag > h2::first-letter,
.contents-tag::first-letter {
  text-transform: uppercase;
}

.tag-about {
  margin-block-start: 0.75rem;
  color: var(--soft);
}

.route {
  margin-block-start: 2.5rem;
}

.route h3 {
  font-size: 1.125rem;
  line-height: 1.4;
}

.route h3 a {
  color: inherit;
  text-decoration: none;
}

.route h3 a:hover {
  text-decoration: underline;
}

.route h4 {
  margin-block: 1.5rem 0.375rem;
  font-size: 0.875rem;
}

.route-path {
  display: flex;
  flex-wrap: wrap;
  align-items: baseline;
  gap: 0.625rem;
  margin-block-start: 0.25rem;
  overflow-wrap: anywhere;
}

.method {
  color: var(--leaf);
  font-size: var(--small);
  font-weight: 600;
  letter-spacing: 0.04em;
}

.route-about {
  margin-block-start: 0.75rem;
}

.fields {
  border-block-start: 1px solid var(--line);
  font-size: 0.9375rem;
  list-style: none;
}

.fields li {
  padding-block: 0.5rem;
  border-block-end: 1px solid var(--line);
  overflow-wrap: anywhere;
}

.fields .fields {
  margin-block-start: 0.5rem;
  padding-inline-start: 1rem;
  border-block-start: 0;
  border-inline-start: 2px solid var(--branch);
}

.fields .fields li:last-child {
  border-block-end: 0;
}

.fields p {
  color: var(--soft);
  font-size: 0.875rem;
  line-height: 1.5;
}

.field-name {
  color: var(--ink);
  font-size: 0.875rem;
  font-weight: 600;
}

.fields details {
  margin-block-start: 0.125rem;
}

.fields summary {
  width: fit-content;
  color: var(--leaf);
  font-size: 0.875rem;
}

.field-type {
  color: var(--soft);
  font-size: 0.875rem;
}

.field-required {
  color: var(--leaf);
  font-size: var(--small);
}

.media > summary,
.media.fields {
  margin-block-end: 0.5rem;
}

.response {
  padding-block: 0.375rem;
  font-size: 0.9375rem;
}

.response.plain {
  padding-inline-start: 1.1rem;
}

.response > div {
  padding: 0.5rem 0 0.5rem 1.1rem;
}

.status {
  font-weight: 600;
}

.route > .code {
  margin-block-start: 1.5rem;
}

@media (max-width: 56rem) {
  .page {
    grid-template-columns: minmax(0, 1fr);
    gap: 2rem;
    padding: 1.75rem 1rem 4rem;
  }

  .side {
    position: static;
    order: 1;
    max-height: none;
  }

  .content {
    display: contents;
  }

  .intro {
    order: 0;
  }

  #routes {
    order: 2;
  }

  .tag:first-child {
    margin-block-start: 0;
  }
}
`,
  },
  "/page/docs.js": {
    type: "text/javascript; charset=utf-8",
    hash: "0450fcd10e6a625e",
    body: `// @ts-check
/**
 * The reference of the API: shows the server's \`/openapi.json\`.
 *
 * A page made by others would be larger than all else that goes to an edge function (swagger-ui has
 * 1.5 MB, and an edge function 1 MB) or come from another host, which the pages' policy forbids.
 *
 * @module
 */
import { button, byId, copyButton, make } from "./dom.js";
import { prose, Schemas } from "./schema.js";

/** @typedef {import("./schema.js").Schema} Schema */

/**
 * @typedef {object} Operation
 * @property {string[]} [tags]
 * @property {string} [summary]
 * @property {string} [description]
 * @property {object[]} [security] Empty where no key is needed.
 * @property {Parameter[]} [parameters]
 * @property {Body} [requestBody]
 * @property {Record<string, Body>} [responses]
 */
/** @typedef {{ name: string, in: string, required?: boolean, description?: string, schema?: Schema }} Parameter */
/** @typedef {{ schema?: Schema, example?: unknown, examples?: Record<string, { value?: unknown }> }} Media */
/** @typedef {{ description?: string, content?: Record<string, Media> }} Body */
/** @typedef {{ method: string, path: string, operation: Operation, id: string }} Route */

const METHODS = ["get", "post", "put", "patch", "delete"];
const OTHER = "Server";
const base = new URL("../", import.meta.url);
const main = byId("routes", HTMLElement);
const contents = byId("contents", HTMLElement);

async function start() {
  main.setAttribute("aria-busy", "true");
  main.replaceChildren(make("p", { class: "hint" }, "Reading the description …"));
  try {
    const response = await fetch(new URL("openapi.json", base));
    if (!response.ok) throw new Error(\`The server answered \${response.status}.\`);
    show(await response.json());
  } catch (error) {
    const message = error instanceof TypeError
      ? "The server cannot be reached."
      : /** @type {Error} */ (error).message;
    main.replaceChildren(
      make("p", { role: "alert" }, \`The description could not be read. \${message}\`),
      button("Try again", () => void start(), { class: "button" }),
    );
  }
  main.removeAttribute("aria-busy");
}

/** @param {any} api An OpenAPI document. */
function show(api) {
  const schemas = new Schemas(api);
  byId("version", HTMLElement).textContent = api.info?.version ?? "";
  byId("about", HTMLElement).replaceChildren(...prose(api.info?.description ?? ""));
  byId("base", HTMLElement).textContent = base.href.replace(/\\/$/, "");
  main.replaceChildren();
  contents.replaceChildren();
  /** @type {Map<string, string | undefined>} */
  const described = new Map(
    (api.tags ?? []).map((/** @type {any} */ { name, description }) => [name, description]),
  );
  for (const [tag, routes] of byTag(api)) {
    const id = \`tag-\${tag.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}\`;
    const description = described.get(tag);
    const section = make(
      "section",
      { class: "tag", "aria-labelledby": id },
      make("h2", { id }, tag),
      description && make("p", { class: "tag-about" }, ...prose(description)),
    );
    const list = make("ul");
    for (const route of routes) {
      section.append(showRoute(route, api, schemas));
      const name = route.operation.summary ?? route.path;
      list.append(make("li", {}, make("a", { href: \`#\${route.id}\` }, name)));
    }
    main.append(section);
    contents.append(make("p", { class: "contents-tag" }, tag), list);
  }
  // The place that was asked for is there only now.
  const asked = location.hash && document.getElementById(location.hash.slice(1));
  if (asked) asked.scrollIntoView();
}

/**
 * @param {any} api
 * @returns {Map<string, Route[]>} In the order of the description's tags.
 */
function byTag({ tags = [], paths = {} }) {
  /** @type {Map<string, Route[]>} */
  const found = new Map(tags.map((/** @type {any} */ { name }) => [name, []]));
  for (const [path, item] of Object.entries(paths)) {
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const parameters = [...item.parameters ?? [], ...operation.parameters ?? []];
      const tag = operation.tags?.[0] ?? OTHER;
      const id = \`\${method}\${path.replaceAll(/[^A-Za-z0-9]+/g, "-")}\`.replace(/-$/, "");
      const routes = found.get(tag) ?? [];
      routes.push({ method, path, id, operation: { ...operation, parameters } });
      found.set(tag, routes);
    }
  }
  return new Map([...found].filter(([, routes]) => routes.length > 0));
}

/**
 * @param {Route} route
 * @param {any} api
 * @param {Schemas} schemas
 */
function showRoute(route, api, schemas) {
  const { method, path, operation, id } = route;
  const { summary, description, parameters = [], requestBody, responses = {} } = operation;
  const article = make(
    "article",
    { class: "route", id },
    make("h3", {}, make("a", { href: \`#\${id}\` }, summary ?? path)),
    make(
      "p",
      { class: "route-path" },
      make("span", { class: "method" }, method.toUpperCase()),
      make("code", {}, path),
    ),
    description && make("p", { class: "route-about" }, ...prose(description)),
  );
  if (parameters.length > 0) {
    const list = make("ul", { class: "fields" });
    for (const parameter of parameters.map((each) => schemas.resolve(each))) {
      list.append(showParameter(parameter, schemas));
    }
    article.append(make("h4", {}, "Parameters"), list);
  }
  if (requestBody) article.append(make("h4", {}, "Body"), ...bodyOf(requestBody, schemas, true));
  article.append(showExample(route, api, schemas));
  article.append(make("h4", {}, "Answers"));
  for (const [status, response] of Object.entries(responses)) {
    article.append(showResponse(status, response, schemas));
  }
  return article;
}

/**
 * @param {Parameter} parameter
 * @param {Schemas} schemas
 */
function showParameter({ name, in: where, required, description, schema = {} }, schemas) {
  return make(
    "li",
    {},
    make("code", { class: "field-name" }, name),
    " ",
    make("span", { class: "field-type" }, \`\${schemas.nameOf(schema)}, in the \${where}\`),
    required && make("span", { class: "field-required" }, " required"),
    description && make("p", {}, ...prose(description)),
  );
}

/**
 * @param {string} status
 * @param {Body} response
 * @param {Schemas} schemas
 */
function showResponse(status, response, schemas) {
  const { description = "", content } = schemas.resolve(response);
  const head = [
    make("code", { class: "status" }, status),
    " ",
    make("span", {}, ...prose(description)),
  ];
  if (!content) return make("p", { class: "response plain" }, ...head);
  const details = make("details", { class: "response" }, make("summary", {}, ...head));
  details.addEventListener("toggle", () => {
    if (details.childElementCount === 1) {
      details.append(make("div", {}, ...bodyOf({ content }, schemas, false)));
    }
  });
  return details;
}

/**
 * What a body may be, by media type.
 *
 * @param {Body} body
 * @param {Schemas} schemas
 * @param {boolean} open Whether the fields are there at once.
 */
function bodyOf(body, schemas, open) {
  const { content = {} } = schemas.resolve(body);
  return Object.entries(content).map(([type, { schema = {} }]) => {
    const head = [
      make("code", {}, type),
      " ",
      make("span", { class: "field-type" }, schemas.nameOf(schema)),
    ];
    const tree = schemas.tree(schema);
    if (!tree) return make("p", { class: "media" }, ...head);
    return make("details", { class: "media", open }, make("summary", {}, ...head), tree);
  });
}

/**
 * The route as a call of curl.
 *
 * @param {Route} route
 * @param {any} api
 * @param {Schemas} schemas
 */
function showExample({ method, path, operation }, api, schemas) {
  const lines = [
    \`curl \${
      new URL(path.replace(/^\\//, ""), base).href.replaceAll(
        /%7B|%7D/gi,
        (code) => decodeURIComponent(code),
      )
    }\`,
  ];
  if (method !== "get" && method !== "post") lines.push(\`-X \${method.toUpperCase()}\`);
  const security = operation.security ?? api.security ?? [];
  if (security.length > 0) lines.push(\`-H "Authorization: Bearer $ESPALIER_KEY"\`);
  const json = operation.requestBody &&
    schemas.resolve(operation.requestBody).content?.["application/json"];
  if (json) {
    const example = json.example ?? Object.values(json.examples ?? {})[0]?.value ??
      schemas.example(json.schema ?? {});
    lines.push(\`-H "Content-Type: application/json"\`);
    // A quote within quotes of a shell.
    lines.push(\`-d '\${JSON.stringify(example, undefined, 2).replaceAll("'", "'\\\\''")}'\`);
  } else if (method === "post") {
    lines.push("-X POST");
  }
  const text = lines.join(" \\\\\\n  ");
  return make(
    "div",
    { class: "code" },
    make(
      "div",
      { class: "code-top" },
      make("span", {}, "curl"),
      copyButton(() => text, "the call"),
    ),
    make("pre", { tabindex: 0 }, make("code", {}, text)),
  );
}

void start();
`,
  },
  "/page/dom.js": {
    type: "text/javascript; charset=utf-8",
    hash: "5134d469f194d7c6",
    body: `// @ts-check
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
  element.append(label, make("span", { class: "unseen" }, \` \${name}\`));
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
  throw new TypeError(\`the page has no \${kind.name} with the id \${id}\`);
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
`,
  },
  "/page/editor.js": {
    type: "text/javascript; charset=utf-8",
    hash: "8c9d9604194574f4",
    body: `// @ts-check
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
`,
  },
  "/page/mark.svg": {
    type: "image/svg+xml",
    hash: "1e8e8adbc68b8377",
    body: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" stroke="#3f7a4c"
  stroke-width="2.25" stroke-linecap="round" stroke-linejoin="round">
  <path
    d="M16 29V4M16 29c0-3-2-5-5-5H3M16 29c0-3 2-5 5-5h8M16 21c0-3-2-5-5-5H5M16 21c0-3 2-5 5-5h6M16 13c0-3-2-5-5-5H8M16 13c0-3 2-5 5-5h3" />
</svg>
`,
  },
  "/page/panel.js": {
    type: "text/javascript; charset=utf-8",
    hash: "64b55dc99eaa2f64",
    body: `// @ts-check
/**
 * The panel of model and settings: two tabs, and on narrow screens a sheet over the page.
 * @module
 */
import { byId, composes } from "./dom.js";

const NARROW = "(max-width: 62rem)";

/** @returns {{ show(tab: "model" | "settings"): void }} Brings a tab to sight. */
export function setUpPanel() {
  const panel = byId("panel", HTMLElement);
  const opener = byId("open-panel", HTMLButtonElement);
  const closer = byId("close-panel", HTMLButtonElement);
  const narrow = matchMedia(NARROW);
  const tabs = [byId("tab-model", HTMLButtonElement), byId("tab-settings", HTMLButtonElement)];
  const behind = [byId("main", HTMLElement), byId("skip", HTMLElement)];

  /** @param {HTMLButtonElement} chosen */
  const select = (chosen) => {
    for (const tab of tabs) {
      const is = tab === chosen;
      tab.setAttribute("aria-selected", String(is));
      tab.tabIndex = is ? 0 : -1;
      byId(tab.getAttribute("aria-controls") ?? "", HTMLElement).hidden = !is;
    }
  };

  /** @param {boolean} open */
  const setOpen = (open) => {
    panel.classList.toggle("open", open);
    opener.setAttribute("aria-expanded", String(open));
    // What lies under the sheet is out of reach while it is open, and the sheet while it is not.
    for (const element of [...behind, ...document.querySelectorAll(".bar")]) {
      /** @type {HTMLElement} */ (element).inert = open && narrow.matches;
    }
    panel.inert = !open && narrow.matches;
  };

  const close = () => {
    setOpen(false);
    opener.focus();
  };

  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      const other = tabs[1 - tabs.indexOf(tab)];
      select(other);
      other.focus();
    });
  }
  opener.addEventListener("click", () => {
    setOpen(true);
    closer.focus();
  });
  closer.addEventListener("click", close);
  const isSheet = () => narrow.matches && panel.classList.contains("open");
  // Before others hear of it, wherever the focus is: an answer that is being written goes on.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !isSheet() || composes(event)) return;
    event.stopPropagation();
    close();
  }, true);
  document.addEventListener("pointerdown", (event) => {
    if (isSheet() && event.target instanceof Node && !panel.contains(event.target)) close();
  });
  narrow.addEventListener("change", () => setOpen(false));
  setOpen(false);

  return {
    show(name) {
      select(name === "model" ? tabs[0] : tabs[1]);
      if (narrow.matches) setOpen(true);
    },
  };
}
`,
  },
  "/page/playground.css": {
    type: "text/css; charset=utf-8",
    hash: "73989b2e42ff00c9",
    body: `/* The playground: a conversation, and beside it a panel, which on narrow screens is a sheet. */

html,
body {
  height: 100%;
}

body {
  display: grid;
  grid-template: "bar bar" auto "main panel" minmax(0, 1fr) / minmax(0, 1fr) 22.5rem;
  height: 100dvh;
  overflow: hidden;
}

.bar {
  grid-area: bar;
}

main {
  display: grid;
  grid-area: main;
  min-width: 0;
  min-height: 0;
}

.narrow-only {
  display: none;
}

.column {
  width: 100%;
  max-width: 46rem;
  margin-inline: auto;
  padding-inline: 1.5rem;
}

/* Model */

.model-choice {
  min-width: 0;
  padding-inline-start: 1rem;
  border-inline-start: 1px solid var(--line);
  color: var(--soft);
  font-size: 0.9375rem;
}

.model-name {
  display: block;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.model-choice select {
  max-width: 100%;
  min-height: 2.25rem;
  padding: 0 0.5rem;
  border-color: var(--line);
  color: var(--ink);
  text-overflow: ellipsis;
}

/* While the server is not there */

.notice {
  align-self: center;
  justify-self: center;
  max-width: 26rem;
  padding: 2rem;
  text-align: center;
}

.notice .mark {
  width: 3.5rem;
  height: 3.5rem;
  margin-block-end: 1rem;
  stroke-width: 1.25;
}

.notice-title {
  font-family: var(--serif);
  font-size: 1.375rem;
  line-height: 1.3;
}

.notice-text {
  margin-block: 0.5rem 1.25rem;
  overflow-wrap: anywhere;
  color: var(--soft);
}

/* Seen where this file is not: links are relative, and some hosts give a folder's page without the slash. */
.without-files {
  display: none;
}

.notice-progress {
  display: block;
  width: min(20rem, 100%);
  height: 6px;
  margin: 0 auto 0.5rem;
  border: 0;
  border-radius: 3px;
  overflow: hidden;
  appearance: none;
  background: var(--bare);
}

.notice-progress::-webkit-progress-bar {
  background: var(--bare);
}

.notice-progress::-webkit-progress-value {
  background: var(--branch);
}

.notice-progress::-moz-progress-bar {
  background: var(--branch);
}

.notice-figures {
  margin: 0;
  color: var(--soft);
  font-size: var(--small);
  font-variant-numeric: tabular-nums;
}

.notice-progress[hidden],
.notice-figures:empty {
  display: none;
}

.growing path {
  animation: grow 3.2s ease-in-out infinite;
  stroke-dasharray: 1;
}

.growing path:nth-child(n + 2) {
  animation-delay: 0.25s;
}

.growing path:nth-child(n + 4) {
  animation-delay: 0.45s;
}

.growing path:nth-child(n + 6) {
  animation-delay: 0.65s;
}

.failed .growing path {
  animation: none;
}

@keyframes grow {
  0% {
    stroke-dashoffset: 1;
  }

  50%,
  85% {
    opacity: 1;
    stroke-dashoffset: 0;
  }

  100% {
    opacity: 0;
    stroke-dashoffset: 0;
  }
}

/* Conversation */

.view {
  display: grid;
  grid-template-rows: minmax(0, 1fr) auto;
  min-width: 0;
  min-height: 0;
}

.scroll {
  overflow-y: auto;
  overscroll-behavior: contain;
  scrollbar-gutter: stable both-edges;
  scrollbar-width: thin;
}

.scroll:focus-visible {
  outline-offset: -2px;
}

.scroll > .column {
  display: flex;
  flex-direction: column;
  min-height: 100%;
}

.greeting {
  margin-block: auto;
  padding-block: 2rem 3rem;
}

.greeting h2 {
  font: 400 clamp(1.75rem, 5vw, 2.375rem) / 1.2 var(--serif);
  letter-spacing: -0.01em;
  overflow-wrap: anywhere;
}

.greeting p {
  max-width: 34rem;
  margin-block: 0.625rem 2rem;
  color: var(--soft);
  font-size: 1.0625rem;
  text-wrap: pretty;
}

.suggestions {
  border-block-start: 1px solid var(--line);
  list-style: none;
}

.suggestions li {
  border-block-end: 1px solid var(--line);
}

.suggestions button {
  width: 100%;
  min-height: 3rem;
  padding: 0.5rem 0;
  border: 0;
  background: none;
  text-align: start;
}

.suggestions button:hover {
  color: var(--leaf);
}

.messages {
  padding-block: 2rem 1.5rem;
  list-style: none;
}

.messages:empty {
  display: none;
}

.message + .message {
  margin-block-start: 1.75rem;
}

.user .said {
  width: fit-content;
  max-width: min(34rem, 88%);
  margin-inline-start: auto;
  padding: 0.625rem 1rem;
  border-radius: 14px 14px 4px 14px;
  background: var(--leaf-tint);
  overflow-wrap: anywhere;
  white-space: pre-wrap;
}

.text {
  overflow-wrap: anywhere;
}

.text > * + * {
  margin-block-start: 0.875rem;
}

.text p,
.text li {
  white-space: pre-wrap;
}

.text .heading {
  margin-block-start: 1.375rem;
  font-weight: 600;
}

.text ul,
.text ol {
  padding-inline-start: 1.5rem;
}

.text ul {
  list-style: disc;
}

.text li > ul {
  list-style: circle;
}

.text li + li {
  margin-block-start: 0.25rem;
}

.text li::marker {
  color: var(--soft);
  font-variant-numeric: tabular-nums;
}

.text :not(pre) > code {
  padding: 0.1em 0.3em;
  border-radius: 4px;
  background: var(--sunken);
}

.waiting .text::after {
  display: block;
  width: 0.5rem;
  height: 1.25rem;
  border-radius: 2px;
  background: var(--branch);
  content: "";
  animation: breathe 1.4s ease-in-out infinite;
}

@keyframes breathe {
  50% {
    opacity: 0.2;
  }
}

.tools {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 0.125rem;
  margin-block-start: 0.5rem;
  margin-inline-start: -0.5rem;
}

.measures {
  display: flex;
  flex-wrap: wrap;
  color: var(--soft);
  font-size: var(--small);
  font-variant-numeric: tabular-nums;
}

.tools .measures {
  padding-inline-start: 0.5rem;
}

.measures span:not(:last-child)::after {
  padding-inline: 0.45em;
  content: "·";
}

.failure {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  justify-content: space-between;
  gap: 0.75rem;
  margin-block-start: 0.75rem;
  padding: 0.625rem 0.625rem 0.625rem 1rem;
  border-radius: var(--radius);
  background: var(--warn-tint);
  color: var(--warn);
}

.failure p {
  flex: 1 1 14rem;
}

.failure .button {
  color: var(--ink);
}

/* Where messages are written */

.composer {
  position: relative;
  padding-block: 0.25rem max(0.75rem, env(safe-area-inset-bottom));
}

.composer-box {
  display: flex;
  align-items: end;
  gap: 0.5rem;
  padding: 0.4375rem;
  border: 1px solid var(--edge);
  border-radius: 16px;
  background: var(--raised);
}

.composer-box:focus-within {
  border-color: var(--leaf);
  box-shadow: 0 0 0 1px var(--leaf);
}

.composer textarea {
  flex: 1;
  min-width: 0;
  max-height: 12rem;
  padding: 0.375rem 0.625rem;
  border: 0;
  outline: 0;
  background: none;
  line-height: 1.5;
  resize: none;
  field-sizing: content;
}

.send {
  display: grid;
  flex: none;
  width: 2.25rem;
  height: 2.25rem;
  padding: 0;
  place-items: center;
  border: 0;
  border-radius: 10px;
  background: var(--leaf);
  color: var(--on-leaf);
}

.composer .hint {
  margin-block-start: 0.5rem;
  text-align: center;
}

.latest {
  position: absolute;
  inset-block-start: -2.25rem;
  inset-inline-start: 50%;
  min-height: 2rem;
  padding: 0 0.875rem;
  border: 1px solid var(--line);
  border-radius: 1rem;
  background: var(--raised);
  font-size: var(--small);
  transform: translateX(-50%);
}

/* A text that is continued */

.editor {
  display: flex;
  grid-row: 1 / -1;
  flex-direction: column;
  gap: 0.75rem;
  min-height: 0;
  padding-block: 1.5rem max(1.25rem, env(safe-area-inset-bottom));
}

.editor textarea {
  flex: 1;
  min-height: 8rem;
  padding: 1.25rem 1.5rem;
  border-color: var(--line);
  font: 1.125rem/1.65 var(--serif);
  resize: none;
}

.editor .measures {
  min-height: 1.3rem;
}

.editor .failure {
  margin: 0;
}

.editor-tools {
  display: flex;
  flex-wrap: wrap;
  gap: 0.5rem;
}

.spring {
  flex: 1;
}

/* Panel */

.panel {
  display: flex;
  grid-area: panel;
  flex-direction: column;
  min-height: 0;
  border-inline-start: 1px solid var(--line);
  background: var(--sunken);
}

.panel-top {
  display: flex;
  flex: none;
  align-items: center;
  justify-content: space-between;
  padding-inline: 1.25rem 0.75rem;
  border-block-end: 1px solid var(--line);
}

.tabs {
  display: flex;
  gap: 1.5rem;
}

.tab {
  min-height: 3rem;
  padding: 0;
  border: 0;
  border-block: 2px solid transparent;
  background: none;
  color: var(--soft);
  font-size: 0.9375rem;
}

.tab[aria-selected="true"] {
  border-block-end-color: var(--leaf);
  color: var(--ink);
}

.pane {
  flex: 1;
  min-height: 0;
  padding: 1.25rem;
  overflow-y: auto;
  overscroll-behavior: contain;
}

.pane:focus-visible {
  outline-offset: -2px;
}

.panel-end {
  padding: 0.75rem 1.25rem;
  border-block-start: 1px solid var(--line);
}

/* Card */

.card h2 {
  font: 400 1.375rem/1.25 var(--serif);
  overflow-wrap: anywhere;
}

.card section {
  margin-block-start: 1.625rem;
}

.card h3 {
  margin-block-end: 0.5rem;
  font-size: 0.875rem;
  font-weight: 600;
}

.number {
  text-align: end;
  white-space: nowrap;
}

.sizes th {
  width: 6.5rem;
  color: var(--soft);
}

.sizes .own th {
  color: var(--ink);
}

.bar-cell {
  padding-inline: 0.25rem 0.75rem;
}

.size-bar {
  display: block;
  width: 100%;
  height: 8px;
  fill: var(--edge);
}

.own .size-bar {
  fill: var(--branch);
}

.blocks {
  display: block;
  width: 100%;
  height: auto;
}

.blocks text {
  fill: var(--soft);
  font-size: 10px;
  font-variant-numeric: tabular-nums;
}

.blocks .rule {
  stroke: var(--line);
}

.blocks .trunk {
  stroke: var(--branch);
  stroke-width: 2;
}

.blocks .bare {
  fill: var(--bare);
}

.blocks .branch {
  fill: var(--branch);
}

.blocks .reach {
  fill: transparent;
}

.blocks g:hover .branch {
  fill: var(--leaf);
}

.as-table {
  margin-block-start: 0.5rem;
  font-size: var(--small);
}

.as-table summary {
  width: fit-content;
  color: var(--soft);
}

.as-table thead {
  color: var(--soft);
}

.facts {
  font-size: var(--small);
}

.facts div {
  display: flex;
  justify-content: space-between;
  gap: 1rem;
  padding-block: 0.3125rem;
  border-block-start: 1px solid var(--line);
}

.facts dt {
  flex: none;
  color: var(--soft);
}

.facts dd {
  overflow-wrap: anywhere;
  text-align: end;
  font-variant-numeric: tabular-nums;
}

/* Settings */

#settings {
  display: grid;
  gap: 1.5rem;
}

.field {
  display: flex;
  flex-direction: column;
  gap: 0.3125rem;
  min-width: 0;
}

.field label,
legend,
.switch {
  font-size: 0.875rem;
}

#settings legend,
#settings > .field > label {
  padding: 0;
  font-weight: 600;
}

.pair {
  display: grid;
  grid-template-columns: 1fr 1fr;
  gap: 0.875rem 1rem;
  margin-block-start: 0.75rem;
}

.field input,
.field textarea {
  width: 100%;
  min-height: 2.375rem;
  padding: 0.375rem 0.625rem;
  font-size: 0.9375rem;
  font-variant-numeric: tabular-nums;
}

.field textarea {
  line-height: 1.5;
  resize: vertical;
}

.field input[type="number"] {
  appearance: textfield;
}

.field [aria-invalid="true"] {
  border-color: var(--warn);
}

.wrong {
  color: var(--warn);
  font-size: var(--small);
}

.switch {
  display: flex;
  align-items: center;
  gap: 0.625rem;
  min-height: 2rem;
  cursor: pointer;
}

.switch input {
  position: relative;
  width: 2.25rem;
  height: 1.25rem;
  margin: 0;
  border-radius: 1rem;
  appearance: none;
  cursor: pointer;
}

.switch input::before {
  position: absolute;
  inset-block-start: 3px;
  inset-inline-start: 3px;
  width: 0.75rem;
  height: 0.75rem;
  border-radius: 50%;
  background: var(--edge);
  content: "";
  transition: translate 0.12s;
}

.switch input:checked {
  border-color: var(--leaf);
  background: var(--leaf);
}

.switch input:checked::before {
  background: var(--on-leaf);
  translate: 1rem;
}

/* Key */

.dialog {
  width: min(26rem, calc(100vw - 2rem));
  padding: 1.5rem;
  border: 1px solid var(--line);
  border-radius: 14px;
  background: var(--raised);
  color: var(--ink);
}

.dialog::backdrop {
  background: rgb(0 0 0 / 0.4);
}

.dialog h2 {
  font: 400 1.375rem/1.3 var(--serif);
}

.dialog p {
  margin-block: 0.375rem 1.25rem;
  color: var(--soft);
  font-size: 0.9375rem;
}

.dialog-tools {
  display: flex;
  justify-content: end;
  gap: 0.5rem;
  margin-block-start: 1.25rem;
}

/* Each paragraph in the direction that its own words have. */

.said,
.text p,
.text li,
.composer textarea,
.editor textarea,
.field textarea {
  unicode-bidi: plaintext;
}

/* Colours of the system alone */

@media (forced-colors: active) {
  .tab[aria-selected="false"] {
    border-color: Canvas;
  }

  .switch input::before {
    background: ButtonText;
    forced-color-adjust: none;
  }
}

/* Narrow screens */

@media (max-width: 62rem) {
  body {
    grid-template: "bar" auto "main" minmax(0, 1fr) / minmax(0, 1fr);
  }

  .narrow-only {
    display: revert;
  }

  .tool.narrow-only {
    display: inline-flex;
  }

  .panel {
    position: fixed;
    inset-block: 0;
    inset-inline-end: 0;
    z-index: 5;
    width: min(24rem, 100vw);
    padding-block-end: env(safe-area-inset-bottom);
    box-shadow: 0 0 0 100vmax rgb(0 0 0 / 0.4);
    visibility: hidden;
  }

  .panel.open {
    visibility: visible;
  }
}

@media (max-width: 40rem) {
  .bar {
    gap: 0.75rem;
    padding-inline: 1rem 0.5rem;
  }

  .bar .wordmark,
  .wide-only,
  .tool-text {
    display: none;
  }

  .model-choice {
    padding-inline-start: 0.75rem;
  }

  .bar-end .tool {
    width: 2.5rem;
    padding: 0;
  }

  .column {
    padding-inline: 1rem;
  }

  .scroll {
    scrollbar-gutter: auto;
  }

  .composer .hint,
  .keys {
    display: none;
  }

  .panel {
    border: 0;
  }

  /* Below 16 pixels, phones zoom into a field that is touched. */
  .field input,
  .field textarea {
    font-size: 1rem;
  }

  .editor textarea {
    padding: 1rem;
  }

  .editor-tools {
    gap: 0.375rem;
  }

  .editor-tools .button {
    padding: 0 0.75rem;
    font-size: 0.875rem;
  }
}

/* On paper: all of the conversation, dark on white, and nothing to press. */

@media print {
  :root,
  :root[data-theme] {
    color-scheme: light;
  }

  html,
  body,
  main,
  .view,
  .scroll,
  .scroll > .column {
    display: block;
    height: auto;
    min-height: 0;
    overflow: visible;
  }

  .bar-end,
  .panel,
  .composer,
  .tools button,
  .code-top button,
  .editor-tools {
    display: none;
  }

  .editor textarea {
    width: 100%;
    field-sizing: content;
  }

  .code pre {
    white-space: pre-wrap;
  }
}
`,
  },
  "/page/playground.js": {
    type: "text/javascript; charset=utf-8",
    hash: "cdf8509b1a238c74",
    body: `// @ts-check
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
`,
  },
  "/page/schema.js": {
    type: "text/javascript; charset=utf-8",
    hash: "1b7390fdd321bcd8",
    body: `// @ts-check
/**
 * Shows JSON schemas, as OpenAPI 3.1 has them, as trees that unfold; and makes examples of them.
 *
 * A branch is built when it is opened: a schema may contain itself.
 *
 * @module
 */
import { make } from "./dom.js";

/**
 * As much of a schema as is shown.
 *
 * @typedef {object} Schema
 * @property {string} [$ref]
 * @property {string | string[]} [type]
 * @property {string} [format]
 * @property {string} [description]
 * @property {unknown} [default]
 * @property {unknown} [const]
 * @property {unknown[]} [enum]
 * @property {unknown} [example]
 * @property {unknown[]} [examples]
 * @property {Record<string, Schema>} [properties]
 * @property {string[]} [required]
 * @property {Schema | boolean} [additionalProperties]
 * @property {Schema} [items]
 * @property {Schema[]} [anyOf]
 * @property {Schema[]} [oneOf]
 * @property {Schema[]} [allOf]
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {number} [exclusiveMinimum]
 * @property {number} [exclusiveMaximum]
 * @property {number} [minLength]
 * @property {number} [maxLength]
 * @property {number} [minItems]
 * @property {number} [maxItems]
 * @property {string} [pattern]
 */

/** How deep an example goes into a schema that may contain itself. */
const DEEPEST = 5;
/** Whole numbers beyond this are what generators write for no limit. */
const NO_LIMIT = Number.MAX_SAFE_INTEGER;

/** The schemas of a document. */
export class Schemas {
  #document;

  /** @param {any} document */
  constructor(document) {
    this.#document = document;
  }

  /**
   * What a reference stands for, or the thing itself.
   *
   * @template T
   * @param {T} thing
   * @returns {T}
   */
  resolve(thing) {
    const seen = new Set();
    let found = /** @type {any} */ (thing);
    while (typeof found?.$ref === "string" && !seen.has(found.$ref)) {
      const { $ref, ...beside } = found;
      seen.add($ref);
      const target = $ref.split("/").slice(1).reduce(
        (/** @type {any} */ at, /** @type {string} */ step) =>
          at?.[decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~")],
        this.#document,
      );
      found = { ...target, ...beside };
    }
    return found ?? {};
  }

  /**
   * The parts of a schema, together: references followed, \`allOf\` merged.
   *
   * @param {Schema} schema
   * @param {number} [depth]
   * @returns {Schema}
   */
  #whole(schema, depth = 0) {
    const { allOf, ...own } = this.resolve(schema);
    if (!allOf || depth > DEEPEST) return own;
    const parts = [...allOf.map((part) => this.#whole(part, depth + 1)), own];
    return Object.assign({}, ...parts, {
      properties: Object.assign({}, ...parts.map(({ properties }) => properties)),
      required: parts.flatMap(({ required }) => required ?? []),
    });
  }

  /**
   * @param {Schema} schema
   * @returns {Schema[]} What it may be instead, without null; empty where there is no choice.
   */
  #choices({ anyOf, oneOf }) {
    return (anyOf ?? oneOf ?? []).filter((choice) => this.resolve(choice).type !== "null");
  }

  /**
   * A schema's name for a reader: \`string\`, \`array of ChatMessage\`, \`number or null\`.
   *
   * @param {Schema} schema
   * @param {number} [depth]
   * @returns {string}
   */
  nameOf(schema, depth = 0) {
    const name = schema.$ref?.split("/").at(-1);
    if (name) return name;
    const { type, items, anyOf, oneOf, enum: values, format, ...rest } = this.#whole(schema);
    if ("const" in rest) return JSON.stringify(rest.const);
    if (depth > DEEPEST) return "…";
    const choices = anyOf ?? oneOf;
    if (choices) {
      return [...new Set(choices.map((each) => this.nameOf(each, depth + 1)))].join(" or ");
    }
    const types = (type === undefined ? [] : [type].flat()).map((each) =>
      each === "array" && items ? \`array of \${this.nameOf(items, depth + 1)}\` : each
    );
    const found = types.join(" or ") ||
      (values ? "one of" : rest.properties ? "object" : "anything");
    return format ? \`\${found} (\${format})\` : found;
  }

  /**
   * The tree of a schema's fields.
   *
   * @param {Schema} schema
   * @returns {HTMLElement | undefined} Nothing where its name says all.
   */
  tree(schema) {
    const whole = this.#whole(schema);
    const fields = Object.entries(whole.properties ?? {});
    if (fields.length > 0) {
      const list = make("ul", { class: "fields" });
      for (const [name, field] of fields) {
        list.append(this.#field(name, field, whole.required?.includes(name) ?? false));
      }
      const { additionalProperties: more } = whole;
      if (typeof more === "object" && Object.keys(more).length > 0) {
        list.append(this.#field("any other name", more, false));
      }
      return list;
    }
    if (whole.items) return this.tree(whole.items);
    if (typeof whole.additionalProperties === "object") {
      return make(
        "ul",
        { class: "fields" },
        this.#field("any name", whole.additionalProperties, false),
      );
    }
    const choices = this.#choices(whole).filter((choice) => this.#unfolds(choice));
    if (choices.length === 1) return this.tree(choices[0]);
    if (choices.length === 0) return undefined;
    const list = make("ul", { class: "fields" });
    choices.forEach((choice, i) =>
      list.append(this.#field(this.#markOf(choice) ?? \`either \${i + 1}\`, choice, false))
    );
    return list;
  }

  /**
   * @param {Schema} choice One of several.
   * @returns {string | undefined} What tells it from the others: a field with one value.
   */
  #markOf(choice) {
    for (const [name, field] of Object.entries(this.#whole(choice).properties ?? {})) {
      const { enum: values = [], ...rest } = this.#whole(field);
      const only = "const" in rest ? rest.const : values.length === 1 ? values[0] : undefined;
      if (only !== undefined) return \`\${name} is \${JSON.stringify(only)}\`;
    }
    return undefined;
  }

  /**
   * @param {Schema} schema
   * @returns {boolean} Whether there is a tree of it.
   */
  #unfolds(schema, depth = 0) {
    const { properties, items, additionalProperties: more, ...rest } = this.#whole(schema);
    if (depth > DEEPEST) return false;
    return Object.keys(properties ?? {}).length > 0 ||
      (items !== undefined && this.#unfolds(items, depth + 1)) ||
      (typeof more === "object" && Object.keys(more).length > 0) ||
      this.#choices(rest).some((choice) => this.#unfolds(choice, depth + 1));
  }

  /**
   * @param {string} name
   * @param {Schema} schema
   * @param {boolean} required
   */
  #field(name, schema, required) {
    const whole = this.#whole(schema);
    const generic = name.includes(" ");
    const limits = limitsOf(whole);
    const item = make(
      "li",
      {},
      make(generic ? "span" : "code", { class: "field-name" }, name),
      " ",
      make("span", { class: "field-type" }, this.nameOf(schema)),
      required && make("span", { class: "field-required" }, " required"),
      whole.description && make("p", {}, ...prose(whole.description)),
      limits && make("p", {}, limits),
      whole.enum && make("p", {}, ...listed(whole.enum)),
    );
    if (!this.#unfolds(schema)) return item;
    const details = make("details", {}, make("summary", {}, \`Inside \${name}\`));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(this.tree(schema) ?? "");
    });
    item.append(details);
    return item;
  }

  /**
   * An example of a schema: its own, or one that its types allow.
   *
   * @param {Schema} schema
   * @param {number} [depth]
   * @returns {unknown}
   */
  example(schema, depth = 0) {
    const whole = this.#whole(schema);
    if (whole.example !== undefined) return whole.example;
    if (whole.examples?.length) return whole.examples[0];
    if (whole.const !== undefined) return whole.const;
    if (whole.default !== undefined) return whole.default;
    if (whole.enum?.length) return whole.enum[0];
    if (depth > DEEPEST) return null;
    const [choice] = this.#choices(whole);
    if (choice) return this.example(choice, depth + 1);
    const type = [whole.type ?? (whole.properties ? "object" : "string")].flat()[0];
    if (type === "object") {
      const names = whole.required ?? [];
      return Object.fromEntries(
        names.map((name) => [name, this.example(whole.properties?.[name] ?? {}, depth + 1)]),
      );
    }
    if (type === "array") return whole.items ? [this.example(whole.items, depth + 1)] : [];
    if (type === "boolean") return false;
    if (type === "integer" || type === "number") return whole.minimum ?? 0;
    return type === "null" ? null : "text";
  }
}

/**
 * @param {Schema} schema
 * @returns {string} Empty where there is no limit.
 */
function limitsOf(schema) {
  const parts = [];
  const { minimum: least, maximum: most, exclusiveMinimum: above, exclusiveMaximum: below } =
    schema;
  if (least !== undefined && least > -NO_LIMIT) parts.push(\`at least \${number(least)}\`);
  if (above !== undefined && above > -NO_LIMIT) parts.push(\`more than \${number(above)}\`);
  if (most !== undefined && most < NO_LIMIT) parts.push(\`at most \${number(most)}\`);
  if (below !== undefined && below < NO_LIMIT) parts.push(\`less than \${number(below)}\`);
  const { minItems, maxItems, minLength, maxLength } = schema;
  if (minItems !== undefined) parts.push(\`at least \${counted(minItems, "item")}\`);
  if (maxItems !== undefined) parts.push(\`at most \${counted(maxItems, "item")}\`);
  if (minLength !== undefined) parts.push(\`at least \${counted(minLength, "character")}\`);
  if (maxLength !== undefined) parts.push(\`at most \${counted(maxLength, "character")}\`);
  if (schema.pattern !== undefined) parts.push(\`matches \${schema.pattern}\`);
  if (schema.default !== undefined) parts.push(\`default \${JSON.stringify(schema.default)}\`);
  return parts.join(", ");
}

/** @param {number} value */
const number = (value) => String(value).replace("-", "−");

/**
 * @param {number} count
 * @param {string} thing
 */
const counted = (count, thing) => \`\${count} \${thing}\${count === 1 ? "" : "s"}\`;

/** @param {readonly unknown[]} values */
function listed(values) {
  return values.flatMap((value, i) => [i > 0 && ", ", make("code", {}, JSON.stringify(value))]);
}

/**
 * A description: text in which backticks mark code.
 *
 * @param {string} text
 * @returns {(Node | string)[]}
 */
export function prose(text) {
  return text.split(/\`([^\`]+)\`/).map((part, i) => i % 2 === 1 ? make("code", {}, part) : part);
}
`,
  },
  "/page/settings.js": {
    type: "text/javascript; charset=utf-8",
    hash: "90065f46ce0d4e7c",
    body: `// @ts-check
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
    return this.#stop.value.split("\\n").filter((line) => line !== "")
      .map((line) => line.replaceAll("\\\\n", "\\n").replaceAll("\\\\t", "\\t"));
  }

  /**
   * Says below a field what is wrong with it.
   *
   * @param {HTMLInputElement | HTMLTextAreaElement} input
   */
  #check(input) {
    if (input === this.#stop) {
      const count = this.#stops().length;
      input.setCustomValidity(count > STOPS ? \`\${count} are too many: \${STOPS} at most\` : "");
    }
    const id = \`\${input.id}-wrong\`;
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
  return max === "" ? \`At least \${min}\` : \`From \${min.replace("-", "−")} to \${max}\`;
}
`,
  },
  "/page/shell.js": {
    type: "text/javascript; charset=utf-8",
    hash: "ebbaf258766da2b2",
    body: `// @ts-check
/**
 * The playground around its views: shows how the beginning goes, then the model with the view that fits
 * it. Who answers is not its matter: a server (\`playground.js\`), or an engine in the page itself
 * (\`src/bundle/page/page.js\`).
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
    document.title = \`\${chosen.id} · Espalier\`;
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
`,
  },
  "/page/text.js": {
    type: "text/javascript; charset=utf-8",
    hash: "f00071505d26a1d7",
    body: `// @ts-check
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
const UNDECIDED = /^\\s*(\`{0,2}|(#{1,6}|[-*+]|\\d{1,3}[.)]?)\\s*)$/;
const ITEM = /^(\\s*)(?:[-*+]|(\\d{1,3})[.)])\\s+/;
const HEADING = /^#{1,6}\\s+/;
const FENCE = /^\\s*\`\`\`/;
const INLINE = /\`([^\`]+)\`|\\*\\*(?=\\S)(.+?)(?<=\\S)\\*\\*/g;

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
      const to = text.indexOf("\\n", from);
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
    else if (this.#block && this.#block.className !== "heading") this.#block.append("\\n");
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
    else if (this.#kind === "code") this.#node?.appendData("\\n");
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
`,
  },
  "/page/theme.js": {
    type: "text/javascript; charset=utf-8",
    hash: "999a658da8f3c78e",
    body: `// @ts-check
/**
 * Light or dark: sets what was chosen before anything is drawn, so it is no module and blocks.
 *
 * Nothing is stored while the choice is the system's own: the page then follows the system.
 */
(() => {
  const STORED = "espalier.theme";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  /** @returns {string | null} */
  const stored = () => {
    try {
      return localStorage.getItem(STORED);
    } catch {
      return null; // Storage may be forbidden.
    }
  };

  /** @param {string | null} theme */
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };

  show(stored());

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-toggle]");
    if (!button) return;
    const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
    const label = () => {
      const text = isDark() ? "Use the light theme" : "Use the dark theme";
      button.setAttribute("aria-label", text);
      button.setAttribute("title", text);
    };
    button.addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      const own = (next === "dark") === dark.matches;
      try {
        if (own) localStorage.removeItem(STORED);
        else localStorage.setItem(STORED, next);
      } catch {
        // The choice then lasts as long as the page.
      }
      show(own ? null : next);
      label();
    });
    dark.addEventListener("change", label);
    label();
  });
})();
`,
  },
};
