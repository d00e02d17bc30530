/** Answers that end before their time: clients that go, that do not read, and a server that stops. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { Hono } from "hono";
import { listen, type Listening } from "../../src/platform/listen.ts";
import { ApiError } from "../../src/server/errors.ts";
import { sendEvents } from "../../src/server/events.ts";
import { eventsOf, jsonRequest } from "./behaviour/support.ts";
import { Brake, pause, TEXT, ToyServer, until } from "./toy_server.ts";

const BODY = { prompt: "The river", temperature: 0, max_tokens: 500, logit_bias: { "0": -100 } };
const servers: Listening[] = [];
afterAll(async () => {
  for (const server of servers) await server.stop();
});

/** Asks a server that listens for a path of its own. */
function overTheNet(server: ToyServer): (init: RequestInit) => Promise<Response> {
  const listening = listen(server.handler, { hostname: "127.0.0.1", port: 0, patience: 30 });
  servers.push(listening);
  return (init) => fetch(`http://127.0.0.1:${listening.port}${TEXT}`, init);
}

/** What a stream has sent up to some event, and the reader of the rest. */
async function begin(response: Response) {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  const { value } = await reader.read();
  expect(value).toContain("data: ");
  const rest = async () => {
    let text = value!;
    for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value;
    return eventsOf(text);
  };
  return { reader, rest };
}

for (const way of ["the app itself", "a server that listens"]) {
  const asker = (server: ToyServer) =>
    way === "the app itself" ? (init: RequestInit) => server.fetch(TEXT, init) : overTheNet(server);

  describe(`a client of ${way}`, () => {
    for (const stream of [false, true]) {
      test(`that goes during its prompt frees all it had${stream ? ", streaming" : ""}`, async () => {
        const brake = new Brake();
        brake.hold();
        const server = new ToyServer({}, { beforeRun: brake.wait });
        const gone = new AbortController();
        const asked = asker(server)({ ...jsonRequest({ ...BODY, stream }), signal: gone.signal });
        asked.catch(() => {});
        await until(() => brake.runs === 1, "it runs");
        expect(await server.counts()).toEqual([0, 1, 1]);
        gone.abort();
        // Over the net it is noticed when the system has got to it.
        await pause(way === "the app itself" ? 20 : 400);
        brake.release();
        await server.quiet();
        expect(brake.runs).toBe(1);
        await asked.catch(() => {});
      });
    }

    test("that goes in the middle of an answer stops it", async () => {
      const server = new ToyServer({}, { beforeRun: () => pause(2) });
      const ask = asker(server);
      const gone = new AbortController();
      const request = jsonRequest({ ...BODY, stream: true });
      const { reader } = await begin(await ask({ ...request, signal: gone.signal }));
      gone.abort();
      await reader.read().catch(() => {});
      await reader.cancel().catch(() => {});
      await server.quiet();
      expect(server.toy.runs.length).toBeLessThan(200);
      const stopped = 'answers_total{model="toy",reason="stopped"}';
      expect(await server.metric(stopped)).toBe(1);
    });

    test("that cancels what it reads stops it", async () => {
      const server = new ToyServer({}, { beforeRun: () => pause(2) });
      const response = await asker(server)(jsonRequest({ ...BODY, n: 3, stream: true }));
      const { reader } = await begin(response);
      await reader.cancel();
      await server.quiet();
      expect(server.toy.opened).toBeLessThanOrEqual(3);
      expect(server.toy.runs.length).toBeLessThan(300);
    });

    test("that waits in line and goes is forgotten", async () => {
      const brake = new Brake();
      brake.hold();
      const server = new ToyServer({ parallel: 1 }, { beforeRun: brake.wait });
      const ask = asker(server);
      const first = ask(jsonRequest({ ...BODY, max_tokens: 2 }));
      await until(() => brake.runs === 1, "it runs");
      const gone = new AbortController();
      const waits = ask({ ...jsonRequest(BODY), signal: gone.signal });
      waits.catch(() => {});
      await until(async () => await server.metric("queue_depth") === 1, "one waits");
      gone.abort();
      await until(async () => await server.metric("queue_depth") === 0, "nobody waits");
      brake.release();
      const response = await first;
      expect([response.status, server.toy.opened]).toEqual([200, 1]);
      await response.text();
      await server.quiet();
    });
  });
}

test("a client that has gone before the app sees its request has nothing computed for it", async () => {
  for (const stream of [false, true]) {
    const server = new ToyServer();
    const init = { ...jsonRequest({ ...BODY, stream }), signal: AbortSignal.abort() };
    const response = await server.fetch(TEXT, init);
    await response.body?.cancel();
    expect([stream, response.status, server.toy.opened]).toEqual([stream, 499, 0]);
    await server.quiet();
    expect(server.entries.map(({ status }) => status)).toEqual([499]);
  }
});

test("a client that goes at any moment about its first piece, and reads nothing, frees all it had", async () => {
  // The moments are microtasks after its prompt has been run: before, while and after the answer is made.
  for (let moment = 0; moment < 120; moment++) {
    const gone = new AbortController();
    const leave = async () => {
      for (let i = 0; i < moment; i++) await undefined;
      gone.abort();
    };
    const server = new ToyServer({}, {
      beforeRun: (_, run) => {
        if (run === 1) void leave();
      },
    });
    const request = jsonRequest({ ...BODY, stream: true });
    await server.fetch(TEXT, { ...request, signal: gone.signal });
    await server.quiet();
    expect(server.toy.runs.length).toBeLessThan(10);
  }
});

test("clients that go one after the other after their first events all free what they had", async () => {
  const server = new ToyServer({}, { beforeRun: () => pause(1) });
  const ask = overTheNet(server);
  const come = async () => {
    for (let i = 0; i < 25; i++) {
      const gone = new AbortController();
      const request = jsonRequest({ ...BODY, stream: true });
      await begin(await ask({ ...request, signal: gone.signal }));
      gone.abort();
    }
  };
  await Promise.all([come(), come(), come(), come()]);
  await server.quiet();
});

describe("a stream", () => {
  test("whose time is up frees all it had, also when nobody reads it", async () => {
    const server = new ToyServer({ requestTimeout: 0.1 }, { beforeRun: () => pause(1) });
    await server.fetch(TEXT, jsonRequest({ ...BODY, stream: true }));
    await server.quiet();
  });

  test("whose time is up ends with an error for an event, and without [DONE]", async () => {
    const server = new ToyServer({ requestTimeout: 0.15 }, { beforeRun: () => pause(5) });
    const response = await server.fetch(TEXT, jsonRequest({ ...BODY, stream: true }));
    expect(response.status).toBe(200);
    const events = await (await begin(response)).rest();
    expect(JSON.parse(events.at(-1)!)).toEqual({
      error: {
        message: expect.stringContaining("0.15 s"),
        type: "server_error",
        param: null,
        code: "timeout",
      },
    });
    expect(events.length).toBeGreaterThan(2);
    await server.quiet();
    expect(server.entries.map(({ status }) => status)).toEqual([504]);
  });

  test("that is read while it is being stopped has the error that says why, too", async () => {
    const work = new AbortController();
    // What ends an answer takes a while: other choices are under way.
    async function* chunks() {
      for (let i = 0;; i++) {
        if (work.signal.aborted) await pause(50);
        work.signal.throwIfAborted();
        yield { i };
      }
    }
    let ends = 0;
    const app = new Hono().get(
      "/",
      (context) => sendEvents(context, chunks(), { patience: 5000, work, done: () => void ends++ }),
    );
    const reader = (await app.request("/")).body!.getReader();
    await pause(20);
    work.abort(new ApiError(503, "the server is stopping"));
    let text = "";
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      text += new TextDecoder().decode(next.value);
      await pause(100);
    }
    expect(eventsOf(text).map((event) => JSON.parse(event))).toEqual([
      { i: 0 },
      { error: expect.objectContaining({ message: "the server is stopping" }) },
    ]);
    expect(ends).toBe(1);
  });

  test("whose model fails in its middle ends with an error that tells nothing of the machine", async () => {
    const server = new ToyServer({}, {
      beforeRun: (_, run) => {
        if (run === 5) throw new Error("/home/someone/secret is broken");
      },
    });
    const response = await server.fetch(TEXT, jsonRequest({ ...BODY, stream: true }));
    const text = (await (await begin(response)).rest()).join("\n");
    expect(JSON.parse(text.split("\n").at(-1)!).error.type).toBe("server_error");
    expect(text).not.toContain("secret");
    await server.quiet();
    const failure = server.entries.find(({ event }) => event === "error");
    expect(failure?.message).toContain("secret is broken");
    expect(server.entries.find(({ event }) => event === "request")?.status).toBe(500);
  });

  test("that nobody reads is dropped after readTimeout", async () => {
    const server = new ToyServer({ readTimeout: 0.1 });
    const response = await server.fetch(TEXT, jsonRequest({ ...BODY, stream: true }));
    await server.quiet();
    expect(server.toy.runs.length).toBeLessThan(400);
    expect(server.entries.length).toBe(1);
    await response.body!.cancel().catch(() => {});
  });

  test("that is read slowly, but is, goes on to its end", async () => {
    const server = new ToyServer({ readTimeout: 0.1 });
    const body = jsonRequest({ ...BODY, max_tokens: 30, stream: true });
    const reader = (await server.fetch(TEXT, body)).body!.getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      text += decoder.decode(next.value, { stream: true });
      await pause(8);
    }
    expect(eventsOf(text).at(-1)).toBe("[DONE]");
    await server.quiet();
  });

  test("goes on to its end where a token takes longer than a client may", async () => {
    const server = new ToyServer({ readTimeout: 0.1 }, {
      beforeRun: (_, run) => run === 3 ? pause(350) : undefined,
    });
    const body = jsonRequest({ ...BODY, max_tokens: 6, stream: true });
    const text = await (await server.fetch(TEXT, body)).text();
    expect(eventsOf(text).at(-1)).toBe("[DONE]");
    await server.quiet();
  });

  test("that is let go before any of it is read ends at once, and not after readTimeout", async () => {
    const server = new ToyServer({ readTimeout: 60 });
    const response = await server.fetch(TEXT, jsonRequest({ ...BODY, stream: true }));
    // Some of it lies there already.
    await pause(20);
    await response.body!.cancel();
    await server.quiet();
    expect(server.toy.runs.length).toBeLessThan(400);
  });
});

describe("a server", () => {
  const ready = async (server: ToyServer) => {
    const [health, ready] = [await server.fetch("/health"), await server.fetch("/ready")];
    const { status } = await health.json();
    expect(await ready.json()).toEqual({ status });
    return [health.status, ready.status, status];
  };

  test("that loads its model lives, but is not ready, and says when to ask again", async () => {
    const server = new ToyServer({}, {}, false);
    expect(await ready(server)).toEqual([200, 503, "loading"]);
    expect((await server.fetch("/ready")).headers.get("retry-after")).toBe("2");
    expect(await server.metric("ready")).toBe(0);
    for (const path of [TEXT, "/tokenize"]) {
      const { status, json, headers } = await server.post(path, { prompt: "x" });
      expect([status, json.error.code]).toEqual([503, "server_loading"]);
      expect(headers.get("retry-after")).toBe("2");
    }
    expect((await server.fetch("/v1/models")).status).toBe(503);
    expect((await server.fetch("/")).status).toBe(200);
    server.load();
    expect(await ready(server)).toEqual([200, 200, "ready"]);
    expect((await server.complete()).status).toBe(200);
  });

  test("whose model could not be loaded says so", async () => {
    const server = new ToyServer({}, {}, false);
    server.service.fail();
    expect(await ready(server)).toEqual([200, 503, "failed"]);
    expect((await server.complete()).json.error.code).toBe("server_failed");
  });

  test("that drains takes nothing new, and waits for what it has begun", async () => {
    const server = new ToyServer({}, { beforeRun: () => pause(3) });
    const request = jsonRequest({ ...BODY, max_tokens: 40, stream: true });
    const { rest } = await begin(await server.fetch(TEXT, request));
    let isDrained: boolean | undefined;
    const drained = server.service.drain(10).then((all) => isDrained = all);
    expect(await ready(server)).toEqual([200, 503, "draining"]);
    const { status, json } = await server.complete();
    expect([status, json.error.code]).toEqual([503, "server_draining"]);
    expect(isDrained).toBe(undefined);
    expect((await rest()).at(-1)).toBe("[DONE]");
    expect(await drained).toBe(true);
    await server.quiet();
  });

  test("that has drained long enough stops what is left, with an error", async () => {
    const server = new ToyServer({ parallel: 1 }, { beforeRun: () => pause(3) });
    const request = jsonRequest({ ...BODY, stream: true });
    const { rest } = await begin(await server.fetch(TEXT, request));
    const waits = server.complete();
    await until(async () => await server.metric("queue_depth") === 1, "one waits");
    const drained = server.service.drain(0.1);
    const last = (await rest()).at(-1)!;
    expect(JSON.parse(last).error).toMatchObject({ code: "server_stopping", type: "server_error" });
    const { status, json } = await waits;
    expect([status, json.error.code]).toEqual([503, "server_stopping"]);
    expect(await drained).toBe(false);
    await server.quiet();
  });

  test("that has drained long enough does not wait for the rest of a body", async () => {
    const server = new ToyServer();
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => controller.enqueue(new TextEncoder().encode('{"prompt": "x')),
    });
    const asked = server.fetch(TEXT, { ...jsonRequest(""), body, duplex: "half" } as RequestInit);
    await pause(10);
    const started = performance.now();
    expect(await server.service.drain(0.01)).toBe(false);
    expect(performance.now() - started).toBeLessThan(2000);
    const answer = await asked;
    expect([answer.status, (await answer.json()).error.code]).toEqual([503, "server_stopping"]);
    await server.quiet();
  });

  test("that nobody asks is drained at once", async () => {
    expect(await new ToyServer().service.drain(10)).toBe(true);
  });
});
