/**
 * What a server's memory does over many small requests of all kinds: answers as a whole and by and by,
 * clients that go, errors, schemas that were never seen before.
 *
 *     memory.ts --model DIR [--runtime deno|bun] [--requests 10000] [--together 4] [--json]
 *
 * Runs under Deno (`deno run -A`) and Bun; Linux only, since the server's memory is read from /proc. The
 * table goes to standard output. Ends with 1 when the server holds anything after the last request.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { uniformNumbers } from "../../src/text/windows.ts";
import { oneOf, runMain, say, UsageError, whole } from "../support/arguments.ts";
import { markdownTable } from "../support/print.ts";
import { catchInterrupts, ownRuntime, throwIfInterrupted } from "../support/process.ts";
import { type Child, startServer } from "./child.ts";

const USAGE =
  "usage: memory.ts --model DIR [--runtime deno|bun] [--requests 10000] [--together 4] [--json]";

/** Rows of the table. */
const ROWS = 10;
/** Milliseconds in which all is over after the last request. */
const SETTLING = 10_000;

/** The server's memory after some requests. */
interface Row {
  readonly requests: number;
  readonly residentMiB: number;
  /** Bytes that /metrics sends: grows with every label that is new. */
  readonly metricsBytes: number;
  readonly seconds: number;
}

/** Sends one request; which, a number from 0 to 1 says. */
type Kind = readonly [share: number, send: (url: string, number: number) => Promise<unknown>];

const post = (url: string, path: string, body: object, signal?: AbortSignal) =>
  fetch(`${url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
const complete = (url: string, number: number, fields: object, signal?: AbortSignal) =>
  post(url, "/v1/completions", {
    prompt: `In the year ${1000 + number % 900} the people of`,
    max_tokens: 4,
    ...fields,
  }, signal);

/** Text of a stream up to the first event; then the client goes. */
async function leaveEarly(url: string, number: number): Promise<void> {
  const gone = new AbortController();
  const fields = { stream: true, max_tokens: 200 };
  const response = await complete(url, number, fields, gone.signal);
  await response.body!.getReader().read();
  gone.abort();
}

/** Goes while the answer is worked on. */
async function leaveSoon(url: string, number: number): Promise<void> {
  const signal = AbortSignal.timeout(1 + number % 20);
  await complete(url, number, { max_tokens: 200 }, signal).then((response) => response.text())
    .catch(() => {});
}

const KINDS: readonly Kind[] = [
  [0.35, async (url, number) => await (await complete(url, number, {})).text()],
  [0.2, async (url, number) => await (await complete(url, number, { stream: true })).text()],
  [0.1, leaveEarly],
  [0.05, leaveSoon],
  [0.05, async (url, number) => await (await complete(url, number, { temperature: 9 })).text()],
  [
    0.05,
    async (url, number) => await (await complete(url, number, { model: `m${number}` })).text(),
  ],
  [0.05, async (url, number) => await (await fetch(`${url}/nothing/${number}`)).text()],
  [0.05, async (url, number) => {
    const schema = { type: "object", properties: { [`key${number}`]: { type: "boolean" } } };
    const response = await post(url, "/v1/chat/completions", {
      messages: [{ role: "user", content: "x" }],
      max_tokens: 4,
      response_format: { type: "json_schema", json_schema: { name: "x", schema } },
    });
    await response.text();
  }],
  [0.05, async (url, number) => {
    await (await post(url, "/tokenize", { prompt: `text ${number}` })).text();
  }],
  [0.05, async (url) => await (await fetch(`${url}/v1/models`)).text()],
];

/** Sends all requests, some at once, and looks at the server in between. */
async function measure(server: Child, requests: number, together: number): Promise<Row[]> {
  const rows: Row[] = [];
  const dice = uniformNumbers(1);
  const started = performance.now();
  let next = 0;
  const look = async () => {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    const row = {
      requests: next,
      residentMiB: residentMiB(server.pid),
      metricsBytes: metrics.length,
      seconds: (performance.now() - started) / 1000,
    };
    rows.push(row);
    say(`${row.requests} requests: ${row.residentMiB.toFixed(1)} MiB`);
  };
  const work = async (end: number) => {
    while (next < end) {
      throwIfInterrupted();
      const number = next++;
      let share = dice();
      const kind = KINDS.find(([part]) => (share -= part) < 0) ?? KINDS[0];
      await kind[1](server.url, number);
    }
  };
  for (let row = 1; row <= ROWS; row++) {
    const end = Math.round((requests * row) / ROWS);
    await Promise.all(Array.from({ length: together }, () => work(end)));
    await look();
  }
  return rows;
}

/** MiB that a process holds now. */
function residentMiB(pid: number): number {
  const found = /^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(found?.[1]) / 1024;
}

/** What the server still holds when nobody asks any more: lines of its metrics. */
async function leftIn(server: Child): Promise<string[]> {
  const until = performance.now() + SETTLING;
  for (;;) {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    const names = ["sequences_open", "generating", "queue_depth"];
    const left = names.flatMap((name) =>
      new RegExp(`^espalier_${name} (?!0$).*$`, "m").exec(metrics) ?? []
    );
    if (left.length === 0 || performance.now() > until) return left;
    await new Promise((wake) => setTimeout(wake, 100));
  }
}

function describe(runtime: string, rows: readonly Row[]): string {
  return markdownTable(
    [`requests to ${runtime}`, "resident MiB", "bytes of /metrics", "seconds"],
    rows.map(({ requests, residentMiB, metricsBytes, seconds }) => [
      String(requests),
      residentMiB.toFixed(1),
      String(metricsBytes),
      seconds.toFixed(0),
    ]),
  );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: process.argv.slice(2),
    options: {
      model: { type: "string" },
      runtime: { type: "string", default: ownRuntime() },
      requests: { type: "string", default: "10000" },
      together: { type: "string", default: "4" },
      json: { type: "boolean", default: false },
    },
  });
  if (!values.model) throw new UsageError("memory.ts needs --model");
  const runtime = oneOf("runtime", [values.runtime], ["deno", "bun"])[0];
  const requests = whole("requests", values.requests);
  catchInterrupts();
  const server = await startServer(runtime, resolve(values.model), []);
  const rows = await measure(server, requests, whole("together", values.together));
  const left = await leftIn(server);
  const code = await server.stop();
  const result = { runtime: server.runtime, rows, left, code };
  process.stdout.write(
    `${values.json ? JSON.stringify(result) : describe(server.runtime, rows)}\n`,
  );
  for (const line of left) say(`still held: ${line}`);
  if (left.length > 0 || code !== 0) process.exit(1);
}

await runMain(main, USAGE);
process.exit(0);
