/**
 * Runs the checks of the server's behaviour against a Worker in workerd, what Cloudflare Workers run on,
 * with our own engine and two models in it (kernels come from `dist`, so build first).
 *
 *     bun test/workerd/server_run.ts
 *
 * Miniflare, which brings workerd, goes into a temporary folder.
 * @module
 */
import { spawn } from "node:child_process";
import { copyFileSync, cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { bundle } from "../../scripts/build.ts";
import { CompileWorkshop } from "../compile/support.ts";
import { Checks, has, npmInstall, withFolder } from "../consumers/support.ts";
import { checks as behaviour, type Server } from "../server/behaviour.ts";
import { ask, eventsOf, expected, jsonRequest } from "../server/behaviour/support.ts";
import { loadBoth, makeFolders } from "../server/models.ts";
import { fromRoot } from "../support/paths.ts";

/** The newest that runs on Node 20. */
const MINIFLARE = "miniflare@4.20260426.0";
const TEXT = "/v1/completions";

/** A driver that runs. */
interface Driver {
  readonly url: string;
  readonly version: string;
  /** What workerd has said. */
  said(): string[];
  stop(): Promise<void>;
}

/** Starts the driver, and waits until it listens. */
async function drive(folder: string): Promise<Driver> {
  const child = spawn("node", [join(folder, "server_drive.mjs")], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  let [stdout, stderr] = ["", ""];
  child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  child.stdout.setEncoding("utf8");
  await new Promise<void>((resolve, reject) => {
    child.stdout.on("data", (text: string) => {
      stdout += text;
      if (stdout.includes('"url"')) resolve();
    });
    ended.then(() => reject(new Error(`the driver ended: ${(stdout + stderr).slice(0, 1000)}`)));
  });
  const lines = () => (stdout + stderr).split("\n").filter((line) => line !== "");
  const ready = lines().find((line) => line.startsWith('{"url"'))!;
  return {
    ...JSON.parse(ready),
    said: () => lines().filter((line) => line !== ready),
    stop: async () => {
      child.stdin.end();
      await ended;
    },
  };
}

/**
 * Bundles the app into one module. CommonJS packages in it ask for modules of Node, which workerd gives to
 * imports only: what bundlers for it do as well.
 */
async function bundleApp(folder: string): Promise<void> {
  const entrypoints = [fromRoot("test/workerd/server_entry.ts")];
  await bundle({ entrypoints, outdir: folder, naming: "server.js", target: "node" });
  const path = join(folder, "server.js");
  const code = readFileSync(path, "utf8");
  const asked = [...code.matchAll(/__require\("(?:node:)?([^"]+)"\)/g)].map(([, name]) => name);
  const names = [...new Set(asked)];
  writeFileSync(
    path,
    [
      ...names.map((name, i) => `import * as builtin${i} from "node:${name}";`),
      `const builtins = { ${names.map((name, i) => `"${name}": builtin${i}`).join(", ")} };`,
      "const __require = (name) => {",
      '  const found = builtins[name.replace("node:", "")];',
      "  return found.default ?? found;",
      "};",
      code.replace(/^import \{ createRequire \}.*$/m, "").replace(/^var __require = .*$/m, ""),
    ].join("\n"),
  );
}

/** Checks that stand or fall with whose request keeps what alive. */
async function checkTogether(checks: Checks, server: Server): Promise<void> {
  const prompts = Array.from({ length: 6 }, (_, i) => `The ${"river and ".repeat(3 * i)}`);
  const options = { maxTokens: 12 };
  const wanted: string[] = [];
  for (const prompt of prompts) wanted.push((await expected(server.plain, prompt, options)).text);
  const complete = async (prompt: string): Promise<string> =>
    (await ask(server, TEXT, { prompt, temperature: 0, max_tokens: 12 })).choices[0].text;
  checks.same("requests at once", await Promise.all(prompts.map(complete)), wanted);

  // Clients that go, before and in the middle of their answers.
  const long = { prompt: "The", max_tokens: 400, n: 4, logit_bias: { "0": -100 }, stream: true };
  for (const wait of [1, 30, 120]) {
    const gone = new AbortController();
    const others = Promise.all(prompts.map(complete));
    const left = server.fetch(TEXT, { ...jsonRequest(long), signal: gone.signal })
      .then((response) => response.text());
    left.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, wait));
    gone.abort();
    const late = new Promise<string[]>((resolve) => setTimeout(resolve, 20_000, ["nothing came"]));
    checks.same(`a client goes after ${wait} ms`, await Promise.race([others, late]), wanted);
  }
  const response = await server.fetch(TEXT, jsonRequest({ ...long, n: 1, max_tokens: 20 }));
  checks.same("a stream after that", eventsOf(await response.text()).at(-1), "[DONE]");
}

async function checkServer(checks: Checks, folder: string): Promise<void> {
  if (!await has("node")) return checks.skip("workerd", "no node on PATH");
  if (!await has("npm")) return checks.skip("workerd", "no npm on PATH");
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
  const failed = await npmInstall(folder, [MINIFLARE]);
  if (failed) return checks.missing("workerd", failed);
  const workshop = new CompileWorkshop();
  try {
    const folders = await makeFolders(workshop);
    cpSync(folders.plain, join(folder, "plain"), { recursive: true });
    cpSync(folders.chat, join(folder, "chat"), { recursive: true });
    cpSync(fromRoot("dist/wasm"), join(folder, "wasm"), { recursive: true });
    for (const file of ["server_drive.mjs", "server_worker.mjs"]) {
      copyFileSync(fromRoot(`test/workerd/${file}`), join(folder, file));
    }
    await bundleApp(folder);
    const here = await loadBoth(folders);
    const driver = await drive(folder);
    console.log(`workerd ${driver.version}`);
    try {
      const base = driver.url.replace(/\/$/, "");
      const server: Server = {
        fetch: (path, init) => fetch(base + path, init),
        plain: { id: "plain", model: here[0] },
        chat: { id: "chat", model: here[1] },
      };
      for (const { name, run } of behaviour) {
        const error = await run(server).then(() => undefined, (error: Error) => error);
        checks.that(name, error === undefined, () => error!.message);
      }
      await checkTogether(checks, server);
    } finally {
      checks.same("workerd said nothing", driver.said(), []);
      await driver.stop();
      for (const model of here) await model.close();
    }
  } finally {
    workshop.remove();
  }
}

const checks = new Checks();
await withFolder((folder) => checks.part("workerd", () => checkServer(checks, folder)));
process.exitCode = checks.end();
