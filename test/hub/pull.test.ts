/**
 * Fetching models: what is fetched, and where it is put.
 * @module
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import {
  appendFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { rejectionOf, Workshop } from "../checkpoint/support.ts";
import { COMMIT, FakeHub, file, gitHash, noise, sha256 } from "./fake_hub.ts";
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
const weightsAreWhole = () => {
  expect(sha256(readFileSync(join(snapshot(), "model.safetensors")))).toBe(SHA);
  expect(leftIn(cache).blobs.filter((name) => name.includes("incomplete"))).toEqual([]);
  expect(leftIn(cache).locks).toEqual([]);
};

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
    hub.meddle = (seen, reply) => seen.server === "files" ? { ...reply, status: 404 } : reply;
    const output = join(parent, "a", "b");
    expect((await rejectionOf(pullFrom(settings(), { output }))).code).toBe("HUB_FAILED");
    expect(readdirSync(parent)).toEqual([]);
  });
});
