/** Clients that do what none should, over sockets of their own, while the server goes on as before. @module */
import { afterEach, describe, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import process from "node:process";
import { listen, type Listening } from "../../src/platform/listen.ts";
import type { AppOptions } from "../../src/server/app.ts";
import type { ToyOptions } from "../generate/toy_model.ts";
import { fromRoot } from "../support/paths.ts";
import { headText, postText, RawClient } from "./raw_client.ts";
import { Brake, CHAT, pause, TEXT, ToyServer, until } from "./toy_server.ts";

const IS_BUN = process.versions.bun !== undefined;
const BODY = { prompt: "The river", temperature: 0, max_tokens: 4 };
const LONG = { ...BODY, max_tokens: 900, logit_bias: { "0": -100 } };
/** Seconds that a client has here. */
const READ_TIMEOUT = 1;

const open: { close: () => unknown }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
});

/** A server that listens, and clients of it. */
class Place {
  readonly server: ToyServer;
  readonly #listening: Listening;

  constructor(options: AppOptions = {}, toy: Partial<ToyOptions> = {}) {
    this.server = new ToyServer({ readTimeout: READ_TIMEOUT, ...options }, toy);
    this.#listening = listen(this.server.handler, {
      hostname: "127.0.0.1",
      port: 0,
      patience: READ_TIMEOUT,
    });
    open.push({ close: () => this.#listening.stop() });
  }

  /** Connects, and sends something. */
  async client(text = ""): Promise<RawClient> {
    const client = await RawClient.open(this.#listening.port, text);
    open.push({ close: () => client.leave() });
    return client;
  }

  /** Sends something and reads the first answer's status; 0 when the server hangs up instead. */
  async status(text: string): Promise<number> {
    const client = await this.client(text);
    const answer = await client.answer();
    if (answer && answer.body !== "" && answer.status >= 400) {
      expect(JSON.parse(answer.body).error.message).not.toBe("");
    }
    client.leave();
    return answer?.status ?? 0;
  }

  /** Fails unless nothing is held and a usual request is answered as ever. */
  async isWell(): Promise<void> {
    await this.server.quiet();
    const before = this.server.toy.opened;
    expect(await this.status(postText(TEXT, BODY))).toBe(200);
    await this.server.quiet();
    expect(this.server.toy.opened).toBe(before + 1);
    expect(this.server.entries.filter(({ event }) => event === "error")).toEqual([]);
  }
}

describe("a client that goes", () => {
  for (const stream of [false, true]) {
    const how = stream ? ", streaming" : "";
    // Deno does not see who goes while a body that came apart from its head is worked on; see listen.ts.
    for (const tokens of IS_BUN ? [10, 900] : [10]) {
      test(`in the middle of a prompt of ${tokens} tokens ends its work${how}`, async () => {
        const brake = new Brake();
        const place = new Place({}, { beforeRun: brake.wait });
        brake.hold();
        const prompt = Array.from({ length: tokens }, (_, i) => 10 + i);
        const client = await place.client(postText(TEXT, { prompt, max_tokens: 100, stream }));
        await until(() => brake.runs === 1, "it runs");
        client.leave();
        await pause(100);
        brake.release();
        await place.server.quiet();
        expect(brake.runs).toBeLessThanOrEqual(2);
        await place.isWell();
      });
    }

    test(`in the middle of its answer ends its work${how}`, async () => {
      const place = new Place({}, { beforeRun: () => pause(5) });
      const client = await place.client(postText(TEXT, { ...LONG, stream }));
      await until(() => place.server.toy.runs.length > 10, "it runs");
      client.leave();
      await place.server.quiet();
      expect(place.server.toy.runs.length).toBeLessThan(300);
      await place.isWell();
    });
  }

  test("though it spoke HTTP/1.0, without a host, ends its work", async () => {
    const place = new Place({}, { beforeRun: () => pause(5) });
    const text = postText(TEXT, { ...LONG, stream: true });
    const client = await place.client(
      text.replace("HTTP/1.1", "HTTP/1.0").replace("Host: localhost\r\n", ""),
    );
    await until(() => place.server.toy.runs.length > 10, "it runs");
    client.leave();
    await place.server.quiet();
    expect(place.server.toy.runs.length).toBeLessThan(300);
  });
});

describe("a client that does not read", () => {
  test("is dropped after readTimeout, and what it was sent is not the whole", async () => {
    const fixed = Float32Array.from({ length: 4096 }, (_, i) => i === 100 ? 20 : Math.sin(i));
    const place = new Place({}, { logits: () => fixed, context: 100_000 });
    const client = await place.client(postText(CHAT, {
      messages: [{ role: "user", content: "hi" }],
      max_tokens: 90_000,
      logprobs: true,
      top_logprobs: 20,
      stream: true,
    }));
    client.stopReading();
    await until(() => place.server.toy.runs.length > 0, "it runs");
    await until(() => place.server.toy.opened === place.server.toy.closed, "it is dropped", 30);
    expect(place.server.toy.runs.length).toBeLessThan(50_000);
    expect(place.server.entries.map(({ status }) => status)).toEqual([499]);
    client.readOn();
    const answer = await client.answer();
    expect(answer?.body.length).toBeGreaterThan(1000);
    expect(answer?.isWhole).toBe(false);
    expect(answer?.body).not.toContain("[DONE]");
    expect(answer?.body).not.toContain('"finish_reason":"');
    await place.isWell();
  });
});

describe("a client that does not write", () => {
  test("the rest of its body is answered with 408", async () => {
    const place = new Place();
    const text = postText(TEXT, BODY);
    const client = await place.client(text.slice(0, -5));
    const answer = await client.answer();
    expect(answer?.status).toBe(408);
    await place.isWell();
  });

  test("the end of its chunked body is answered with 408", async () => {
    const place = new Place();
    const client = await place.client(chunkedHead() + '5\r\n{"pro\r\n');
    expect((await client.answer())?.status).toBe(408);
    await place.isWell();
  });

  // Deno has no time limit for a head; see listen.ts.
  test.if(IS_BUN)("anything, or anything more, is hung up on", async () => {
    const place = new Place();
    const health = headText("GET", "/health");
    const silent = {
      "nothing at all": ["", 0],
      "half a head": [health.slice(0, 20), 0],
      "one request": [health, 1],
      "one request with a body": [postText(TEXT, BODY), 1],
      "one request with half a body": [postText(TEXT, BODY).slice(0, -5), 1],
      "one request for a stream": [postText(TEXT, { ...BODY, stream: true }), 1],
    } as const;
    await Promise.all(
      Object.entries(silent).map(async ([what, [text, answers]]) => {
        const client = await place.client(text);
        for (let i = 0; i < answers; i++) expect(await client.answer()).toBeDefined();
        expect([what, await client.hungUp() === undefined]).toEqual([what, false]);
      }),
    );
    await place.isWell();
  });

  test("for a while is patiently waited for when its answer takes that long", async () => {
    const place = new Place({}, {
      beforeRun: (_, run) => run === 2 && pause(4 * READ_TIMEOUT * 1000),
    });
    for (const stream of [false, true]) {
      place.server.toy.runs.length = 0;
      const client = await place.client(postText(TEXT, { ...BODY, stream }));
      const answer = await client.answer();
      expect([answer?.status, answer?.body.includes('"finish_reason":"length"')]).toEqual([
        200,
        true,
      ]);
    }
  });
});

describe("clients without number", () => {
  const canLimit = process.platform !== "win32";
  test.if(canLimit)(
    "take all file descriptors, and the server is there again after them",
    async () => {
      const words = [process.execPath, ...IS_BUN ? [] : ["run", "-A", "--no-check"]];
      const script = fromRoot("test/server/small_server.ts");
      const child = spawn("sh", ["-c", 'ulimit -n 100 && exec "$@"', "sh", ...words, script], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      open.push({ close: () => child.kill() });
      let stdout = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
      await until(() => stdout.endsWith("\n"), "the server listens", 60);
      const port = Number(stdout);
      const stream = postText(TEXT, { ...LONG, max_tokens: 300, stream: true });
      const first = await RawClient.open(port, stream);
      await first.until(() => first.received.includes("data: "));
      const crowd = await Promise.all(
        Array.from({ length: 150 }, () => RawClient.open(port, "GET ").catch(() => undefined)),
      );
      expect((await first.answer())?.body).toContain("[DONE]");
      await pause(500);
      for (const client of [first, ...crowd]) client?.leave();
      const answers = async () => {
        const client = await RawClient.open(port, headText("GET", "/health")).catch(() =>
          undefined
        );
        const answer = await client?.answer(1000);
        client?.leave();
        return answer?.status === 200;
      };
      await until(answers, "it answers again", 20);
      expect(child.exitCode).toBe(null);
    },
  );
});

/** The head of a request whose body comes in chunks. */
function chunkedHead(): string {
  return headText("POST", TEXT, ["Content-Type: application/json", "Transfer-Encoding: chunked"]);
}

describe("a body", () => {
  const json = JSON.stringify(BODY);
  const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;
  const head = (...headers: string[]) =>
    headText("POST", TEXT, ["Content-Type: application/json", ...headers]);

  test("in chunks is read", async () => {
    const place = new Place();
    const pieces = [json.slice(0, 5), json.slice(5, 6), json.slice(6)];
    expect(await place.status(`${chunkedHead()}${pieces.map(chunk).join("")}0\r\n\r\n`)).toBe(200);
    await place.isWell();
  });

  test("that is wrong on the wire gets 4xx or no answer at all", async () => {
    const place = new Place();
    const whole = `Content-Length: ${json.length}`;
    const wrong = {
      "chunk without a size": `${chunkedHead()}zz\r\n${json}\r\n0\r\n\r\n`,
      "chunk larger than numbers": `${chunkedHead()}ffffffffffffffffff\r\n${json}\r\n0\r\n\r\n`,
      "length and chunks": head("Transfer-Encoding: chunked", "Content-Length: 3") + chunk(json),
      "two lengths": head(whole, "Content-Length: 3") + json,
      "length below 0": head("Content-Length: -5") + json,
      "length that is no number": head("Content-Length: abc") + json,
      "length larger than numbers": head("Content-Length: 99999999999999999999") + json,
      "length larger than the limit": head("Content-Length: 10000000000") + json,
      "no length": head() + json,
      "shorter length": head(`Content-Length: ${json.length - 3}`) + json,
    };
    for (const [what, text] of Object.entries(wrong)) {
      expect([what, [0, 400, 413].includes(await place.status(text))]).toEqual([what, true]);
    }
    await place.isWell();
  });

  test("that is compressed is refused as what it is", async () => {
    const place = new Place();
    for (const [encoding, status] of [["identity", 200], ["gzip", 400]] as const) {
      const client = await place.client(
        postText(TEXT, BODY, [`Content-Encoding: ${encoding}`]),
      );
      const answer = await client.answer();
      expect(answer?.status).toBe(status);
      if (status === 400) expect(JSON.parse(answer!.body).error.message).toContain('"gzip"');
    }
    await place.isWell();
  });

  test("that ends before its length is no request", async () => {
    const place = new Place();
    const client = await place.client(head(`Content-Length: ${json.length + 10}`) + json);
    client.end();
    const answer = await client.answer();
    expect([undefined, 400]).toContain(answer?.status);
    expect(place.server.toy.opened).toBe(0);
    await place.isWell();
  });

  test("larger than the limit is refused while it comes, in chunks too", async () => {
    const place = new Place({ bodyLimit: 10_000 });
    const client = await place.client(chunkedHead());
    for (let i = 0; i < 20; i++) client.send(chunk("a".repeat(1000)));
    expect((await client.answer())?.status).toBe(413);
    await place.isWell();
  });

  test("far larger than the limit is taken from those who send all before they read", async () => {
    const place = new Place({ bodyLimit: 10_000 });
    const client = await place.client(chunkedHead());
    // More than what lies between the two holds.
    const piece = chunk("a".repeat(1 << 16));
    for (let i = 0; i < 400; i++) client.send(piece);
    client.send("0\r\n\r\n");
    expect((await client.answer())?.status).toBe(413);
    await until(() => client.unsent === 0 || client.isClosed, "all has been taken");
    await place.isWell();
  });
});

describe("requests", () => {
  // Bun hangs up on those who do not wait for an answer.
  test.if(!IS_BUN)("that do not wait for each other are answered in their order", async () => {
    const place = new Place();
    const client = await place.client(
      postText(TEXT, BODY) + headText("GET", "/health") + postText(TEXT, { ...BODY, n: 2 }),
    );
    const bodies = [];
    for (let i = 0; i < 3; i++) bodies.push(JSON.parse((await client.answer())!.body));
    expect(bodies.map(({ choices, status }) => choices?.length ?? status)).toEqual([1, "ready", 2]);
  });

  test("of HTTP/1.0 are answered, without a host, too, as probes of balancers come", async () => {
    const place = new Place();
    expect(await place.status("GET /health HTTP/1.0\r\n\r\n")).toBe(200);
    const text = postText(TEXT, { ...BODY, stream: true }).replace("HTTP/1.1", "HTTP/1.0");
    const client = await place.client(text);
    const answer = await client.answer();
    expect(answer?.body.trimEnd().endsWith("data: [DONE]")).toBe(true);
  });

  test("with absurd heads get 4xx or no answer", async () => {
    const place = new Place();
    const many = Array.from({ length: 10_000 }, (_, i) => `X-${i}: a`);
    const texts = {
      "a large header": headText("GET", "/health", [`X-A: ${"a".repeat(100_000)}`]),
      "many headers": headText("GET", "/health", many),
      "a long path": headText("GET", `/${"a".repeat(100_000)}`),
      "no path": headText("GET", "*"),
      "another protocol": "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
      "no head at all": "\r\n".repeat(2000) + "hello\r\n\r\n",
      "a method of its own": headText("FOO", "/health"),
      "a tunnel": headText("CONNECT", "localhost:80"),
    };
    for (const [what, text] of Object.entries(texts)) {
      const status = await place.status(text);
      expect([what, status === 0 || (status >= 400 && status < 500)]).toEqual([what, true]);
    }
    await place.isWell();
  });

  test("for paths that lead out, or nowhere, find nothing", async () => {
    const place = new Place();
    const paths = [
      "/../../etc/passwd",
      "/%2e%2e%2fetc/passwd",
      "/assets/..%2f..%2fmod.ts",
      "/assets/%2e%2e/%2e%2e/mod.ts",
      "//localhost/etc/passwd",
      "/a\\..\\b",
      "/%00",
      "/v1/models/%00",
      "/v1/models/%2e%2e%2f%2e%2e",
      "/v1/models/%ff",
      "/v1/models/%",
      "/v1/models/__proto__",
      "/v1/models/constructor",
      `/${"a".repeat(7000)}`,
    ];
    for (const path of paths) {
      const status = await place.status(headText("GET", path));
      expect([path.slice(0, 40), status]).toEqual([path.slice(0, 40), 404]);
    }
    await place.isWell();
  });
});
