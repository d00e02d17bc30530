/** `createApp`, and the limits that it is given. @module */
import { describe, expect, test } from "bun:test";
import { UsageError } from "../../src/errors.ts";
import type { Model } from "../../src/generate/model.ts";
import { type AppOptions, createApp } from "../../src/server/app.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { babbler } from "../generate/support.ts";
import { jsonRequest, read } from "./behaviour/support.ts";
import { CHAT, pause, TEXT, toyModel, ToyServer, until } from "./toy_server.ts";

describe("createApp", () => {
  test("serves several models, and numbers those of the same name", async () => {
    const models = [toyModel(babbler()), toyModel(babbler(), "other"), toyModel(babbler())];
    const app = createApp(models);
    const response = await app.fetch(new Request("http://server.test/v1/models"));
    const { data } = await response.json();
    expect(data.map(({ id }: { id: string }) => id)).toEqual(["toy", "other", "toy-2"]);
    for (const [i, model] of ["toy", "other", "toy-2"].entries()) {
      const body = jsonRequest({ model, prompt: "The river", max_tokens: 2 });
      const { model: found } = await (await app.fetch(
        new Request(`http://server.test${TEXT}`, body),
      )).json();
      expect([i, found]).toEqual([i, model]);
    }
  });

  test("refuses options that are wrong, naming them", () => {
    const model = toyModel(babbler());
    for (
      const [options, name] of [
        [{ parallel: 0 }, "parallel"],
        [{ queueTimeout: -1 }, "queueTimeout"],
        [{ keys: [{ name: "x", sha256: "abc" }] }, "SHA-256"],
        [{ keys: [{ name: "a b", sha256: "0".repeat(64) }] }, "name"],
        [{ paralel: 2 }, "paralel"],
      ] as const
    ) {
      let thrown: unknown;
      try {
        createApp(model, options as object);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(UsageError);
      expect((thrown as Error).message.toLowerCase()).toContain(name.toLowerCase());
    }
  });

  test("refuses what is no loaded model, or none at all, and says what may be missing", () => {
    const model = toyModel(babbler());
    const wrong = [[], undefined, null, "model", Promise.resolve(model), [model, undefined], [[
      model,
    ]]];
    for (const given of wrong) {
      const error = thrownBy(() => createApp(given as unknown as Model));
      expect([given, error.name]).toEqual([given, "UsageError"]);
      expect(error.message).toContain("await load");
    }
  });

  test("answers more requests than generate at once, all of them", async () => {
    const server = new ToyServer({ parallel: 3 }, { beforeRun: () => pause(1) });
    const answers = await Promise.all(Array.from({ length: 20 }, () => server.complete()));
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    expect(await server.metric('answers_total{model="toy",reason="length"}')).toBe(20);
    await server.quiet();
  });
});

test("a tool choice that asks for no tool is no reason to refuse", async () => {
  const messages = [{ role: "user", content: "Hi" }];
  const asked = async (tool_choice: unknown) =>
    (await new ToyServer().post(CHAT, { messages, max_tokens: 1, tool_choice })).status;
  expect(await Promise.all(["none", "auto", "required"].map(asked))).toEqual([200, 200, 400]);
});

test("as many answers as are given out may be said to be the best of as many", async () => {
  const server = new ToyServer();
  const asked = async (fields: object) => {
    const { status, json } = await server.complete({ max_tokens: 1, ...fields });
    return [status, json.error?.param];
  };
  expect(await asked({ best_of: 1 })).toEqual([200, undefined]);
  expect(await asked({ n: 2, best_of: 2 })).toEqual([200, undefined]);
  expect(await asked({ n: 2, best_of: 1 })).toEqual([400, "best_of"]);
  expect(await asked({ best_of: 2 })).toEqual([400, "best_of"]);
});

describe("a path", () => {
  test("of a model without its name is none, whatever it is asked by", async () => {
    const server = new ToyServer();
    for (const method of ["GET", "DELETE"]) {
      const { status, json } = await read(await server.fetch("/v1/models/", { method }));
      expect([method, status, json.error.code]).toEqual([method, 404, "unknown_url"]);
    }
  });

  test("that there is not is told in a few words, however long it is", async () => {
    const server = new ToyServer();
    const { status, json } = await read(await server.fetch(`/${"a".repeat(5000)}`));
    expect(status).toBe(404);
    expect(json.error.message.length).toBeLessThan(300);
  });

  test("whose page a browser has already has no length of what is not sent", async () => {
    const server = new ToyServer();
    const etag = (await server.fetch("/")).headers.get("etag")!;
    const init = { method: "HEAD", headers: { "if-none-match": etag } };
    const { status, headers } = await server.fetch("/", init);
    expect([status, headers.get("content-length")]).toEqual([304, null]);
  });
});

describe("a model that answers no more", () => {
  for (const code of ["WORKER_LOST", "MODEL_CLOSED"]) {
    test(`makes the server one that is not ready, so that it is replaced: ${code}`, async () => {
      const lost = toyModel(babbler({ beforeRun: () => Promise.reject(new ForeignError(code)) }));
      const app = createApp([lost, toyModel(babbler(), "other")]);
      const ready = async () => {
        const response = await app.fetch(new Request("http://server.test/ready"));
        return [response.status, (await response.json()).status];
      };
      const lives = async () => (await app.fetch(new Request("http://server.test/health"))).status;
      const ask = async (model: string) => {
        const body = jsonRequest({ model, prompt: "The river", max_tokens: 2 });
        return (await app.fetch(new Request(`http://server.test${TEXT}`, body))).status;
      };
      expect([await ready(), await lives()]).toEqual([[200, "ready"], 200]);
      expect(await ask("toy")).toBe(500);
      expect([await ready(), await lives()]).toEqual([[503, "failed"], 503]);
      // Until then, the others are of use.
      expect(await ask("other")).toBe(200);
    });
  }
});

/** An error as another module throws it, whose classes are its own. */
class ForeignError extends Error {
  constructor(readonly code: string) {
    super(`it says ${code}`);
  }
}

describe("a model that another module has loaded, as espalier/run", () => {
  async function told(code: string, options: AppOptions = {}) {
    const throwing = () => pause(20).then(() => Promise.reject(new ForeignError(code)));
    const { status, json } = await new ToyServer(options, { beforeRun: throwing }).complete();
    return [status, json.error.code, json.error.param];
  }

  test("has its errors told as those of one that the server's own has loaded", async () => {
    expect(await told("CONTEXT_OVERFLOW")).toEqual([400, "context_length_exceeded", "prompt"]);
    expect(await told("TOKEN_OUT_OF_RANGE")).toEqual([400, null, "prompt"]);
    expect(await told("SCHEMA_UNSUPPORTED")).toEqual([400, "invalid_schema", "response_format"]);
    expect(await told("MEMORY_BUDGET")).toEqual([503, "out_of_memory", null]);
    expect(await told("BACKEND_FAILED")).toEqual([500, null, null]);
  });

  test("is out of time as one of the server's own", async () => {
    expect(await told("ABORTED", { requestTimeout: 0.01 })).toEqual([504, "timeout", null]);
  });
});

describe("limits", () => {
  test("of a prompt and of an answer hold whatever a request asks for", async () => {
    const server = new ToyServer({ promptLimit: 5, maxTokens: 7 });
    for (const max_tokens of [100, 7, 3]) {
      const { json } = await server.complete({ max_tokens, logit_bias: { "0": -100 } });
      expect(json.usage.completion_tokens).toBe(Math.min(7, max_tokens));
    }
    expect((await server.complete({ prompt: [5, 6, 7, 8, 9] })).status).toBe(200);
    const long = await server.complete({ prompt: [5, 6, 7, 8, 9, 10] });
    expect([long.status, long.json.error.code, long.json.error.param]).toEqual([
      400,
      "context_length_exceeded",
      "prompt",
    ]);
    expect(long.json.error.message).toContain("6 tokens");
  });

  test("of a prompt are the context's where more is allowed: nobody waits for tokens of a text that cannot fit", async () => {
    const server = new ToyServer({ promptLimit: 1_000_000 });
    const { status, json } = await server.complete({ prompt: "a".repeat(30_000) });
    expect([status, json.error.code]).toEqual([400, "context_length_exceeded"]);
    // 24 for each of 999 tokens.
    expect(json.error.message).toContain("at most 23976");
  });

  test("of the time in which a request must arrive end it with 408", async () => {
    const server = new ToyServer({ readTimeout: 0.05 });
    let isLetGo = false;
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => controller.enqueue(new TextEncoder().encode('{"prompt": "x')),
      cancel: () => void (isLetGo = true),
    });
    const init = { ...jsonRequest(""), body, duplex: "half" } as RequestInit;
    expect((await server.fetch(TEXT, init)).status).toBe(408);
    // Nobody holds on to what may never come.
    await until(() => isLetGo, "the body is let go");
    await server.quiet();
  });

  test("of the body are the server's to choose", async () => {
    const server = new ToyServer({ bodyLimit: 100 });
    expect((await server.complete({ prompt: "x".repeat(20) })).status).toBe(200);
    const { status, json } = await server.complete({ prompt: "x".repeat(100) });
    expect([status, json.error.code]).toEqual([413, "request_too_large"]);
    expect(json.error.message).toContain("100 bytes");
  });

  test("of the body let in what is just as long, whether it says its length or not", async () => {
    const body = JSON.stringify({ prompt: "The river", max_tokens: 1 });
    const { length } = body;
    const headers: Record<string, string>[] = [{}, { "content-length": String(length) }];
    for (const more of headers) {
      const asked = async (bodyLimit: number) =>
        (await new ToyServer({ bodyLimit }).post(TEXT, body, { headers: more })).status;
      expect([more, await asked(length), await asked(length - 1)]).toEqual([more, 200, 413]);
    }
  });

  test("of the body hold where it says a length and comes in pieces all the same", async () => {
    const server = new ToyServer({ bodyLimit: 100 });
    const headers = { "content-length": "10", "transfer-encoding": "chunked" };
    const { status } = await server.post(TEXT, { prompt: "x".repeat(200) }, { headers });
    expect(status).toBe(413);
  });

  test("of the body are of what is sent as it is, in whatever letters it says so", async () => {
    const server = new ToyServer();
    const asked = async (encoding: string) =>
      (await server.complete({}, { headers: { "content-encoding": encoding } })).status;
    expect([await asked("identity"), await asked("Identity"), await asked("gzip")]).toEqual([
      ...[200, 200, 400],
    ]);
  });

  test("of what an error says hold for names that a request makes up", async () => {
    const server = new ToyServer();
    const { status, json } = await server.complete({ logit_bias: { ["x".repeat(5000)]: 1 } });
    expect([status, json.error.param.length <= 200]).toEqual([400, true]);
    expect(json.error.message.length).toBeLessThan(500);
  });
});
