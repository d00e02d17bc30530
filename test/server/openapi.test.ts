/** The description of the interface: valid, whole, and true. @module */
import { Validator } from "@seriousme/openapi-schema-validator";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "bun:test";
import { eventsOf, read } from "./behaviour/support.ts";
import { CHAT, guarded, pause, TEXT, ToyServer, until } from "./toy_server.ts";

const server = new ToyServer();
/** Of a text that has no end. */
const LONG_TEXT = { max_tokens: 500, logit_bias: { "0": -100 } };
// deno-lint-ignore no-explicit-any
type Json = any;

async function description(): Promise<Json> {
  return (await read(await server.fetch("/openapi.json"))).json;
}

/** Checks values against the description's own schemas. */
async function checker() {
  const api = await description();
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  ajv.addSchema({ $id: "api", components: api.components });
  return (schema: Json, value: unknown): string[] => {
    const text = JSON.stringify(schema).replaceAll('"#/', '"api#/');
    const check = ajv.compile(JSON.parse(text));
    return check(value) ? [] : check.errors!.map((error) => JSON.stringify(error));
  };
}

describe("/openapi.json", () => {
  test("is valid OpenAPI 3.1", async () => {
    const result = await new Validator().validate(await description());
    expect(result.errors ?? []).toEqual([]);
    expect(result.valid).toBe(true);
    expect((await description()).openapi).toMatch(/^3\.1\./);
  });

  test("has every route but the pages", async () => {
    const { paths } = await description();
    const found = Object.entries(paths).map(([path, methods]) => [path, ...Object.keys(methods!)]);
    expect(found.sort()).toEqual([
      ["/detokenize", "post"],
      ["/health", "get"],
      ["/metrics", "get"],
      ["/ready", "get"],
      ["/tokenize", "post"],
      ["/v1/chat/completions", "post"],
      ["/v1/completions", "post"],
      ["/v1/models", "get"],
      ["/v1/models/{id}", "get"],
    ]);
  });

  test("says which routes want a key, where the server has keys", async () => {
    const { server: guardedServer } = await guarded();
    const { paths, components, security: usual } =
      (await read(await guardedServer.fetch("/openapi.json"))).json as Json;
    expect(components.securitySchemes).toEqual({ key: { type: "http", scheme: "bearer" } });
    for (const [path, methods] of Object.entries(paths as Record<string, Json>)) {
      const [{ security = usual }] = Object.values(methods) as Json[];
      const isGuarded = path.startsWith("/v1/") || path.endsWith("tokenize");
      expect([path, security]).toEqual([path, isGuarded ? [{ key: [] }] : []]);
    }
    const open = await description();
    expect([open.security, open.components.securitySchemes]).toEqual([[], undefined]);
    expect(JSON.stringify(open.paths)).not.toContain('"key"');
  });

  test("has examples that are right, by their schemas and by the server", async () => {
    const api = await description();
    const check = await checker();
    for (const path of [CHAT, TEXT, "/tokenize", "/detokenize"]) {
      const { schema } = api.paths[path].post.requestBody.content["application/json"];
      const name = schema.$ref.split("/").at(-1);
      const { example } = api.components.schemas[name];
      expect(example).toBeInstanceOf(Object);
      expect(check(schema, example)).toEqual([]);
      // Whatever the server's models are called: people copy them.
      const { status } = await server.post(path, example);
      expect([path, status]).toEqual([path, 200]);
    }
  });

  test("tells the form of what the server answers", async () => {
    const api = await description();
    const check = await checker();
    const logprobs = { logprobs: true, top_logprobs: 2 };
    const messages = [{ role: "user", content: "x" }];
    const cases: [path: string, status: number, body?: object, url?: string][] = [
      [CHAT, 200, { messages, max_tokens: 3, n: 2, ...logprobs }],
      [CHAT, 400, { messages: 5 }],
      [CHAT, 404, { messages, model: "nobody" }],
      [TEXT, 200, { prompt: "x", max_tokens: 3, logprobs: 2 }],
      [TEXT, 400, {}],
      ["/tokenize", 200, { prompt: "x" }],
      ["/detokenize", 200, { tokens: [5] }],
      ["/v1/models", 200],
      ["/v1/models/{id}", 200, undefined, "/v1/models/toy"],
      ["/v1/models/{id}", 404, undefined, "/v1/models/nobody"],
      ["/health", 200],
      ["/health", 403],
      ["/ready", 200],
      ["/ready", 403],
      ["/metrics", 403],
    ];
    const elsewhere = new ToyServer({ allowHost: ["llm.example.com"] });
    for (const [path, status, body, url = path] of cases) {
      const asked = status === 403 ? elsewhere : server;
      const headers: Record<string, string> = status === 403 ? { host: "evil.example" } : {};
      const answer = body
        ? await asked.post(url, body)
        : await read(await asked.fetch(url, { headers }));
      expect([path, answer.status]).toEqual([path, status]);
      const { responses } = Object.values(api.paths[path] as Json)[0] as Json;
      const { schema } = responses[status].content["application/json"];
      expect(check(schema, answer.json)).toEqual([]);
    }
  });

  test("tells the form of the event that says what went wrong in the middle", async () => {
    const api = await description();
    const check = await checker();
    const { schema } = api.paths[TEXT].post.responses[200].content["text/event-stream"];
    const stopping = new ToyServer({}, { beforeRun: () => pause(3) });
    const answer = stopping.complete({ ...LONG_TEXT, stream: true });
    await until(() => stopping.toy.opened > 0, "it has begun");
    expect(await stopping.service.drain(0.05)).toBe(false);
    const events = eventsOf((await answer).text);
    expect(JSON.parse(events.at(-1)!).error.code).toBe("server_stopping");
    expect(events.length).toBeGreaterThan(1);
    for (const event of events) expect(check(schema, JSON.parse(event))).toEqual([]);
  });

  test("tells the form of each event that the server sends", async () => {
    const api = await description();
    const check = await checker();
    const more = { stream: true, max_tokens: 3 };
    const messages = [{ role: "user", content: "x" }];
    for (
      const [path, body] of [
        [CHAT, { messages, ...more }],
        [CHAT, { messages, ...more, logprobs: true, stream_options: { include_usage: true } }],
        [TEXT, { prompt: "x", ...more }],
        [TEXT, { prompt: "x", ...more, logprobs: 2, stream_options: { include_usage: true } }],
      ] as const
    ) {
      const { schema } = api.paths[path].post.responses[200].content["text/event-stream"];
      const events = eventsOf((await server.post(path, body)).text);
      expect(events.pop()).toBe("[DONE]");
      for (const event of events) expect(check(schema, JSON.parse(event))).toEqual([]);
    }
  });

  test("knows every status with which a request is answered", async () => {
    const { paths } = await description();
    for (const path of [CHAT, TEXT, "/tokenize", "/detokenize"]) {
      const statuses = Object.keys(paths[path].post.responses).map(Number);
      expect(statuses).toEqual([200, 400, 401, 403, 404, 408, 413, 429, 500, 503, 504]);
    }
  });

  test("refuses by its schemas what the server refuses", async () => {
    const api = await description();
    const check = await checker();
    const schema = api.paths[TEXT].post.requestBody.content["application/json"].schema;
    for (const wrong of [{}, { prompt: 5 }, { prompt: "x", n: 0 }, { prompt: "x", stop: 5 }]) {
      expect(check(schema, wrong).length).toBeGreaterThan(0);
      expect((await server.post(TEXT, wrong)).status).toBe(400);
    }
    expect(check(schema, { prompt: "x", temperature: null, more: 1 })).toEqual([]);
  });
});
