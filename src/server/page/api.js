// @ts-check
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
 * @property {Weights} [card] Only from `GET /v1/models/{id}`, and not always.
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
   * @param {{ status?: number, code?: string | null, retryAfter?: number }} [about] `retryAfter` in
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
   * @returns {Promise<{ status: string, retryAfter?: number }>} `ready`, `loading`, `draining`, or `failed`: it can
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
    return await (await this.#ask(`v1/models/${encodeURIComponent(id)}`, {})).json();
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
      if (this.key) headers.set("authorization", `Bearer ${this.key}`);
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
    return new ApiError(`The server answered ${status}.`, { status, retryAfter });
  }
}

/**
 * @param {Response} response
 * @returns {number | undefined} Seconds.
 */
function retryAfterOf({ headers }) {
  const value = headers.get("retry-after");
  if (!value) return undefined;
  const seconds = /^\d+$/.test(value)
    ? Number(value)
    : Math.ceil((Date.parse(value) - Date.now()) / 1000);
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}

/**
 * The data of server-sent events.
 *
 * Lines end with LF or CRLF; a lone CR, which the standard allows too, is sent by nobody and would make
 * each piece wait for the next. Other fields than `data` are left out.
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
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line === "") {
          if (data.length > 0) yield data.join("\n");
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
