/**
 * The engine in its worker, asked as a server is asked: the views of the playground know no other way.
 * @module
 */
import type { Loaded } from "../../engine/cached_source.ts";
import type { EndPiece } from "../../generate/generate.ts";
import type { Failure, PageSettings, Reply, Request } from "./protocol.ts";

/** What the engine or the loading of its model failed with. */
export class EngineFailure extends Error {
  override readonly name = "EngineFailure";
  /** Code of the `EspalierError`; undefined for what has none. */
  readonly code: string | undefined;
  /** Whether the network gave no answer. */
  readonly offline: boolean;

  constructor({ code, message, offline }: Failure) {
    super(message);
    this.code = code;
    this.offline = offline;
  }
}

/** A request of the page's views; names are those of OpenAI's interface. */
interface Body {
  readonly prompt?: string;
  readonly messages?: readonly { readonly role: string; readonly content: string }[];
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly max_tokens?: number;
  readonly repetition_penalty?: number;
  readonly frequency_penalty?: number;
  readonly presence_penalty?: number;
  readonly seed?: number;
  readonly stop?: string[];
  readonly response_format?: { readonly type: string };
}

/** A chunk of an answer, as far as the views read it. */
export interface Chunk {
  readonly choices: readonly { readonly text: string; readonly finish_reason: string | null }[];
  readonly usage?: Readonly<Record<"prompt_tokens" | "completion_tokens" | "total_tokens", number>>;
}

/** What the views show of the model. */
export interface PageModel {
  readonly id: string;
  readonly espalier: object;
}

type Answer = Extract<Reply, { id: number }>;
type LoadedReply = Extract<Reply, { type: "loaded" }>;

/** An engine. One that failed to load is left, and another made. */
export class Engine {
  readonly #worker: Worker;
  readonly #settings: PageSettings;
  readonly #answers = new Map<number, (answer: Answer) => void>();
  #next = 0;
  #loaded: LoadedReply | undefined;
  #failure: EngineFailure | undefined;
  #onLoading: (reply: Reply) => void = () => {};

  /** @param script Where `worker.ts` lies, bundled. */
  constructor(script: URL, settings: PageSettings) {
    this.#settings = settings;
    this.#worker = new Worker(script, { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      if ("id" in data) this.#answers.get(data.id)?.(data);
      else this.#onLoading(data);
    };
    this.#worker.onerror = ({ message }) => {
      this.#fail({ message: message || "the engine's script cannot be loaded", offline: false });
    };
  }

  /**
   * Loads the model.
   *
   * @throws {EngineFailure} When it cannot.
   */
  load(url: string, onProgress: (loaded: Loaded) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#onLoading = (reply) => {
        if (reply.type === "progress") return onProgress(reply);
        // What was read ahead may still come, and matters no more.
        this.#onLoading = () => {};
        if (reply.type === "unloaded") return reject(new EngineFailure(reply.failure));
        if (reply.type === "loaded") this.#loaded = reply;
        resolve();
      };
      if (this.#failure) reject(this.#failure);
      else this.#post({ type: "load", url, settings: this.#settings });
    });
  }

  /** The one model that there is. */
  model(): Promise<PageModel> {
    const { info, canChat, card } = this.#loaded!;
    const { name, bytes } = this.#settings;
    return Promise.resolve({
      id: name,
      espalier: { ...info, name, canChat, fileBytes: bytes, ...(card ? { card } : {}) },
    });
  }

  /**
   * Generates.
   *
   * @param body As for a server's `/v1/chat/completions` or `/v1/completions`.
   * @throws {EngineFailure} When it fails, or the signal stops it.
   */
  async *stream(body: Body, signal: AbortSignal): AsyncGenerator<Chunk> {
    if (this.#failure) throw this.#failure;
    const id = this.#next++;
    const waiting: Answer[] = [];
    let wake = () => {};
    this.#answers.set(id, (answer) => {
      waiting.push(answer);
      wake();
    });
    const stop = () => this.#post({ type: "stop", id });
    signal.addEventListener("abort", stop);
    this.#post(requestOf(id, body));
    if (signal.aborted) stop();
    try {
      for (;;) {
        if (waiting.length === 0) await new Promise<void>((resolve) => wake = resolve);
        const answer = waiting.shift()!;
        if (answer.type === "failed") throw new EngineFailure(answer.failure);
        if (answer.type === "end") return yield endChunk(answer.end);
        yield { choices: [{ text: answer.text, finish_reason: null }] };
      }
    } finally {
      signal.removeEventListener("abort", stop);
      this.#answers.delete(id);
      // Whoever stops reading wants no more of it; what has ended does not mind.
      stop();
    }
  }

  /** Ends the worker. */
  close(): void {
    this.#worker.terminate();
  }

  #post(request: Request): void {
    this.#worker.postMessage(request);
  }

  /** The worker is lost, and with it all that was asked. */
  #fail(failure: Failure): void {
    this.#failure = new EngineFailure(failure);
    this.#onLoading({ type: "unloaded", failure });
    for (const [id, answer] of this.#answers) answer({ type: "failed", id, failure });
  }
}

function requestOf(id: number, body: Body): Request {
  return {
    type: "generate",
    id,
    prompt: body.messages ?? body.prompt ?? "",
    json: body.response_format?.type === "json_object",
    options: {
      // OpenAI's defaults, as in the server.
      temperature: body.temperature ?? 1,
      topP: body.top_p ?? 1,
      topK: body.top_k,
      maxTokens: body.max_tokens,
      repetitionPenalty: body.repetition_penalty,
      frequencyPenalty: body.frequency_penalty,
      presencePenalty: body.presence_penalty,
      seed: body.seed,
      stop: body.stop,
    },
  };
}

function endChunk({ finishReason, promptTokens, completionTokens }: EndPiece): Chunk {
  return {
    choices: [{ text: "", finish_reason: finishReason }],
    usage: {
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: promptTokens + completionTokens,
    },
  };
}
