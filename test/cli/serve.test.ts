/** `serve` and `key`: each test starts the program in a process of its own. @module */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { variableName } from "../../src/api/options.ts";
import { flagsOf } from "../../src/cli/args.ts";
import { serveCommandSchema } from "../../src/server/serve_options.ts";
import { Workshop } from "../checkpoint/support.ts";
import { eventsOf, jsonRequest, read } from "../server/behaviour/support.ts";
import { RawClient } from "../server/raw_client.ts";
import { fromRoot } from "../support/paths.ts";
import { fail, report, type Running, type Start, start, succeed, TINY } from "./support.ts";

const workshop = new Workshop();
const LONG = 120_000;
const TEXT = "/v1/completions";
/** The example compiled. */
const model = join(workshop.path, "small");
const running = new Set<Running>();

beforeAll(() => succeed("compile", TINY, "-o", model), LONG);
afterAll(async () => {
  // What a test that failed has left.
  for (const program of running) program.kill("SIGINT");
  await Promise.all([...running].map(({ ended }) => ended));
  workshop.remove();
});

/** A server that is ready. */
interface Served extends Running {
  readonly url: string;
  readonly models: readonly string[];
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** Sends JSON and reads the answer. */
  // deno-lint-ignore no-explicit-any
  post(path: string, body: object, headers?: Record<string, string>): Promise<any>;
  /** Ends it by a signal, which must give 0. */
  stop(signal?: "SIGINT" | "SIGTERM"): Promise<void>;
}

/** Starts the program, and remembers it. */
function begin(words: readonly string[], options?: Start): Running {
  const program = start(words, options);
  running.add(program);
  program.ended.finally(() => running.delete(program));
  return program;
}

/** Starts `serve` at any port, and waits until it is ready. */
async function serve(words: readonly string[], options?: Start): Promise<Served> {
  const program = begin(["serve", ...words, "--json"], options);
  await program.prints("\n");
  const { url, models } = JSON.parse(program.heard.stdout);
  const ask = (path: string, init?: RequestInit) => fetch(url + path, init);
  return {
    ...program,
    url,
    models,
    fetch: ask,
    post: async (path, body, headers) => await read(await ask(path, jsonRequest(body, headers))),
    stop: async (signal = "SIGTERM") => {
      program.kill(signal);
      const { code, stdout, stderr } = await program.ended;
      expect({ code, lines: stdout.split("\n").length, stderr: code === 0 ? "" : stderr })
        .toEqual({ code: 0, lines: 2, stderr: "" });
    },
  };
}

/** Runs the program to its end with variables, which must fail with one line of an error. */
async function failWith(env: Record<string, string>, exit: number, words: string[]) {
  const { code, stdout, stderr } = await begin(words, { env }).ended;
  expect({ code, stdout, stderr: code === exit ? "" : stderr })
    .toEqual({ code: exit, stdout: "", stderr: "" });
  const errors = stderr.split("\n").filter((line) => line.startsWith("error "));
  expect(errors.length).toBe(1);
  return errors[0];
}

const ANY = ["--port", "0"];

/** As much of a resource of Kubernetes as is looked at. */
interface Resource {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly template?: { readonly spec: { readonly enableServiceLinks?: boolean } };
  };
}

test("the example for Kubernetes gives the program no variable that it would take for an option", () => {
  const text = readFileSync(fromRoot("examples/kubernetes/espalier.yaml"), "utf8");
  const resources = parseAllDocuments(text).map((document) => document.toJS() as Resource);
  const options = flagsOf(serveCommandSchema).map(({ field }) => variableName(field));
  // Kubernetes makes them for each Service of the namespace: where it is, as an address.
  const taken = resources.filter(({ kind }) => kind === "Service")
    .map(({ metadata: { name } }) => `${name.toUpperCase().replaceAll("-", "_")}_PORT`)
    .filter((variable) => options.includes(variable));
  const pods = resources.flatMap(({ spec: { template } }) => template ? [template.spec] : []);
  expect(pods.length).toBeGreaterThan(0);
  for (const { enableServiceLinks = true } of pods) {
    expect(enableServiceLinks ? taken : []).toEqual([]);
  }
});

describe("serve", () => {
  test("without a model serves the example, and tells where", async () => {
    const server = await serve(ANY);
    expect(server.url).toMatch(/^http:\/\/127\.0\.0\.1:[1-9]\d*$/);
    expect(server.models).toEqual(["tiny"]);
    const { json } = await server.post(TEXT, { prompt: "The population of", max_tokens: 4 });
    expect([json.model, json.usage.completion_tokens]).toEqual(["tiny", 4]);
    expect((await (await server.fetch("/")).text()).includes("<title>")).toBe(true);
    expect(await (await server.fetch("/ready")).json()).toEqual({ status: "ready" });
    await server.stop();
    const { stderr } = server.heard;
    for (
      const part of [
        `listening on ${server.url}`,
        "ready: tiny",
        "POST /v1/completions 200",
        "stopping:",
      ]
    ) {
      expect(stderr).toContain(part);
    }
    expect(stderr).not.toContain("warning");
  }, LONG);

  test("serves several models, by the names of their folders", async () => {
    const server = await serve([model, model, ...ANY]);
    expect(server.models).toEqual(["small", "small-2"]);
    for (const [asked, found] of [["small-2", "small-2"], [undefined, "small"]]) {
      const { json } = await server.post(TEXT, { model: asked, prompt: "x", max_tokens: 1 });
      expect(json.model).toBe(found);
    }
    // Each counts what is free for its own.
    await server.stop("SIGINT");
    expect(server.heard.stderr).toContain("each may have with --memory");
    const told = await serve([model, model, "--memory", "100MB", ...ANY]);
    await told.stop();
    expect(told.heard.stderr).not.toContain("--memory");
  }, LONG);

  test("takes flags over the environment, and that over the config file", async () => {
    const folder = join(workshop.path, "etc");
    mkdirSync(folder, { recursive: true });
    const config = join(folder, "serve.json");
    writeFileSync(
      config,
      JSON.stringify({
        model: ["../small"],
        port: 1,
        maxTokens: 3,
        promptLimit: 9,
        cors: ["https://shop.example"],
      }),
    );
    const env = {
      ESPALIER_CONFIG: config,
      ESPALIER_PORT: "0",
      ESPALIER_MAX_TOKENS: "4",
      ESPALIER_PROMPT_LIMIT: "7",
      ESPALIER_LOG: "json",
      ESPALIER_LOG_PROMPTS: "true",
      ESPALIER_THREADS: "",
    };
    const server = await serve(["--max-tokens", "5"], { env });
    expect(server.models).toEqual(["small"]);
    const body = { prompt: "The", max_tokens: 100, logit_bias: { "0": -100 } };
    const { json, headers } = await server.post(TEXT, body, { origin: "https://shop.example" });
    expect(json.usage.completion_tokens).toBe(5);
    expect(headers.get("access-control-allow-origin")).toBe("https://shop.example");
    const { status } = await server.post(TEXT, { prompt: [5, 6, 7, 8, 9, 10, 11, 12] });
    expect(status).toBe(400);
    await server.stop();
    const entries = server.heard.stderr.trim().split("\n").map((line) => JSON.parse(line));
    const asked = entries.filter(({ event }) => event === "request");
    expect(asked.map(({ status, prompt }) => [status, prompt])).toEqual([
      [200, "The"],
      [400, [5, 6, 7, 8, 9, 10, 11, 12]],
    ]);
  }, LONG);

  test("keeps as many sequences as it is asked to, for prompts that begin alike", async () => {
    const cached = async (...words: string[]) => {
      const served = await serve([model, "--port", "0", "--threads", "1", ...words]);
      const ask = () =>
        served.post(TEXT, { prompt: "The population of France. ".repeat(9), max_tokens: 2 });
      await ask();
      const { json } = await ask();
      await served.stop();
      return json.usage.prompt_tokens_details.cached_tokens;
    };
    expect(await cached("--kept-sequences", "0")).toBe(0);
    expect(await cached()).toBeGreaterThan(0);
  }, LONG);

  test("takes lists from the environment with commas", async () => {
    const origins = ["https://a.example", "https://b.example"];
    const server = await serve(ANY, {
      env: { ESPALIER_MODEL: `${model}, ${model}`, ESPALIER_CORS: origins.join(", ") },
    });
    expect(server.models).toEqual(["small", "small-2"]);
    for (const origin of origins) {
      const { headers } = await server.fetch("/health", { headers: { origin } });
      expect(headers.get("access-control-allow-origin")).toBe(origin);
    }
    await server.stop();
  }, LONG);

  test(
    "answers a page whose own name leads to this machine only where that name is let in",
    async () => {
      const states = async (words: readonly string[]) => {
        const server = await serve(words);
        const of = async (host: string) => {
          const head = `GET /health HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
          const client = await RawClient.open(Number(new URL(server.url).port), head);
          return (await client.answer())?.status;
        };
        const all = [await of("evil.example"), await of("llm.example:80"), await of("localhost")];
        await server.stop();
        return all;
      };
      const keys = join(workshop.path, "host_keys.txt");
      await succeed("key", "--name", "till-3", "--key-file", keys);
      const base = [model, ...ANY];
      expect(await states(base)).toEqual([403, 403, 200]);
      expect(await states([...base, "--allow-host", "LLM.example"])).toEqual([403, 200, 200]);
      expect(await states([...base, "--key-file", keys])).toEqual([200, 200, 200]);
      expect(await states([...base, "--host", "0.0.0.0"])).toEqual([200, 200, 200]);
    },
    LONG,
  );

  test("names the variable, the flag or the field that is wrong", async () => {
    const cases: [env: Record<string, string>, named: string][] = [
      [{ ESPALIER_PORT: "eighty" }, "ESPALIER_PORT"],
      [{ ESPALIER_PORT: "99999" }, "ESPALIER_PORT"],
      [{ ESPALIER_LOG: "xml" }, "ESPALIER_LOG"],
      [{ ESPALIER_LOG_PROMPTS: "maybe" }, "ESPALIER_LOG_PROMPTS"],
      [{ ESPALIER_QUEUE_TIMEOUT: "-1" }, "ESPALIER_QUEUE_TIMEOUT"],
      [{ ESPALIER_BODY_LIMIT: "1 lot" }, "ESPALIER_BODY_LIMIT"],
    ];
    for (const [env, named] of cases) {
      expect(await failWith(env, 2, ["serve", model])).toContain(named);
    }
    // Bundles for Deno and Cloudflare have it; passed over, it would leave the door open.
    const keys = { ESPALIER_KEYS: `till-3 ${"a".repeat(64)}` };
    expect(await failWith(keys, 2, ["serve", model])).toContain("ESPALIER_KEY_FILE");
    const flag = await failWith({ ESPALIER_PORT: "1" }, 2, ["serve", model, "--port", "99999"]);
    expect(flag).toContain("--port");
    expect(flag).not.toContain("ESPALIER_PORT");
    await fail(2, "USAGE", ["serve", "--paralel", "2"], "--paralel", "--parallel");
  }, LONG);

  test("fails where the port is taken, or a model or a key file is not there", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const port = String((other.address() as AddressInfo).port);
    try {
      const taken = await failWith({}, 1, ["serve", model, "--port", port]);
      expect(taken).toMatch(/^error LISTEN_FAILED: /);
      expect(taken).toContain(`127.0.0.1, port ${port}`);
    } finally {
      other.close();
    }
    const missing = join(workshop.path, "nothing");
    const failure = await failWith({}, 1, ["serve", missing, ...ANY]);
    expect(failure).toMatch(/^error [A-Z_]+: /);
    expect(failure).toContain(missing);
    expect(failure).not.toContain("INTERNAL");
    expect(await failWith({}, 1, ["serve", model, ...ANY, "--key-file", missing])).toContain(
      missing,
    );
  }, LONG);

  test("lets a stream end after SIGTERM, takes nothing new, and ends with 0", async () => {
    const server = await serve([model, ...ANY]);
    const body = { prompt: "The", max_tokens: 400, temperature: 0, logit_bias: { "0": -100 } };
    const response = await server.fetch(TEXT, jsonRequest({ ...body, stream: true }));
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value!;
    server.kill("SIGTERM");
    await server.says("stopping:");
    const late = await server.post(TEXT, { prompt: "x" }).catch(() => ({ status: 503 }));
    expect(late.status).toBe(503);
    for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value;
    const events = eventsOf(text);
    expect(events.at(-1)).toBe("[DONE]");
    expect(JSON.parse(events.at(-2)!).choices[0].finish_reason).toBe("length");
    const { code, stderr } = await server.ended;
    expect(code).toBe(0);
    expect(stderr).toContain("all requests have been answered");
    expect(stderr).toContain("400 out");
  }, LONG);

  test("stops what has not ended when the time to drain is up", async () => {
    const server = await serve([model, ...ANY, "--drain", "0.1", "--parallel", "32"]);
    const body = { prompt: "The", n: 32, stream: true, logit_bias: { "0": -100 }, max_tokens: 500 };
    const response = await server.fetch(TEXT, jsonRequest(body));
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value!;
    server.kill("SIGTERM");
    for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value;
    const { error } = JSON.parse(eventsOf(text).at(-1)!);
    expect(error.code).toBe("server_stopping");
    const { code, stderr } = await server.ended;
    expect([code, stderr.includes("requests were stopped")]).toEqual([0, true]);
  }, LONG);

  test("asked twice by SIGTERM ends at once, and says by what", async () => {
    const server = await serve([model, ...ANY, "--drain", "60", "--parallel", "32"]);
    const body = { prompt: "The", n: 32, stream: true, logit_bias: { "0": -100 }, max_tokens: 500 };
    const response = await server.fetch(TEXT, jsonRequest(body));
    const reader = response.body!.getReader();
    await reader.read();
    server.kill("SIGTERM");
    await server.says("stopping:");
    server.kill("SIGTERM");
    await reader.cancel().catch(() => {});
    expect((await server.ended).code).toBe(143);
  }, LONG);

  test(
    "ends with 0 after Ctrl-C while the model is being made, and says meanwhile that it loads",
    async () => {
      const program = begin(["serve", ...ANY]);
      await program.says("listening on ");
      const [url] = /http:\S+/.exec(program.heard.stderr)!;
      const state = await fetch(`${url}/ready`).then((response) => response.status, () => "gone");
      expect(state).toBe(503);
      program.kill("SIGINT");
      const { code, stdout, stderr } = await program.ended;
      expect({ code, stdout, stderr: code === 0 ? "" : stderr }).toEqual({
        code: 0,
        stdout: "",
        stderr: "",
      });
    },
    LONG,
  );
});

describe("key", () => {
  test("keeps what others write into the same file meanwhile", async () => {
    const file = join(workshop.path, "shared-keys.txt");
    const names = Array.from({ length: 6 }, (_, i) => `till-${i}`);
    await Promise.all(names.map((name) => succeed("key", "--name", name, "--key-file", file)));
    const lines = readFileSync(file, "utf8").trimEnd().split("\n");
    expect(lines.map((line) => line.split(" ")[0]).sort()).toEqual(names);
    expect(existsSync(`${file}.lock`)).toBe(false);
  }, LONG);

  test("makes a key whose hash lets its bearer in, and nobody else", async () => {
    const file = join(workshop.path, "keys.txt");
    writeFileSync(file, "# who may come");
    const { stdout, stderr } = await succeed("key", "--name", "till-3", "--key-file", file);
    const key = stdout.trim();
    expect(key).toMatch(/^esp-[0-9a-f]{48}$/);
    expect(stderr).not.toContain(key);
    const other = await report("key", "--name", "shop", "--key-file", file);
    const lines = readFileSync(file, "utf8").trimEnd().split("\n");
    expect(lines.length).toBe(3);
    expect(lines[1]).toMatch(/^till-3 [0-9a-f]{64}$/);
    expect(lines[2]).toBe(`shop ${other.sha256}`);
    expect(lines.join()).not.toContain(key);

    await fail(2, "USAGE", ["key", "--name", "shop", "--key-file", file], "--name", file);
    await fail(2, "USAGE", ["key", "--name", "two words", "--key-file", file], "--name");
    expect(readFileSync(file, "utf8").trimEnd().split("\n")).toEqual(lines);

    const server = await serve([model, ...ANY, "--host", "0.0.0.0", "--key-file", file]);
    for (const [bearer, expected] of [[key, 200], [other.key, 200], [`${key}0`, 401]] as const) {
      const headers = { authorization: `Bearer ${bearer}` };
      expect((await server.post(TEXT, { prompt: "x", max_tokens: 1 }, headers)).status).toBe(
        expected,
      );
    }
    expect((await server.post(TEXT, { prompt: "x" })).status).toBe(401);
    await server.stop();
    const log = server.heard.stderr;
    for (const part of ["key till-3", "key shop"]) expect(log).toContain(part);
    for (const part of [key, other.key, "warning"]) expect(log).not.toContain(part);
  }, LONG);

  test("without a file shows the line for one", async () => {
    const { stdout, stderr } = await succeed("key", "--name", "till-3");
    expect(stdout).toMatch(/^esp-[0-9a-f]{48}\n$/);
    expect(stderr).toMatch(/: till-3 [0-9a-f]{64}\n$/);
  });

  test("file that is wrong is named with its line by serve and by key", async () => {
    const file = join(workshop.path, "wrong.txt");
    writeFileSync(file, `a ${"0".repeat(64)}\nesp-123\n`);
    await fail(2, "USAGE", ["serve", model, ...ANY, "--key-file", file], `${file}, line 2`);
    await fail(2, "USAGE", ["key", "--name", "b", "--key-file", file], `${file}, line 2`);
    writeFileSync(file, "# nobody\n");
    await fail(2, "USAGE", ["serve", model, ...ANY, "--key-file", file], "no key");
  }, LONG);

  test("is missed, with a warning, where others can reach the server", async () => {
    const server = await serve([model, ...ANY, "--host", "0.0.0.0"]);
    expect(server.url).toMatch(/^http:\/\/localhost:/);
    expect(server.heard.stderr).toContain("warning: whoever reaches this address");
    await server.stop();
  }, LONG);
});
