/**
 * `bundle --target cloudflare` and `--target deno`: what they write, and what they refuse. That it runs is
 * seen in `test/consumers/edge.ts`.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import {
  account,
  advice,
  engineBytes,
  LIMIT,
  longestContext,
  type Measured,
} from "../../src/bundle/memory_account.ts";
import { bytesIn, pathsIn } from "../../src/platform/folders.ts";
import { folderSource } from "../../src/engine/folder_source.ts";
import { partsSource } from "../../src/engine/parts_source.ts";
import { runCompiled } from "../../src/generate/run.ts";
import { runtime } from "../../src/platform/runtime.ts";
import { Workshop } from "../checkpoint/support.ts";
import { fail, report, start, succeed } from "../cli/support.ts";
import { addUnknownOperator, forgetHashes } from "../compile/support.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
const LONG = 300_000;
const model = join(workshop.path, "small");

beforeAll(async () => {
  await succeed("compile", fromRoot("examples/tiny"), "-o", model);
}, LONG);
afterAll(() => workshop.remove());

const bundleTo = (target: string, output: string, ...more: string[]) =>
  report("bundle", model, "--target", target, "-o", output, ...more);

describe("--target cloudflare", () => {
  test("writes a project that has all it needs, in files that may be assets", async () => {
    const output = join(workshop.path, "worker");
    const { memory, next, bytes } = await bundleTo("cloudflare", output, "--parallel", "3");
    const config = JSON.parse(readFileSync(join(output, "wrangler.jsonc"), "utf8"));
    expect(existsSync(join(output, config.main))).toBe(true);
    expect(config.assets.run_worker_first).toBe(true);
    const worker = readFileSync(join(output, config.main), "utf8");
    for (const [, path] of worker.matchAll(/from "\.\/([^"]+)"/g)) {
      expect(existsSync(join(output, "src", path))).toBe(true);
    }
    const assets = join(output, config.assets.directory);
    for (const path of pathsIn(assets)) expect(worker).toContain(JSON.stringify(path));
    const sum = Object.values(memory.parts as Record<string, number>).reduce((a, b) => a + b);
    expect(memory.total).toBe(sum);
    expect(memory.total).toBeLessThanOrEqual(memory.limit);
    expect(bytes.all).toBeGreaterThan(bytes.model);
    expect(next.at(-1)).toBe("npx wrangler deploy");
  }, LONG);

  test("names the Worker as Workers may be named", async () => {
    const long = join(workshop.path, `_${"X".repeat(53)}.y`);
    cpSync(model, long, { recursive: true });
    const output = join(workshop.path, "named");
    await report("bundle", long, "--target", "cloudflare", "-o", output);
    const { name } = JSON.parse(readFileSync(join(output, "wrangler.jsonc"), "utf8"));
    expect(name).toBe("x".repeat(53));
  }, LONG);

  test("refuses what does not fit, writes nothing, and names what does fit", async () => {
    const output = join(workshop.path, "unfit");
    const words = ["bundle", model, "--target", "cloudflare", "-o", output];
    const stderr = await fail(1, "TARGET_UNFIT", [
      ...words,
      "--context",
      "512",
      "--parallel",
      "1000",
    ]);
    expect(existsSync(output)).toBe(false);
    const [, advised] = /it fits with (--context \d+ --parallel \d+)/.exec(stderr) ?? [];
    const { memory } = await report(...words, ...advised.split(" "));
    expect(memory.total).toBeLessThanOrEqual(memory.limit);
  }, LONG);

  test("takes the longest context that fits, and says so", async () => {
    const output = join(workshop.path, "long");
    const { notes } = await bundleTo("cloudflare", output, "--parallel", "100");
    const context = Number(/^context (\d+): /.exec(notes[0])?.[1]);
    expect(context).toBeGreaterThan(64);
    expect(context).toBeLessThan(512);
    const worker = readFileSync(join(output, "src/worker.js"), "utf8");
    expect(worker).toContain(`"context": ${context}`);
  }, LONG);
});

test("an option that a target has no use for is refused", async () => {
  const cases = [
    ["static", "--parallel", "3"],
    ["static", "--with-ort"],
    ["deno", "--external-model"],
    ["cloudflare", "--platform", "bun-linux-arm64"],
    ["binary", "--parallel", "3"],
  ];
  const output = join(workshop.path, "refused");
  for (const [target, flag, ...value] of cases) {
    const words = ["bundle", model, "--target", target, "-o", output, flag, ...value];
    await fail(2, "USAGE", words, `${flag} is for --target `, `leave it out for ${target}`);
  }
  expect(existsSync(output)).toBe(false);
}, LONG);

test("what cannot be written is refused before a model is made", async () => {
  const full = workshop.folder();
  writeFileSync(join(full, "letter.txt"), "dear");
  const cases = [
    [2, "USAGE", ["--target", "static", "--parallel", "3"]],
    [1, "OUTPUT_EXISTS", ["--target", "static", "-o", full]],
    [1, "OUTPUT_EXISTS", ["--target", "binary", "-o", full]],
  ] as const;
  for (const [exit, code, words] of cases) {
    // The example would be pruned, a checkpoint compiled.
    for (const made of [[], [fromRoot("examples/tiny")]]) {
      const stderr = await fail(exit, code, ["bundle", ...made, ...words]);
      expect(stderr).not.toContain("weights");
    }
  }
}, LONG);

describe("--target deno", () => {
  test("writes a program without a package, and a model that is the same", async () => {
    const output = join(workshop.path, "deno");
    await bundleTo("deno", output);
    for (const path of pathsIn(output).filter((path) => /\.js$/.test(path))) {
      const code = readFileSync(join(output, path), "utf8");
      expect(code).not.toMatch(/from\s*"(npm|jsr|https?):/);
    }
    const source = await partsSource(folderSource(join(output, "model")));
    await using bundled = await runCompiled(source, { threads: 1 });
    await using original = await runCompiled(folderSource(model), { threads: 1 });
    expect(await bundled.logits([1, 2, 3])).toEqual(await original.logits([1, 2, 3]));
  }, LONG);

  const deno = runtime().name === "deno" ? process.execPath : "deno";
  const hasDeno = spawnSync(deno, ["--version"]).status === 0;
  test.if(hasDeno)("says in a line what is wrong with a variable, and serves nobody", async () => {
    const output = join(workshop.path, "wrong");
    await bundleTo("deno", output);
    const cases = [
      [{ ESPALIER_PORT: "tcp://10.0.0.1:80" }, 2, "error USAGE: ESPALIER_PORT: "],
      [{ ESPALIER_KEYS: "nonsense" }, 2, "error USAGE: ESPALIER_KEYS, line 1: "],
      [{ ESPALIER_QUEUE: "many" }, 2, "error USAGE: ESPALIER_QUEUE: "],
      [{ ESPALIER_HOST: "192.0.2.1" }, 1, "error LISTEN_FAILED: cannot listen on 192.0.2.1, "],
    ] as const;
    for (const [env, code, said] of cases) {
      const { status, stderr } = spawnSync(deno, ["run", "-A", "main.js"], {
        cwd: output,
        encoding: "utf8",
        env: { ...process.env, NO_COLOR: "1", ...env },
      });
      expect({ status, said: stderr.slice(0, said.length) }).toEqual({ status: code, said });
      expect(stderr.trim()).not.toContain("\n");
    }
  }, LONG);

  /** Starts it on a free port, and waits until it listens. */
  async function listening(
    cwd: string,
    variables: Readonly<Record<string, string>> = {},
    words = ["run", "-A", "main.js"],
  ) {
    const env = { ...process.env, NO_COLOR: "1", ESPALIER_PORT: "0", ...variables };
    const child = spawn(deno, words, { cwd, env });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    let said = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => said += text);
    }
    for (;;) {
      const [, hostname, port] = /Listening on http:\/\/(\S+):(\d+)/.exec(said) ?? [];
      if (port !== undefined) return { child, ended, hostname, port: Number(port) };
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** What it answers by three names: one of somebody else's, and two of this machine. */
  async function statusesOf({ child, ended, port }: Awaited<ReturnType<typeof listening>>) {
    const statusFor = (host: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        get({ host: "127.0.0.1", port, path: "/health", headers: { host } }, (answer) => {
          answer.resume();
          resolve(answer.statusCode);
        }).on("error", reject);
      });
    const all = await Promise.all(["rebound.example", "localhost", "127.0.0.1"].map(statusFor));
    child.kill("SIGKILL");
    await ended;
    return all;
  }

  test.if(hasDeno)("is asked by this machine's names alone where it has no keys", async () => {
    const output = join(workshop.path, "asked");
    await bundleTo("deno", output);
    const statuses = async (variables: Readonly<Record<string, string>>) =>
      await statusesOf(await listening(output, variables));
    expect(await statuses({})).toEqual([403, 200, 200]);
    expect(await statuses({ ESPALIER_ALLOW_HOST: "x.example, Rebound.example" }))
      .toEqual([200, 200, 200]);
    expect(await statuses({ ESPALIER_HOST: "0.0.0.0" })).toEqual([200, 200, 200]);
    expect(await statuses({ ESPALIER_KEYS: `till-3 ${"0".repeat(64)}` })).toEqual([200, 200, 200]);
  }, LONG);

  test.if(hasDeno)("is by deno serve what it is else: on this machine, by its names", async () => {
    const output = join(workshop.path, "served");
    await bundleTo("deno", output);
    const { tasks } = JSON.parse(readFileSync(join(output, "deno.json"), "utf8"));
    const words: string[] = tasks.serve.replace("--port 8080", "--port 0").split(" ").slice(1);
    const served = await listening(output, {}, words);
    expect(served.hostname).toBe("127.0.0.1");
    expect(await statusesOf(served)).toEqual([403, 200, 200]);
    const everywhere = words.map((word) => word === "127.0.0.1" ? "0.0.0.0" : word);
    expect(await statusesOf(await listening(output, {}, everywhere))).toEqual([200, 200, 200]);
  }, LONG);

  test.if(hasDeno)("lets answers end after Ctrl-C, and ends at once after another", async () => {
    const output = join(workshop.path, "stopped");
    await bundleTo("deno", output);
    const { child, ended, port } = await listening(output);
    // A request that never comes to its end.
    const client = connect(port, "127.0.0.1").on("error", () => {});
    client.write(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
        "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    );
    // It is being read.
    await new Promise((resolve) => client.once("data", resolve));
    const wait = (milliseconds: number) =>
      Promise.race([ended, new Promise((resolve) => setTimeout(resolve, milliseconds, "runs"))]);
    // Not child.kill(): in Deno it kills once.
    const interrupt = () => void process.kill(child.pid!, "SIGINT");
    interrupt();
    interrupt();
    expect(await wait(1000)).toBe("runs");
    // A busy machine may have told it of the first ones so late that this one comes with them.
    let how: unknown = "runs";
    for (let i = 0; i < 20 && how === "runs"; i++) {
      interrupt();
      how = await wait(1000);
    }
    expect(how).toBe(130);
    client.destroy();
  }, LONG);
});

test("what its engine cannot load is refused, and nothing is written", async () => {
  const damaged = workshop.folder();
  cpSync(model, damaged, { recursive: true });
  writeFileSync(join(damaged, "onnx/model.onnx_data"), "damaged");
  const edited = workshop.folder();
  cpSync(model, edited, { recursive: true });
  writeFileSync(join(edited, "tokenizer_config.json"), "{}");
  const broken = workshop.folder();
  cpSync(model, broken, { recursive: true });
  forgetHashes(broken);
  writeFileSync(join(broken, "tokenizer.json"), "{}");
  const other = workshop.folder();
  cpSync(model, other, { recursive: true });
  forgetHashes(other);
  addUnknownOperator(other);
  const cases = [
    ["CONTEXT_OVERFLOW", model, "deno", "--context", "4096"],
    ["CONTEXT_OVERFLOW", model, "cloudflare", "--context", "4096"],
    ["CONTEXT_OVERFLOW", model, "binary", "--context", "4096"],
    ["INTEGRITY", damaged, "deno"],
    ["INTEGRITY", damaged, "cloudflare"],
    ["INTEGRITY", damaged, "binary"],
    ["INTEGRITY", edited, "binary"],
    ["TOKENIZER_INVALID", broken, "binary"],
    ["TARGET_UNFIT", other, "deno"],
  ];
  for (const [code, bundled, target, ...more] of cases) {
    const output = join(workshop.path, "refused");
    await fail(1, code, ["bundle", bundled, "--target", target, "-o", output, ...more]);
    expect(existsSync(output)).toBe(false);
  }
}, LONG);

describe("a bundle that is a folder", () => {
  test("has no hidden files: the model's folder may be one of git, or hold secrets", async () => {
    const hiding = workshop.folder();
    cpSync(model, hiding, { recursive: true });
    mkdirSync(join(hiding, ".git/lfs"), { recursive: true });
    mkdirSync(join(hiding, "onnx/.cache"));
    for (const path of [".env", ".git/lfs/weights", "onnx/.cache/x", "LICENSE"]) {
      writeFileSync(join(hiding, path), "1234567");
    }
    for (const [target, at] of [["cloudflare", "assets"], ["deno", "model"], ["static", "model"]]) {
      const output = join(workshop.path, `hidden-${target}`);
      const { bytes } = await report("bundle", hiding, "--target", target, "-o", output);
      const paths = pathsIn(join(output, at));
      expect(paths).toContain("LICENSE");
      expect(paths.filter((path) => /(^|\/)\./.test(path))).toEqual([]);
      expect(bytes.model).toBe(bytesIn(model) + 7);
    }
  }, LONG);

  test("replaces an earlier one only by --force, and nothing else at all", async () => {
    const output = join(workshop.path, "twice");
    await bundleTo("deno", output);
    const words = ["bundle", model, "--target", "deno", "-o", output];
    await fail(1, "OUTPUT_EXISTS", words, output);
    await succeed(...words, "--force");
    const other = workshop.folder();
    writeFileSync(join(other, "letter.txt"), "dear");
    await fail(1, "OUTPUT_EXISTS", [...words.slice(0, -1), other, "--force"]);
    expect(readdirSync(other)).toEqual(["letter.txt"]);
  }, LONG);

  test("leaves nothing when it is stopped", async () => {
    const folder = workshop.folder();
    const words = ["bundle", model, "--target", "cloudflare", "-o", join(folder, "out")];
    const running = start(words);
    await running.says("loading the model once");
    running.kill("SIGINT");
    expect((await running.ended).code).toBe(1);
    expect(readdirSync(folder)).toEqual([]);
  }, LONG);
});

describe("the account of a Worker's memory", () => {
  /** About as SmolLM2-135M at 4:16. */
  const measured: Measured = {
    weights: 69_900_000,
    engine: 80_400_000,
    enginePerToken: 256,
    cacheBytesPerToken: 12_240,
    stateBytes: 0,
    context: 8192,
    vocabulary: 49_152,
    hidden: 576,
    tokenizer: 3_522_871,
    card: undefined,
  };

  test("allows the longest context that fits, and no page more", () => {
    for (const parallel of [1, 2]) {
      const context = longestContext(measured, parallel);
      expect(context % 64).toBe(0);
      expect(account(measured, { context, parallel }).total).toBeLessThanOrEqual(LIMIT);
      expect(account(measured, { context: context + 64, parallel }).total).toBeGreaterThan(LIMIT);
    }
  });

  test("takes off what a shorter context needs no tables for", () => {
    const without = { ...measured, enginePerToken: 0 };
    const shape = { context: 1000, parallel: 1 };
    const saved = account(without, shape).total - account(measured, shape).total;
    expect(saved).toBeGreaterThan((8192 - 1000) * 256 - 65_536);
    expect(saved).toBeLessThan((8192 - 1000) * 256 + 65_536);
    expect(longestContext(measured, 1)).toBeGreaterThan(longestContext(without, 1));
  });

  test("leaves the engine room for every page of every sequence", () => {
    const pages = 3 * Math.ceil(300 / 64);
    const bytes = engineBytes(measured, { context: 300, parallel: 3 });
    const engine = measured.engine - (measured.context - 300) * measured.enginePerToken;
    expect(bytes).toBeGreaterThanOrEqual(engine + pages * 64 * 12_240);
  });

  test("leaves it room for what every sequence remembers", () => {
    const shape = { context: 300, parallel: 3 };
    const remembering = { ...measured, stateBytes: 1_000_000 };
    const more = engineBytes(remembering, shape) - engineBytes(measured, shape);
    expect(Math.abs(more - 3_000_000)).toBeLessThan(70_000);
  });

  test("says of a model that is too large what of it would fit", () => {
    const card = {
      parameters: 106_168_320,
      sparsity: 0.5,
      values: "int8",
      formats: {},
      blocks: [],
      dense: { f16: 2 * 106_168_320 + 30_000_000, int8: 0, int4: 0 },
    };
    const large = { ...measured, weights: 109_700_000, engine: 120_200_000 };
    expect(longestContext(large, 1)).toBe(0);
    const ways = advice({ ...large, card }, { parallel: 1 });
    expect(ways).toContain("--pattern 8:16 --values int4 --head int4");
    expect(ways).toContain("pruned to 4:16");
    expect(ways).not.toContain("pruned to 8:16");
    expect(advice(large, { parallel: 1 })).toMatch(/weights take \d\d % of this one's/);
  });
});
