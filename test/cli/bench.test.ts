/**
 * `bench`: each test starts the program in a process of its own.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { appendFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { Workshop } from "../checkpoint/support.ts";
import { flipBit } from "../compile/support.ts";
import { fail, failAll, matches, report, start, succeed, TINY } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const LONG = 120_000;
/** The least that can be measured. */
const ONCE = ["--repeat", "1", "--threads", "1"];
const compiled = join(workshop.path, "compiled");

beforeAll(async () => {
  await succeed("compile", TINY, "-o", compiled);
}, LONG);

describe("bench", () => {
  test("prints one JSON object with the figures of one engine", async () => {
    const found = await report("bench", compiled, "--engine", "ort", "--device", "wasm", ...ONCE);
    matches(found, {
      model: "compiled",
      context: 512,
      repeat: 1,
      missing: [],
      results: [{ engine: "ort", threads: 1, why: "it was asked for", decode: { after: 32 } }],
    });
    const [{ prefill, decode, ...result }] = found.results;
    expect(prefill.map(({ tokens }: { tokens: number }) => tokens)).toEqual([128, 512]);
    for (const { tokensPerSecond } of [...prefill, decode]) {
      expect(tokensPerSecond).toBeGreaterThan(1);
    }
    for (const figure of ["loadSeconds", "weightBytes", "cacheBytesPerToken", "peakBytes"]) {
      expect(result[figure]).toBeGreaterThan(0);
    }
  }, LONG);

  test("measures every engine that is here, each in a process of its own", async () => {
    const { results, missing } = await report("bench", compiled, "--device", "wasm", ...ONCE);
    expect(results.map(({ engine }: { engine: string }) => engine)).toEqual(["sparse", "ort"]);
    expect(missing).toEqual([]);
    const { stdout } = await succeed("bench", compiled, "--device", "wasm", ...ONCE);
    for (
      const shown of [
        "compiled: ",
        "prefill 128",
        "decode",
        "peak memory",
        "sparse: WebAssembly",
        "ort: WebAssembly",
      ]
    ) {
      expect(stdout).toContain(shown);
    }
  }, LONG);

  test("tells of an engine that is not here instead of leaving it out", async () => {
    // Keys and values in int8 are the sparse engine's own: they are not asked of the other.
    const little = ["--context", "64", "--memory", "20MB", "--kv", "int8"];
    const { results, missing } = await report("bench", compiled, ...little, ...ONCE);
    expect(results.map(({ engine }: { engine: string }) => engine)).toEqual(["sparse"]);
    expect(missing.length).toBe(2);
    for (const { engine, reason } of missing) {
      expect(engine).toBe("ort");
      expect(reason).toMatch(/^error (MEMORY_BUDGET|BACKEND_FAILED): /);
    }
  }, LONG);

  test(
    "measures files that were changed on purpose, where they are not to be checked",
    async () => {
      const changed = workshop.fresh("changed");
      cpSync(compiled, changed, { recursive: true });
      appendFileSync(join(changed, "config.json"), "\n");
      const words = ["bench", changed, "--device", "wasm", ...ONCE];
      await failAll(1, "BACKEND_FAILED", [[words, "INTEGRITY"]]);
      const { results, missing } = await report(...words, "--unchecked");
      expect(missing).toEqual([]);
      expect(results.map(({ engine }: { engine: string }) => engine)).toEqual(["sparse", "ort"]);
    },
    LONG,
  );

  test(
    "says once of a compiled model that it has its values, and nothing of what it compiles",
    async () => {
      const words = ["--engine", "sparse", "--values", "int4", ...ONCE];
      const { stderr } = await succeed("bench", TINY, ...words);
      expect(stderr).not.toContain("changes nothing");
      const { stderr: told } = await succeed("bench", compiled, ...words);
      expect(told.split("compiled is compiled already: values int4").length).toBe(2);
    },
    LONG,
  );

  test("measures a model on the web, in the engine that reads it there", async () => {
    const server = createServer((request, response) => {
      const path = join(compiled, decodeURI(request.url!).replace(/^\/models\/tiny\//, ""));
      const found = existsSync(path);
      response.writeHead(found ? 200 : 404).end(found ? readFileSync(path) : "");
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/models/tiny/`;
      const { model, results, missing } = await report("bench", url, "--device", "wasm", ...ONCE);
      expect(model).toBe("tiny");
      expect(results.map(({ engine }: { engine: string }) => engine)).toEqual(["sparse"]);
      expect(missing[0].reason).toContain("ONNX Runtime loads from a folder only");
    } finally {
      server.close();
    }
  }, LONG);

  test("compiles a checkpoint once, measures what its context holds, and cleans up", async () => {
    const folder = workshop.fresh("temporary");
    mkdirSync(folder);
    const words = ["bench", TINY, "--device", "wasm", "--context", "200", ...ONCE, "--json"];
    const { code, stdout, stderr } = await start(words, { env: { TMPDIR: folder } }).ended;
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    const found = JSON.parse(stdout);
    matches(found, { model: "tiny", context: 200 });
    expect(found.results[0].prefill.length).toBe(1);
    expect(readdirSync(folder)).toEqual([]);
  }, LONG);

  test("stops at Ctrl-C with all that it has started", async () => {
    const folder = workshop.fresh("temporary");
    mkdirSync(folder);
    const words = ["bench", TINY, "--repeat", "100", "--threads", "1"];
    const running = start(words, { env: { TMPDIR: folder } });
    await running.says("pack embeddings");
    running.kill("SIGINT");
    const { code, stderr } = await running.ended;
    expect(stderr).toContain("error ABORTED: ");
    expect(code).toBe(1);
    expect(readdirSync(folder)).toEqual([]);
  }, LONG);

  test("says once what is wrong with a model for all engines", async () => {
    const damaged = workshop.folder();
    cpSync(compiled, damaged, { recursive: true });
    flipBit(join(damaged, "onnx/model.onnx_data"));
    const words = ["bench", damaged, ...ONCE];
    const stderr = await fail(
      1,
      "BACKEND_FAILED",
      words,
      "sparse on wasm, ort on wasm, ort on cpu: ",
    );
    expect(stderr.split("INTEGRITY").length).toBe(2);
  }, LONG);

  test(
    "ends with 2 for what could never have worked, with 1 where no engine runs the model",
    async () => {
      await failAll(2, "USAGE", [
        [["bench", compiled, "--repeat", "0"], "--repeat"],
        [["bench", compiled, "--engine", "all engines"], "--engine"],
      ]);
      await failAll(1, "BACKEND_FAILED", [
        [
          ["bench", compiled, "--memory", "1kB", ...ONCE],
          "no engine runs this model",
          "MEMORY_BUDGET",
        ],
      ]);
      await failAll(1, "CHECKPOINT_NOT_FOUND", [[["bench", "nowhere"], "nowhere"]]);
    },
    LONG,
  );
});
