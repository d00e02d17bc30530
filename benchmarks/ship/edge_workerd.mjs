/**
 * Runs a Worker's project in workerd, by Miniflare, asks it, and prints what it took.
 *
 *     edge_workerd.mjs PROJECT REQUESTS TOKENS
 *
 * The assets are read by this process, so that memory of workerd is the Worker's. Printed is what edge.ts
 * calls `WorkerRun`. For Node; it must lie beside a node_modules with miniflare.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const [project, requests, tokens] = process.argv.slice(2);
// Names in variables, so that who only checks this file need not have the packages.
const [miniflareName, wsName] = ["miniflare", "ws"];
const { Log, LogLevel, Miniflare } = await import(miniflareName);
const { WebSocket } = await import(wsName);

const source = join(project, "src");
const module = (type, path) => ({
  type,
  path: join(source, path),
  contents: type === "ESModule"
    ? readFileSync(join(source, path), "utf8")
    : readFileSync(join(source, path)),
});
/** Gives an asset. */
function asset(request) {
  const path = decodeURIComponent(new URL(request.url).pathname);
  return new Response(readFileSync(join(project, "assets", path)));
}
const config = JSON.parse(readFileSync(join(project, "wrangler.jsonc"), "utf8"));
const miniflare = new Miniflare({
  log: new Log(LogLevel.ERROR),
  cf: false,
  host: "127.0.0.1",
  port: 0,
  inspectorPort: 0,
  compatibilityDate: config.compatibility_date,
  compatibilityFlags: config.compatibility_flags,
  modulesRoot: source,
  modules: [
    module("ESModule", "worker.js"),
    module("ESModule", "edge.js"),
    ...readdirSync(join(source, "wasm")).map((name) => module("CompiledWasm", `wasm/${name}`)),
  ],
  serviceBindings: { ASSETS: asset },
  handleRuntimeStdio: (stdout, stderr) => {
    stdout.resume();
    stderr.pipe(process.stderr);
  },
});

/** The process of workerd, which this one has started. */
function workerd() {
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const status = readFileSync(`/proc/${name}/status`, "utf8");
      if (
        /^Name:\s+workerd$/m.test(status) &&
        new RegExp(`^PPid:\\s+${process.pid}$`, "m").test(status)
      ) {
        return status;
      }
    } catch {
      // It has just ended.
    }
  }
  return "";
}
const inKb = (status, field) =>
  1024 * Number(new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? NaN);

/** Asks V8, through the inspector, how large the isolate's heap is. */
async function openInspector() {
  const { host } = await miniflare.getInspectorURL();
  const targets = await (await fetch(`http://${host}/json`)).json();
  const { webSocketDebuggerUrl } = targets.find(({ id }) => id.startsWith("core:user"));
  const socket = new WebSocket(webSocketDebuggerUrl);
  await new Promise((open) => socket.on("open", open));
  const waiting = new Map();
  socket.on("message", (data) => {
    const { id, result } = JSON.parse(data);
    waiting.get(id)?.(result);
  });
  let last = 0;
  return {
    heap: () =>
      new Promise((resolve) => {
        waiting.set(++last, resolve);
        socket.send(JSON.stringify({ id: last, method: "Runtime.getHeapUsage" }));
      }),
    close: () => socket.close(),
  };
}

const schema = {
  type: "object",
  properties: { name: { type: "string", maxLength: 20 }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};
const response_format = { type: "json_schema", json_schema: { name: "person", schema } };

try {
  const url = `${(await miniflare.ready).href}v1/`;
  const post = (route, body) =>
    fetch(new URL(route, url), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const ask = (body) => post("completions", { prompt: "The population of the country", ...body });
  await (await fetch(new URL("/health", url))).text();
  const before = inKb(workerd(), "VmRSS");
  const inspector = await openInspector();

  const begun = performance.now();
  const reader = (await ask({ stream: true, max_tokens: 1, temperature: 0 })).body.getReader();
  await reader.read();
  const firstText = performance.now() - begun;
  while (!(await reader.read()).done);
  const loaded = inKb(workerd(), "VmRSS");

  // The difference of a long and a short answer: what belongs to a request falls out.
  const count = Number(tokens);
  const timed = async (max_tokens) => {
    const started = performance.now();
    const answer = await ask({ max_tokens, temperature: 0, logit_bias: { 0: -100 } });
    const { usage } = await answer.json();
    return { milliseconds: performance.now() - started, tokens: usage.completion_tokens };
  };
  await timed(count);
  const rates = [];
  for (let i = 0; i < 5; i++) {
    const [short, long] = [await timed(1), await timed(count)];
    rates.push(
      1000 * (long.tokens - short.tokens) / (long.milliseconds - short.milliseconds),
    );
  }

  let failed = 0;
  const heaps = [];
  for (let i = 0; i < Number(requests); i++) {
    const prompt = `${i} ${"and the river ".repeat(i % 20)}`;
    const body = { max_tokens: 12, temperature: 0.8, seed: i };
    const messages = [{ role: "user", content: prompt }];
    // Only conversations have forms.
    const answer = i % 5 === 4
      ? await post("chat/completions", { ...body, messages, response_format })
      : await ask({ ...body, prompt });
    const { choices: [choice] = [] } = await answer.json();
    if (!answer.ok || typeof (choice.text ?? choice.message.content) !== "string") failed++;
    if (i % 10 === 9) heaps.push(await inspector.heap());
  }
  inspector.close();
  const status = workerd();
  const { version } = JSON.parse(
    readFileSync(new URL("./node_modules/workerd/package.json", import.meta.url), "utf8"),
  );
  const used = heaps.map(({ usedSize }) => usedSize);
  process.stdout.write(`${
    JSON.stringify({
      version,
      milliseconds: { firstText },
      tokensPerSecond: rates.sort((a, b) => a - b)[2],
      requests: { all: Number(requests), failed },
      bytes: {
        before,
        loaded,
        after: inKb(status, "VmRSS"),
        peak: inKb(status, "VmHWM"),
        heap: used.length > 0 ? { least: Math.min(...used), most: Math.max(...used) } : undefined,
        buffers: heaps.at(-1)?.backingStorageSize,
      },
    })
  }\n`);
} finally {
  await miniflare.dispose();
}
