/**
 * Fetching models: what is fetched, where it is put, and how it goes on after what went wrong.
 * @module
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { gzipSync } from "node:zlib";
import { join } from "node:path";
import type { ProgressEvent } from "../../src/api/options.ts";
import { rejectionOf, Workshop } from "../checkpoint/support.ts";
import { COMMIT, FakeHub, file, gitHash, type Meddler, noise, sha256 } from "./fake_hub.ts";
import {
  checkpointFiles,
  leftIn,
  NEEDED,
  pullFrom,
  settingsFor,
  WEIGHTS,
  WORD,
} from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const SHA = sha256(noise(WEIGHTS));
let hub: FakeHub;
let cache: string;

beforeEach(async () => {
  hub = await FakeHub.start(checkpointFiles());
  cache = workshop.fresh("cache");
});
afterEach(() => hub.stop());

const settings = (more = {}) => settingsFor(hub, cache, more);
const repository = () => join(cache, "models--some-owner--some-model");
const snapshot = () => join(repository(), "snapshots", COMMIT);
/** Changes answers about the weights from the server that has them; counts them from 0. */
const meddleWithWeights = (change: (reply: Parameters<Meddler>[1], i: number) => typeof reply) => {
  let count = 0;
  hub.meddle = (seen, reply) =>
    seen.server === "files" && seen.path.startsWith(`/${SHA}`) ? change(reply, count++) : reply;
};
const weightsAreWhole = () => {
  expect(sha256(readFileSync(join(snapshot(), "model.safetensors")))).toBe(SHA);
  expect(leftIn(cache).blobs.filter((name) => name.includes("incomplete"))).toEqual([]);
  expect(leftIn(cache).locks).toEqual([]);
};
const rangesOfWeights = () =>
  hub.takeSeen().filter(({ server, path }) => server === "files" && path.startsWith(`/${SHA}`))
    .map(({ headers }) => headers.get("range") ?? "all");

describe("a pull", () => {
  test("fetches what a model needs, and nothing else", async () => {
    const others = [
      file("pytorch_model.bin", noise(100), true),
      file("consolidated.safetensors", noise(100), true),
      file("model.fp32.safetensors", noise(100), true),
      file("original/consolidated.00.pth", noise(100), true),
      file("onnx/model.onnx", noise(100), true),
      file("training_args.bin", noise(100), true),
      file(".gitattributes", "*"),
    ];
    hub.files.push(...others);
    const { files, folder, model, revision, seconds } = await pullFrom(settings());
    expect(files.map(({ path }) => path)).toEqual(NEEDED);
    expect({ model, revision, folder }).toEqual({
      model: "some-owner/some-model",
      revision: COMMIT,
      folder: snapshot(),
    });
    expect(seconds).toBeGreaterThan(0);
    expect(readdirSync(snapshot()).sort()).toEqual(NEEDED);
    for (const { path, content } of hub.files.filter(({ path }) => NEEDED.includes(path))) {
      expect(Buffer.compare(readFileSync(join(snapshot(), path)), content)).toBe(0);
    }
    const asked = hub.takeSeen().map(({ path }) => path).join("\n");
    for (const { path } of others) expect(asked).not.toContain(path);
  });

  test("reports bytes, the hash of large files, and where each came from", async () => {
    const first = await pullFrom(settings());
    expect(first.files[0]).toEqual({ path: "config.json", bytes: 22, from: "network" });
    expect(first.files[2]).toEqual({
      path: "model.safetensors",
      bytes: WEIGHTS,
      sha256: SHA,
      from: "network",
    });
    hub.takeSeen();
    const second = await pullFrom(settings());
    expect(second.files.map(({ from }) => from)).toEqual(NEEDED.map(() => "cache"));
    expect(hub.takeSeen().filter(({ path }) => path.includes("/resolve/"))).toEqual([]);
  });

  test("tells of its progress in bytes, up to all of them", async () => {
    const { events, files } = await pullFrom(settings());
    const steps = events.filter((event) => event.type === "progress");
    const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(steps[0]).toMatchObject({ phase: "fetch some-owner/some-model", done: 0, total });
    expect(steps.at(-1)).toMatchObject({ done: total, total, unit: "bytes" });
    const done = steps.map((step) => (step as { done: number }).done);
    expect(done).toEqual([...done].sort((a, b) => a - b));
  });

  test("keeps the layout that other clients of the Hub know", async () => {
    await pullFrom(settings());
    const weights = join(snapshot(), "model.safetensors");
    expect(lstatSync(weights).isSymbolicLink()).toBe(true);
    expect(readlinkSync(weights)).toBe(`../../blobs/${SHA}`);
    const config = readlinkSync(join(snapshot(), "config.json"));
    expect(config).toBe(`../../blobs/${gitHash(hub.files[1].content)}`);
    expect(readFileSync(join(repository(), "refs/main"), "utf8")).toBe(COMMIT);
  });

  test("fetches files that are the same once", async () => {
    hub.files.push(file("added_tokens.json", "{}"));
    const { files } = await pullFrom(settings());
    const same = files.filter(({ path }) => /^(added|generation)/.test(path));
    expect(same.map(({ bytes, from }) => [bytes, from])).toEqual([[2, "network"], [2, "network"]]);
    const asked = hub.seen.filter(({ path }) => /resolve.*(added|generation)/.test(path));
    expect(asked).toHaveLength(1);
  });

  test("takes what another client has put into the cache", async () => {
    mkdirSync(join(repository(), "blobs"), { recursive: true });
    mkdirSync(snapshot(), { recursive: true });
    writeFileSync(join(repository(), "blobs", SHA), noise(WEIGHTS));
    symlinkSync(`../../blobs/${SHA}`, join(snapshot(), "model.safetensors"));
    const { files } = await pullFrom(settings());
    expect(files.filter(({ from }) => from === "cache").map(({ path }) => path))
      .toEqual(["model.safetensors"]);
  });

  test("links a content that is there under another commit", async () => {
    await pullFrom(settings());
    const other = "f".repeat(40);
    hub.revisions = { "v2/beta": other, [other]: other };
    const { revision, files } = await pullFrom(settings(), { word: `${WORD}@v2/beta` });
    expect(revision).toBe(other);
    expect(files.every(({ from }) => from === "cache")).toBe(true);
    expect(readFileSync(join(repository(), "refs/v2/beta"), "utf8")).toBe(other);
  });

  test("of a cached file with a wrong length fetches it again", async () => {
    await pullFrom(settings());
    writeFileSync(join(repository(), "blobs", SHA), noise(100));
    const { files } = await pullFrom(settings());
    expect(files.filter(({ from }) => from === "network").map(({ path }) => path))
      .toEqual(["model.safetensors"]);
    weightsAreWhole();
  });

  test("of sharded weights fetches the index and the shards that it names", async () => {
    const shard = (i: number) => `model-0000${i}-of-00002.safetensors`;
    const index = { weight_map: { a: shard(1), b: shard(2), c: shard(1) } };
    hub.files = [
      ...hub.files.filter(({ path }) => path !== "model.safetensors"),
      file("model.safetensors.index.json", JSON.stringify(index)),
      ...[1, 2, 3].map((i) => file(shard(i), noise(1000, i), true)),
    ];
    const { files } = await pullFrom(settings());
    expect(files.map(({ path }) => path).filter((path) => path.includes("safetensors")))
      .toEqual([shard(1), shard(2), "model.safetensors.index.json"]);
  });

  test("of a compiled model fetches the graph, its data and the record", async () => {
    hub.files = [
      ...hub.files.filter(({ path }) => path !== "model.safetensors"),
      file("espalier.json", "{}"),
      file("onnx/model.onnx", noise(1000), true),
      file("onnx/model.onnx_data", noise(1000, 2), true),
      file("onnx/model_q4.onnx", noise(1000, 3), true),
    ];
    const { files, folder } = await pullFrom(settings());
    expect(files.map(({ path }) => path).filter((path) => /onnx|espalier/.test(path)))
      .toEqual(["espalier.json", "onnx/model.onnx", "onnx/model.onnx_data"]);
    expect(readFileSync(join(folder, "onnx/model.onnx_data")).length).toBe(1000);
  });

  test("fetches at most four files at once", async () => {
    const shards = Array.from({ length: 12 }, (_, i) => `model-${i}.safetensors`);
    const weight_map = Object.fromEntries(shards.map((name) => [name, name]));
    hub.files = [
      file("config.json", "{}"),
      file("model.safetensors.index.json", JSON.stringify({ weight_map })),
      ...shards.map((name, i) => file(name, noise(100, i + 1))),
    ];
    let running = 0;
    let most = 0;
    hub.meddle = (seen, reply) => {
      if (!seen.path.includes("/model-")) return reply;
      most = Math.max(most, ++running);
      setTimeout(() => running--, 25);
      return { ...reply, wait: 30 };
    };
    await pullFrom(settings());
    expect(most).toBeLessThanOrEqual(4);
    expect(most).toBeGreaterThan(1);
  });

  test("reads a listing of many pages", async () => {
    hub.entries = Array.from({ length: 900 }, (_, i) => ({
      type: "file",
      path: `checkpoint-${i}.txt`,
      size: 1,
      oid: "a".repeat(40),
    }));
    hub.pageSize = 100;
    hub.files.reverse();
    expect((await pullFrom(settings())).files.map(({ path }) => path)).toEqual(NEEDED);
  });

  test("with an output copies the model there, and not as a link", async () => {
    const output = workshop.fresh("output");
    const { folder } = await pullFrom(settings(), { output });
    expect(folder).toBe(output);
    expect(readdirSync(output).sort()).toEqual(NEEDED);
    appendFileSync(join(output, "model.safetensors"), "x");
    expect(lstatSync(join(output, "model.safetensors")).isFile()).toBe(true);
    weightsAreWhole();
    const error = await rejectionOf(pullFrom(settings(), { output }));
    expect(error.code).toBe("OUTPUT_EXISTS");
    await pullFrom(settings(), { output, force: true });
    expect(sha256(readFileSync(join(output, "model.safetensors")))).toBe(SHA);
  });

  test("that fails leaves no output, and nothing beside it", async () => {
    const parent = workshop.folder();
    meddleWithWeights((reply) => ({ ...reply, status: 404 }));
    const output = join(parent, "a", "b");
    expect((await rejectionOf(pullFrom(settings(), { output }))).code).toBe("HUB_FAILED");
    expect(readdirSync(parent)).toEqual([]);
  });
});

describe("a connection that breaks off", () => {
  test("is continued where it ended, by a range of the same content", async () => {
    meddleWithWeights((reply, i) => i < 2 ? { ...reply, cut: 150_000 } : reply);
    const { events } = await pullFrom(settings());
    const ranges = hub.seen.filter(({ path }) => path.startsWith(`/${SHA}`));
    expect(ranges.map(({ headers }) => headers.has("range"))).toEqual([false, true, true]);
    expect(ranges[1].headers.get("if-range")).toBe(`"${SHA.slice(0, 32)}"`);
    const starts = ranges.slice(1).map(({ headers }) => Number(headers.get("range")!.slice(6, -1)));
    expect(starts[0]).toBeGreaterThan(0);
    expect(starts[1]).toBeGreaterThan(starts[0]);
    expect(events.at(-1)).toMatchObject({ type: "progress" });
    weightsAreWhole();
  });

  test("leaves a file that the next run continues", async () => {
    meddleWithWeights((reply, i) => i === 0 ? { ...reply, cut: 200_000 } : { ...reply, cut: 0 });
    const error = await rejectionOf(pullFrom(settings()));
    expect(error.code).toBe("HUB_UNREACHABLE");
    expect(error.message).toMatch(/broke off at byte \d+ of 400000, 5 times/);
    expect(existsSync(join(snapshot(), "model.safetensors"))).toBe(false);
    const partial = leftIn(cache).blobs.find((name) => name.startsWith(SHA))!;
    expect(partial).toBe(`${SHA}.espalier.incomplete`);
    const kept = readFileSync(join(repository(), "blobs", partial));
    expect(Buffer.compare(kept, noise(WEIGHTS).subarray(0, kept.length))).toBe(0);
    hub.takeSeen();
    meddleWithWeights((reply) => reply);
    await pullFrom(settings());
    expect(rangesOfWeights()).toEqual([`bytes=${kept.length}-`]);
    weightsAreWhole();
  });

  test("goes on where the server ignores ranges", async () => {
    hub.meddle = (seen, reply) => {
      if (seen.server !== "files") return reply;
      const isFirst = !seen.headers.has("range");
      const whole = hub.files.find(({ content }) => seen.path.startsWith(`/${sha256(content)}`))!;
      return { status: 200, body: whole.content, ...(isFirst ? { cut: 30_000 } : {}) };
    };
    await pullFrom(settings());
    weightsAreWhole();
  });

  test("that ends early at the same byte every time is an error, not a loop", async () => {
    meddleWithWeights(() => ({ status: 200, body: noise(WEIGHTS), cut: 65_536 }));
    expect((await rejectionOf(pullFrom(settings()))).code).toBe("HUB_UNREACHABLE");
  });

  test("starts anew when the content behind the address is another one", async () => {
    meddleWithWeights((reply, i) =>
      i === 0
        ? { ...reply, body: noise(WEIGHTS, 9), headers: { etag: '"other"' }, cut: 100_000 }
        : reply
    );
    await pullFrom(settings());
    weightsAreWhole();
  });

  test("of which a server says nothing more is given up, and continued", async () => {
    meddleWithWeights((reply, i) =>
      i === 0
        ? { ...reply, body: noise(WEIGHTS).subarray(0, 70_000), claimed: WEIGHTS, hang: true }
        : reply
    );
    await pullFrom(settings({ patience: 200 }));
    expect(rangesOfWeights()).toHaveLength(2);
    weightsAreWhole();
  });

  test("leaves ranges alone that do not fit", async () => {
    let count = 0;
    meddleWithWeights((reply) => {
      count++;
      if (count === 1) return { ...reply, cut: 100_000 };
      if (reply.status !== 206) return reply;
      return { ...reply, headers: { "content-range": `bytes 0-${WEIGHTS - 1}/${WEIGHTS}` } };
    });
    await pullFrom(settings());
    weightsAreWhole();
  });
});

describe("a partial file", () => {
  const partial = () => {
    mkdirSync(join(repository(), "blobs"), { recursive: true });
    return join(repository(), "blobs", `${SHA}.espalier.incomplete`);
  };

  test("that is whole is taken without asking for it", async () => {
    writeFileSync(partial(), noise(WEIGHTS));
    await pullFrom(settings());
    expect(rangesOfWeights()).toEqual([]);
    weightsAreWhole();
  });

  test("with other content is noticed, thrown away and fetched once more", async () => {
    writeFileSync(partial(), noise(100_000, 9));
    const { events } = await pullFrom(settings());
    expect(events.filter(({ type }) => type === "note")).toEqual([
      { type: "note", text: "model.safetensors came damaged: fetching it once more" },
    ]);
    expect(rangesOfWeights()).toEqual(["bytes=100000-", "all"]);
    weightsAreWhole();
  });

  test("that is too long is thrown away", async () => {
    writeFileSync(partial(), noise(WEIGHTS + 1));
    await pullFrom(settings());
    expect(rangesOfWeights()).toEqual(["all"]);
    weightsAreWhole();
  });
});

describe("a wrong content", () => {
  test("is fetched once more, and then taken", async () => {
    meddleWithWeights((reply, i) => i === 0 ? { ...reply, body: noise(WEIGHTS, 9) } : reply);
    await pullFrom(settings());
    weightsAreWhole();
  });

  for (const path of ["model.safetensors", "config.json"]) {
    test(`of ${path} is an error the second time, and is not kept`, async () => {
      const length = hub.files.find((file) => file.path === path)!.content.length;
      hub.meddle = (seen, reply) =>
        seen.path.includes(path === "config.json" ? "/config.json" : SHA) && reply.status === 200
          ? { ...reply, body: noise(length, 9) }
          : reply;
      const error = await rejectionOf(pullFrom(settings()));
      expect(error.code).toBe("HASH_MISMATCH");
      expect(error.message).toContain(path);
      expect(existsSync(join(snapshot(), path))).toBe(false);
      expect(existsSync(join(repository(), "refs/main"))).toBe(false);
      expect(leftIn(cache).locks).toEqual([]);
      const hash = path === "config.json" ? gitHash(hub.files[1].content) : SHA;
      expect(leftIn(cache).blobs.filter((name) => name.startsWith(hash))).toEqual([]);
    });
  }

  test("that does not end is cut where the file should", async () => {
    meddleWithWeights((reply) => ({ ...reply, body: noise(50 * WEIGHTS), claimed: null }));
    expect((await rejectionOf(pullFrom(settings()))).code).toBe("HASH_MISMATCH");
  });

  test("with a length that is a lie is fetched as far as it goes", async () => {
    for (const claimed of [WEIGHTS + 1000, null]) {
      cache = workshop.fresh("cache");
      meddleWithWeights((reply, i) => i === 0 ? { ...reply, claimed } : reply);
      await pullFrom(settings());
      weightsAreWhole();
    }
  });

  test("that is too short is an error", async () => {
    meddleWithWeights(() => ({ status: 200, body: noise(1000) }));
    const error = await rejectionOf(pullFrom(settings()));
    expect(error.code).toBe("HUB_UNREACHABLE");
    expect(error.message).toContain("at byte 1000 of 400000");
  });

  test("in a compressed form that nobody asked for is unpacked", async () => {
    hub.meddle = (seen, reply) => {
      expect(seen.headers.get("accept-encoding") ?? "identity").toBe("identity");
      return reply.status === 200 && reply.body !== undefined
        ? {
          ...reply,
          headers: { ...reply.headers, "content-encoding": "gzip" },
          body: gzipSync(reply.body as Uint8Array),
        }
        : reply;
    };
    await pullFrom(settings());
    weightsAreWhole();
  });
});

describe("stopping", () => {
  test("keeps what has come, and the next pull goes on there", async () => {
    const stop = new AbortController();
    meddleWithWeights((reply) => ({ ...reply, slow: 20 }));
    const onProgress = (event: ProgressEvent) => {
      if (event.type === "progress" && event.done > 200_000) stop.abort();
    };
    const error = await rejectionOf(pullFrom(settings(), { signal: stop.signal, onProgress }));
    expect(error.code).toBe("ABORTED");
    expect(leftIn(cache).locks).toEqual([]);
    expect(existsSync(join(snapshot(), "model.safetensors"))).toBe(false);
    hub.takeSeen();
    await pullFrom(settings());
    expect(rangesOfWeights()[0]).toMatch(/^bytes=[1-9]\d*-$/);
    weightsAreWhole();
  });
});
