/** `createApp`, and the limits that it is given. @module */
import { describe, expect, test } from "bun:test";
import { UsageError } from "../../src/errors.ts";
import type { Model } from "../../src/generate/model.ts";
import { type AppOptions, createApp } from "../../src/server/app.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { babbler } from "../generate/support.ts";
import { jsonRequest } from "./behaviour/support.ts";
import { pause, TEXT, toyModel, ToyServer } from "./toy_server.ts";

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

  test("of the time in which a request must arrive end it with 408", async () => {
    const server = new ToyServer({ readTimeout: 0.05 });
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => controller.enqueue(new TextEncoder().encode('{"prompt": "x')),
    });
    const init = { ...jsonRequest(""), body, duplex: "half" } as RequestInit;
    expect((await server.fetch(TEXT, init)).status).toBe(408);
    await server.quiet();
  });

  test("of the body are the server's to choose", async () => {
    const server = new ToyServer({ bodyLimit: 100 });
    expect((await server.complete({ prompt: "x".repeat(20) })).status).toBe(200);
    const { status, json } = await server.complete({ prompt: "x".repeat(100) });
    expect([status, json.error.code]).toEqual([413, "request_too_large"]);
    expect(json.error.message).toContain("100 bytes");
  });
});
