/**
 * What edge functions are made of: loading for several at once, files, variables, the handler.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { copyInParts } from "../../src/bundle/model_files.ts";
import { type Bundle, type Handler, makeHandler } from "../../src/edge/handler.ts";
import { Loading } from "../../src/edge/loading.ts";
import { bundledSource } from "../../src/edge/source.ts";
import { serverSettings, VARIABLES } from "../../src/edge/variables.ts";
import { cloudflareWorker } from "../../src/edge/cloudflare.ts";
import type { Model } from "../../src/generate/model.ts";
import { load } from "../../src/generate/load.ts";
import { pathsIn } from "../../src/platform/folders.ts";
import type { LogEntry } from "../../src/server/log.ts";
import { makeKey } from "../../src/server/keys.ts";
import { CompileWorkshop } from "../compile/support.ts";
import { makeFolders } from "../server/models.ts";

const workshop = new CompileWorkshop();
const PROMPT = "The river";
let folder = "";
let expected = "";
let bundle: Bundle;

beforeAll(async () => {
  const { plain } = await makeFolders(workshop);
  await using model = await load(plain, { threads: 1 });
  for await (const piece of model.generate(PROMPT, { maxTokens: 8 })) {
    if (piece.type === "text") expected += piece.text;
  }
  folder = workshop.folder();
  await copyInParts(plain, folder, {});
  bundle = {
    name: "plain",
    files: pathsIn(folder),
    parallel: 2,
    engine: { context: 128, kv: "auto" },
  };
}, 120_000);
afterAll(() => workshop.remove());

const readFile = (path: string) =>
  Promise.resolve(new Uint8Array(readFileSync(join(folder, path))));
const ask = {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ prompt: PROMPT, max_tokens: 8, temperature: 0 }),
};
const request = () => new Request("http://localhost/v1/completions", ask);
const textOf = async (response: Response) => (await response.json()).choices?.[0].text;

/** A handler, how often each file was read, and its log. */
function made(
  read = readFile,
  variables: Record<string, unknown> = {},
): { handler: Handler; reads: Map<string, number>; log: LogEntry[] } {
  const reads = new Map<string, number>();
  const log: LogEntry[] = [];
  const handler = makeHandler({
    bundle,
    engine: { threads: 1 },
    variables,
    open: () =>
      bundledSource("plain", bundle.files, (path) => {
        reads.set(path, (reads.get(path) ?? 0) + 1);
        return read(path);
      }),
    log: (entry) => log.push(entry),
  });
  return { handler, reads, log };
}

/** Returns what makes programs of engines that start during `run` trap from then on. */
async function breakable(run: () => Promise<void>): Promise<() => void> {
  const { Instance } = WebAssembly;
  let isBroken = false;
  const wrapped = function (module: WebAssembly.Module, imports: WebAssembly.Imports) {
    const { exports } = new Instance(module, imports);
    const run = () => {
      if (isBroken) throw new WebAssembly.RuntimeError("unreachable");
      return (exports.run as () => number)();
    };
    return { exports: { ...exports, run } };
  };
  WebAssembly.Instance = wrapped as unknown as typeof Instance;
  try {
    await run();
  } finally {
    WebAssembly.Instance = Instance;
  }
  return () => isBroken = true;
}

describe("a model that is loaded at the first request", () => {
  test("is loaded once for requests that come at once, and they get what it says", async () => {
    const { handler, reads } = made();
    const answers = await Promise.all([1, 2, 3, 4].map(() => handler.fetch(request())));
    for (const answer of answers) expect(await textOf(answer)).toBe(expected);
    expect(reads.get("onnx/model.onnx")).toBe(1);
    expect(reads.get("tokenizer.json")).toBe(1);
  });

  test("is loaded again by the next request when it could not be", async () => {
    let broken = true;
    const { handler, log } = made((path) =>
      broken && path.includes("model.onnx_data")
        ? Promise.reject(new Error("the line is dead"))
        : readFile(path)
    );
    const failed = await handler.fetch(request());
    expect(failed.status).toBe(503);
    expect((await failed.json()).error.code).toBe("server_failed");
    const told = log.find(({ event }) => event === "error")?.message;
    expect(told).toContain("the line is dead");
    expect(told).toContain("deploy the bundle again");
    broken = false;
    expect(await textOf(await handler.fetch(request()))).toBe(expected);
  });

  test("is loaded again once it is lost", async () => {
    const { handler, reads } = made();
    const breakOff = await breakable(async () =>
      expect(await textOf(await handler.fetch(request()))).toBe(expected)
    );
    breakOff();
    expect((await handler.fetch(request())).status).toBe(500);
    expect(await textOf(await handler.fetch(request()))).toBe(expected);
    expect(reads.get("config.json")).toBe(2);
  });

  test("holds up no more than may wait, nor longer than a request may take", async () => {
    let arrive = () => {};
    const arrived = new Promise<void>((resolve) => arrive = resolve);
    const variables = { ESPALIER_QUEUE: "1", ESPALIER_REQUEST_TIMEOUT: "0.5" };
    const { handler } = made(async (path) => {
      await arrived;
      return await readFile(path);
    }, variables);
    const answers = [1, 2, 3, 4].map(() => handler.fetch(request()));
    const told = await Promise.all(answers.map(async (answer) => {
      const { status, headers } = await answer;
      return `${status} ${(await (await answer).json()).error.code} ${headers.get("retry-after")}`;
    }));
    const late = "503 server_loading 2";
    expect(told.sort()).toEqual(["429 queue_full 5", late, late, late]);
    arrive();
    // Loading itself may take longer than that on a busy machine: who is told to come again does.
    let answer = await handler.fetch(request());
    while (answer.status === 503) answer = await handler.fetch(request());
    expect(await textOf(answer)).toBe(expected);
  });

  test("is not loaded for pages, nor for those who have no key", async () => {
    const { line, key } = await makeKey("till");
    const { handler, reads } = made(readFile, { ESPALIER_KEYS: line });
    for (const path of ["/", "/health", "/openapi.json", "/metrics"]) {
      expect((await handler.fetch(new Request(`http://localhost${path}`))).status).toBe(200);
    }
    expect((await handler.fetch(request())).status).toBe(401);
    expect(reads.size).toBe(0);
    const headers = { ...ask.headers, authorization: `Bearer ${key}` };
    const url = "http://localhost/v1/completions";
    expect(await textOf(await handler.fetch(new Request(url, { ...ask, headers })))).toBe(expected);
  });

  test("is there after a look at /ready", async () => {
    const { handler, reads } = made();
    expect((await handler.fetch(new Request("http://localhost/ready"))).status).toBe(200);
    expect(reads.get("onnx/model.onnx")).toBe(1);
  });

  test("a damaged part is not run", async () => {
    const { handler, log } = made(async (path) => {
      const bytes = await readFile(path);
      if (path.includes("model.onnx_data")) bytes[bytes.length >> 1] ^= 1;
      return bytes;
    });
    expect((await handler.fetch(request())).status).toBe(503);
    expect(log.find(({ event }) => event === "error")?.message).toContain("onnx/model.onnx_data");
  });
});

describe("loading", () => {
  const model = {} as Model;

  test("goes on in the hands of another when it makes no progress", async () => {
    let began = 0;
    const signals: AbortSignal[] = [];
    const loading = new Loading(({ signal }) => {
      signals.push(signal);
      return ++began === 1 ? new Promise<Model>(() => {}) : Promise.resolve(model);
    }, 30);
    expect(await Promise.all([loading.get(), loading.get()])).toEqual([model, model]);
    expect(began).toBe(2);
    expect(signals[0].aborted).toBe(true);
  });

  test("is left alone as long as it makes progress", async () => {
    let began = 0;
    const loading = new Loading(async ({ onProgress }) => {
      began++;
      for (let i = 0; i < 10; i++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        onProgress();
      }
      return model;
    }, 150);
    await loading.get();
    expect(began).toBe(1);
  });

  test("is left alone while it computes, and nobody can look, for longer than that", async () => {
    let began = 0;
    const loading = new Loading(async ({ onProgress }) => {
      began++;
      for (let i = 0; i < 3; i++) {
        const start = performance.now();
        while (performance.now() - start < 300);
        await new Promise((resolve) => setTimeout(resolve, 1));
        onProgress();
      }
      return model;
    }, 100);
    expect(await loading.get()).toBe(model);
    expect(began).toBe(1);
  });

  test("outlives the request that began it, where there is a way to say so", async () => {
    const kept: Promise<unknown>[] = [];
    const loading = new Loading(() => Promise.reject(new Error("no")));
    const execution = { waitUntil: (promise: Promise<unknown>) => void kept.push(promise) };
    await expect(loading.get(execution)).rejects.toThrow("no");
    expect(kept.length).toBe(1);
    // What keeps it alive must not fail: that would be an error of its own.
    await Promise.all(kept);
  });
});

describe("a function's variables", () => {
  test("are options of the server", () => {
    const settings = serverSettings({
      ESPALIER_QUEUE: "3",
      ESPALIER_QUEUE_TIMEOUT: "2.5",
      ESPALIER_CORS: "https://a.example, https://b.example",
      ESPALIER_ALLOW_HOST: "A.example,b.example",
      ESPALIER_BODY_LIMIT: "2kB",
      ASSETS: {},
    }, 2);
    expect(settings).toMatchObject({ parallel: 2, queue: 3, queueTimeout: 2.5, bodyLimit: 2000 });
    expect(settings.cors).toEqual(["https://a.example", "https://b.example"]);
    expect(settings.allowHost).toEqual(["a.example", "b.example"]);
    expect(settings.keys).toEqual([]);
    const logs = ["", "0", "false", "1", "true"].map((text) =>
      serverSettings({ ESPALIER_LOG_PROMPTS: text }, 2).logPrompts
    );
    expect(logs).toEqual([false, false, false, true, true]);
  });

  test("may be numbers and truth values, as JSON has them, and nothing else that is no text", () => {
    const settings = serverSettings({
      ESPALIER_QUEUE: 3,
      ESPALIER_BODY_LIMIT: 2000,
      ESPALIER_LOG_PROMPTS: true,
      ESPALIER_MAX_TOKENS: null,
    }, 2);
    expect(settings).toMatchObject({ queue: 3, bodyLimit: 2000, logPrompts: true });
    // A list in vars of wrangler.jsonc; a binding of a store of secrets, which is an object: the door stays shut.
    for (const keys of [[`till-3 ${"a".repeat(64)}`], { get: () => "secret" }, 3, true]) {
      expect(() => serverSettings({ ESPALIER_KEYS: keys }, 2)).toThrow("ESPALIER_KEYS");
    }
    for (const name of ["ESPALIER_CORS", "ESPALIER_ALLOW_HOST", "ESPALIER_BODY_LIMIT"]) {
      expect(() => serverSettings({ [name]: ["https://a.example"] }, 2))
        .toThrow(`${name} is no text: write it in quotation marks`);
    }
  });

  test("that are wrong are named", () => {
    expect(() => serverSettings({ ESPALIER_QUEUE: "many" }, 2)).toThrow("ESPALIER_QUEUE");
    expect(() => serverSettings({ ESPALIER_QUEUE: "-1" }, 2)).toThrow("ESPALIER_QUEUE");
    expect(() => serverSettings({ ESPALIER_LOG_PROMPTS: "yes" }, 2)).toThrow(
      "ESPALIER_LOG_PROMPTS",
    );
    expect(() => serverSettings({ ESPALIER_KEYS: "a b" }, 2)).toThrow("ESPALIER_KEYS, line 1");
    expect(() => serverSettings({ ESPALIER_KEYS: "" }, 2)).toThrow("holds no key");
    // `serve` has it; passed over, it would leave the door open.
    expect(() => serverSettings({ ESPALIER_KEY_FILE: "keys.txt" }, 2)).toThrow(
      "ESPALIER_KEY_FILE: no file is read here: put its lines into ESPALIER_KEYS",
    );
    expect(VARIABLES).toContain("ESPALIER_KEY_FILE");
  });
});

describe("a Worker", () => {
  const execution = { waitUntil() {}, passThroughOnException() {}, props: {} };

  test("lets nobody in while its keys are wrong, and says no secret", async () => {
    const worker = cloudflareWorker(bundle, {});
    const ASSETS = { fetch: () => Promise.reject(new Error("nothing is asked for")) };
    const env = { ASSETS, ESPALIER_KEYS: "secret" };
    const error = console.error;
    const said: unknown[] = [];
    console.error = (line: unknown) => said.push(line);
    const answer = await worker.fetch(request(), env, execution).finally(() => {
      console.error = error;
    });
    expect(answer.status).toBe(500);
    expect(await answer.text()).not.toContain("secret");
    expect(String(said[0])).toContain("ESPALIER_KEYS, line 1");
  });
});
