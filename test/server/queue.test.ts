/** Who waits for whom, and for how long. @module */
import { describe, expect, test } from "bun:test";
import { Brake, pause, ToyServer, until } from "./toy_server.ts";

/** A server that holds every run, with one place and so many in line. */
function held(options: object = {}) {
  const brake = new Brake();
  brake.hold();
  const server = new ToyServer({ parallel: 1, queue: 2, ...options }, { beforeRun: brake.wait });
  return { brake, server };
}

describe("the queue", () => {
  test("fills up, and then sends clients away with 429 and a time to come back", async () => {
    const { brake, server } = held();
    const order: number[] = [];
    const asked = [];
    for (const i of [0, 1, 2]) {
      asked.push(server.complete().then(({ status }) => void order.push(i, status)));
      await until(async () => (await server.counts())[i === 0 ? 1 : 0] === Math.max(1, i), `${i}`);
    }
    expect(await server.counts()).toEqual([2, 1, 1]);

    for (const body of [{}, { stream: true }]) {
      const { status, json, headers } = await server.complete(body);
      expect(status).toBe(429);
      expect(json.error).toEqual({
        message: expect.stringContaining("2 requests are waiting"),
        type: "rate_limit_error",
        param: null,
        code: "queue_full",
      });
      expect(headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
    }
    expect(await server.counts()).toEqual([2, 1, 1]);

    brake.release();
    await Promise.all(asked);
    expect(order).toEqual([0, 200, 1, 200, 2, 200]);
    expect(server.toy.opened).toBe(3);
    await server.quiet();
    expect((await server.complete()).status).toBe(200);
  });

  test("is left with 503 by those who have waited too long", async () => {
    const { brake, server } = held({ queueTimeout: 0.05 });
    const first = server.complete();
    await until(() => brake.runs === 1, "one runs");
    for (const body of [{}, { stream: true }]) {
      const { status, json, headers } = await server.complete(body);
      expect([status, json.error.code, json.error.type]).toEqual([
        503,
        "queue_timeout",
        "server_error",
      ]);
      expect(headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
    }
    brake.release();
    expect((await first).status).toBe(200);
    await server.quiet();
  });

  test("gives the place of a client that leaves to the next one", async () => {
    const { brake, server } = held({ queue: 1 });
    const first = server.complete();
    await until(() => brake.runs === 1, "one runs");
    const gone = new AbortController();
    const leaving = server.complete({}, { signal: gone.signal }).catch(() => undefined);
    await until(async () => await server.metric("queue_depth") === 1, "one waits");
    expect((await server.complete()).status).toBe(429);
    gone.abort();
    await until(async () => await server.metric("queue_depth") === 0, "nobody waits");
    const next = server.complete();
    await until(async () => await server.metric("queue_depth") === 1, "another waits");
    brake.release();
    expect([(await first).status, (await next).status]).toEqual([200, 200]);
    await leaving;
    await server.quiet();
    expect(server.toy.opened).toBe(2);
  });

  test("lets a request with more choices than there are places in, when nobody else is there", async () => {
    const server = new ToyServer({ parallel: 2, queue: 1 });
    const { status, json } = await server.complete({ n: 6 });
    expect([status, json.choices.length]).toEqual([200, 6]);
    expect(new Set(json.choices.map(({ text }: { text: string }) => text)).size).toBe(1);
    await server.quiet();
  });

  test("counts every choice", async () => {
    const { brake, server } = held();
    const first = server.complete();
    await until(() => brake.runs === 1, "one runs");
    expect((await server.complete({ n: 3 })).status).toBe(429);
    const two = server.complete({ n: 2 });
    brake.release();
    expect([(await first).status, (await two).status]).toEqual([200, 200]);
    await server.quiet();
  });

  test("does not hold up the error of a request whose other choices wait in it", async () => {
    const server = new ToyServer({ parallel: 2 }, {
      beforeRun: ([token]) => {
        if (token === 77) throw new Error("it broke");
        return pause(5);
      },
    });
    const only = (token: number) => ({ logit_bias: { [token]: 100 }, max_tokens: 100 });
    const ended: string[] = [];
    const ask = (name: string, fields: object) =>
      server.complete(fields).then(({ status }) => void ended.push(`${name} ${status}`));
    const long = ask("long", only(88));
    const failing = ask("failing", { ...only(77), n: 2 });
    const next = ask("next", only(88));
    await failing;
    expect(ended).toEqual(["failing 500"]);
    await Promise.all([long, next]);
    expect(ended.length).toBe(3);
    await server.quiet();
  });

  test("does not keep those from computing at once who have places", async () => {
    const server = new ToyServer({ parallel: 3 }, { beforeRun: () => pause(2) });
    const all = [1, 2, 3].map(() => server.complete({ max_tokens: 30 }));
    await until(async () => await server.metric("sequences_open") === 3, "three are open");
    const answers = await Promise.all(all);
    expect(new Set(answers.map(({ json }) => json.choices[0].text)).size).toBe(1);
    await server.quiet();
  });
});

describe("time", () => {
  test("that a request takes too long ends it with 504", async () => {
    const { brake, server } = held({ requestTimeout: 0.05 });
    for (const body of [{}, { stream: true }]) {
      const asked = server.complete(body);
      await until(() => brake.runs > 0, "it runs");
      await pause(80);
      brake.release();
      const { status, json } = await asked;
      expect([status, json.error.code, json.error.type]).toEqual([504, "timeout", "server_error"]);
      brake.hold();
      brake.runs = 0;
    }
    await server.quiet();
  });

  test("in line counts as well", async () => {
    const { brake, server } = held({ requestTimeout: 0.08, queueTimeout: 5 });
    const first = server.complete();
    const second = server.complete();
    const { status, json } = await second;
    expect([status, json.error.code]).toEqual([504, "timeout"]);
    brake.release();
    expect((await first).status).toBe(504);
    await server.quiet();
  });
});
