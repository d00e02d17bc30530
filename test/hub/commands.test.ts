/**
 * Models of the Hub as people meet them: the commands in processes of their own, and the library, with
 * the environment that they read.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { ProgressEvent } from "../../src/api/options.ts";
import { prune } from "../../src/api/prune.ts";
import { compile } from "../../compile/compile.ts";
import { load } from "../../src/generate/load.ts";
import { type Ended, fail, start } from "../cli/support.ts";
import { rejectionOf, Workshop } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";
import { COMMIT, type FakeFile, FakeHub, file, sha256 } from "./fake_hub.ts";
import { leftIn, WORD } from "./support.ts";

const workshop = new Workshop();
const TINY = fromRoot("examples/tiny");
const LONG = 120_000;
const hubs: FakeHub[] = [];
afterAll(async () => {
  for (const hub of hubs) await hub.stop();
  workshop.remove();
});

/** The files of a folder, large ones elsewhere. */
function filesOf(folder: string, below = ""): FakeFile[] {
  return readdirSync(join(folder, below), { withFileTypes: true }).flatMap((entry) => {
    const path = `${below}${entry.name}`;
    if (entry.isDirectory()) return filesOf(folder, `${path}/`);
    const content = new Uint8Array(readFileSync(join(folder, path)));
    return file(path, content, content.length > 10_000);
  });
}

/** A Hub with the files of a folder, and an environment that leads to it and to a cache of its own. */
async function hubWith(folder: string) {
  const hub = await FakeHub.start(filesOf(folder));
  hubs.push(hub);
  const cache = workshop.fresh("cache");
  const env = { HF_ENDPOINT: hub.url, HF_HUB_CACHE: cache, HF_HUB_OFFLINE: "", HF_TOKEN: "" };
  const run = (...words: string[]): Promise<Ended> => start(words, { env }).ended;
  const succeed = async (...words: string[]) => {
    const ended = await run(...words);
    expect({ code: ended.code, stderr: ended.code === 0 ? "" : ended.stderr })
      .toEqual({ code: 0, stderr: "" });
    return ended;
  };
  const snapshot = join(cache, "models--some-owner--some-model/snapshots", COMMIT);
  return { hub, cache, env, run, succeed, snapshot };
}

/** Does something with other variables of the environment. */
async function within<T>(env: Record<string, string>, work: () => Promise<T>): Promise<T> {
  const before = Object.keys(env).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, env);
  try {
    return await work();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

const WEIGHTS = sha256(readFileSync(join(TINY, "model.safetensors")));
const isWeights = (seen: { path: string }) => seen.path.startsWith(`/${WEIGHTS}`);

describe("pull", () => {
  test("says what it fetched, for people and for scripts", async () => {
    const { succeed, snapshot, cache } = await hubWith(TINY);
    const first = await succeed("pull", WORD);
    expect(first.stdout).toContain(`some-owner/some-model at ${COMMIT}: 5 files`);
    expect(first.stdout).toContain(`\n${snapshot}\n`);
    expect(first.stderr).toContain("fetch some-owner/some-model: ");
    const output = workshop.fresh("output");
    const second = await succeed("pull", WORD, "-o", output, "--json");
    const report = JSON.parse(second.stdout);
    expect(report).toMatchObject({
      model: "some-owner/some-model",
      revision: COMMIT,
      folder: output,
    });
    expect(report.files[2])
      .toEqual({ path: "model.safetensors", bytes: 7878728, sha256: WEIGHTS, from: "cache" });
    expect(sha256(readFileSync(join(output, "model.safetensors")))).toBe(WEIGHTS);
    expect(leftIn(cache).locks).toEqual([]);
  }, LONG);

  test("of two processes at once fetches each file once", async () => {
    const { hub, succeed, cache } = await hubWith(TINY);
    hub.meddle = (seen, reply) => isWeights(seen) ? { ...reply, wait: 1500, slow: 20 } : reply;
    const [a, b] = await Promise.all([
      succeed("pull", WORD, "--json"),
      succeed("pull", WORD, "--json"),
    ]);
    const from = [a, b].map(({ stdout }) => JSON.parse(stdout).files[2].from);
    expect(hub.seen.filter(isWeights)).toHaveLength(1);
    expect(from.sort()).toEqual(["cache", "network"]);
    expect(leftIn(cache).locks).toEqual([]);
    expect(leftIn(cache).blobs.filter((name) => name.includes("incomplete"))).toEqual([]);
  }, LONG);

  test("that Ctrl-C stops keeps what has come, and goes on there", async () => {
    const { hub, env, succeed, snapshot, cache } = await hubWith(TINY);
    let asked = () => {};
    const isAsked = new Promise<void>((resolve) => asked = resolve);
    hub.meddle = (seen, reply) => {
      if (!isWeights(seen)) return reply;
      setTimeout(asked, 300);
      return { ...reply, slow: 50 };
    };
    const running = start(["pull", WORD], { env });
    await isAsked;
    running.kill("SIGINT");
    const { code, stdout, stderr } = await running.ended;
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain("error ABORTED: ");
    expect(leftIn(cache).locks).toEqual([]);
    const blobs = leftIn(cache).blobs;
    expect(blobs).toContain(`${WEIGHTS}.espalier.incomplete`);
    expect(blobs).not.toContain(WEIGHTS);
    hub.takeSeen();
    await succeed("pull", WORD);
    expect(hub.seen.filter(isWeights)[0].headers.get("range")).toMatch(/^bytes=[1-9]/);
    expect(sha256(readFileSync(join(snapshot, "model.safetensors")))).toBe(WEIGHTS);
  }, LONG);

  test("sends the token of the environment, and ends with 1 when that is not enough", async () => {
    const { hub, env } = await hubWith(TINY);
    hub.meddle = () => ({ status: 403, headers: { "x-error-code": "GatedRepo" } });
    const { code, stderr, stdout } = await start(["pull", WORD], {
      env: { ...env, HF_TOKEN: "hf_secret" },
    }).ended;
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain("error HUB_GATED: some-owner/some-model is gated");
    expect(stderr).not.toContain("hf_secret");
    expect(hub.seen[0].headers.get("authorization")).toBe("Bearer hf_secret");
  }, LONG);
});

describe("a command that takes a folder", () => {
  const pruned = workshop.fresh("pruned");
  const compiled = workshop.fresh("compiled");

  beforeAll(async () => {
    const uniform = { method: "magnitude", allocation: "uniform" } as const;
    await prune({ model: TINY, output: pruned, ...uniform, pattern: "8:16" });
    await compile({ model: pruned, output: compiled });
  }, LONG);

  test("takes a model of the Hub, under the name that it has there", async () => {
    const { succeed, run, env } = await hubWith(TINY);
    const { stdout } = await succeed("inspect", WORD, "--json");
    expect(JSON.parse(stdout)).toMatchObject({ model: "some-model", architecture: "llama" });
    const config = workshop.fresh("config");
    writeFileSync(
      config,
      JSON.stringify({ model: WORD, method: "magnitude", allocation: "uniform" }),
    );
    const dry = await succeed("prune", "--config", config, "--dry-run", "--json");
    expect(JSON.parse(dry.stdout).model).toBe("some-model");
    const output = workshop.fresh("onnx");
    const made = await succeed("compile", WORD, "-o", output, "--json");
    expect(JSON.parse(made.stdout)).toMatchObject({ output });
    const record = JSON.parse(readFileSync(join(output, "espalier.json"), "utf8"));
    expect(record.source).toBe("some-model");
    const wrong = await run("eval", "hf:other/model", "--text", join(TINY, "evaluation.txt"));
    expect(wrong.stderr).toContain("error HUB_REPOSITORY_NOT_FOUND: ");
    expect(env.HF_TOKEN).toBe("");
  }, LONG);

  test("runs compiled models and checkpoints of the Hub", async () => {
    for (const folder of [compiled, pruned]) {
      const { env, snapshot, hub } = await hubWith(folder);
      await within(env, async () => {
        const theirs = await load(WORD, { threads: 1 });
        const ours = await load(folder, { threads: 1 });
        try {
          expect(theirs.info.name).toBe("some-model");
          const text = async (model: typeof ours) => {
            let all = "";
            const pieces = model.generate("The population", { maxTokens: 8 });
            for await (const piece of pieces) if (piece.type === "text") all += piece.text;
            return all;
          };
          expect(await text(theirs)).toBe(await text(ours));
        } finally {
          await theirs.close();
          await ours.close();
        }
        expect(readdirSync(snapshot)).toContain("config.json");
        // Without the Hub the cache has to do, and that is said.
        hub.meddle = () => ({ status: 503 });
        const notes: string[] = [];
        const onProgress = (event: ProgressEvent) => {
          if (event.type === "note") notes.push(event.text);
        };
        const again = await load(WORD, { threads: 1 }, { onProgress });
        await again.close();
        expect(notes[0]).toContain(`taking some-owner/some-model at ${COMMIT} from the cache`);
      });
      await within({ ...env, HF_HUB_OFFLINE: "1" }, async () => {
        await (await load(WORD, { threads: 1 })).close();
        expect((await rejectionOf(load(`${WORD}@v2`))).code).toBe("HUB_OFFLINE");
      });
    }
  }, LONG);

  test(
    "takes a repository with safetensors for a checkpoint, whatever else the cache has",
    async () => {
      const { env, snapshot, hub } = await hubWith(pruned);
      mkdirSync(join(snapshot, "onnx"), { recursive: true });
      writeFileSync(join(snapshot, "onnx/model.onnx"), "another program's");
      await within(env, async () => await (await load(WORD, { threads: 1 })).close());
      expect(hub.seen.filter(({ path }) => path.includes("onnx"))).toEqual([]);
    },
    LONG,
  );

  test("says of a URL that it is none, and nothing of what stands in it", async () => {
    const url = "https://me:secret@models.example/model?token=secret";
    for (
      const words of [
        ["inspect", url],
        ["eval", url, "--text", "text.txt"],
        ["expand", url, "-o", "out"],
        ["bundle", url, "--target", "static"],
      ]
    ) {
      const said = await fail(2, "USAGE", words, "a folder is needed here", "not a URL");
      expect(said).not.toContain("secret");
    }
  }, LONG);

  test("measures a model of the Hub, each engine in a process of its own", async () => {
    const { succeed } = await hubWith(compiled);
    const words = ["--engine", "sparse", "--threads", "1", "--repeat", "1"];
    const { stdout } = await succeed("bench", WORD, ...words, "--json");
    expect(JSON.parse(stdout)).toMatchObject({ model: "some-model" });
  }, LONG);
});
