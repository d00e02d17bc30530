/** What the log tells, and what it keeps to itself. @module */
import { describe, expect, test } from "bun:test";
import { ContextOverflowError, MemoryBudgetError } from "../../src/errors.ts";
import { jsonLine, textLine } from "../../src/server/log.ts";
import { jsonRequest } from "./behaviour/support.ts";
import { bearing, CHAT, guarded, pause, TEXT, ToyServer } from "./toy_server.ts";

describe("the log", () => {
  const SECRET = "xyzzy the hidden word";
  const requests = (n: number): [path: string, body: unknown][] => [
    // Drawn by chance, one text in a thousand would end before.
    [TEXT, { prompt: SECRET, max_tokens: n, seed: 1 }],
    [TEXT, { prompt: SECRET, max_tokens: n, seed: 1, stream: true }],
    [TEXT, { prompt: [SECRET, SECRET], max_tokens: n }],
    [CHAT, { messages: [{ role: "user", content: SECRET }], max_tokens: n }],
    [CHAT, { messages: [{ role: SECRET, content: SECRET }] }],
    [CHAT, { messages: [{ role: "user", content: [{ type: "image", text: SECRET }] }] }],
    [TEXT, { prompt: SECRET, stop: 5 }],
    [TEXT, { prompt: { text: SECRET } }],
    [TEXT, { prompt: SECRET.repeat(1000) }],
    [TEXT, `{"prompt": "${SECRET}"`],
    ["/tokenize", { prompt: SECRET }],
    ["/tokenize", { prompt: [SECRET] }],
  ];

  /** Sends them all; all lines of the log in both forms. */
  async function logOf(options: object): Promise<{ text: string; server: ToyServer }> {
    const { server, keys: [key] } = await guarded(options);
    for (const [path, body] of requests(3)) await server.post(path, body, bearing(key));
    await server.complete({}, bearing(`${key}x`));
    await server.quiet();
    const text = server.entries.flatMap((entry) => [jsonLine(entry), textLine(entry)]).join("\n");
    expect(text).not.toContain(key);
    expect(server.entries.length).toBe(requests(3).length + 1);
    return { text, server };
  }

  test("has no word of a prompt and no key", async () => {
    const { text, server } = await logOf({});
    expect(text).not.toContain("xyzzy");
    expect(text).not.toContain("hidden");
    expect(server.entries.every((entry) => !("prompt" in entry) && !("answer" in entry))).toBe(
      true,
    );
    const [whole, stream] = server.entries;
    for (const entry of [whole, stream]) {
      expect(structuredClone(entry)).toMatchObject({
        event: "request",
        method: "POST",
        path: TEXT,
        status: 200,
        key: "till-3",
        model: "toy",
        completionTokens: 3,
        finishReason: "length",
      });
      expect(entry.promptTokens).toBeGreaterThan(3);
      expect(entry.milliseconds).toBeGreaterThanOrEqual(entry.firstTokenMilliseconds!);
      expect(new Date(entry.time).toISOString()).toBe(entry.time);
    }
    expect([whole.stream, stream.stream]).toEqual([false, true]);
    expect(new Set(server.entries.map(({ id }) => id)).size).toBe(server.entries.length);
  });

  test("has prompts and answers where the server was asked for them, and still no key", async () => {
    const { server } = await logOf({ logPrompts: true });
    const [whole, stream, list, chat] = server.entries;
    expect([whole.prompt, stream.prompt, list.prompt]).toEqual([SECRET, SECRET, [SECRET, SECRET]]);
    expect(chat.prompt).toEqual([{ role: "user", content: SECRET }]);
    const { json } = await server.complete({
      prompt: SECRET,
      max_tokens: 3,
      temperature: 1,
      seed: 1,
    });
    expect(json.error.code).toBe("missing_api_key");
    expect(whole.answer!.length).toBeGreaterThan(0);
  });

  test("keeps the answers of one request apart, and has the numbers of tokens that its client is told", async () => {
    for (const stream of [false, true]) {
      for (const prompt of ["The river", ["The river", "A town"]]) {
        const server = new ToyServer({ logPrompts: true });
        const n = 3;
        const asked = { prompt, n, temperature: 1, seed: 5, max_tokens: 8 };
        const { json } = await server.complete(asked);
        if (stream) await server.post(TEXT, { ...asked, stream });
        await server.quiet();
        const entry = server.entries.at(-1)!;
        expect(entry.stream).toBe(stream);
        expect(entry.answer).toEqual(json.choices.map(({ text }: { text: string }) => text));
        expect(entry.promptTokens).toBe(json.usage.prompt_tokens);
        expect(entry.completionTokens).toBe(json.usage.completion_tokens);
        const line = textLine(entry);
        expect(line).toContain(`answer ${JSON.stringify(entry.answer)}`);
        expect(JSON.parse(jsonLine(entry)).answer).toEqual(entry.answer);
      }
    }
  });

  test("counts tokens that needed no run as its client is told, once for all answers to one prompt", async () => {
    const server = new ToyServer({}, { reusesPrefix: true });
    await server.complete({ max_tokens: 1 });
    const { json } = await server.complete({ n: 3, max_tokens: 2 });
    await server.quiet();
    const { cached_tokens } = json.usage.prompt_tokens_details;
    expect(cached_tokens).toBeGreaterThan(0);
    expect(server.entries.at(-1)!.cachedTokens).toBe(cached_tokens);
  });

  test("has the figures of answers that were not whole, too: a client that goes has had them all the same", async () => {
    for (const n of [1, 3]) {
      const server = new ToyServer({}, { beforeRun: () => pause(1) });
      const whole = await server.complete({ n, max_tokens: 1 });
      const asked = {
        prompt: "The river",
        n,
        max_tokens: 900,
        stream: true,
        logit_bias: { "0": -100 },
      };
      const work = new AbortController();
      const init = { ...jsonRequest(asked), signal: work.signal };
      const reader = (await server.fetch(TEXT, init)).body!.getReader();
      for (let i = 0; i < 10 * n; i++) await reader.read();
      work.abort();
      await server.quiet();
      const { status, promptTokens, cachedTokens, completionTokens } = server.entries.at(-1)!;
      expect([n, status, promptTokens]).toEqual([n, 499, whole.json.usage.prompt_tokens]);
      expect(cachedTokens).toBeUndefined();
      expect(completionTokens).toBeGreaterThanOrEqual(9 * n);
      expect(completionTokens).toBeLessThan(900);
      expect(textLine(server.entries.at(-1)!)).toContain(
        `: toy; ${promptTokens} tokens in, ${completionTokens} out; first after`,
      );
    }
  });

  test("has no figures of a request whose turn has not come", async () => {
    const server = new ToyServer({ parallel: 1, queueTimeout: 0.05 }, {
      beforeRun: () => pause(5),
    });
    const [, late] = await Promise.all([server.complete({ max_tokens: 60 }), server.complete()]);
    expect(late.status).toBe(503);
    await server.quiet();
    const entry = server.entries.find(({ status }) => status === 503)!;
    expect([entry.promptTokens, entry.completionTokens]).toEqual([undefined, undefined]);
  });

  test("has of a message what is read of it, whatever else is there", async () => {
    const server = new ToyServer({ logPrompts: true });
    const nested = "[".repeat(60_000) + "]".repeat(60_000);
    const { status } = await server.post(
      CHAT,
      `{"messages":[{"role":"developer","content":[{"type":"text","text":"a","x":${nested}}],` +
        `"x":${nested}}],"max_tokens":2}`,
    );
    await server.quiet();
    expect(status).toBe(200);
    const [entry] = server.entries;
    expect(entry.prompt).toEqual([{ role: "system", content: "a" }]);
    for (const write of [jsonLine, textLine]) expect(write(entry).length).toBeLessThan(1000);
  });

  test("does not tell of those who ask for the server's state, unless that fails", async () => {
    const server = new ToyServer({}, {}, false);
    for (const path of ["/health", "/metrics"]) await server.fetch(path);
    expect(server.entries).toEqual([]);
    await server.fetch("/ready");
    expect(server.entries.map(({ path, status }) => [path, status])).toEqual([["/ready", 503]]);
  });

  test("tells of those who ask for the server's state as they may not", async () => {
    const server = new ToyServer({ allowHost: ["llm.example.com"] });
    await server.fetch("/metrics", { headers: { host: "evil.example" } });
    await server.fetch("/health", { method: "POST", headers: { host: "llm.example.com" } });
    expect(server.entries.map(({ path, status }) => [path, status])).toEqual([
      ["/metrics", 403],
      ["/health", 405],
    ]);
  });

  test("is one line for each entry, whatever is in it", () => {
    const time = "2026-01-02T03:04:05.678Z";
    const request = { time, event: "request", id: "i", method: "GET", path: "/x\ny" } as const;
    const entries = [
      { time, event: "server", message: "ready" },
      { time, event: "error", id: "i", message: "it broke" },
      { ...request, status: 200, milliseconds: 5 },
      {
        ...request,
        path: "/",
        status: 200,
        milliseconds: 5,
        key: "k",
        prompt: "a\nb",
        answer: "\n",
      },
    ] as const;
    for (const entry of entries) {
      expect(JSON.parse(jsonLine(entry))).toEqual(entry);
      expect(jsonLine(entry)).not.toContain("\n");
    }
    expect(textLine(entries[0])).toBe(`${time} ready`);
    expect(textLine(entries[1])).toBe(`${time} error i: it broke`);
    expect(textLine(entries[2])).toBe(`${time} GET /x\\u000ay 200 5 ms i`);
    expect(textLine(entries[3])).toBe(
      `${time} GET / 200 5 ms i: key k; prompt "a\\nb"; answer "\\n"`,
    );
  });

  test("cannot command the terminal that shows what went wrong", () => {
    const entry = { time: "t", event: "error", message: "it\n\x1b]0;x\x07\x9b" } as const;
    expect(textLine(entry)).toBe("t error: it\n\\u001b]0;x\\u0007\\u009b");
  });

  test("cannot be written into by a path", async () => {
    const server = new ToyServer();
    for (const path of ["/a%0Ab%1b[31m", "/a%C2%9b%E2%80%A8b"]) await server.fetch(path);
    await server.complete({ model: "\u001b[31m\u009b" });
    expect(server.entries.length).toBe(3);
    for (const entry of server.entries) expect(textLine(entry)).not.toMatch(/[\p{Cc}\u2028]/u);
  });
});

describe("what goes wrong in the server", () => {
  const failing = (error: Error) =>
    new ToyServer({}, {
      beforeRun: () => {
        throw error;
      },
    });

  test("is told to the log with its cause, and to the client without", async () => {
    for (const body of [{}, { stream: true }]) {
      const server = failing(new Error("/home/someone/secret is broken"));
      const { status, json, text } = await server.complete(body);
      expect([status, json.error.type, json.error.code]).toEqual([500, "server_error", null]);
      expect(text).not.toContain("secret");
      const [failure, request, ...more] = server.entries;
      expect([failure.event, request.event, more.length]).toEqual(["error", "request", 0]);
      expect(failure.message).toContain("secret is broken");
      expect([failure.id, request.status]).toEqual([request.id, 500]);
      expect(await server.metric('answers_total{model="toy",reason="failed"}')).toBe(1);
      await server.quiet();
    }
  });

  test("is no failure where it is want of memory, or the request's own fault", async () => {
    const cases: [Error, status: number, code: string][] = [
      [new MemoryBudgetError("the cache is full"), 503, "out_of_memory"],
      [new ContextOverflowError("no room"), 400, "context_length_exceeded"],
    ];
    for (const [error, expected, code] of cases) {
      const server = failing(error);
      const { status, json, headers } = await server.complete();
      expect([status, json.error.code]).toEqual([expected, code]);
      expect(headers.get("retry-after")).toBe(expected === 503 ? "1" : null);
      expect(server.entries.map(({ event }) => event)).toEqual(["request"]);
      await server.quiet();
    }
  });
});
