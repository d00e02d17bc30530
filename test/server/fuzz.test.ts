/**
 * Thousands of requests that are nearly right, and large ones that are made to take long.
 *
 * `ESPALIER_FUZZ_CASES=20000` asks for more of them.
 *
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import process from "node:process";
import type { Model } from "../../src/generate/model.ts";
import { residentBytes } from "../../src/platform/runtime.ts";
import { createApp } from "../../src/server/app.ts";
import { CompileWorkshop } from "../compile/support.ts";
import { Dice, must, SEED } from "../support/fuzz.ts";
import { type Answer, eventsOf, jsonRequest, read } from "./behaviour/support.ts";
import { loadBoth, makeFolders } from "./models.ts";
import { type Candidate, candidate } from "./mutations.ts";
import { samplesOf } from "./prometheus.ts";

const CASES = Number(process.env.ESPALIER_FUZZ_CASES ?? 2000);
/** Requests at once. */
const TOGETHER = 4;
/** Longest time for a request in milliseconds: on a quiet machine the slowest takes a seventh of it. */
const LIMIT_MS = 20_000;
/** Bytes that the process may grow by. */
const GROWTH = 256 << 20;
const USUAL = { prompt: "The population of", max_tokens: 12, temperature: 0 };

const workshop = new CompileWorkshop();
let models: Model[] = [];
let ask: (path: string, init?: RequestInit) => Promise<Response>;
const failures: string[] = [];

beforeAll(async () => {
  models = await loadBoth(await makeFolders(workshop), { threads: 1 });
  const app = createApp(models, {
    maxTokens: 4,
    log: ({ event, message }) => {
      if (event === "error") failures.push(message ?? "");
    },
  });
  ask = async (path, init) => await app.fetch(new Request(`http://server.test${path}`, init));
});
afterAll(async () => {
  for (const model of models) await model.close();
  workshop.remove();
});

const usual = async () => (await read(await ask("/v1/completions", jsonRequest(USUAL)))).text;
const textOf = async () => JSON.parse(await usual()).choices[0].text as string;

/** Sends a request and checks what is true of every answer; gives its status and milliseconds. */
async function send({ path, body }: Candidate): Promise<{ status: number; took: number }> {
  const started = performance.now();
  const answer = await read(await ask(path, jsonRequest(body)));
  const took = performance.now() - started;
  if (answer.status === 200) checkAnswer(answer);
  else checkError(answer);
  must(took < LIMIT_MS, `took ${took.toFixed()} ms`);
  return { status: answer.status, took };
}

function checkAnswer({ headers, text, json }: Answer): void {
  if (!headers.get("content-type")?.startsWith("text/event-stream")) {
    must(json !== undefined && json.error === undefined, `200 with ${text.slice(0, 200)}`);
    return;
  }
  const events = eventsOf(text);
  must(events.pop() === "[DONE]", "the last event is [DONE]");
  for (const event of events) {
    must(JSON.parse(event).error === undefined, `an event that is an error: ${event}`);
  }
}

function checkError({ status, text, json }: Answer): void {
  must([400, 404, 413].includes(status), `status ${status}: ${text.slice(0, 400)}`);
  const { message, type, param, code, ...rest } = json?.error ?? {};
  must(typeof message === "string" && message !== "" && message.length < 2000, "it has a message");
  must(type === "invalid_request_error", `type ${type}`);
  for (const field of [param, code]) {
    must(field === null || (typeof field === "string" && field.length < 300), `${field} is short`);
  }
  must(Object.keys(rest).length === 0 && Object.keys(json).length === 1, "nothing else is there");
}

/** Checks that nothing is held. */
async function isQuiet(): Promise<void> {
  const samples = samplesOf((await read(await ask("/metrics"))).text);
  const names = ["queue_depth", "generating", "sequences_open"];
  expect(names.map((name) => samples.get(`espalier_${name}`))).toEqual([0, 0, 0]);
  expect(failures).toEqual([]);
}

describe("requests that are nearly right", () => {
  test(
    `are answered as OpenAI's server would, and leave nothing behind: ${CASES} of them`,
    async () => {
      const before = await textOf();
      const counts: Record<number, number> = {};
      let next = 0;
      let slowest = { took: 0, case: 0 };
      let settled = 0;
      const work = async () => {
        while (next < CASES) {
          const number = next++;
          const request = candidate(new Dice(SEED * 1_000_003 + number));
          try {
            const { status, took } = await send(request);
            counts[status] = (counts[status] ?? 0) + 1;
            if (took > slowest.took) slowest = { took, case: number };
          } catch (error) {
            const { path, body } = request;
            throw new Error(
              `case ${number} of seed ${SEED}, ${path} ${body.slice(0, 2000)}: ${error}`,
              {
                cause: error,
              },
            );
          }
          // What engines and caches take once is not what requests leave behind.
          if (number === CASES >> 2) settled = residentBytes();
        }
      };
      await Promise.all(Array.from({ length: TOGETHER }, work));
      console.log(
        `${JSON.stringify(counts)}, slowest ${slowest.took.toFixed()} ms (case ${slowest.case}), ` +
          `${((residentBytes() - settled) / 2 ** 20).toFixed()} MiB more`,
      );
      expect(counts[200]).toBeGreaterThan(CASES / 10);
      expect(counts[400]).toBeGreaterThan(CASES / 10);
      expect(residentBytes() - settled).toBeLessThan(GROWTH);
      await isQuiet();
      expect(await textOf()).toBe(before);
    },
    1_800_000,
  );
});

/** Bodies of nearly a megabyte, each made to be slow in its own way. */
function largeBodies(): Record<string, Candidate> {
  const size = 1_000_000;
  const of = (count: number, make: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => make(i)).join(",");
  const chat = (fields: string) => ({
    path: "/v1/chat/completions",
    body: `{"messages":[{"role":"user","content":"x"}],"max_tokens":2,${fields}}`,
  });
  const text = (fields: string) => ({
    path: "/v1/completions",
    body: `{"max_tokens":2,${fields}}`,
  });
  const tokenize = (prompt: string) => ({ path: "/tokenize", body: JSON.stringify({ prompt }) });
  const schema = (schema: string) =>
    chat(`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":${schema}}}`);
  const deep = (open: string, close: string, count = size / (open.length + close.length)) =>
    open.repeat(count) + close.repeat(count);
  return {
    "nested lists": chat(`"x":${deep("[", "]")}`),
    "nested objects": chat(`"x":${deep('{"a":', "}").replace(":}", ":0}")}`),
    "nested content": { path: "/v1/chat/completions", body: `{"messages":${deep("[", "]")}}` },
    "lists that never close": { path: "/v1/completions", body: "[".repeat(size) },
    "a string that never closes": {
      path: "/v1/completions",
      body: `"${"\\u0041".repeat(size / 6)}`,
    },
    "spaces": { path: "/v1/completions", body: " ".repeat(size) },
    "a number": text(`"seed":${"9".repeat(size)}`),
    "unknown keys": chat(of(80_000, (i) => `"k${i}":0`)),
    "the same key": chat(of(90_000, () => `"n":[0]`)),
    "biases": chat(`"logit_bias":{${of(70_000, (i) => `"${i}":1`)}}`),
    "wrong biases": chat(
      `"logit_bias":{${of(110_000, (i) => `"${(40_000 + i).toString(36)}":1`)}}`,
    ),
    "stops": chat(`"stop":[${of(16, () => `"${"a".repeat(999)}b"`)}]`),
    "too many stops": chat(`"stop":[${of(200_000, () => `"a"`)}]`),
    "messages": {
      path: "/v1/chat/completions",
      body: `{"messages":[${of(16_000, () => '{"role":"user","content":"x"}')}]}`,
    },
    "wrong messages": {
      path: "/v1/chat/completions",
      body: `{"messages":[${of(300_000, () => "{}")}]}`,
    },
    "parts": {
      path: "/v1/chat/completions",
      body: `{"messages":[{"role":"user","content":[${
        of(35_000, () => '{"type":"text","text":"x"}')
      }]}]}`,
    },
    "ids": text(`"prompt":[${of(200_000, (i) => String(i % 4000))}]`),
    "wrong ids": text(`"prompt":[${of(200_000, () => "-1")}]`),
    "lists of ids": text(`"prompt":[${of(240_000, () => "[1]")}]`),
    "template variables": chat(`"chat_template_kwargs":{${of(80_000, (i) => `"k${i}":0`)}}`),
    "a prompt of one letter": text(`"prompt":"${"a".repeat(60_000)}"`),
    "a prompt of words": text(`"prompt":"${"the ".repeat(15_000)}"`),
    "one letter": tokenize("a".repeat(size)),
    "two letters": tokenize("ab".repeat(size / 2)),
    "spaces in a text": tokenize(" ".repeat(size)),
    "lines": tokenize("\n".repeat(size / 2)),
    "marks": tokenize("!?".repeat(size / 2)),
    "marks that join a letter": tokenize("a" + "\u0301".repeat(size / 4)),
    "halves of characters": {
      path: "/tokenize",
      body: `{"prompt":"${"\\ud800".repeat(size / 6)}"}`,
    },
    "faces": tokenize("🙂".repeat(size / 4)),
    "digits": tokenize("7".repeat(size)),
    "words": tokenize("population ".repeat(size / 11)),
    "special tokens": tokenize("<|endoftext|>".repeat(size / 13)),
    "tokens": { path: "/detokenize", body: `{"tokens":[${of(200_000, (i) => String(i % 4000))}]}` },
    "a schema with many names": schema(
      `{"type":"object","properties":{${of(40_000, (i) => `"k${i}":{}`)}}}`,
    ),
    "a schema with many names that must be": schema(
      `{"type":"object","properties":{${of(20_000, (i) => `"k${i}":{}`)}},"required":[${
        of(20_000, (i) => `"k${i}"`)
      }]}`,
    ),
    "a schema with many values": schema(`{"enum":[${of(60_000, (i) => `"value ${i}"`)}]}`),
    "a schema that is nested": schema(
      deep('{"type":"array","items":', "}", 30_000).replace(":}", ":{}}"),
    ),
    "a value that is nested, for many answers": chat(
      `"n":8,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"const":${
        deep("[", "]")
      }}}}`,
    ),
    "a schema with many choices": schema(`{"anyOf":[${of(50_000, () => `{"type":"null"}`)}]}`),
    "a schema with choices of choices": schema(
      `{"$defs":{${
        of(
          40,
          (i) => `"d${i}":{"anyOf":[{"$ref":"#/$defs/d${i + 1}"},{"$ref":"#/$defs/d${i + 1}"}]}`,
        )
      },"d40":{}},"$ref":"#/$defs/d0"}`,
    ),
    "a schema that holds itself": schema(`{"$defs":{"a":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}`),
    "a schema with large counts": schema(
      `{"type":"array","minItems":1000000000,"items":{"type":"string","minLength":1000000}}`,
    ),
    "a pattern that is nested": schema(
      `{"type":"string","pattern":"^${deep("(", "+)", 100_000).replace("(+", "(a+")}$"}`,
    ),
    "a pattern with counts of counts": schema(
      `{"type":"string","pattern":"^((((a{1,99}){1,99}){1,99}){1,99}){1,99}$"}`,
    ),
    "a pattern that is long": schema(`{"type":"string","pattern":"^${"(a|b)*".repeat(100_000)}$"}`),
    "a pattern that is ambiguous": schema(
      `{"type":"string","pattern":"^(a|a)*(a*)*b${"[ab]?".repeat(300)}$"}`,
    ),
  };
}

describe("a large body", () => {
  test("is answered in time, whatever is in it", async () => {
    const before = await textOf();
    const times: [number, string, number][] = [];
    for (const [kind, request] of Object.entries(largeBodies())) {
      must(request.body.length < 1 << 20, `${kind} has ${request.body.length} characters`);
      try {
        const { status, took } = await send(request);
        times.push([took, kind, status]);
      } catch (error) {
        throw new Error(`${kind}: ${error}`, { cause: error });
      }
    }
    times.sort(([a], [b]) => b - a);
    console.log(
      times.slice(0, 5).map(([took, kind, status]) => `${kind}: ${took.toFixed()} ms, ${status}`)
        .join("; "),
    );
    await isQuiet();
    expect(await textOf()).toBe(before);
  }, 600_000);
});
