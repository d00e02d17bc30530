/**
 * `generate`, as people meet it: each test starts the program in a process of its own. What the text
 * is made of is tested in `test/generate` and `test/text`.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { prune } from "../../src/api/prune.ts";
import { editJson, filesOf, Workshop } from "../checkpoint/support.ts";
import { fail, failAll, matches, report, start, succeed, TINY } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** A limit for tests that start several processes; Bun's own is 5 s. */
const LONG = 120_000;
/** ONNX Runtime, as every machine has it. */
const ORT = ["--engine", "ort", "--device", "wasm", "--threads", "1"];
const PROMPT = "The population of the country";

/** The example pruned to 8:16, and a folder that it was compiled into. */
const pruned = join(workshop.path, "pruned");
const compiled = join(workshop.path, "compiled");

beforeAll(async () => {
  const uniform = { method: "magnitude", allocation: "uniform" } as const;
  await prune({ model: TINY, output: pruned, ...uniform, pattern: "8:16" });
  await succeed("compile", pruned, "-o", compiled);
}, LONG);

/** An environment with a temporary folder of its own, and what is left in it. */
function ownTemporary(): { env: Record<string, string>; left: () => string[] } {
  const folder = workshop.fresh("temporary");
  mkdirSync(folder);
  return { env: { TMPDIR: folder }, left: () => readdirSync(folder) };
}

describe("generate", () => {
  test("on its own prunes, compiles and runs the example, and leaves nothing behind", async () => {
    const before = filesOf(TINY);
    const { env, left } = ownTemporary();
    const { code, stdout, stderr } = await start(["generate"], { env }).ended;
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout.trim().length).toBeGreaterThan(100);
    for (const said of [`prompt: ${PROMPT}`, "prune blocks", "pack linears", "tokens/s", "first"]) {
      expect(stderr).toContain(said);
    }
    expect(left()).toEqual([]);
    expect(filesOf(TINY)).toEqual(before);
  }, LONG);

  test(
    "writes the text alone to standard output, figures and engine to standard error",
    async () => {
      const words = ["generate", compiled, "--prompt", PROMPT, "--max-tokens", "16", ...ORT];
      const { stdout, stderr } = await succeed(...words);
      const { text } = await report(...words);
      expect(stdout).toBe(`${text}\n`);
      expect(stderr).toMatch(/^\d+ tokens in, 16 out: first after .*, [\d.]+ tokens\/s$/m);
      expect(stderr).toMatch(/^ONNX Runtime on WebAssembly.*: it was asked for; ready after/m);
    },
    LONG,
  );

  test("prints one JSON object with the text and how it came about", async () => {
    const found = await report(
      ...["generate", compiled, "--prompt", PROMPT, "--max-tokens", "5", "--logprobs", "2"],
      ...["--temperature", "0.9", "--seed", "11", ...ORT],
    );
    expect(Object.keys(found).sort()).toEqual([
      "cachedTokens",
      "completionTokens",
      "engine",
      "finishReason",
      "logprobs",
      "model",
      "notes",
      "peakBytes",
      "prompt",
      "promptTokens",
      "secondsToFirstToken",
      "seed",
      "text",
      "tokens",
      "tokensPerSecond",
    ]);
    matches(found, {
      model: "compiled",
      prompt: PROMPT,
      finishReason: "length",
      completionTokens: 5,
      cachedTokens: 0,
      seed: 11,
      notes: [],
      engine: {
        engine: "ort",
        threads: 1,
        context: 512,
        vocabulary: 4096,
        why: "it was asked for",
      },
    });
    expect(found.tokens.length).toBe(5);
    expect(found.logprobs.map(({ token }: { token: number }) => token)).toEqual(found.tokens);
    expect(found.logprobs[0].top.length).toBe(2);
  }, LONG);

  test("draws the same text from the same seed, and another from another", async () => {
    const draw = async (seed: string) => {
      const words = ["--temperature", "1", "--max-tokens", "24", "--seed", seed, ...ORT];
      return (await report("generate", compiled, "--prompt", PROMPT, ...words)).text;
    };
    const [first, again, other] = await Promise.all([draw("1"), draw("1"), draw("2")]);
    expect(again).toBe(first);
    expect(other).not.toBe(first);
  }, LONG);

  test("takes the prompt from a file, from standard input and from a config file", async () => {
    const file = join(workshop.path, "prompt.txt");
    writeFileSync(file, `${PROMPT}\n`);
    const config = join(workshop.path, "generate.json");
    writeFileSync(
      config,
      JSON.stringify({ model: "compiled", promptFile: "prompt.txt", maxTokens: 8 }),
    );
    const few = ["--max-tokens", "8", ...ORT];
    const { stdout: expected } = await succeed("generate", compiled, "--prompt", PROMPT, ...few);
    const others = await Promise.all([
      succeed("generate", compiled, "--prompt-file", file, ...few),
      start(["generate", compiled, ...few], { input: `${PROMPT}\n` }).ended,
      start(["generate", compiled, "--prompt-file", "-", ...few], { input: PROMPT }).ended,
      start(["generate", compiled, "--prompt-file", "-", ...few], { input: `${PROMPT}\r\n` }).ended,
      succeed("generate", "--config", config, ...ORT),
    ]);
    for (const { stdout } of others) expect(stdout).toBe(expected);
  }, LONG);

  test("compiles a checkpoint on the way, pruned or dense", async () => {
    const { env, left } = ownTemporary();
    for (const model of [pruned, TINY]) {
      const words = ["generate", model, "--prompt", PROMPT, "--max-tokens", "4", "--json", ...ORT];
      const { code, stdout, stderr } = await start(words, { env }).ended;
      expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
      expect(JSON.parse(stdout).completionTokens).toBe(4);
    }
    expect(left()).toEqual([]);
  }, LONG);

  test("ends at a stop string, which is no part of the text", async () => {
    const words = ["generate", compiled, "--prompt", PROMPT, "--max-tokens", "60", ...ORT];
    const { text } = await report(...words);
    const stop = text.slice(20, 24);
    const found = await report(...words, "--stop", "not in it", "--stop", stop);
    matches(found, { finishReason: "stop", stopString: stop });
    expect(found.text).toBe(text.slice(0, text.indexOf(stop)));
  }, LONG);

  test("writes JSON that validates against a schema, and says when it was cut", async () => {
    const file = join(workshop.path, "schema.json");
    const properties = { river: { enum: ["long", "wide"] }, km: { type: "integer", maximum: 99 } };
    const schema = { type: "object", properties, required: ["river", "km"] };
    writeFileSync(file, JSON.stringify(schema));
    const words = ["generate", compiled, "--prompt", PROMPT, "--json-schema", file, ...ORT];
    const { stdout, stderr } = await succeed(...words, "--temperature", "1");
    const { river, km, ...rest } = JSON.parse(stdout);
    expect([properties.river.enum.includes(river), Number.isInteger(km), km <= 99, rest])
      .toEqual([true, true, true, {}]);
    expect(stderr).not.toContain("not whole");
    const cut = await succeed(...words, "--max-tokens", "3");
    expect(cut.stderr).toContain("the JSON is not whole");
    // The last token is taken, and not written.
    const stopped = await succeed(...words, "--stop", "}");
    expect(stopped.stdout).not.toContain("}");
    expect(stopped.stderr).toContain("the JSON is not whole");
    const found = await report(...words, "--ignore-eos");
    expect(found.finishReason).toBe("stop");
    expect(Object.keys(JSON.parse(found.text))).toEqual(["river", "km"]);
  }, LONG);

  test("stops at Ctrl-C, in the text or on the way to it, and leaves nothing behind", async () => {
    const endless = ["--prompt", PROMPT, "--ignore-eos", "--max-tokens", "15000"];
    const long = workshop.fresh("long");
    cpSync(TINY, long, { recursive: true });
    editJson(long, "config.json", (config) => void (config.max_position_embeddings = 16384));
    const { env, left } = ownTemporary();
    const writing = [ORT, ["--engine", "sparse", "--threads", "1"]].map((engine) =>
      start(["generate", long, ...endless, ...engine], { env })
    );
    await Promise.all(writing.map(async (program) => {
      await program.prints(" ");
      program.kill("SIGINT");
    }));
    const preparing = start(["generate", ...ORT], { env });
    await preparing.says("copy and check weights");
    preparing.kill("SIGTERM");
    for (const { ended } of [...writing, preparing]) {
      const { code, stderr } = await ended;
      expect(stderr).toContain("error ABORTED: ");
      expect(code).toBe(1);
    }
    expect(left()).toEqual([]);
  }, LONG);

  test("ends with 2 for what could never have worked", async () => {
    await failAll(2, "USAGE", [
      [["generate", compiled, "--prompt", "x", "--prompt-file", "y"], "give one of them"],
      [["generate", compiled], "standard input is empty"],
      [["generate", compiled, "--prompt", "x", "--temperature", "3"], "--temperature"],
      [["generate", compiled, "--prompt", "x", "--max-tokens", "0"], "--max-tokens"],
      [["generate", compiled, "--prompt", "x", "--promt", "y"], "did you mean --prompt"],
      [["generate", compiled, "--prompt", "x", "--engine", "fast"], "--engine"],
      [["generate", compiled, "--prompt", "x", "--engine", "sparse", "--device", "cpu"], "wasm"],
      [["generate", compiled, "--prompt", "x", "--engine", "ort", "--kv", "int8"], "--kv int8"],
      [["generate", compiled, "--prompt", "x", "--logit-bias", "5"], "--logit-bias"],
      [["generate", compiled, "--prompt", "x", "--memory", "much"], "--memory"],
    ]);
  }, LONG);

  test(
    "looks for no model, and makes none, for an engine that cannot do what is asked",
    async () => {
      const cases = [
        [["--engine", "sparse", "--device", "cpu"], "the sparse engine runs on wasm"],
        [["--device", "webgpu", "--activations", "int16"], "--activations int16 is the sparse"],
        [["--engine", "ort", "--embeddings", "file"], "--embeddings file is the sparse"],
      ] as const;
      for (const [words, said] of cases) {
        for (const command of ["generate", "chat", "bench"]) {
          await fail(2, "USAGE", [
            command,
            "nowhere",
            ...command === "generate" ? ["--prompt", "x"] : [],
            ...words,
          ], said);
          expect(await fail(2, "USAGE", [command, ...words], said)).not.toContain("weights");
        }
      }
    },
    LONG,
  );

  test("says which options do nothing where nothing is drawn", async () => {
    const words = ["generate", compiled, "--prompt", PROMPT, "--max-tokens", "2", ...ORT];
    const narrowed = [...words, "--top-k", "4", "--min-p", "0.1"];
    const { notes } = await report(...narrowed);
    expect(notes.length).toBe(2);
    expect(notes[0]).toMatch(/^--top-k does nothing at --temperature 0/);
    expect(notes[1]).toMatch(/^--min-p does nothing/);
    expect((await report(...narrowed, "--temperature", "1")).notes).toEqual([]);
    expect((await report(...words)).notes).toEqual([]);
  }, LONG);

  test("ends with 1 and a code for what went wrong", async () => {
    const prompt = ["--prompt", PROMPT, ...ORT];
    const damaged = workshop.fresh("damaged");
    cpSync(compiled, damaged, { recursive: true });
    const data = join(damaged, "onnx", "model.onnx_data");
    writeFileSync(data, readFileSync(data).subarray(0, 5000));
    const long = join(workshop.path, "long.txt");
    writeFileSync(long, "of the ".repeat(600));
    const schema = join(workshop.path, "bad.json");
    writeFileSync(schema, '{"properties": {"a": {"not": {}}}}');
    await Promise.all([
      failAll(1, "SCHEMA_UNSUPPORTED", [
        [["generate", "nowhere", "--json-schema", schema, ...prompt], "#/properties/a: not"],
      ]),
      failAll(1, "CHECKPOINT_NOT_FOUND", [[["generate", "nowhere", ...prompt], "nowhere"]]),
      failAll(1, "INTEGRITY", [[
        ["generate", damaged, ...prompt],
        "model.onnx_data has 5000 bytes",
      ]]),
      failAll(1, "ONNX_INVALID", [
        [["generate", damaged, "--unchecked", ...prompt], "truncated"],
      ]),
      failAll(1, "CONTEXT_OVERFLOW", [
        [["generate", compiled, "--prompt-file", long, ...ORT], "512"],
        [["generate", compiled, "--context", "1024", ...prompt], "512"],
      ]),
      failAll(1, "MEMORY_BUDGET", [
        [["generate", compiled, "--memory", "20MB", ...prompt], "--memory allows 20 MB"],
      ]),
      failAll(1, "FILE_UNREADABLE", [[
        ["generate", compiled, "--prompt-file", "no.txt"],
        "no.txt",
      ]]),
    ]);
  }, LONG);
});
