/**
 * Where models are read from: a folder, files in memory, a web server; all give the same bytes, and
 * none gives fewer than were asked for.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { folderSource } from "../../../src/engine/folder_source.ts";
import { partsSource } from "../../../src/engine/parts_source.ts";
import { filesSource, type ModelSource } from "../../../src/engine/source.ts";
import { urlSource } from "../../../src/engine/url_source.ts";
import { FileReadError } from "../../../src/errors.ts";
import { rejectionOf, thrownBy, Workshop } from "../../checkpoint/support.ts";
import { BASE, CONFIG, DATA, FakeServer, FILES, inChunks, opened } from "./fake_server.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

function folder(): string {
  const path = workshop.folder();
  mkdirSync(join(path, "onnx"));
  for (const [name, bytes] of Object.entries(FILES)) writeFileSync(join(path, name), bytes);
  return path;
}

test("parts.json does not decide how much memory is taken", async () => {
  const from = (partBytes: number) =>
    partsSource(filesSource({
      "parts.json": new TextEncoder().encode(
        JSON.stringify({ format: 1, partBytes, files: { "config.json": 2 ** 40 } }),
      ),
    }));
  const source = await from(1 << 20);
  expect((await rejectionOf(source.read("config.json", 1000))).message).toContain("config.json");
  expect((await rejectionOf(from(2 ** 40))).message).toContain("partBytes");
});

test("a server that knows no ranges gives large files whole", async () => {
  const bytes = Uint8Array.from({ length: (16 << 20) + 5 }, (_, i) => i % 251);
  const fetch = () => Promise.resolve(new Response(bytes));
  const file = await urlSource("https://models.example/m", { fetch }).open("onnx/model.onnx_data");
  const found = new Uint8Array(bytes.length);
  await file.read(0, found);
  file.close();
  expect(Buffer.compare(found, bytes)).toBe(0);
});

const SOURCES: Record<string, () => ModelSource> = {
  "a folder": () => folderSource(folder()),
  "files in memory": () => filesSource(FILES),
  "a map of blobs": () =>
    filesSource(new Map(Object.entries(FILES).map(([path, bytes]) => [path, new Blob([bytes])]))),
  "a server with ranges": () => urlSource(BASE, { fetch: new FakeServer().fetch }),
  "a server that ignores ranges": () => urlSource(BASE, { fetch: new FakeServer("ignores").fetch }),
  "a server that hides ranges": () => urlSource(BASE, { fetch: new FakeServer("hides").fetch }),
};

for (const [name, open] of Object.entries(SOURCES)) {
  describe(`${name} as a source`, () => {
    test("tells which files there are", async () => {
      const source = open();
      for (const path of Object.keys(FILES)) expect(await source.has(path)).toBe(true);
      for (const path of ["config.jso", "onnx/data", "nothing/data.bin"]) {
        expect(await source.has(path)).toBe(false);
      }
    });

    test("reads small files whole, and no larger ones", async () => {
      const source = open();
      expect(await source.read("config.json")).toEqual(CONFIG);
      expect(await source.read("config.json", CONFIG.length)).toEqual(CONFIG);
      expect(await source.read("onnx/empty")).toEqual(new Uint8Array(0));
      const error = await rejectionOf(source.read("onnx/data.bin", 99_999));
      expect(error).toBeInstanceOf(FileReadError);
      expect(error.message).toContain("at most 99999 are read");
    });

    test("reads any bytes of a large file, in any order, and several at a time", async () => {
      const file = await open().open("onnx/data.bin");
      expect(file.size).toBe(DATA.length);
      const places = [[99_000, 1000], [0, 10], [50_000, 0], [5, 60_000], [0, 100_000], [
        100_000,
        0,
      ]];
      const read = async ([offset, length]: number[]) => {
        const target = new Uint8Array(length + 2).fill(0xee);
        await file.read(offset, target.subarray(1, length + 1));
        expect(target.subarray(1, length + 1)).toEqual(DATA.subarray(offset, offset + length));
        expect([target[0], target[length + 1]]).toEqual([0xee, 0xee]);
      };
      for (const place of places) await read(place);
      await Promise.all(places.map(read));
      file.close();
      file.close();
    });

    test("reads into memory that threads share", async () => {
      const file = await open().open("onnx/data.bin");
      const shared = new Uint8Array(new SharedArrayBuffer(1000));
      await file.read(300, shared);
      expect([...shared]).toEqual([...DATA.subarray(300, 1300)]);
      file.close();
    });

    test("opens an empty file", async () => {
      const file = await open().open("onnx/empty");
      expect(file.size).toBe(0);
      await file.read(0, new Uint8Array(0));
      expect((await rejectionOf(file.read(0, new Uint8Array(1)))).message).toContain("has 0 bytes");
      file.close();
    });

    test("refuses bytes outside a file", async () => {
      const file = await open().open("onnx/data.bin");
      for (const [offset, length] of [[99_999, 2], [100_001, 0], [-1, 4], [0.5, 1], [NaN, 1]]) {
        const error = await rejectionOf(file.read(offset, new Uint8Array(length)));
        expect(error).toBeInstanceOf(FileReadError);
        expect(error.message).toContain("onnx/data.bin has 100000 bytes, and bytes");
      }
      file.close();
    });

    test("refuses files that are not there, and paths that lead out of the model", async () => {
      const source = open();
      for (const read of [source.read("nothing"), source.open("nothing")]) {
        expect(await rejectionOf(read)).toBeInstanceOf(FileReadError);
      }
      for (
        const path of ["../config.json", "", "/etc/passwd", "onnx//x", ".", "a\\b", "C:x", "a\0"]
      ) {
        for (const read of [() => source.read(path), () => source.open(path)]) {
          const error = await rejectionOf(read());
          expect(error).toBeInstanceOf(FileReadError);
          expect(error.message).toContain("is no path of a file inside a model");
        }
      }
    });
  });
}

describe("a folder as a source", () => {
  test("refuses folders, and files that become shorter", async () => {
    const path = folder();
    const source = folderSource(path);
    expect(await source.has("onnx")).toBe(false);
    expect(await rejectionOf(source.open("onnx"))).toBeInstanceOf(FileReadError);
    const file = await source.open("onnx/data.bin");
    truncateSync(join(path, "onnx/data.bin"), 500);
    const error = await rejectionOf(file.read(0, new Uint8Array(1000)));
    expect(error).toBeInstanceOf(FileReadError);
    expect(error.message).toContain("ends at byte 500");
    file.close();
    expect((await rejectionOf(file.read(0, new Uint8Array(1)))).message).toContain("closed");
  });
});

describe("a Blob as a source", () => {
  test("that cannot be read any more is an error", async () => {
    const blob = new Blob([DATA]);
    blob.slice = () => ({ arrayBuffer: () => Promise.reject(new Error("gone")) }) as Blob;
    const file = await filesSource({ data: blob }, "chosen").open("data");
    const error = await rejectionOf(file.read(0, new Uint8Array(1)));
    expect(error).toBeInstanceOf(FileReadError);
    expect(error.message).toBe("cannot read chosen/data: gone");
  });

  test("that gives less than it has is an error", async () => {
    const blob = new Blob([DATA]);
    const whole = blob.slice.bind(blob);
    blob.slice = (start, end) => whole(start, end! - 1);
    const file = await filesSource({ data: blob }).open("data");
    const error = await rejectionOf(file.read(0, new Uint8Array(100)));
    expect(error.message).toContain("gave 99 of 100 bytes");
  });
});

describe("a web server as a source", () => {
  test("is asked for the ranges that are read, and for nothing else", async () => {
    const { server, file } = await opened();
    await file.read(500, new Uint8Array(100));
    await file.read(0, new Uint8Array(1));
    expect(server.requests).toEqual([
      "onnx/data.bin bytes=0-0",
      "onnx/data.bin bytes=500-599",
      "onnx/data.bin bytes=0-0",
    ]);
    expect(server.headers[1]["accept-encoding"]).toBe("identity");
  });

  test("that ignores ranges is asked for a file once", async () => {
    const { server, file } = await opened("ignores");
    for (const offset of [90_000, 10, 50_000]) await file.read(offset, new Uint8Array(500));
    expect(server.requests).toHaveLength(1);
  });

  test("that stops giving ranges is asked for the rest once", async () => {
    const { server, file } = await opened();
    await file.read(0, new Uint8Array(10));
    server.ranges = "ignores";
    const targets = [10, 20, 30].map((length) => new Uint8Array(length));
    await Promise.all(targets.map((target) => file.read(70_000, target)));
    for (const target of targets) {
      expect(target).toEqual(DATA.subarray(70_000, 70_000 + target.length));
    }
    const asked = server.requests.length;
    await file.read(1, new Uint8Array(1));
    expect(server.requests).toHaveLength(asked);
  });

  test("gets its query and headers with every request, and tells nobody of them", async () => {
    const server = new FakeServer();
    const urls: string[] = [];
    const source = urlSource("https://models.example/a%20b?token=hidden", {
      headers: { authorization: "Bearer hidden" },
      fetch: (url, init) => {
        urls.push(url);
        return server.fetch(url, init);
      },
    });
    await source.read("config.json");
    await (await source.open("onnx/data.bin")).read(0, new Uint8Array(1));
    expect(urls[0]).toBe("https://models.example/a%20b/config.json?token=hidden");
    expect(new Set(server.headers.map(({ authorization }) => authorization)))
      .toEqual(new Set(["Bearer hidden"]));
    const { message } = await rejectionOf(source.read("nothing"));
    expect(message)
      .toBe("cannot read https://models.example/a%20b/nothing: the server answered 404 Not Found");
  });

  test("gets user and password of its URL in a header: Node and browsers refuse such URLs", async () => {
    const server = new FakeServer();
    const urls: string[] = [];
    const fetch = (url: string, init: RequestInit) => {
      // As Node and browsers do; what they say has the URL in it.
      const { username, password } = new URL(url);
      if (username || password) throw new TypeError(`URL includes credentials: ${url}`);
      urls.push(url);
      return server.fetch(url, init);
    };
    const source = urlSource("https://me:s%C3%A4cret%3A@models.example/a%20b", { fetch });
    expect(await source.read("config.json")).toEqual(CONFIG);
    expect(urls).toEqual(["https://models.example/a%20b/config.json"]);
    const basic = (words: string) => `Basic ${Buffer.from(words).toString("base64")}`;
    expect(server.headers[0].authorization).toBe(basic("me:säcret:"));
    expect(source.name).toBe("https://models.example/a%20b");
    await urlSource("https://50%:off@models.example/a%20b", { fetch }).read("config.json");
    expect(server.headers[1].authorization).toBe(basic("50%:off"));
    const headers = { Authorization: "Bearer mine" };
    await urlSource("https://me@models.example/a%20b", { fetch, headers }).read("config.json");
    expect(server.headers[2]).toEqual(headers);
  });

  test("gets names with odd characters as they are", async () => {
    const server = new FakeServer("gives", { "onnx/a#b?c%20 ü": CONFIG });
    expect(await urlSource(BASE, { fetch: server.fetch }).read("onnx/a#b?c%20 ü")).toEqual(CONFIG);
  });

  test("must be named by an http or https URL", () => {
    for (const url of ["file:///etc", "models/llama", "", "data:,x", "blob:http://x/1"]) {
      expect(thrownBy(() => urlSource(url)).code).toBe("USAGE");
    }
  });

  test("that fails is an error with its answer", async () => {
    for (const status of [401, 403, 500, 503]) {
      const source = urlSource(BASE, {
        fetch: () => Promise.resolve(new Response("sorry", { status, statusText: "Sorry" })),
      });
      const asks = status === 403 ? [] : [source.has("x")];
      for (const read of [...asks, source.read("x"), source.open("x")]) {
        const error = await rejectionOf(read);
        expect(error).toBeInstanceOf(FileReadError);
        expect(error.message).toContain(`the server answered ${status} Sorry`);
      }
    }
  });

  test("that forbids what is not there, as stores of objects do, has no such file", async () => {
    const server = new FakeServer();
    server.change = (response) =>
      response.status === 404 ? new Response("AccessDenied", { status: 403 }) : response;
    const source = urlSource(BASE, { fetch: server.fetch });
    expect(await source.has("config.json")).toBe(true);
    expect(await source.has("chat_template.jinja")).toBe(false);
    expect((await rejectionOf(source.read("chat_template.jinja"))).message).toContain("403");
  });

  test("that answers with its page has no such file", async () => {
    const page = "<!-- made by a tool -->\n<!DOCTYPE html><html><title>App</title></html>";
    const headers = { "content-type": "text/html; charset=utf-8" };
    for (const ranges of ["gives", "ignores"] as const) {
      const server = new FakeServer(ranges);
      const pages = new FakeServer(ranges, { page: new TextEncoder().encode(page) });
      // As servers of apps do for any path that they do not know.
      const fetch = async (url: string, init: RequestInit) => {
        const response = await server.fetch(url, init);
        if (response.status !== 404) return response;
        const { body, status } = await pages.fetch(`${BASE}page`, init);
        return new Response(body, { status, headers });
      };
      const source = urlSource(BASE, { fetch });
      expect(await source.has("config.json")).toBe(true);
      expect(await source.has("chat_template.jinja")).toBe(false);
      for (const read of [() => source.read("parts.json"), () => source.open("onnx/none")]) {
        const error = await rejectionOf(read());
        expect(error).toBeInstanceOf(FileReadError);
        expect(error.message).toContain("answered with a page");
      }
    }
  });

  test("that calls every file text/html is read all the same", async () => {
    const template = new TextEncoder().encode("<|im_start|>{{ messages }}");
    const server = new FakeServer("gives", { ...FILES, "chat_template.jinja": template });
    server.change = ({ body, status, headers }) => {
      headers.set("content-type", "text/html");
      return new Response(body, { status, headers });
    };
    const source = urlSource(BASE, { fetch: server.fetch });
    expect(await source.has("chat_template.jinja")).toBe(true);
    expect(await source.read("chat_template.jinja")).toEqual(template);
    const file = await source.open("onnx/data.bin");
    const bytes = new Uint8Array(100);
    await file.read(50_000, bytes);
    expect(bytes).toEqual(DATA.slice(50_000, 50_100));
  });

  test("that cannot be reached is an error with the reason", async () => {
    const failed = (cause?: Error) => new TypeError("fetch failed", { cause });
    const several = Object.assign(new AggregateError([]), { code: "ECONNREFUSED" });
    for (
      const [thrown, reason] of [
        [new TypeError("connection refused"), "connection refused"],
        // Node's fetch says in the cause why it failed; of several addresses only the code says it.
        [
          failed(new Error("getaddrinfo ENOTFOUND models.example")),
          "getaddrinfo ENOTFOUND models.example",
        ],
        [failed(several), "ECONNREFUSED"],
        [failed(), "fetch failed"],
      ] as const
    ) {
      const fetch = () => Promise.reject(thrown);
      const error = await rejectionOf(urlSource(BASE, { fetch }).open("x"));
      expect(error).toBeInstanceOf(FileReadError);
      expect(error.message).toBe(`cannot read http://models.example/a%20b/x: ${reason}`);
    }
  });

  test("is left alone when the caller says so", async () => {
    const controller = new AbortController();
    const server = new FakeServer();
    const source = urlSource(BASE, { fetch: server.fetch, signal: controller.signal });
    const file = await source.open("onnx/data.bin");
    controller.abort();
    for (const read of [source.read("config.json"), file.read(0, new Uint8Array(9))]) {
      expect((await rejectionOf(read)).code).toBe("ABORTED");
    }
  });

  const wrong: [string, (r: Response) => Response, string][] = [
    [
      "fewer bytes than asked for",
      (r) => new Response(inChunks(DATA.slice(0, 999)), { status: 206, headers: r.headers }),
      "gave 999 of 1000 bytes",
    ],
    [
      "more bytes than asked for",
      (r) => new Response(inChunks(DATA), { status: 206, headers: r.headers }),
      "more than the 1000 bytes",
    ],
    ["no body", (r) => new Response(null, { status: 206, headers: r.headers }), "gave 0 of 1000"],
    [
      "other bytes",
      () => ranged("bytes 1-1000/100000"),
      "answered 206 to a request for bytes 0 to 999 of 100000: the file has changed",
    ],
    ["a file of another size", () => ranged("bytes 0-999/100001"), "the file has changed"],
    ["bytes of no place", () => ranged("bytes 0-999/*"), "answered 206 to a request"],
    ["no place", () => new Response(inChunks(DATA.slice(0, 1000)), { status: 206 }), "206"],
    ["a place beyond all numbers", () => ranged(`bytes 0-999/${"9".repeat(30)}`), "206"],
    ["an error", () => new Response(null, { status: 500 }), "answered 500"],
    ["nothing", () => new Response(null, { status: 204 }), "answered 204"],
    ["no range of its own", () => new Response(null, { status: 416 }), "answered 416"],
    [
      "another version of the file",
      () => ranged("bytes 0-999/100000", { etag: '"2"' }),
      "the file has changed",
    ],
  ];
  const ranged = (place: string, headers: Record<string, string> = {}) =>
    new Response(inChunks(DATA.slice(0, 1000)), {
      status: 206,
      headers: { "content-range": place, ...headers },
    });
  for (const [title, change, message] of wrong) {
    test(`that gives ${title} is an error`, async () => {
      const { server, file } = await opened();
      server.change = change;
      const error = await rejectionOf(file.read(0, new Uint8Array(1000)));
      expect(error).toBeInstanceOf(FileReadError);
      expect(error.message).toContain(message);
    });
  }

  test("that gives less of a whole file than it announces is an error", async () => {
    const server = new FakeServer("ignores");
    const short = new Uint8Array(500);
    server.change = (r) => new Response(inChunks(short), { headers: r.headers });
    const source = urlSource(BASE, { fetch: server.fetch });
    for (const read of [source.read("onnx/data.bin"), source.open("onnx/data.bin")]) {
      expect((await rejectionOf(read)).message).toContain("gave 500 of 100000 bytes");
    }
  });

  test("that gives a whole file of another size than its ranges said is an error", async () => {
    const { server, file } = await opened();
    server.change = () => new Response(inChunks(new Uint8Array(99)));
    expect((await rejectionOf(file.read(0, new Uint8Array(9)))).message)
      .toContain("gave 99 of 100000 bytes");
  });

  test("that never ends is stopped", async () => {
    let given = 0;
    const endless = () =>
      new ReadableStream<Uint8Array>({
        pull(controller) {
          given += 1000;
          controller.enqueue(new Uint8Array(1000));
        },
      });
    const fetch = () => Promise.resolve(new Response(endless()));
    const error = await rejectionOf(urlSource(BASE, { fetch }).read("config.json", 50_000));
    expect(error.message).toContain("at most 50000 are read");
    expect(given).toBeLessThan(100_000);
  });

  test("may compress what is read whole", async () => {
    const server = new FakeServer();
    // What fetch gives is not compressed any more; the length is of what came.
    server.change = (r) =>
      new Response(r.body, { headers: { "content-encoding": "gzip", "content-length": "999999" } });
    expect(await urlSource(BASE, { fetch: server.fetch }).read("config.json")).toEqual(CONFIG);
  });
});

describe("a server on this machine", () => {
  /** Serves {@linkcode FILES}, with ranges or without. */
  async function serve(ranges: boolean): Promise<Server> {
    const server = createServer((request, response) => {
      const bytes = FILES[request.url!.slice(1) as keyof typeof FILES];
      const match = ranges && /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
      if (!bytes) {
        response.writeHead(404).end();
      } else if (match) {
        const [first, last] = [Number(match[1]), Number(match[2])];
        response.writeHead(206, { "content-range": `bytes ${first}-${last}/${bytes.length}` });
        response.end(bytes.subarray(first, last + 1));
      } else {
        response.writeHead(200, { "content-length": bytes.length }).end(bytes);
      }
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  for (const ranges of [true, false]) {
    test(`is read ${ranges ? "by ranges" : "whole"}`, async () => {
      const server = await serve(ranges);
      try {
        const source = urlSource(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
        expect(await source.has("config.json")).toBe(true);
        expect(await source.has("nothing")).toBe(false);
        expect(await source.read("config.json")).toEqual(CONFIG);
        const file = await source.open("onnx/data.bin");
        const target = new Uint8Array(40_000);
        await file.read(12_345, target);
        expect(target).toEqual(DATA.subarray(12_345, 52_345));
        file.close();
      } finally {
        await new Promise((resolve) => {
          server.close(resolve);
          server.closeAllConnections();
        });
      }
    });
  }
});
