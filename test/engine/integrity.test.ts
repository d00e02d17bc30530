/** Files of a compiled model against the hashes that `compile` wrote. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { folderSource } from "../../src/engine/folder_source.ts";
import { checkedSource, checkFiles } from "../../src/engine/integrity.ts";
import { filesSource, type ModelSource } from "../../src/engine/source.ts";
import { load } from "../../src/generate/load.ts";
import { sleep } from "../../src/platform/sleep.ts";
import { editJson } from "../checkpoint/support.ts";
import { CompileWorkshop, LONG } from "../compile/support.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

let compiled: Promise<string> | undefined;
/** The example compiled, made once. */
function example(): Promise<string> {
  return compiled ??= workshop.compile(fromRoot("examples/tiny"), { values: "f16" })
    .then(({ output }) => output);
}

/** A copy of it that may be damaged. */
async function copy(): Promise<string> {
  const folder = workshop.fresh("copy");
  cpSync(await example(), folder, { recursive: true });
  return folder;
}

/** What a failure says. */
async function failure(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return "nothing";
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return `${code ?? "none"}: ${message}`;
  }
}

/** A source of files made up, with hashes of pieces of 64 KiB. */
function madeUp(content: Uint8Array, change: (hashes: string[]) => void = () => {}) {
  const chunkBytes = 1 << 16;
  const chunks: string[] = [];
  for (let at = 0; at < content.length; at += chunkBytes) {
    const piece = content.subarray(at, at + chunkBytes);
    chunks.push(createHash("sha256").update(piece).digest("hex"));
  }
  const sha256 = createHash("sha256").update(content).digest("hex");
  change(chunks);
  const files = { chunkBytes, hashes: { data: { bytes: content.length, sha256, chunks } } };
  return filesSource({
    data: content,
    "espalier.json": new TextEncoder().encode(JSON.stringify({ files })),
  }, "made-up");
}

/** A source of one file, checked, and the rooms that it is read into: each read after so many milliseconds. */
async function watched(below: ModelSource, delay: (offset: number) => number) {
  const rooms = new Set<ArrayBufferLike>();
  const { source } = await checkedSource({
    name: below.name,
    has: (path) => below.has(path),
    read: (path, largest) => below.read(path, largest),
    async open(path) {
      const file = await below.open(path);
      return {
        size: file.size,
        async read(offset, target) {
          rooms.add(target.buffer);
          if (delay(offset) > 0) await sleep(delay(offset));
          await file.read(offset, target);
        },
        close: () => file.close(),
      };
    },
  });
  return { source, rooms };
}

/** Whether buffers hold no memory any more, once what was read ahead is there; all that can be asked in Node 20. */
async function areGivenBack(rooms: Set<ArrayBufferLike>): Promise<boolean> {
  await sleep(50);
  const canGiveBack = "transfer" in ArrayBuffer.prototype;
  return rooms.size > 0 && (!canGiveBack || [...rooms].every((room) => room.byteLength === 0));
}

describe("what compile writes", () => {
  test("has the SHA-256 of every other file, and of its pieces", async () => {
    const folder = await example();
    const { files } = JSON.parse(readFileSync(join(folder, "espalier.json"), "utf8"));
    expect(Object.keys(files.hashes).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "onnx/model.onnx",
      "onnx/model.onnx_data",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    for (
      const [path, { bytes, sha256, chunks }] of Object.entries<{
        bytes: number;
        sha256: string;
        chunks: string[];
      }>(files.hashes)
    ) {
      const content = readFileSync(join(folder, path));
      expect(bytes).toBe(content.length);
      expect(sha256).toBe(createHash("sha256").update(content).digest("hex"));
      expect(chunks).toHaveLength(Math.ceil(bytes / files.chunkBytes));
    }
  }, LONG);
});

describe("loading", () => {
  test(
    "names the file and the piece that is damaged, in both engines, wherever one bit is",
    async () => {
      const folder = await copy();
      const path = join(folder, "onnx", "model.onnx_data");
      const bytes = readFileSync(path);
      for (const at of [0, bytes.length >> 1, bytes.length - 1]) {
        bytes[at] ^= 1;
        writeFileSync(path, bytes);
        for (const engine of ["sparse", "ort"] as const) {
          const said = await failure(() => load(folder, { engine, device: "wasm", threads: 1 }));
          expect(said).toMatch(
            /^INTEGRITY: .*model\.onnx_data is damaged: bytes \d+ to \d+ \(piece [12] of 2\)/,
          );
        }
        bytes[at] ^= 1;
      }
      writeFileSync(path, bytes);
      await using model = await load(folder, { threads: 1 });
      expect(model.info.engine).toBe("sparse");
    },
    LONG,
  );

  test(
    "names a file of another length, one that is missing, and a tokenizer that was changed",
    async () => {
      const folder = await copy();
      const graph = join(folder, "onnx", "model.onnx");
      const whole = readFileSync(graph);
      writeFileSync(graph, whole.subarray(0, 1000));
      expect(await failure(() => load(folder, { threads: 1 }))).toMatch(
        new RegExp(`^INTEGRITY: .*model\\.onnx has 1000 bytes, and had ${whole.length} when`),
      );
      writeFileSync(graph, whole);
      const data = join(folder, "onnx", "model.onnx_data");
      const weights = readFileSync(data);
      rmSync(data);
      expect(await failure(() => load(folder, { engine: "sparse", threads: 1 }))).toMatch(
        /^ONNX_INVALID: .*"model\.onnx_data" is missing/,
      );
      writeFileSync(data, weights);
      const tokenizer = join(folder, "tokenizer.json");
      writeFileSync(tokenizer, readFileSync(tokenizer, "utf8").replace("river", "reviv"));
      expect(await failure(() => load(folder, { threads: 1 }))).toMatch(
        /^INTEGRITY: .*tokenizer\.json/,
      );
      await using model = await load(folder, { threads: 1, unchecked: true });
      expect(model.info.vocabulary).toBe(4096);
    },
    LONG,
  );

  test("refuses a record whose hashes make no sense, and takes one without", async () => {
    const damages: ((files: Record<string, unknown>) => unknown)[] = [
      (files) => files.chunkBytes = 0,
      (files) => files.chunkBytes = 1e12,
      (files) => files.hashes = [],
      (files) => files.hashes = { "onnx/model.onnx": { bytes: -1, sha256: "", chunks: [] } },
      (files) => (files.hashes as Record<string, { chunks: string[] }>)["config.json"].chunks = [],
    ];
    for (const damage of damages) {
      const folder = await copy();
      editJson(folder, "espalier.json", ({ files }) => void damage(files));
      expect(await failure(() => load(folder, { threads: 1 }))).toMatch(
        /^INTEGRITY: .*espalier\.json/,
      );
    }
    const folder = await copy();
    editJson(folder, "espalier.json", (record) => void delete record.files);
    await using model = await load(folder, { threads: 1 });
    expect(model.info.vocabulary).toBe(4096);
  }, LONG);

  test("reads a folder's files whole where the engine reads them itself", async () => {
    const { source, paths } = await checkedSource(folderSource(await example()));
    expect(paths).toContain("onnx/model.onnx_data");
    await checkFiles(source, paths);
  }, LONG);
});

describe("a checked source", () => {
  test("gives any ranges, also at once, as the bytes that are there", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 400_000 }),
        fc.array(fc.tuple(fc.nat(399_999), fc.nat(200_000)), { minLength: 1, maxLength: 12 }),
        async (size, ranges) => {
          const content = Uint8Array.from({ length: size }, (_, i) => (i * 2654435761) >>> 24);
          const { source } = await checkedSource(madeUp(content));
          const file = await source.open("data");
          await Promise.all(ranges.map(async ([offset, length]) => {
            const from = offset % size;
            const target = new Uint8Array(Math.min(length, size - from));
            await file.read(from, target);
            // Matchers look at every element on its own.
            expect(Buffer.compare(target, content.subarray(from, from + target.length))).toBe(0);
          }));
          file.close();
        },
      ),
      { numRuns: 25 },
    );
  });

  test("gives pieces that are whole, and no byte of one that is not", async () => {
    const content = new Uint8Array(300_000).fill(7);
    const { source } = await checkedSource(madeUp(content, (hashes) => hashes[2] = "0".repeat(64)));
    const file = await source.open("data");
    const target = new Uint8Array(65_536);
    await file.read(65_536, target);
    expect(Buffer.compare(target, content.subarray(0, 65_536))).toBe(0);
    const bad = new Uint8Array(10);
    expect(await failure(() => file.read(140_000, bad))).toMatch(
      /bytes 131072 to 196608 \(piece 3 of 5\)/,
    );
    expect(bad).toEqual(new Uint8Array(10));
    expect(await failure(() => source.read("data"))).toMatch(/^INTEGRITY/);
  });

  test("asks for each piece once over a network, in the order in which blocks are read", async () => {
    const pieces = 24, length = 1 << 16;
    const content = Uint8Array.from({ length: pieces * length }, (_, i) => (i * 2654435761) >>> 24);
    const below = madeUp(content);
    const asked: number[] = [];
    const { source } = await checkedSource({
      name: below.name,
      isFar: true,
      has: (path) => below.has(path),
      read: (path, largest) => below.read(path, largest),
      async open(path) {
        const file = await below.open(path);
        const read = (offset: number, target: Uint8Array) => {
          asked.push(offset / length);
          return file.read(offset, target);
        };
        return { size: file.size, read, close: () => file.close() };
      },
    });
    const file = await source.open("data");
    // Tensors of half a piece: of every four the third is read before the second.
    for (let block = 0; block < 2 * pieces; block += 4) {
      for (const tensor of [0, 2, 1, 3]) {
        const target = new Uint8Array(
          Math.min(length, content.length - (block + tensor) * length / 2),
        );
        await file.read((block + tensor) * length / 2, target);
      }
    }
    file.close();
    expect(asked.sort((a, b) => a - b)).toEqual(Array.from({ length: pieces }, (_, i) => i));
  });

  test("reads into the same few rooms, in whatever order", async () => {
    const pieces = 60, length = 1 << 16;
    const content = Uint8Array.from({ length: pieces * length }, (_, i) => (i * 2654435761) >>> 24);
    const below = madeUp(content);
    // Some that are read ahead are still on their way when others are asked for.
    const { source, rooms } = await watched(below, (offset) => offset % 3 === 0 ? 5 : 0);
    const file = await source.open("data");
    const target = new Uint8Array(length / 2);
    // As matrices are read: the head first, then layers, whose tensors lie side by side; and at random.
    const inOrder = Array.from({ length: 2 * pieces }, (_, i) => i * length / 2);
    const atRandom = inOrder.map((offset) => (offset * 7919 + 13) % (content.length - length));
    for (const offset of [...inOrder.slice(80, 90), ...inOrder, ...atRandom]) {
      await file.read(offset, target);
      expect(Buffer.compare(target, content.subarray(offset, offset + target.length))).toBe(0);
    }
    file.close();
    expect(rooms.size).toBeLessThanOrEqual(4);
    expect(await areGivenBack(rooms)).toBe(true);
  });

  test("closed while it reads, gives what was asked for, and its rooms back", async () => {
    const length = 1 << 16;
    const content = Uint8Array.from({ length: 6 * length }, (_, i) => (i * 2654435761) >>> 24);
    for (const delays of [[5, 20], [20, 5]]) {
      const below = madeUp(content);
      const { source, rooms } = await watched(below, (offset) => delays[offset / length & 1]);
      const file = await source.open("data");
      const target = new Uint8Array(2 * length);
      const reading = file.read(0, target.subarray(0, length));
      const more = file.read(length, target.subarray(length));
      file.close();
      await Promise.all([reading, more]);
      expect(Buffer.compare(target, content.subarray(0, target.length))).toBe(0);
      expect(await areGivenBack(rooms)).toBe(true);
    }
  });
});
