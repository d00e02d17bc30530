/**
 * `chat` with its turns from a pipe: each test starts the program in a process of its own.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { editJson, Workshop } from "../checkpoint/support.ts";
import { forgetHashes } from "../compile/support.ts";
import { failAll, matches, start, succeed, TINY } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const LONG = 120_000;
const QUICK = ["--engine", "ort", "--device", "wasm", "--threads", "1", "--max-tokens", "6"];

/** The example compiled, and a copy with a chat template. */
const plain = join(workshop.path, "plain");
const templated = join(workshop.path, "templated");

beforeAll(async () => {
  await succeed("compile", TINY, "-o", plain);
  cpSync(plain, templated, { recursive: true });
  forgetHashes(templated);
  editJson(templated, "tokenizer_config.json", (config) => {
    config.chat_template =
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
  });
}, LONG);

/** Runs a chat with lines as its input. */
async function chat(model: string, input: string, ...words: string[]) {
  const ended = await start(["chat", model, ...QUICK, ...words], { input }).ended;
  expect({ code: ended.code, stderr: ended.code === 0 ? "" : ended.stderr })
    .toEqual({ code: 0, stderr: "" });
  return ended;
}

/** The same with `--json`, parsed. */
// deno-lint-ignore no-explicit-any
async function turnsOf(model: string, input: string, ...words: string[]): Promise<any> {
  const { stdout } = await chat(model, input, "--json", ...words);
  return JSON.parse(stdout);
}

describe("chat", () => {
  test("takes a turn a line, and keeps what was run for the turns before", async () => {
    const { model, turns, engine, notes } = await turnsOf(templated, "Where is it?\n\nAnd then?\n");
    expect(model).toBe("templated");
    expect(engine.engine).toBe("ort");
    expect(notes).toEqual([]);
    expect(turns.length).toBe(2);
    matches(turns[0], { user: "Where is it?", cachedTokens: 0, finishReason: "length" });
    matches(turns[1], { user: "And then?", completionTokens: 6 });
    expect(turns[1].cachedTokens).toBeGreaterThanOrEqual(turns[0].promptTokens - 1);
    expect(turns[1].promptTokens).toBeGreaterThan(turns[0].promptTokens);
  }, LONG);

  test("writes answers to standard output and all else to standard error", async () => {
    const { stdout, stderr } = await chat(templated, "Where is it?\nAnd then?\n");
    const { turns } = await turnsOf(templated, "Where is it?\nAnd then?\n");
    const answers = turns.map(({ assistant }: { assistant: string }) => `${assistant}\n`);
    expect(stdout).toBe(answers.join(""));
    expect(stderr).toContain("ONNX Runtime on WebAssembly");
  }, LONG);

  test("forgets at /reset, and ends at /exit", async () => {
    const { turns } = await turnsOf(templated, "One\n/reset\nOne\n/exit\nTwo\n");
    expect(turns.map(({ user }: { user: string }) => user)).toEqual(["One", "One"]);
    expect(turns[1].assistant).toBe(turns[0].assistant);
    expect(turns[1].promptTokens).toBe(turns[0].promptTokens);
  }, LONG);

  test("tells the model what --system says before every conversation", async () => {
    const { turns } = await turnsOf(templated, "One\n/reset\nOne\n", "--system", "Be brief");
    const [without] = (await turnsOf(templated, "One\n")).turns;
    expect(turns[0].promptTokens).toBeGreaterThan(without.promptTokens);
    expect(turns[1].promptTokens).toBe(turns[0].promptTokens);
  }, LONG);

  test("continues the text, and says so, where there is no chat template", async () => {
    const { turns, notes } = await turnsOf(plain, "The population of\nThe economy\n");
    expect(notes).toEqual(["the model has no chat template: it continues what you write"]);
    expect(turns.length).toBe(2);
    expect(turns[1].cachedTokens).toBeGreaterThanOrEqual(turns[0].promptTokens);
  }, LONG);

  test("stops one answer at Ctrl-C, keeps what there was of it, and goes on", async () => {
    const words = ["--ignore-eos", "--max-tokens", "15000", ...QUICK.slice(0, -2)];
    const long = workshop.fresh("long");
    cpSync(TINY, long, { recursive: true });
    editJson(long, "config.json", (config) => void (config.max_position_embeddings = 16384));
    const running = start(["chat", long, ...words], { input: "One\n/exit\n" });
    await running.prints(" ");
    running.kill("SIGINT");
    const { code, stderr } = await running.ended;
    expect(stderr).toContain("stopped");
    expect(code).toBe(0);
  }, LONG);

  test("fails where a turn has no room in the context", async () => {
    const input = `${"of the ".repeat(600)}\n`;
    const { code, stderr } = await start(["chat", templated, ...QUICK], { input }).ended;
    expect(stderr).toContain("error CONTEXT_OVERFLOW: ");
    expect(code).toBe(1);
  }, LONG);

  test("ends with 2 for what could never have worked", async () => {
    await failAll(2, "USAGE", [
      [["chat", plain, "--top-p", "2"], "--top-p"],
      [["chat", plain, "--prompt", "x"], "unknown option"],
      [["chat", plain, "other"], "unexpected argument"],
    ]);
  }, LONG);
});
