/**
 * Runs the server, under Deno and under Bun, and talks to it with clients as they are published:
 * OpenAI's for JavaScript and for Python, LangChain's.
 *
 *     bun test/consumers/server.ts
 *
 * Clients are installed into temporary folders. Where Python, a runtime or a registry is not there, that
 * part is skipped; with CI=true a registry that fails is a failure.
 * @module
 */
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { openTokenizer } from "../../src/text/folder.ts";
import { fromRoot } from "../support/paths.ts";
import { makeModels, PROMPT } from "./models.ts";
import { nobody, type Server, SERVING, type Serving, startServer } from "./serving.ts";
import {
  Checks,
  has,
  makePython,
  npmInstall,
  ProgramError,
  run,
  runJson,
  withFolder,
} from "./support.ts";

const OPENAI_JS = ["openai@7.57.0", "zod@4.6.7"];
const OPENAI_PYTHON = ["openai==3.57.0", "pydantic==2.14.4"];
const LANGCHAIN = ["@langchain/openai@1.5.8", "@langchain/core@1.4.0"];
/** Small, and exact: what it says does not hang on rounding. */
const MODEL = "f32-csr";
/** Tokens after the prompt. */
const TOKENS = 16;

/** What the clients' scripts are given. */
interface ClientConfig {
  /** Wants a key. */
  readonly main: { readonly url: string; readonly key: string };
  /** One place, and one in line. */
  readonly tight: { readonly url: string };
  /** One place, no patience, and a second for a request. */
  readonly hurried: { readonly url: string };
  /** Where nobody listens. */
  readonly nobody: string;
  readonly model: string;
  readonly prompt: string;
  /** What the model says to it when it takes the likeliest tokens: as our own path computes it. */
  readonly text: string;
}

/** What they print. */
interface ClientResult {
  readonly version: string;
  readonly checks: { what: string; found: unknown; expected: unknown }[];
  readonly skipped: string[];
}

/** A client that is installed: the words that run it, and where. */
interface Client {
  readonly name: string;
  readonly words: readonly string[];
  readonly folder: string;
}

/** Installs a client for JavaScript beside a copy of its script. */
async function installScript(
  checks: Checks,
  folder: string,
  script: string,
  packages: string[],
): Promise<Client[]> {
  const name = packages[0];
  if (!await has("node")) {
    checks.skip(name, "no node on PATH");
    return [];
  }
  // The script runs from where the package is, so that its import finds it.
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
  const failed = await npmInstall(folder, packages);
  if (failed) {
    checks.missing(name, failed);
    return [];
  }
  const copy = join(folder, script);
  copyFileSync(fromRoot(`test/consumers/${script}`), copy);
  return [{ name, words: ["node", copy], folder }];
}

async function installPython(checks: Checks, folder: string): Promise<Client[]> {
  const name = `Python's ${OPENAI_PYTHON[0]}`;
  const python = await makePython(folder, OPENAI_PYTHON);
  if ("why" in python) {
    if (python.net) checks.missing(name, python.why);
    else checks.skip(name, python.why);
    return [];
  }
  return [{ name, words: [python.path, fromRoot("test/consumers/openai_client.py")], folder }];
}

/** A key, and the file that lets it in. */
async function makeKey(runtime: Serving, file: string): Promise<string> {
  const words = [...SERVING[runtime], fromRoot("mod.ts"), "key", "--name", "client"];
  const { code, stdout, stderr } = await run([...words, "--key-file", file]);
  if (code !== 0) throw new ProgramError(`key ended with ${code}: ${stderr}`);
  return stdout.trim();
}

/** All clients against one runtime's servers. */
async function checkServer(
  checks: Checks,
  runtime: Serving,
  model: string,
  text: string,
  clients: readonly Client[],
  folder: string,
): Promise<void> {
  console.log(`\nserve under ${runtime}`);
  const keyFile = join(folder, `keys-${runtime}.txt`);
  const key = await makeKey(runtime, keyFile);
  const servers: Server[] = [];
  const start = async (...words: string[]) => {
    servers.push(await startServer(runtime, model, words));
    return servers.at(-1)!;
  };
  try {
    const main = await start("--key-file", keyFile);
    const tight = await start("--parallel", "1", "--queue", "1");
    // ONNX Runtime takes longer for a token; 480 of them take longer than 0.3 s on any machine.
    const hurried = await start(
      ...[
        "--engine",
        "ort",
        "--parallel",
        "1",
        "--queue-timeout",
        "0.05",
        "--request-timeout",
        "0.3",
      ],
    );
    const config: ClientConfig = {
      main: { url: main.url, key },
      tight: { url: tight.url },
      hurried: { url: hurried.url },
      nobody: await nobody(),
      model: MODEL,
      prompt: PROMPT,
      text,
    };
    for (const { name, words, folder } of clients) {
      const about = `${runtime}, ${name}`;
      await checks.part(about, async () => {
        const args = ["--config", JSON.stringify(config)];
        const result = await runJson<ClientResult>([...words, ...args], folder);
        for (const { what, found, expected } of result.checks) {
          checks.same(`${about}: ${what}`, found, expected);
        }
        for (const what of result.skipped) checks.skip(about, what);
        for (const [kind, server] of Object.entries({ main, tight, hurried })) {
          checks.that(`${about}: server "${kind}" holds nothing afterwards`, await server.isIdle());
        }
      });
    }
  } finally {
    for (const server of servers) {
      const { code, log, ran } = await server.stop();
      checks.that(`${runtime}: the server ran to the end`, ran, () => log.slice(-2000));
      checks.same(`${runtime}: the server ends well`, code, 0);
      checks.that(`${runtime}: nothing failed in it`, !/ error /.test(log), () => log.slice(-2000));
    }
  }
}

const checks = new Checks();
await withFolder(async (folder) => {
  const [{ folder: model, expected }] = await makeModels(folder, TOKENS, [MODEL]);
  const text = openTokenizer(model).decode([...expected.tokens.slice(0, TOKENS)]);
  await withFolder((first) =>
    withFolder((second) =>
      withFolder(async (third) => {
        const clients = [
          ...await installScript(checks, first, "openai_client.mjs", OPENAI_JS),
          ...await installPython(checks, second),
          ...await installScript(checks, third, "langchain_client.mjs", LANGCHAIN),
        ];
        if (clients.length === 0) return;
        for (const runtime of Object.keys(SERVING) as Serving[]) {
          if (!await has(runtime)) checks.skip(runtime, `no ${runtime} on PATH`);
          else {
            await checks.part(
              runtime,
              () => checkServer(checks, runtime, model, text, clients, folder),
            );
          }
        }
      })
    )
  );
});
process.exitCode = checks.end();
