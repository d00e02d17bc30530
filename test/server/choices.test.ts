/** Requests for more sequences than may generate at once. @module */
import { describe, expect, test } from "bun:test";
import { MOST_PER_TOKEN } from "../../src/server/answers.ts";
import { seedOfChoice } from "../../src/server/schemas/sampling.ts";
import { tokenizer } from "../generate/support.ts";
import { eventsOf, jsonRequest } from "./behaviour/support.ts";
import { CHAT, pause, TEXT, ToyServer, until } from "./toy_server.ts";

/** A server whose sequences take some 60 ms each, where nobody may wait that long for two of them. */
function narrow(parallel: number): ToyServer {
  return new ToyServer({ parallel, queue: 2, queueTimeout: 0.1 }, { beforeRun: () => pause(15) });
}

describe("a request for more answers than generate at once", () => {
  for (const parallel of [1, 3]) {
    test(`does not run out of patience with itself: 9 of them, ${parallel} at once`, async () => {
      const server = narrow(parallel);
      const { status, json } = await server.complete({ n: 9, seed: 3, temperature: 1 });
      expect([status, json.choices?.length]).toEqual([200, 9]);
      const reasons = json.choices.map((choice: { finish_reason: string }) => choice.finish_reason);
      expect(new Set(reasons)).toEqual(new Set(["length"]));
      await server.quiet();
    });
  }

  test("does not lose what it has when others take the place between two of them", async () => {
    const server = new ToyServer({ parallel: 1, queue: 2, queueTimeout: 0.6 }, {
      beforeRun: () => pause(50),
    });
    const two = server.complete({ n: 2, max_tokens: 12 });
    await until(() => server.toy.runs.length >= 8, "the first is well on its way");
    // It takes longer than the second has patience.
    const other = server.complete({ max_tokens: 20 });
    expect((await other).status).toBe(200);
    const { status, json } = await two;
    expect([status, json.choices?.length]).toEqual([200, 2]);
    await server.quiet();
  });

  test("sends all of them when it streams, too", async () => {
    const server = narrow(2);
    const body = { prompt: "The river", max_tokens: 4, n: 7, stream: true };
    const events = eventsOf(await (await server.fetch(TEXT, jsonRequest(body))).text());
    const ends = events.slice(0, -1).map((event) => JSON.parse(event).choices[0])
      .filter(({ finish_reason }) => finish_reason !== null);
    expect(ends.map(({ index }) => index).sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    await server.quiet();
  });

  test("leaves the line to others", async () => {
    const server = new ToyServer({ parallel: 1, queue: 1, queueTimeout: 5 }, {
      beforeRun: () => pause(15),
    });
    const many = server.complete({ n: 5 });
    await until(() => server.toy.runs.length > 1, "it runs");
    const { status } = await server.complete({});
    expect(status).toBe(200);
    expect((await many).status).toBe(200);
    await server.quiet();
  });
});

describe("making tokens, in which time the server does nothing else", () => {
  /** The texts that tokens are made of while something is done. */
  async function textsOf(work: () => Promise<unknown>): Promise<string[]> {
    const texts: string[] = [];
    const { encode } = tokenizer;
    Object.defineProperty(tokenizer, "encode", {
      configurable: true,
      value: (...given: Parameters<typeof encode>) => {
        texts.push(given[0]);
        return encode.apply(tokenizer, given);
      },
    });
    try {
      await work();
    } finally {
      delete (tokenizer as Partial<typeof tokenizer>).encode;
    }
    return texts;
  }

  test("is done once for all answers to a prompt", async () => {
    const server = new ToyServer();
    const prompt = ["The river", "A town", "The river"];
    const messages = [{ role: "user", content: "Hi" }];
    expect(await textsOf(() => server.complete({ prompt, n: 9 }))).toEqual(["The river", "A town"]);
    const whole = await textsOf(() => server.post(CHAT, { messages, n: 9, max_tokens: 2 }));
    expect(whole).toEqual(["[user]Hi[me]"]);
    await server.quiet();
  });

  test("is not begun with what is longer than any tokens of the context, wherever it comes from", async () => {
    const long = "ab".repeat(200_000);
    const messages = [{ role: "user", content: "Hi" }];
    const server = new ToyServer();
    const longest = MOST_PER_TOKEN * server.toy.info.context;
    const requests = [
      { messages: [{ role: "user", content: long }] },
      { messages: [...messages, { role: "user", content: long }] },
      { messages, chat_template_kwargs: { who: long } },
    ];
    for (const request of requests) {
      const texts = await textsOf(async () => {
        const { status, json } = await server.post(CHAT, request);
        const { code, param, message } = json.error;
        expect([status, code, param]).toEqual([400, "context_length_exceeded", "messages"]);
        expect(message).toContain("characters");
      });
      expect(texts.filter(({ length }) => length > longest)).toEqual([]);
    }
    await server.quiet();
  });
});

test("no two choices have a seed in common, however large the first one's is", () => {
  const most = Number.MAX_SAFE_INTEGER;
  for (const seed of [0, 7, most - 3, most - 1]) {
    const seeds = Array.from({ length: 8 }, (_, index) => seedOfChoice(seed, index)!);
    expect(new Set(seeds).size).toBe(8);
    for (const [index, one] of seeds.entries()) {
      expect(one).toBe(Number((BigInt(seed) + BigInt(index)) % BigInt(most)));
    }
  }
});
