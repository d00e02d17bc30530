/**
 * A server with the pages and a made-up model, to work on the pages and to test them: the same question
 * gets the same answer, word by word.
 *
 *     bun test/server/page/fake_server.ts [PORT] [--key KEY] [--loading SECONDS] [--writer]
 *
 * `--writer` serves a model without a chat template too. A word in the question chooses what goes wrong:
 *
 * | word     |                                                   |
 * | -------- | ------------------------------------------------- |
 * | `!429`   | the first time 429 with `Retry-After: 2`          |
 * | `!error` | an error event in mid-stream                      |
 * | `!lost`  | the connection breaks in mid-stream               |
 * | `!slow`  | nothing for two seconds, then a word each 300 ms  |
 * | `!long`  | 6000 words, without pause                         |
 * | `!code`  | code, a list, bold words, and markup that is text |
 *
 * @module
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { pageFiles, pageHeaders } from "../../../src/server/page/mod.ts";
import { FAKE_OPENAPI } from "./fake_openapi.ts";

/** How the server behaves. */
export interface FakeOptions {
  /** 0 for any. */
  readonly port?: number;
  /** Refuses requests without it. */
  readonly key?: string;
  /** Is not ready for so long. */
  readonly loadingSeconds?: number;
  /** Is not ready any more, since one of its models has been lost; the others answer, two of one name. */
  readonly hasLost?: boolean;
  /** Serves a model without a chat template as well. */
  readonly writer?: boolean;
}

/** A server that runs. */
export interface FakeServer {
  readonly url: string;
  close(): void;
}

const PROSE =
  "An espalier is a tree that grows flat. Each winter the gardener takes away most of " +
  "what the summer gave, and keeps a few branches that bear well. What is left gets more light, " +
  "needs less room, and is easier to reach.\n\nA pruned network is much the same: the weights that " +
  "matter least go first, and what is left runs in less memory.";

const CODE = "### A small example\n\nA **dot product** over kept weights only:\n\n" +
  "```js\nlet sum = 0;\nfor (const i of kept) sum += weights[i] * inputs[i]; // a line that is " +
  "longer than a phone is wide, to see it scroll\n```\n\nThree things matter:\n\n" +
  "1. **Order**: `kept` ascends.\n2. **Width**: eight of sixteen.\n3. **Text**: " +
  '<img src=x onerror="document.title=1"> stays text.\n\n- first\n- second\n\nThat is all.';

/** Blocks of SmolLM2-135M at a mean of one half, as DLP may share it out. */
const BLOCKS = Array.from({ length: 30 }, (_, index) => {
  const sparsity = 0.5 + 0.14 * Math.sin((index - 9) / 5) - (index === 0 || index === 29 ? 0.2 : 0);
  return { index, sparsity, bytes: Math.round(3_540_000 * (1.1 - 0.9 * sparsity)) };
});

const CARD = {
  parameters: 106_168_320,
  sparsity: 0.5,
  formats: { bitmap: 204, dense: 6 },
  values: "int8",
  blocks: BLOCKS,
  dense: { f16: 269_060_000, int8: 138_500_000, int4: 71_900_000 },
};

function modelsOf({ writer, hasLost }: FakeOptions) {
  const about = {
    engine: "sparse",
    device: "WebAssembly, relaxed SIMD",
    threads: 4,
    context: 8192,
    vocabulary: 49152,
    fileBytes: 99_200_000,
    weightBytes: 112_400_000,
    cacheBytesPerToken: 24_480,
  };
  const model = (id: string, canChat: boolean, name = id) => ({
    id,
    object: "model",
    created: 1_750_000_000,
    owned_by: "espalier",
    espalier: { name, ...about, canChat },
  });
  const models = [model("SmolLM2-135M-Instruct-8of16", true)];
  const [{ id }] = models;
  return [
    ...models,
    ...(writer ? [model("tiny-stories", false)] : []),
    ...(hasLost ? [model(`${id}-2`, true, id)] : []),
  ];
}

/** Starts the server on this machine's own address. */
export async function startFake(options: FakeOptions = {}): Promise<FakeServer> {
  const readyAt = Date.now() + (options.loadingSeconds ?? 0) * 1000;
  const models = modelsOf(options);
  /** Questions that were refused once. */
  const refused = new Set<string>();

  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const path = decodeURIComponent(new URL(request.url!, "http://localhost").pathname);
    const json = (status: number, body: unknown, headers: Record<string, string> = {}) => {
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(JSON.stringify(body));
    };
    const fail = (status: number, message: string, headers?: Record<string, string>) =>
      json(status, { error: { message, type: "error", param: null, code: null } }, headers);

    const file = pageFiles[path];
    if (file) {
      response.writeHead(200, { ...pageHeaders, "content-type": file.type });
      return void response.end(file.body);
    }
    if (path === "/openapi.json") return json(200, FAKE_OPENAPI);
    const isLoading = Date.now() < readyAt;
    if (path === "/ready") {
      const status = isLoading ? "loading" : options.hasLost ? "failed" : "ready";
      return json(status === "ready" ? 200 : 503, { status }, { "retry-after": "1" });
    }
    if (isLoading) return fail(503, "the model is loading", { "retry-after": "1" });
    if (options.key && request.headers.authorization !== `Bearer ${options.key}`) {
      return fail(401, "the key is missing or wrong");
    }
    if (path === "/v1/models") return json(200, { object: "list", data: models });
    const one = models.find(({ id }) => path === `/v1/models/${id}`);
    if (one) {
      await pause(600);
      return json(200, { ...one, espalier: { ...one.espalier, card: CARD } });
    }
    const chats = path === "/v1/chat/completions";
    if (!chats && path !== "/v1/completions") return fail(404, `there is no ${path}`);

    const body = JSON.parse(await textOf(request));
    const question: string = chats ? body.messages.at(-1).content : body.prompt;
    if (question.includes("!429") && !refused.has(question)) {
      refused.add(question);
      return fail(429, "too many requests are waiting", { "retry-after": "2" });
    }
    await answer(response, question, body, chats);
  };

  const server = createServer((request, response) => {
    handle(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((listening) => server.listen(options.port ?? 0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Sends the answer word by word. */
async function answer(
  response: ServerResponse,
  question: string,
  body: { model: string; max_tokens?: number },
  chats: boolean,
): Promise<void> {
  const slow = question.includes("!slow");
  const long = question.includes("!long");
  if (slow) await pause(2000);
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (event: object | string) =>
    response.write(`data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`);
  const chunk = (text: string, finish: string | null = null) =>
    send({
      id: "fake",
      object: chats ? "chat.completion.chunk" : "text_completion",
      created: 1_750_000_000,
      model: body.model,
      choices: [
        chats
          ? { index: 0, delta: text ? { content: text } : {}, finish_reason: finish }
          : { index: 0, text, finish_reason: finish },
      ],
    });

  const whole = question.includes("!code") ? CODE : PROSE;
  const words = whole.split(/(?<=\s)(?=\S)/);
  const count = long ? 6000 : Math.min(words.length, body.max_tokens ?? Infinity);
  for (let i = 0; i < count; i++) {
    if (response.destroyed) return;
    if (i === 12 && question.includes("!error")) {
      send({
        error: { message: "the engine failed", type: "server_error", param: null, code: null },
      });
      return void response.end();
    }
    if (i === 12 && question.includes("!lost")) return void response.destroy();
    const word = words[i % words.length];
    chunk(i % words.length === 0 && i > 0 ? `\n\n${word}` : word);
    if (!long) await pause(slow ? 300 : 25);
    else if (i % 20 === 0) await pause(1);
  }
  chunk("", count < words.length ? "length" : "stop");
  const usage = {
    prompt_tokens: 12,
    completion_tokens: count,
    total_tokens: 12 + count,
    prompt_tokens_details: { cached_tokens: 0 },
  };
  send({ id: "fake", object: "chat.completion.chunk", model: body.model, choices: [], usage });
  send("[DONE]");
  response.end();
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const part of request.setEncoding("utf8")) text += part;
  return text;
}

if (import.meta.main) {
  const words = process.argv.slice(2);
  const after = (flag: string) => words.includes(flag) ? words[words.indexOf(flag) + 1] : undefined;
  const { url } = await startFake({
    port: /^\d+$/.test(words[0] ?? "") ? Number(words[0]) : 8123,
    key: after("--key"),
    loadingSeconds: Number(after("--loading") ?? 0),
    writer: words.includes("--writer"),
  });
  console.log(url);
}
