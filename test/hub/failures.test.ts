/**
 * What the Hub refuses, and what a hostile one could try.
 * @module
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { redirectOf } from "../../src/hub/connection.ts";
import { rejectionOf, thrownBy, Workshop } from "../checkpoint/support.ts";
import { COMMIT, FakeHub, file, noise, type Reply, type Seen, sha256 } from "./fake_hub.ts";
import { checkpointFiles, leftIn, NEEDED, pullFrom, settingsFor, WORD } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

let hub: FakeHub;
let cache: string;

beforeEach(async () => {
  hub = await FakeHub.start(checkpointFiles());
  cache = workshop.fresh("cache");
});
afterEach(() => hub.stop());

const settings = (more = {}) => settingsFor(hub, cache, more);
/** A pull that must fail, with a code and words in its message. */
async function fails(code: string, words: string[], word = WORD, more = {}): Promise<string> {
  const error = await rejectionOf(pullFrom(settings(more), { word }));
  expect({ code: error.code, message: error.message }).toMatchObject({ code });
  for (const part of words) expect(error.message).toContain(part);
  expect(error.message).not.toContain("\n");
  expect(error.message).not.toContain("hf_secret");
  return error.message;
}
const answer = (reply: Reply, when: (seen: Seen) => boolean = () => true) => {
  hub.meddle = (seen, normal) => when(seen) ? reply : normal;
};
const isWeights = ({ path }: Seen) => path.includes("/resolve/") && path.includes("model.safe");

describe("a Hub that does not have", () => {
  test("the repository is told apart from one without the revision or the file", async () => {
    await fails(
      "HUB_REPOSITORY_NOT_FOUND",
      ["other/model", "private", "HF_TOKEN"],
      "hf:other/model",
    );
    await fails("HUB_REVISION_NOT_FOUND", ['"v9"', "/tree/main"], `${WORD}@v9`);
    const commit = "e".repeat(40);
    await fails("HUB_REVISION_NOT_FOUND", [commit], `${WORD}@${commit}`);
    answer({ status: 404, headers: { "x-error-code": "EntryNotFound" } }, isWeights);
    await fails("HUB_FILE_NOT_FOUND", ['"model.safetensors"', "main"]);
  });

  test("weights that can be read says what there is instead", async () => {
    hub.files = [file("config.json", "{}"), file("pytorch_model.bin", noise(9), true)];
    await fails("CHECKPOINT_NOT_FOUND", ["pytorch_model.bin", "safetensors first"]);
    hub.files = [file("README.md", "")];
    await fails("CHECKPOINT_NOT_FOUND", ["config.json"]);
  });
});

describe("a Hub that wants to know who asks", () => {
  test("is answered with the token", async () => {
    hub.meddle = (seen, reply) =>
      seen.server === "files" || seen.headers.get("authorization") === "Bearer hf_secret"
        ? reply
        : { status: 401 };
    await fails("HUB_UNAUTHORIZED", ["set HF_TOKEN"]);
    await fails("HUB_UNAUTHORIZED", ["check HF_TOKEN", "hf auth login"], WORD, {
      token: "hf_secret_other",
    });
    const { files } = await pullFrom(settings({ token: "hf_secret" }));
    expect(files.map(({ path }) => path)).toEqual(NEEDED);
  });

  test("gets the token, and the server that it redirects to does not", async () => {
    await pullFrom(settings({ token: "hf_secret" }));
    for (const { server, headers } of hub.seen) {
      expect(headers.get("authorization")).toBe(server === "hub" ? "Bearer hf_secret" : undefined);
    }
    expect(new Set(hub.seen.map(({ server }) => server))).toEqual(new Set(["hub", "files"]));
  });

  test("and lists its files at another address does not hand over the token", async () => {
    hub.meddle = (seen, reply) => {
      if (!seen.path.includes("/tree/")) return reply;
      return { ...reply, headers: { link: `<${hub.filesUrl}/next>; rel="next"` } };
    };
    await fails("HUB_FAILED", [], WORD, { token: "hf_secret" });
    const elsewhere = hub.seen.filter(({ server }) => server === "files");
    expect(elsewhere.length).toBeGreaterThan(0);
    for (const { headers } of elsewhere) expect(headers.has("authorization")).toBe(false);
  });

  test("to accept a licence is told apart, with the page where to do that", async () => {
    const said = "Your request to access some-owner/some-model is awaiting a review.";
    const headers = { "x-error-code": "GatedRepo", "x-error-message": said };
    answer({ status: 403, headers }, isWeights);
    await fails("HUB_GATED", [`${hub.url}/some-owner/some-model`, "licence", "HF_TOKEN"]);
    // It may be accepted already: the Hub says what else is lacking.
    await fails("HUB_GATED", ["account", said], WORD, { token: "hf_secret" });
  });
});

describe("a Hub that fails", () => {
  test("is asked again, and is an error in the end", async () => {
    const asked = new Map<string, number>();
    hub.meddle = ({ path }, reply) => {
      const times = asked.get(path) ?? 0;
      asked.set(path, times + 1);
      return times < 2 ? { status: 502 } : reply;
    };
    await pullFrom(settings());
    cache = workshop.fresh("cache");
    answer({ status: 500, headers: { "x-error-message": "out of order" } });
    hub.takeSeen();
    await fails("HUB_FAILED", ["500", "out of order"]);
    expect(hub.takeSeen()).toHaveLength(5);
  });

  test("is left alone for as long as it asks", async () => {
    let count = 0;
    hub.meddle = (_, reply) =>
      count++ === 0 ? { status: 429, headers: { "retry-after": "1" } } : reply;
    const started = performance.now();
    await pullFrom(settings());
    expect(performance.now() - started).toBeGreaterThan(990);
  });

  test("and asks for more time than one waits is an error that says how much", async () => {
    answer({ status: 429, headers: { ratelimit: '"api";r=0;t=290' } });
    await fails("HUB_RATE_LIMITED", ["in 290 seconds", "HF_TOKEN"]);
    expect(hub.takeSeen()).toHaveLength(1);
  });

  test("and cannot be reached is an error that names it", async () => {
    await fails("HUB_UNREACHABLE", ["127.0.0.1:9"], WORD, { endpoint: "http://127.0.0.1:9" });
  });

  test("and says nothing is given up after a while", async () => {
    answer({ status: 200, hang: true, claimed: 1000 });
    await fails("HUB_UNREACHABLE", ["said nothing"], WORD, { patience: 60 });
  });

  test("in one file stops the others, and leaves no lock", async () => {
    answer({ status: 404 }, ({ path }) => path.includes("generation_config"));
    await fails("HUB_FILE_NOT_FOUND", ["generation_config.json"]);
    expect(leftIn(cache).locks).toEqual([]);
  });

  test("that redirects for ever, or to no address of the web, is not followed", async () => {
    for (
      const location of ["/api/models/x", "file:///etc/passwd", "data:text/plain,x", "http://"]
    ) {
      answer({ status: 302, headers: { location } });
      await fails("HUB_ANSWER_INVALID", ["redirects"]);
    }
    answer({ status: 302 });
    await fails("HUB_ANSWER_INVALID", ["redirects"]);
  });

  test("that redirects from https to http is not followed", () => {
    const hub = new URL("https://hub.example/a/b");
    expect(redirectOf(hub, "/c").href).toBe("https://hub.example/c");
    expect(redirectOf(hub, "https://files.example/c").href).toBe("https://files.example/c");
    for (const location of ["http://hub.example/c", "//", "javascript:0"]) {
      expect(thrownBy(() => redirectOf(hub, location)).code).toBe("HUB_ANSWER_INVALID");
    }
  });
});

describe("a disk", () => {
  test.if(existsSync("/dev/full"))("that is full is an error which says so", async () => {
    const blobs = join(cache, "models--some-owner--some-model/blobs");
    mkdirSync(blobs, { recursive: true });
    const partial = join(blobs, `${sha256(hub.files[3].content)}.espalier.incomplete`);
    symlinkSync("/dev/full", partial);
    await fails("DISK_FULL", [partial]);
    expect(leftIn(cache).locks).toEqual([]);
  });

  test("that nothing can be written to is an error which says so", async () => {
    writeFileSync(cache, "a file");
    const error = await rejectionOf(pullFrom(settings()));
    expect(error.code).toBe("FILE_UNWRITABLE");
  });
});

describe("a hostile listing", () => {
  const hash = "a".repeat(40);
  const entry = (path: unknown, more = {}) => ({ type: "file", path, size: 5, oid: hash, ...more });
  const isTree = ({ path }: Seen) => path.includes("/tree/");

  test("puts no file under a name that is not known", async () => {
    const names = [
      "../outside.txt",
      "/etc/outside.txt",
      "a\0b",
      "..\\outside.txt",
      "C:\\outside.txt",
      "C:outside.txt",
      "\\\\host\\share",
      "CON",
      "config.json/../../x",
      "./config.json",
      "x".repeat(5000),
      "onnx/../../outside",
      "model.safetensors/..",
      "\u202egnp.exe",
    ];
    hub.entries = names.map((name) => entry(name));
    const { folder, files } = await pullFrom(settings());
    expect(files.map(({ path }) => path)).toEqual(NEEDED);
    expect(readdirSync(folder).sort()).toEqual(NEEDED);
    expect(readdirSync(cache).sort()).toEqual([".locks", "models--some-owner--some-model"]);
  });

  test("with hashes that are paths, sizes that are none, or names twice is refused", async () => {
    const cases = [
      entry("config.json", { oid: "../../../../outside" }),
      entry("vocab.json", { size: -1 }),
      entry("vocab.json", { size: 1e300 }),
      entry("vocab.json", { size: "5" }),
      entry("vocab.json", { oid: undefined }),
      entry("vocab.json", { lfs: { oid: "/etc/passwd", size: 5 } }),
      entry(7),
      entry("config.json"),
      { type: 5 },
      null,
    ];
    for (const wrong of cases) {
      hub.entries = [wrong as never];
      await fails("HUB_ANSWER_INVALID", ["some-owner/some-model"]);
    }
    expect(existsSync(join(cache, "models--some-owner--some-model"))).toBe(false);
  });

  test("with shards elsewhere is refused", async () => {
    for (const name of ["../x.safetensors", "/x.safetensors", "a\\b.safetensors", "x.bin", ""]) {
      cache = workshop.fresh("cache");
      hub.files = [
        file("config.json", "{}"),
        file("model.safetensors.index.json", JSON.stringify({ weight_map: { a: name } })),
        file(name || "-", "x"),
      ];
      await fails("SHARD_INVALID", ["model.safetensors.index.json"]);
    }
    hub.files[1] = file("model.safetensors.index.json", '{"weight_map":{"a":"b.safetensors"}}');
    await fails("SHARD_INVALID", ["b.safetensors", "does not have"]);
    hub.files[1] = file("model.safetensors.index.json", "[]");
    await fails("SHARD_INVALID", ["weight_map"]);
  });

  test("without an end is refused", async () => {
    hub.meddle = (seen, reply) =>
      isTree(seen)
        ? { ...reply, headers: { link: `<${hub.url}${seen.path}>; rel="next"` } }
        : reply;
    await fails("HUB_ANSWER_INVALID", ["does not end"]);
    const many = Array.from({ length: 300 }, (_, i) => entry(`${i}`));
    const body = JSON.stringify(many);
    hub.meddle = (seen, reply) =>
      isTree(seen)
        ? { ...reply, body, headers: { link: `<${hub.url}${seen.path}>; rel="next"` } }
        : reply;
    await fails("HUB_ANSWER_INVALID", ["more than 20000 files"]);
    answer({ status: 200, body: noise(40 << 20), claimed: null }, isTree);
    await fails("HUB_ANSWER_INVALID", ["more than"]);
  });

  test("that is none of a Hub is refused", async () => {
    for (
      const body of ["<html>", "{}", "null", "5", '{"sha":"../x"}', `{"sha":"${"A".repeat(40)}"}`]
    ) {
      answer({ status: 200, body });
      await fails("HUB_ANSWER_INVALID", ["HF_ENDPOINT"]);
    }
    answer({ status: 200, body: "{" }, isTree);
    await fails("HUB_ANSWER_INVALID", ["HF_ENDPOINT"]);
  });
});

describe("offline", () => {
  const offline = () => settings({ offline: true });

  test("the cache is taken, and nobody is asked", async () => {
    const online = await pullFrom(settings());
    hub.takeSeen();
    for (const word of [WORD, `${WORD}@${COMMIT}`]) {
      const { files, folder, revision } = await pullFrom(offline(), { word });
      expect({ folder, revision }).toEqual({ folder: online.folder, revision: online.revision });
      expect(files).toEqual(online.files.map((file) => ({ ...file, from: "cache" })));
    }
    expect(hub.seen).toEqual([]);
  });

  test("what is missing is named", async () => {
    await fails("HUB_OFFLINE", ["some-owner/some-model", "main", cache], WORD, { offline: true });
    await pullFrom(settings());
    await fails("HUB_OFFLINE", ["v2"], `${WORD}@v2`, { offline: true });
    const folder = join(cache, "models--some-owner--some-model/snapshots", COMMIT);
    rmSync(join(folder, "model.safetensors"));
    await fails("HUB_OFFLINE", ["lacks model.safetensors"], WORD, { offline: true });
    const weight_map = { a: "a.safetensors", b: "b.safetensors" };
    writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map }));
    writeFileSync(join(folder, "a.safetensors"), "");
    await fails("HUB_OFFLINE", ["lacks b.safetensors"], WORD, { offline: true });
  });

  test("a cache that somebody else made without links is taken, too", async () => {
    const folder = join(cache, "models--some-owner--some-model");
    mkdirSync(join(folder, "snapshots", COMMIT), { recursive: true });
    mkdirSync(join(folder, "refs"));
    writeFileSync(join(folder, "refs/main"), COMMIT);
    for (const name of ["config.json", "model.safetensors"]) {
      writeFileSync(join(folder, "snapshots", COMMIT, name), "{}");
    }
    const { files } = await pullFrom(offline());
    expect(files).toEqual([
      { path: "config.json", bytes: 2, from: "cache" },
      { path: "model.safetensors", bytes: 2, from: "cache" },
    ]);
  });
});
