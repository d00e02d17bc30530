/**
 * `bundle --target binary`: binaries that are moved elsewhere and run with nothing around them. ONNX
 * Runtime, on the same model outside, says what they should write.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import process from "node:process";
import { BUN_VERSION, findBun } from "../../src/bundle/bun.ts";
import { load } from "../../src/generate/load.ts";
import { bytesIn } from "../../src/platform/folders.ts";
import { runToEnd } from "../../src/platform/run_to_end.ts";
import { runtime } from "../../src/platform/runtime.ts";
import { Workshop } from "../checkpoint/support.ts";
import { fail, report, ROOT, start, succeed } from "../cli/support.ts";
import { addUnknownOperator, forgetHashes } from "../compile/support.ts";
import { readOnlyFolder, smallDisk } from "../support/disks.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
const LONG = 300_000;
const PROMPT = "The population of the country";
const COUNT = 12;
/** Has Bun find no registry. */
const UNREACHABLE = {
  BUN_CONFIG_REGISTRY: "http://127.0.0.1:9/",
  HTTPS_PROXY: "http://127.0.0.1:9/",
  HTTP_PROXY: "http://127.0.0.1:9/",
};
/** Whether the Bun that is here is another than binaries carry. */
const isOtherBun = await hasOtherBun();
/** Whether there is a Deno, which asks for permissions. */
const hasDeno = (await runToEnd(["deno", "--version"])).code === 0;
/** On Windows a binary has an end to its name. */
const EXE = process.platform === "win32" ? ".exe" : "";

const model = join(workshop.path, "small");
/** Made once, and then copied to where a test runs it. */
const made = join(workshop.path, "made");
/** What ONNX Runtime writes. */
let expected = "";

beforeAll(async () => {
  await succeed("compile", fromRoot("examples/tiny"), "-o", model, "--values", "f32");
  await using loaded = await load(model, { engine: "ort", device: "wasm", threads: 1 });
  for await (const piece of loaded.generate(PROMPT, { maxTokens: COUNT })) {
    if (piece.type === "text") expected += piece.text;
  }
  const { output } = await report("bundle", model, "--target", "binary", "-o", made);
  renameSync(output, made);
}, LONG);
afterAll(() => workshop.remove());

/** Words that make a binary of the model. */
const bundle = (output: string, ...words: string[]) => [
  "bundle",
  model,
  "--target",
  "binary",
  "-o",
  output,
  ...words,
];

async function hasOtherBun(): Promise<boolean> {
  const { code, stdout } = await runToEnd([...await findBun(), "--version"]);
  return code === 0 && stdout.trim() !== BUN_VERSION;
}

/** A binary in a folder that holds nothing else. */
function moved(from = made): { binary: string; folder: string } {
  const folder = workshop.folder();
  const binary = join(folder, `moved${EXE}`);
  copyFileSync(from, binary);
  return { binary, folder };
}

/** Starts a binary where there is nothing: no path, no home, an empty folder. */
function begin(binary: string, words: readonly string[]) {
  const cwd = workshop.folder();
  const child = spawn(binary, words, {
    cwd,
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: "", HOME: join(cwd, "nobody"), TMPDIR: cwd, NO_COLOR: "1" },
  });
  const heard = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => heard.stdout += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => heard.stderr += text);
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>(
    (resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code) => resolve({ code, ...heard }));
    },
  );
  return { child, heard, ended, cwd };
}

/** Runs a binary to its end; it must leave nothing where it ran. */
async function run(binary: string, ...words: string[]) {
  const { ended, cwd } = begin(binary, words);
  const result = await ended;
  expect(readdirSync(cwd)).toEqual([]);
  return result;
}

const GENERATE = ["generate", "--prompt", PROMPT, "--max-tokens", `${COUNT}`];

describe("a binary", () => {
  test("writes what ONNX Runtime writes, moved to where there is nothing else", async () => {
    const { code, stdout, stderr } = await run(moved().binary, ...GENERATE);
    expect({ code, stdout, stderr: code === 0 ? "" : stderr })
      .toEqual({ code: 0, stdout: `${expected}\n`, stderr: "" });
    expect(stderr).toContain("sparse engine");
  }, LONG);

  test("is at most 100 MB larger than its model", () => {
    expect(statSync(made).size - bytesIn(model)).toBeLessThanOrEqual(100e6);
  });

  test.if(isOtherBun)(
    "carries the Bun that is here where the smallest cannot be fetched",
    async () => {
      const output = join(workshop.folder(), "x");
      // Nobody answers there, and nothing has been fetched into these folders.
      const env = {
        TMPDIR: workshop.folder(),
        BUN_INSTALL_CACHE_DIR: workshop.folder(),
        ...UNREACHABLE,
        npm_config_cache: workshop.folder(),
        npm_config_registry: UNREACHABLE.BUN_CONFIG_REGISTRY,
      };
      const { code, stdout, stderr } = await start(bundle(output), { env }).ended;
      expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining("fetched") });
      expect(stdout).toContain("generate --prompt");
      expect(statSync(`${output}${EXE}`).size).toBeGreaterThan(statSync(made).size);
    },
    LONG,
  );

  test("has the commands that run a model, under its own name, and no other", async () => {
    const { binary } = moved();
    const help = await run(binary, "--help");
    expect(help.code).toBe(0);
    expect(help.stdout).toContain(`Usage: ./moved${EXE} COMMAND`);
    const names = [...help.stdout.matchAll(/^ {2}(\w+) {2,}/gm)].map(([, name]) => name);
    expect(names).toEqual(["generate", "chat", "serve", "key", "bench"]);
    for (const name of names) {
      const { code, stdout } = await run(binary, name, "--help");
      expect(code).toBe(0);
      expect(stdout).not.toMatch(/mod\.ts|the example/);
    }
    const { code, stderr } = await run(binary, "prune");
    expect({ code, stderr: stderr.split("\n")[0] }).toEqual({
      code: 2,
      stderr: "error USAGE: unknown command prune (commands: generate, chat, serve, key, bench)",
    });
  }, LONG);

  test("runs another folder that is named", async () => {
    const other = join(workshop.folder(), "other");
    cpSync(model, other, { recursive: true });
    const { stdout } = await run(moved().binary, ...GENERATE, "--json", other);
    const { model: name, text } = JSON.parse(stdout);
    expect({ name, text }).toEqual({ name: "other", text: expected });
  }, LONG);

  test("serves on its own threads, and ends with 0 on SIGTERM", async () => {
    const { child, heard, ended } = begin(moved().binary, ["serve", "--port", "0", "--json"]);
    try {
      while (!heard.stdout.includes("\n")) {
        expect(child.exitCode).toBeNull();
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      const { url, models } = JSON.parse(heard.stdout);
      expect(models).toEqual(["small"]);
      const response = await fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "small", prompt: PROMPT, max_tokens: COUNT, temperature: 0 }),
      });
      const { choices } = await response.json();
      expect(choices[0].text).toBe(expected);
      expect(await (await fetch(`${url}/`)).text()).toContain("<!doctype html>");
    } finally {
      process.kill(child.pid!, "SIGTERM");
    }
    const { code, stderr } = await ended;
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    expect(stderr).toContain("all requests have been answered");
  }, LONG);

  test("talks, makes keys and measures itself", async () => {
    const { binary } = moved();
    const key = JSON.parse((await run(binary, "key", "--name", "till", "--json")).stdout);
    expect(key.name).toBe("till");
    const words = ["bench", "--engine", "all", "--repeat", "1", "--json"];
    const { results, missing } = JSON.parse((await run(binary, ...words)).stdout);
    expect(results.map(({ engine }: { engine: string }) => engine)).toEqual(["sparse"]);
    for (const { reason } of missing) expect(reason).toContain("BACKEND_FAILED");
  }, LONG);

  test("without --with-ort has no ONNX Runtime, wherever it runs", async () => {
    const { binary, folder } = moved();
    for (const name of ["onnxruntime-node", "onnxruntime-web"]) {
      const at = join(folder, "node_modules", name);
      mkdirSync(at, { recursive: true });
      writeFileSync(join(at, "package.json"), JSON.stringify({ name, main: "index.js" }));
      writeFileSync(join(at, "index.js"), 'console.log("a stranger")');
    }
    for (
      const [words, hint] of [
        [["--engine", "ort"], "--with-ort"],
        [["--device", "cpu"], "no native ONNX Runtime"],
        [["--device", "webgpu"], "no WebGPU"],
      ] as const
    ) {
      const { code, stdout, stderr } = await run(binary, ...GENERATE, ...words);
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
      expect(stderr).toContain("error BACKEND_FAILED: ");
      expect(stderr).toContain(hint);
    }
  }, LONG);

  test("that was damaged says so", async () => {
    const { binary } = moved();
    const bytes = readFileSync(binary);
    const weights = readFileSync(join(model, "onnx/model.onnx_data"));
    const at = bytes.indexOf(weights.subarray(0, 4096));
    expect(at).toBeGreaterThan(0);
    bytes[at + weights.length - 100] ^= 1;
    writeFileSync(binary, bytes);
    const { code, stderr } = await run(binary, ...GENERATE);
    expect(code).toBe(1);
    expect(stderr).toContain("error INTEGRITY: ");
  }, LONG);

  test("with --with-ort runs ONNX Runtime, too", async () => {
    const output = workshop.fresh();
    await succeed("bundle", model, "--target", "binary", "--with-ort", "-o", output);
    const { binary } = moved(output + EXE);
    for (const [engine, name] of [["ort", "ONNX Runtime"], ["sparse", "sparse engine"]]) {
      const { code, stdout, stderr } = await run(binary, ...GENERATE, "--engine", engine);
      expect({ code, stdout, stderr: code === 0 ? "" : stderr })
        .toEqual({ code: 0, stdout: `${expected}\n`, stderr: "" });
      expect(stderr).toContain(name);
    }
  }, LONG);

  test.if(process.platform !== "win32")(
    "is not made of files whose names it cannot hold",
    async () => {
      for (const name of ['q"x', "a\nb", "a\\b"]) {
        const other = join(workshop.folder(), "other");
        cpSync(model, other, { recursive: true });
        writeFileSync(join(other, name), "x");
        const output = workshop.fresh();
        const words = ["bundle", other, "--target", "binary", "-o", output];
        await fail(1, "TARGET_UNFIT", words, "--external-model");
        expect(existsSync(output)).toBe(false);
      }
    },
    LONG,
  );

  test("runs in ONNX Runtime what our engine does not, and is not made without it", async () => {
    const other = join(workshop.folder(), "other");
    cpSync(model, other, { recursive: true });
    forgetHashes(other);
    addUnknownOperator(other);
    const output = workshop.fresh();
    const words = ["bundle", other, "--target", "binary", "-o", output];
    await fail(1, "TARGET_UNFIT", words, "Elu", "--with-ort");
    expect(existsSync(output)).toBe(false);
    await succeed(...words, "--with-ort");
    const { stdout } = await run(output + EXE, ...GENERATE, "--json");
    const { engine, text } = JSON.parse(stdout);
    expect(engine.engine).toBe("ort");
    expect(text.length).toBeGreaterThan(0);
  }, LONG);

  test("with --external-model takes the model from the folder beside it", async () => {
    const output = workshop.fresh();
    const words = ["--external-model", "--context", "64", "--kv", "int8", "-o", output];
    await succeed("bundle", model, "--target", "binary", ...words);
    const { binary, folder } = moved(output + EXE);
    const beside = join(folder, "moved.model");
    renameSync(`${output}.model`, beside);
    expect((await run(binary, ...GENERATE, "--kv", "f32")).stdout).toBe(`${expected}\n`);
    // What it was made with holds where a command does not say otherwise.
    const ask = async (...words: string[]) =>
      JSON.parse((await run(binary, ...GENERATE, "--json", ...words)).stdout);
    const { model: name, engine: { context, device } } = await ask();
    // Not what the program is called.
    expect(name).toBe("small");
    expect({ context, int8: device.includes("int8 cache") }).toEqual({ context: 64, int8: true });
    expect((await ask("--context", "32")).engine.context).toBe(32);
    rmSync(beside, { recursive: true });
    const { code, stderr } = await run(binary, ...GENERATE);
    expect(code).toBe(1);
    expect(stderr).toContain("error CHECKPOINT_NOT_FOUND: ");
  }, LONG);
});

describe("bundle --target binary", () => {
  test("replaces a file only when it is told to, and never a folder", async () => {
    const folder = workshop.folder();
    const file = join(folder, `file${EXE}`);
    writeFileSync(file, "mine");
    await fail(1, "OUTPUT_EXISTS", bundle(file), "--force");
    expect(readFileSync(file, "utf8")).toBe("mine");
    await succeed(...bundle(file, "--force"));
    expect((await run(file, "--version")).stdout).toMatch(/^espalier /);
    await fail(1, "OUTPUT_EXISTS", bundle(folder, "--force"), "is a folder");
    expect(readdirSync(folder)).toEqual([`file${EXE}`]);
  }, LONG);

  test(
    "needs a folder that it may write in, and room: else it says so and leaves nothing",
    async () => {
      const limits = [
        [readOnlyFolder, "FILE_UNWRITABLE"],
        // More than the packages take that are bundled, and less than Bun does.
        [(folder: string) => smallDisk(folder, "40m"), "DISK_FULL"],
      ] as const;
      for (const [limit, code] of limits) {
        const folder = workshop.folder();
        const limited = limit(folder);
        if (!limited) continue;
        try {
          await fail(1, code, bundle(join(folder, "x")), folder);
          expect(readdirSync(folder)).toEqual([]);
        } finally {
          limited.release();
        }
      }
    },
    LONG,
  );

  test(
    "takes a model by a relative path, whatever its name",
    async () => {
      const folder = workshop.folder();
      const name = process.platform === "win32" ? "it's small" : 'it\'s "small"';
      cpSync(model, join(folder, name), { recursive: true });
      const from = relative(ROOT, join(folder, name));
      const output = join(folder, "a b");
      const { next } = await report("bundle", from, "--target", "binary", "-o", output);
      expect(next[1]).toBe(`'${output}' serve`);
      expect((await run(`${output}${EXE}`, ...GENERATE)).stdout).toBe(`${expected}\n`);
      const { stdout } = await run(`${output}${EXE}`, "--help");
      expect(stdout).toContain(`Usage: './a b${EXE}' COMMAND`);
    },
    LONG,
  );

  test("does not take a folder that is no model for the model beside it", async () => {
    const folder = workshop.folder();
    const beside = join(folder, "x.model");
    mkdirSync(beside);
    writeFileSync(join(beside, "letter.txt"), "mine");
    for (const words of [[], ["--force"]]) {
      await fail(1, "OUTPUT_EXISTS", bundle(join(folder, "x"), "--external-model", ...words));
    }
    expect(readdirSync(folder)).toEqual(["x.model"]);
    expect(readdirSync(beside)).toEqual(["letter.txt"]);
  }, LONG);

  test.if(hasDeno)("names the flag where Deno may start no program", async () => {
    const flags = ["read", "write", "env", "sys", "net"].map((what) => `--allow-${what}`);
    const output = workshop.fresh();
    const { code, stderr } = await runToEnd(
      ["deno", "run", "--no-prompt", ...flags, "mod.ts", ...bundle(output)],
      { cwd: ROOT },
    );
    expect(code).toBe(1);
    expect(stderr).toContain("error PERMISSION_MISSING: ");
    expect(stderr).toContain("--allow-run");
    expect(existsSync(output)).toBe(false);
  }, LONG);

  test("refuses a platform that Bun has not, and leaves nothing", async () => {
    const folder = workshop.folder();
    const words = bundle(join(folder, "x"), "--platform", "bun-plan9-x64");
    await fail(2, "USAGE", words, "bun-plan9-x64");
    await fail(2, "USAGE", bundle(join(folder, "x"), "--platform", "linux"), "bun-linux-arm64");
    expect(readdirSync(folder)).toEqual([]);
  }, LONG);

  test("says what Bun said where another platform or version cannot be fetched", async () => {
    const folder = workshop.folder();
    // Nothing has been fetched here yet, and nobody answers there.
    const env = {
      BUN_INSTALL_CACHE_DIR: workshop.folder(),
      BUN_INSTALL: workshop.folder(),
      ...UNREACHABLE,
    };
    for (const platform of ["bun-freebsd-x64", "bun-linux-x64-v1.3.13"]) {
      const words = bundle(join(folder, "x"), "--platform", platform);
      const { code, stdout, stderr } = await start(words, { env }).ended;
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
      expect(stderr).toContain(`error TOOL_MISSING: Bun made no binary for ${platform}: `);
    }
    expect(readdirSync(folder)).toEqual([]);
  }, LONG);

  test("leaves nothing after Ctrl-C", async () => {
    const folder = workshop.folder();
    const program = start(bundle(join(folder, "new", "x")));
    while (!existsSync(join(folder, "new"))) await new Promise((r) => setTimeout(r, 5));
    program.kill("SIGINT");
    const { code, stderr } = await program.ended;
    expect(code).toBe(1);
    expect(stderr).toContain("error ABORTED: ");
    expect(readdirSync(folder)).toEqual([]);
  }, LONG);

  test.if(runtime().name === "deno")("says what to install where there is no Bun", async () => {
    const folder = workshop.folder();
    const words = bundle(join(folder, "x"));
    const { code, stderr } = await start(words, { env: { PATH: folder } }).ended;
    expect(code).toBe(1);
    expect(stderr).toContain("error TOOL_MISSING: ");
    expect(stderr).toContain("npm install -g bun@");
    expect(readdirSync(folder)).toEqual([]);
  }, LONG);
});
