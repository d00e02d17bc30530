/**
 * Files that do not come whole, or not as they should: how a pull goes on, and when it does not.
 * @module
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { ProgressEvent } from "../../src/api/options.ts";
import { rejectionOf, Workshop } from "../checkpoint/support.ts";
import { COMMIT, FakeHub, gitHash, type Meddler, noise, sha256 } from "./fake_hub.ts";
import { checkpointFiles, leftIn, pullFrom, settingsFor, WEIGHTS } from "./support.ts";

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
