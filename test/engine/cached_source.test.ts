/** A model on a web server whose files a page keeps: what is asked for, what is kept, what heals. @module */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { type CachedOptions, cachedSource, type Loaded } from "../../src/engine/cached_source.ts";
import { checkedSource } from "../../src/engine/integrity.ts";
import { PART_BYTES, partPath, PARTS } from "../../src/engine/parts_source.ts";
import type { ModelSource } from "../../src/engine/source.ts";
import { rejectionOf } from "../checkpoint/support.ts";

const BASE = "https://models.example/a%20b/";
const DATA = Uint8Array.from({ length: PART_BYTES + 5000 }, (_, i) => i * 7 + (i >> 9));
const SMALL = new TextEncoder().encode('{"model_type":"llama"}');
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** A browser's caches, in memory. */
class FakeCaches {
  readonly kept = new Map<string, Map<string, Uint8Array<ArrayBuffer>>>();
  /** Bytes after which it is full. */
  room = Infinity;

  readonly storage = {
    keys: () => Promise.resolve([...this.kept.keys()]),
    delete: (name: string) => Promise.resolve(this.kept.delete(name)),
    open: (name: string) => {
      const files = this.kept.get(name) ?? new Map<string, Uint8Array<ArrayBuffer>>();
      this.kept.set(name, files);
      return Promise.resolve({
        match: (url: string) =>
          Promise.resolve(files.has(url) ? new Response(files.get(url)!) : undefined),
        put: async (url: string, response: Response) => {
          const bytes = new Uint8Array(await response.arrayBuffer());
          if (bytes.length > this.room) throw new DOMException("full", "QuotaExceededError");
          files.set(url, bytes);
        },
        delete: (url: string) => Promise.resolve(files.delete(url)),
      });
    },
  } as unknown as CacheStorage;

  /** The only cache. */
  get files(): Map<string, Uint8Array<ArrayBuffer>> {
    const [files, ...others] = this.kept.values();
    expect(others.length).toBe(0);
    return files;
  }
}

/** A web server that is a function, with a model in parts. */
class FakeSite {
  readonly requests: string[] = [];
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();
  /** Nobody answers. */
  isAway = false;

  constructor(version = 1) {
    const files = { "config.json": SMALL, "onnx/data": DATA };
    const hashes = Object.fromEntries(
      Object.entries(files).map(([path, bytes]) => {
        const chunks: string[] = [];
        for (let at = 0; at < bytes.length; at += PART_BYTES) {
          chunks.push(sha256(bytes.subarray(at, at + PART_BYTES)));
        }
        return [path, { bytes: bytes.length, sha256: sha256(bytes), chunks }];
      }),
    );
    this.#add("espalier.json", { version, files: { chunkBytes: PART_BYTES, hashes } });
    this.#add(PARTS, { format: 1, partBytes: PART_BYTES, files: { "onnx/data": DATA.length } });
    this.files.set("config.json", SMALL);
    this.files.set(partPath("onnx/data", 0), DATA.slice(0, PART_BYTES));
    this.files.set(partPath("onnx/data", 1), DATA.slice(PART_BYTES));
  }

  readonly fetch = (url: string): Promise<Response> => {
    const path = decodeURIComponent(url.slice(BASE.length));
    this.requests.push(path);
    if (this.isAway) return Promise.reject(new TypeError("Failed to fetch"));
    const bytes = this.files.get(path);
    return Promise.resolve(bytes ? new Response(bytes) : new Response("no", { status: 404 }));
  };

  #add(path: string, json: unknown): void {
    this.files.set(path, new TextEncoder().encode(JSON.stringify(json)));
  }
}

/** Opens the model of a site, as a page does that has these caches. */
async function open(
  site: FakeSite,
  caches: FakeCaches | null,
  options: CachedOptions = {},
): Promise<ModelSource> {
  const { fetch } = site;
  const source = await cachedSource(BASE, { fetch, caches: caches?.storage ?? null, ...options });
  return (await checkedSource(source)).source;
}

/** Reads all of it, and expects what the files are. */
async function readAll(source: ModelSource): Promise<void> {
  expect(await source.read("config.json")).toEqual(SMALL);
  const file = await source.open("onnx/data");
  const bytes = new Uint8Array(file.size);
  await file.read(0, bytes);
  file.close();
  expect(sha256(bytes)).toBe(sha256(DATA));
}

/** A page that has read all, and its caches. */
async function visited(): Promise<{ site: FakeSite; caches: FakeCaches }> {
  const [site, caches] = [new FakeSite(), new FakeCaches()];
  await readAll(await open(site, caches));
  site.requests.length = 0;
  return { site, caches };
}

const asked = ({ requests }: FakeSite) => [...new Set(requests)].sort();

describe("a model whose files are kept", () => {
  test("is fetched once; then only what says whether it is the same", async () => {
    const { site, caches } = await visited();
    await readAll(await open(site, caches));
    expect(asked(site)).toEqual(["espalier.json", "parts.json"]);
  });

  test("is there without a network, once it was read", async () => {
    const { site, caches } = await visited();
    site.isAway = true;
    await readAll(await open(site, caches));
    const error = await rejectionOf(open(site, new FakeCaches()));
    expect(error.message).toContain("espalier.json: Failed to fetch");
  });

  test("is there without a network where it lies whole", async () => {
    const [site, caches] = [new FakeSite(), new FakeCaches()];
    const hash = sha256(SMALL);
    const small = { "config.json": { bytes: SMALL.length, sha256: hash, chunks: [hash] } };
    const record = { files: { chunkBytes: PART_BYTES, hashes: small } };
    site.files.clear();
    site.files.set("config.json", SMALL);
    site.files.set("espalier.json", new TextEncoder().encode(JSON.stringify(record)));
    expect(await (await open(site, caches)).read("config.json")).toEqual(SMALL);
    site.isAway = true;
    expect(await (await open(site, caches)).read("config.json")).toEqual(SMALL);
  });

  test("is fetched once under addresses that are signed anew each time", async () => {
    const [site, caches] = [new FakeSite(), new FakeCaches()];
    for (const signature of ["1", "2"]) {
      const fetch = (url: string) => {
        const { href, search } = new URL(url);
        expect(search).toBe(`?signature=${signature}`);
        return site.fetch(href.slice(0, -search.length));
      };
      site.requests.length = 0;
      const { storage } = caches;
      const source = await cachedSource(`${BASE}?signature=${signature}`, {
        fetch,
        caches: storage,
      });
      await readAll((await checkedSource(source)).source);
    }
    expect(asked(site)).toEqual(["espalier.json", "parts.json"]);
  });

  test("is not asked for its first byte through the browser's own cache, which would keep that", async () => {
    const site = new FakeSite();
    const asked: string[] = [];
    const page = globalThis as { location?: unknown };
    const before = page.location;
    page.location = {};
    try {
      const fetch: CachedOptions["fetch"] = (url, { headers, cache }) => {
        asked.push(`${url.slice(BASE.length)} ${new Headers(headers).get("range")} ${cache}`);
        return site.fetch(url);
      };
      await cachedSource(BASE, { fetch, caches: new FakeCaches().storage });
    } finally {
      page.location = before;
    }
    expect(asked.slice(0, 2)).toEqual([
      "espalier.json bytes=0-0 no-store",
      "espalier.json null no-cache",
    ]);
  });

  test("is kept without the user and password of its URL, which no cache takes", async () => {
    const [{ fetch }, caches] = [new FakeSite(), new FakeCaches()];
    const base = BASE.replace("//", "//me:secret@");
    await readAll(
      (await checkedSource(
        await cachedSource(base, { fetch, caches: caches.storage }),
      )).source,
    );
    expect([...caches.files.keys()].every((url) => url.startsWith(BASE))).toBe(true);
    expect(caches.files.size).toBe(5);
  });

  test("gives way to another version at the same place, and to no other place", async () => {
    const { caches } = await visited();
    caches.kept.set("espalier https://models.example/other/ 1234", new Map());
    const site = new FakeSite(2);
    await readAll(await open(site, caches));
    expect(asked(site)).toContain("onnx/data.part0000");
    expect(caches.kept.size).toBe(2);
    expect(caches.kept.has("espalier https://models.example/other/ 1234")).toBe(true);
  });

  test("is mended where the copy is damaged or cut short", async () => {
    const { site, caches } = await visited();
    caches.files.get(`${BASE}onnx/data.part0000`)![77] ^= 1;
    caches.files.set(`${BASE}onnx/data.part0001`, DATA.slice(0, 10));
    caches.files.set(`${BASE}config.json`, SMALL.slice(1));
    await readAll(await open(site, caches));
    expect(asked(site)).toEqual([
      "config.json",
      "espalier.json",
      "onnx/data.part0000",
      "onnx/data.part0001",
      "parts.json",
    ]);
    site.requests.length = 0;
    await readAll(await open(site, caches));
    expect(asked(site)).toEqual(["espalier.json", "parts.json"]);
  });

  test("is refused where the server's file is damaged, and the damage is not kept", async () => {
    const [site, caches] = [new FakeSite(), new FakeCaches()];
    const path = partPath("onnx/data", 1);
    const whole = site.files.get(path)!;
    site.files.set(path, Uint8Array.from(whole, (byte, i) => i === 9 ? byte ^ 4 : byte));
    const error = await rejectionOf(open(site, caches).then(readAll));
    expect(error.message).toContain("onnx/data is damaged");
    expect(caches.files.has(`${BASE}${path}`)).toBe(false);
    // As after an upload that mended it, in the same page.
    site.files.set(path, whole);
    await readAll(await open(site, caches));
  });

  test("is read without a cache that is full, or not there", async () => {
    const [site, caches] = [new FakeSite(), new FakeCaches()];
    caches.room = 100_000;
    const reasons: string[] = [];
    const onUncached = (reason: string) => void reasons.push(reason);
    await readAll(await open(site, caches, { onUncached }));
    expect(reasons).toEqual(["QuotaExceededError: full"]);
    await readAll(await open(site, null, { onUncached }));
    expect(reasons.length).toBe(2);
  });

  test("is not there without a network where nothing may be kept, and the network is what is told of", async () => {
    const site = new FakeSite();
    site.isAway = true;
    const reasons: string[] = [];
    const refuse = () => Promise.reject(new DOMException("insecure", "SecurityError"));
    const storage = { keys: refuse, open: refuse, delete: refuse } as unknown as CacheStorage;
    const error = await rejectionOf(cachedSource(BASE, {
      fetch: site.fetch,
      caches: storage,
      waits: [],
      onUncached: (reason) => void reasons.push(reason),
    }));
    expect(error.code).toBe("FILE_UNREADABLE");
    expect(reasons).toEqual(["SecurityError: insecure"]);
  });

  test("says so once where several files that are read at once find it full", async () => {
    const [site, caches] = [new FakeSite(), new FakeCaches()];
    const reasons: string[] = [];
    const source = await open(site, caches, { onUncached: (reason) => void reasons.push(reason) });
    caches.room = 0;
    await Promise.all([source.read("config.json"), readAll(source)]);
    expect(reasons).toEqual(["QuotaExceededError: full"]);
  });

  test("tells how many of its bytes have come, from wherever", async () => {
    const [site, caches] = [new FakeSite(), new FakeCaches()];
    const total = DATA.length + SMALL.length;
    for (let visit = 0; visit < 2; visit++) {
      const told: Loaded[] = [];
      await readAll(await open(site, caches, { onProgress: (loaded) => void told.push(loaded) }));
      expect(told.at(-1)).toEqual({ done: total, total });
      const amounts = told.map(({ done }) => done);
      expect(amounts).toEqual(amounts.toSorted((a, b) => a - b));
    }
  });

  test("that lies whole is read by ranges, and tells how many of its bytes have come", async () => {
    for (const hasRecord of [true, false]) {
      const site = new FakeSite();
      for (const path of [...site.files.keys()]) if (/parts/.test(path)) site.files.delete(path);
      site.files.set("onnx/data", DATA);
      if (!hasRecord) site.files.delete("espalier.json");
      let most = 0;
      const fetch = async (url: string, init?: RequestInit) => {
        const response = await site.fetch(url);
        const range = /^bytes=(\d+)-(\d+)$/.exec(new Headers(init?.headers).get("range") ?? "");
        if (!range || !response.ok) return response;
        const bytes = new Uint8Array(await response.arrayBuffer());
        const [first, last] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)];
        most = Math.max(most, last - first + 1);
        const headers = { "content-range": `bytes ${first}-${last}/${bytes.length}` };
        return new Response(bytes.slice(first, last + 1), { status: 206, headers });
      };
      const told: Loaded[] = [];
      const onProgress = (loaded: Loaded) => void told.push(loaded);
      const source = await cachedSource(BASE, { fetch, caches: null, onProgress });
      const file = await source.open("onnx/data");
      const piece = new Uint8Array(1 << 20);
      for (let at = 0; at < file.size; at += piece.length) {
        const bytes = piece.subarray(0, Math.min(piece.length, file.size - at));
        await file.read(at, bytes);
        expect(sha256(bytes)).toBe(sha256(DATA.subarray(at, at + bytes.length)));
      }
      // Nobody has asked for all of it.
      expect(most).toBe(1 << 20);
      const total = hasRecord ? DATA.length + SMALL.length : undefined;
      expect(told.at(-1)).toEqual({ done: DATA.length, total });
    }
  });

  test("gives what the caller's own progress throws, from wherever, and asks nobody again", async () => {
    const [site, caches] = [new FakeSite(), new FakeCaches()];
    const thrown = new RangeError("of the caller");
    for (let visit = 0; visit < 2; visit++) {
      site.requests.length = 0;
      const source = await open(site, caches, {
        onProgress: () => {
          throw thrown;
        },
      });
      const error = await source.read("config.json").catch((error) => error);
      expect(error).toBe(thrown);
      expect(site.requests.filter((path) => path === "config.json").length).toBe(1 - visit);
    }
  });

  test("has the files that its record names: nobody asks for others", async () => {
    const { site, caches } = await visited();
    const source = await open(site, caches);
    expect(await source.has("config.json")).toBe(true);
    expect(await source.has("chat_template.jinja")).toBe(false);
    expect(asked(site)).not.toContain("chat_template.jinja");
  });

  test("that has no record is read as it is", async () => {
    const site = new FakeSite();
    site.files.delete("espalier.json");
    const source = await cachedSource(BASE, {
      fetch: site.fetch,
      caches: new FakeCaches().storage,
    });
    expect(await source.read("config.json")).toEqual(SMALL);
    expect(await source.has("espalier.json")).toBe(false);
  });
});
