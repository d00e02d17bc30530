import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
// @ts-ignore: tsc is told of no JavaScript; Deno checks it.
import { ask, explain, measures } from "../../../src/server/page/answer.js";
// @ts-ignore: as above.
import { ApiError, Client, LostError, readEvents } from "../../../src/server/page/api.js";
import { listen } from "../../../src/platform/listen.ts";
import { ToyServer } from "../toy_server.ts";
import { type FakeServer, startFake } from "./fake_server.ts";

const KEY = "open sesame";

/** What reading gives for bytes that come in the given pieces. */
async function read(pieces: Uint8Array[]): Promise<string[]> {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
  const events: string[] = [];
  for await (const data of readEvents(body)) events.push(data);
  return events;
}

const bytes = (text: string) => new TextEncoder().encode(text);

describe("server-sent events", () => {
  test("are read as the standard says, whatever the end of a line", async () => {
    for (const end of ["\n", "\r\n"]) {
      const text = [
        ": a comment",
        "data: one",
        "",
        "event: more",
        "id: 1",
        "data:two",
        "data:  three",
        "data",
        "",
        "",
        "data: not complete",
      ].join(end);
      expect(await read([bytes(text)])).toEqual(["one", "two\n three\n"]);
    }
  });

  test("do not depend on where the bytes were cut, within characters too", async () => {
    const line = fc.string({ unit: "grapheme", maxLength: 12 })
      .map((text) => text.replaceAll(/[\r\n]/g, "")).filter((text) => text !== "");
    await fc.assert(
      fc.asyncProperty(
        fc.array(line, { maxLength: 5 }),
        fc.array(fc.nat({ max: 7 }), { maxLength: 40 }),
        async (events, sizes) => {
          const whole = bytes(events.map((data) => `data: ${data}\n\n`).join(""));
          const pieces: Uint8Array[] = [];
          let at = 0;
          for (const size of sizes) pieces.push(whole.slice(at, at += size));
          pieces.push(whole.slice(at));
          expect(await read(pieces)).toEqual(events);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("whether a server is ready", () => {
  test("is said by it, and one that has lost a model is not taken for one that loads", async () => {
    const server = new ToyServer({}, {}, false);
    const listening = listen(server.handler, { hostname: "127.0.0.1", port: 0, patience: 30 });
    const client = new Client(
      `http://127.0.0.1:${listening.port}/`,
      () => Promise.resolve(undefined),
    );
    try {
      expect(await client.ready()).toEqual({ status: "loading", retryAfter: 2 });
      server.load();
      expect(await client.ready()).toEqual({ status: "ready" });
      server.service.lose(server.service.models[0]);
      expect(await client.ready()).toEqual({ status: "failed", retryAfter: 2 });
      expect((await client.models()).map(({ id }: { id: string }) => id)).toEqual(["toy"]);
      await server.service.drain(1);
      expect(await client.ready()).toEqual({ status: "draining", retryAfter: 2 });
    } finally {
      await listening.stop();
    }
  });

  test("is guessed where a proxy answers in its place", async () => {
    const page = () => new Response("<h1>503 Service Unavailable</h1>", { status: 503 });
    const listening = listen(page, { hostname: "127.0.0.1", port: 0, patience: 30 });
    const client = new Client(
      `http://127.0.0.1:${listening.port}/`,
      () => Promise.resolve(undefined),
    );
    expect(await client.ready()).toEqual({ status: "loading" });
    await listening.stop();
  });
});

describe("an answer", () => {
  let server: FakeServer;
  beforeAll(async () => {
    server = await startFake({ key: KEY });
  });
  afterAll(() => server.close());

  const clientWith = (...keys: string[]) =>
    new Client(server.url, () => Promise.resolve(keys.shift()));
  const question = (content: string) => ({ messages: [{ role: "user", content }] });
  const answerTo = async (content: string, client = clientWith(KEY), stopAfter = Infinity) => {
    const controller = new AbortController();
    let pieces = 0;
    const path = "v1/chat/completions";
    return await ask(client, path, question(content), controller.signal, () => {
      if (++pieces === stopAfter) controller.abort();
    });
  };

  test("comes whole, with its usage and how long it took", async () => {
    const answer = await answerTo("hello");
    expect(answer.error).toBeUndefined();
    expect(answer.finish).toBe("stop");
    expect(answer.text.startsWith("An espalier is a tree")).toBe(true);
    expect(answer.text.endsWith("runs in less memory.")).toBe(true);
    expect(answer.usage?.completion_tokens).toBe(answer.pieces);
    expect(answer.firstSeconds).toBeGreaterThan(0);
    expect(answer.seconds).toBeGreaterThan(0.5);
  });

  test("is asked for again with a key when the server wants one", async () => {
    const client = clientWith("wrong", KEY);
    expect(await client.models()).toHaveLength(1);
    expect(client.key).toBe(KEY);
  });

  test("is asked for again, too, when no header can hold the key, as one that was pasted with more", async () => {
    for (const wrong of ["esp-12…", "a\u200bb", "a\nb", "\ud83c"]) {
      const client = clientWith(wrong, KEY);
      expect(await client.models()).toHaveLength(1);
      expect(client.key).toBe(KEY);
      // One that was kept from before.
      const later = clientWith(KEY);
      later.key = wrong;
      expect(await later.models()).toHaveLength(1);
    }
  });

  test("is refused without a key", async () => {
    const { error } = await answerTo("hello", clientWith());
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toHaveProperty("status", 401);
  });

  test("keeps what had come when the server fails in the middle", async () => {
    const { error, text } = await answerTo("!error");
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toHaveProperty("message", "the engine failed");
    expect(text).toBe("An espalier is a tree that grows flat. Each winter the gardener ");
  });

  test("keeps what had come when the connection breaks", async () => {
    const { error, text, finish } = await answerTo("!lost");
    expect(error).toBeInstanceOf(LostError);
    expect(finish).toBeUndefined();
    expect("An espalier is a tree that grows flat. Each winter the gardener ".startsWith(text))
      .toBe(true);
  });

  test("that is stopped is no failure", async () => {
    const answer = await answerTo("hello", clientWith(KEY), 5);
    expect(answer.error).toBeUndefined();
    expect(answer.finish).toBe("stopped");
    expect(answer.pieces).toBe(5);
    expect(measures(answer)).toContain("stopped");
  });

  test("of a busy server tells how long to wait", async () => {
    const { error } = await answerTo("!429");
    expect(explain(error!)).toBe("The server is busy. It asks to wait 2 seconds.");
  });

  test("tells its speed without the time that the prompt took", () => {
    const usage = { prompt_tokens: 1000, completion_tokens: 101, total_tokens: 1101 };
    const answer = { text: "", pieces: 90, usage, firstSeconds: 2.5, seconds: 4, finish: "length" };
    expect(measures(answer)).toEqual([
      "25 tokens/s",
      "first after 2.5 s",
      "101 tokens for 1,000 of prompt",
      "ended at the token limit",
    ]);
  });
});
