/** Who may come in, and from where. @module */
import { describe, expect, test } from "bun:test";
import { parseOptions } from "../../src/api/options.ts";
import { hostsOf } from "../../src/server/hosts.ts";
import { serverSchema } from "../../src/server/options.ts";
import { pageFiles } from "../../src/server/page/mod.ts";
import { jsonRequest } from "./behaviour/support.ts";
import { bearing, CHAT, guarded, TEXT, ToyServer } from "./toy_server.ts";

describe("a server with keys", () => {
  test("lets those in who have one, and the log has its name", async () => {
    const { server, keys } = await guarded();
    for (const [i, name] of ["till-3", "shop@example.com"].entries()) {
      expect((await server.complete({}, bearing(keys[i]))).status).toBe(200);
      expect(server.entries.at(-1)?.key).toBe(name);
    }
    const headers = { authorization: `bearer  ${keys[0]} ` };
    expect((await server.complete({}, { headers })).status).toBe(200);
  });

  test("sends everybody else away with 401, and does not read what they send", async () => {
    const { server, keys: [key] } = await guarded();
    const cases: [code: string, headers: Record<string, string>][] = [
      ["missing_api_key", {}],
      ["missing_api_key", { authorization: key }],
      ["missing_api_key", { authorization: `Basic ${btoa(`user:${key}`)}` }],
      ["missing_api_key", { authorization: "Bearer" }],
      ["missing_api_key", { "x-api-key": key }],
      ["invalid_api_key", { authorization: `Bearer ${key}x` }],
      ["invalid_api_key", { authorization: `Bearer ${key.toUpperCase()}` }],
      ["invalid_api_key", { authorization: `Bearer ${"x".repeat(5000)}` }],
    ];
    for (const [code, headers] of cases) {
      for (const path of [CHAT, TEXT, "/tokenize", "/detokenize", "/v1/nowhere"]) {
        const answer = await server.post(path, "{ nonsense", { headers });
        expect([path, answer.status, answer.json.error.code]).toEqual([path, 401, code]);
        expect(answer.json.error.type).toBe("invalid_request_error");
        expect(answer.headers.get("www-authenticate")).toBe("Bearer");
      }
      expect((await server.fetch("/v1/models", { headers })).status).toBe(401);
    }
    expect(server.toy.opened).toBe(0);
    expect(server.entries.every((entry) => entry.key === undefined)).toBe(true);
  });

  test("shows its state, its pages and its description to all", async () => {
    const { server } = await guarded();
    const paths = ["/health", "/ready", "/metrics", "/openapi.json", ...Object.keys(pageFiles)];
    for (const path of paths) {
      const { status } = await server.fetch(path);
      expect([path, status]).toEqual([path, 200]);
    }
  });
});

describe("a server that is asked by some names alone", () => {
  const ask = (server: ToyServer, host: string | undefined) =>
    server.complete({}, { headers: host === undefined ? {} : { host } });

  test("answers those who ask for one of them, for this machine or for an address", async () => {
    const server = new ToyServer({ allowHost: ["LLM.example.com"] });
    const hosts = [
      ...["llm.example.com", "LLM.Example.com:443", "llm.example.com."],
      ...["localhost", "localhost:8080", "shop.localhost:80", "LOCALHOST"],
      ...["127.0.0.1:8080", "192.168.0.7", "[::1]:8080", "[fe80::1]"],
      undefined,
    ];
    for (const host of hosts) expect([host, (await ask(server, host)).status]).toEqual([host, 200]);
  });

  test("sends all others away with 403, its pages and its state included", async () => {
    const server = new ToyServer({ allowHost: ["llm.example.com", "localhost"] });
    const hosts = [
      ...["evil.example", "evil.example:8080", "llm.example.com.evil.example", "xllm.example.com"],
      ...[
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "a127.0.0.1",
        "1.2.3.4.5x",
        "::1",
        "",
      ],
      "x".repeat(5000),
    ];
    for (const host of hosts) {
      const answer = await ask(server, host);
      expect([host, answer.status, answer.json.error.code]).toEqual([
        host,
        403,
        "host_not_allowed",
      ]);
      expect(answer.json.error.message).toContain("--allow-host");
      expect(answer.json.error.message.length).toBeLessThan(300);
      for (const path of ["/", "/health", "/v1/models", "/metrics"]) {
        expect((await server.fetch(path, { headers: { host } })).status).toBe(403);
      }
    }
    expect(server.toy.opened).toBe(0);
  });

  test("answers all where * is one of them, or there are none", async () => {
    for (const allowHost of [["*"], ["localhost", "*"], []]) {
      const server = new ToyServer({ allowHost });
      expect((await ask(server, "evil.example")).status).toBe(200);
    }
  });

  test("is one that this machine alone reaches, and that has no keys", () => {
    const key = { name: "till-3", sha256: "0".repeat(64) };
    const none = { allowHost: [], keys: [] };
    for (const host of ["127.0.0.1", "127.0.1.1", "::1", "[::1]", "localhost", "Localhost"]) {
      expect([host, hostsOf(none, host)]).toEqual([host, ["localhost"]]);
      expect(hostsOf({ ...none, keys: [key] }, host)).toEqual([]);
      expect(hostsOf({ ...none, allowHost: ["*"] }, host)).toEqual(["*"]);
    }
    for (const host of ["0.0.0.0", "::", "192.168.0.7", "localhost.example", "box"]) {
      expect([host, hostsOf(none, host)]).toEqual([host, []]);
    }
  });

  test("takes names only, not addresses of the web", () => {
    for (
      const name of [
        "https://a.example",
        "a.example:80",
        "a.example/b",
        "a b",
        "",
        "*.example",
        "é.example",
      ]
    ) {
      expect(() => parseOptions(serverSchema, { allowHost: [name] })).toThrow("without scheme");
    }
  });
});

describe("other origins", () => {
  const origin = "https://shop.example";
  const preflight = {
    method: "OPTIONS",
    headers: {
      origin,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization,content-type",
    },
  };

  test("may not read answers unless they are named", async () => {
    const { server, keys: [key] } = await guarded();
    const asked = await server.complete({}, { headers: { ...bearing(key).headers, origin } });
    expect(asked.headers.get("access-control-allow-origin")).toBe(null);
    const { headers, status } = await server.fetch(TEXT, preflight);
    expect([status, headers.get("access-control-allow-origin")]).toEqual([401, null]);
  });

  test("that are named may, with a key where there are keys", async () => {
    const { server, keys: [key] } = await guarded({ cors: [origin, "http://localhost:3000"] });
    const before = await server.fetch(TEXT, preflight);
    expect(before.status).toBe(204);
    expect(before.headers.get("access-control-allow-origin")).toBe(origin);
    expect(before.headers.get("access-control-allow-methods")).toContain("POST");
    expect(before.headers.get("access-control-allow-headers")).toContain("authorization");
    for (const [sent, expected] of [[bearing(key).headers, 200], [{}, 401]] as const) {
      const { status, headers } = await server.complete({}, { headers: { ...sent, origin } });
      expect(status).toBe(expected);
      expect(headers.get("access-control-allow-origin")).toBe(origin);
      expect(headers.get("access-control-expose-headers")).toContain("x-request-id");
    }
    const stranger = { headers: { ...bearing(key).headers, origin: "https://evil.example" } };
    const { headers } = await server.complete({}, stranger);
    expect(headers.get("access-control-allow-origin")).toBe(null);
  });

  test("may all, where * is given, also read errors", async () => {
    const server = new ToyServer({ cors: ["*"] });
    for (const body of [{}, { prompt: 5 }]) {
      const { headers } = await server.complete(body, { headers: { origin } });
      expect(headers.get("access-control-allow-origin")).toBe("*");
    }
    const { headers } = await server.fetch("/nowhere", { headers: { origin } });
    expect(headers.get("access-control-allow-origin")).toBe("*");
  });

  test("are refused in a spelling that no browser sends", () => {
    const right = ["http://localhost:3000", "http://[::1]:8000", "capacitor://localhost", "null"];
    expect(parseOptions(serverSchema, { cors: right }).cors).toEqual(right);
    for (
      const wrong of [
        "https://example.com/",
        "https://example.com/page",
        "https://Example.com",
        "https://example.com:443",
        "https://*.example.com",
        "example.com",
        "localhost:3000",
        "",
      ]
    ) expect(() => parseOptions(serverSchema, { cors: [wrong] })).toThrow("must be an origin");
  });
});

test("no word of a request becomes a label of the metrics, whoever sends it", async () => {
  const origin = "https://shop.example";
  const { server, keys: [key] } = await guarded({ cors: [origin], bodyLimit: 100 });
  const preflight = {
    method: "OPTIONS",
    headers: { origin, "access-control-request-method": "GET" },
  };
  const requests: [path: string, init: RequestInit, status: number][] = [
    ["/v1/xyzzy", {}, 401],
    ["/v1/xyzzy", { method: "POST", body: "x" }, 401],
    ["/v1/xyzzy", { method: "POST", body: "x", ...bearing(key) }, 404],
    ["/v1/xyzzy", { ...jsonRequest("x".repeat(101)) }, 401],
    ["/v1/xyzzy", preflight, 204],
    ["/xyzzy", preflight, 204],
    ["/xyzzy", {}, 404],
    ["/v1/models/xyzzy", bearing(key), 404],
    ["/v1/models/*", bearing(key), 404],
    ["/v1/*", bearing(key), 404],
    [TEXT, {
      ...jsonRequest({ prompt: "x", model: "xyzzy" }),
      headers: { ...jsonRequest("").headers, ...bearing(key).headers },
    }, 404],
  ];
  for (const [path, init, status] of requests) {
    expect([path, (await server.fetch(path, init)).status]).toEqual([path, status]);
  }
  await server.quiet();
  const text = await (await server.fetch("/metrics")).text();
  const labels = [...text.matchAll(/requests_total{route="([^"]*)"/g)].map(([, route]) => route);
  expect(new Set(labels)).toEqual(new Set(["other", "/v1/models/{id}", TEXT, "/metrics"]));
});
