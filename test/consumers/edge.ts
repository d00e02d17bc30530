/**
 * Makes bundles of the example as their examples' pages say, and talks to them with OpenAI's client: a Worker
 * in workerd, by wrangler, and a program of Deno with no more permissions than its own.
 *
 *     bun test/consumers/edge.ts
 *
 * wrangler and the client are installed into temporary folders. Where a registry is not there, that part is
 * skipped; with CI=true it is a failure.
 * @module
 */
import { copyFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { gzipSync } from "node:zlib";
import { pathsIn } from "../../src/platform/folders.ts";
import { openTokenizer } from "../../src/text/folder.ts";
import { makeKey } from "../../src/server/keys.ts";
import { fromRoot } from "../support/paths.ts";
import { type Program, startDeno, startWrangler } from "./edge_programs.ts";
import { makeModels, PROMPT } from "./models.ts";
import { Checks, has, npmInstall, run, runJson, withFolder } from "./support.ts";

const OPENAI = "openai@7.57.0";
const MODEL = "f32-csr";
const TOKENS = 16;
/** Short requests, one after the other. */
const REQUESTS = 200;
/** Bytes that a Worker without its model may have, compressed. */
const LARGEST_WORKER = 1_000_000;

/** What edge_client.mjs is given. */
interface ClientConfig {
  readonly url: string;
  readonly key: string;
  readonly model: string;
  readonly prompt: string;
  readonly text: string;
  readonly requests: number;
}

interface ClientResult {
  readonly version: string;
  readonly checks: { what: string; found: unknown; expected: unknown }[];
}

/** What every part has. */
interface Ground {
  readonly checks: Checks;
  /** The model's folder, and what it says to the prompt. */
  readonly model: string;
  readonly text: string;
  /** A folder with the client; undefined where it could not be installed. */
  readonly client: string | undefined;
}

async function bundle(model: string, target: string, output: string): Promise<void> {
  const words = ["bun", fromRoot("mod.ts"), "bundle", model, "--target", target, "-o", output];
  const { code, stderr } = await run([...words, "--json"]);
  if (code !== 0) throw new Error(`bundle ended with ${code}: ${stderr}`);
}

/** Talks to a program through the client, and ends it. */
async function talk(ground: Ground, about: string, program: Program, key: string): Promise<void> {
  const { checks, text, client } = ground;
  if (!client) return;
  const config: ClientConfig = {
    url: program.url,
    key,
    model: MODEL,
    prompt: PROMPT,
    text,
    requests: REQUESTS,
  };
  const words = ["node", join(client, "edge_client.mjs"), "--config", JSON.stringify(config)];
  const result = await runJson<ClientResult>(words, client);
  for (const { what, found, expected } of result.checks) {
    checks.same(`${about}: ${what}`, found, expected);
  }
}

/** Bytes of a Worker's modules, compressed as they are uploaded. */
function compressedBytes(folder: string): number {
  return pathsIn(folder).reduce(
    (sum, path) => sum + gzipSync(readFileSync(join(folder, path))).length,
    0,
  );
}

async function checkCloudflare(ground: Ground, folder: string): Promise<void> {
  const { checks, model } = ground;
  const project = join(folder, "worker");
  await bundle(model, "cloudflare", project);
  const size = compressedBytes(join(project, "src"));
  console.log(`  the Worker without its model: ${(size / 1000).toFixed(0)} kB compressed`);
  checks.that("cloudflare: the Worker is small", size < LARGEST_WORKER, () => `${size} bytes`);
  if (!await has("node") || !await has("npm")) return checks.skip("cloudflare", "no node and npm");
  const failed = await npmInstall(project, []);
  if (failed) return checks.missing("cloudflare", failed);

  const wrangler = join(project, "node_modules/wrangler/bin/wrangler.js");
  const dry = await run(
    ["node", wrangler, "deploy", "--dry-run", "--outdir", join(folder, "dry")],
    project,
  );
  checks.that(
    "cloudflare: wrangler deploy --dry-run",
    dry.code === 0 && !/WARNING/.test(dry.stdout + dry.stderr),
    () => dry.stdout + dry.stderr,
  );
  const { key, line } = await makeKey("till-3");
  writeFileSync(join(project, ".dev.vars"), `ESPALIER_KEYS="${line}"\n`);
  const program = await startWrangler(project);
  try {
    for (const path of ["config.json", "parts.json", "onnx/model.onnx", "assets/config.json"]) {
      const response = await fetch(`${program.url}/${path}`);
      await response.body?.cancel();
      checks.same(`cloudflare: ${path} is nobody's`, response.status, 404);
    }
    const page = await fetch(program.url);
    checks.that("cloudflare: there is a page", (await page.text()).includes("<html"));
    await talk(ground, "cloudflare", program, key);
    checks.that(
      "cloudflare: nothing failed",
      !/"event":"error"/.test(program.said()),
      program.said,
    );
  } finally {
    await program.stop();
  }
}

async function checkDeno(ground: Ground, folder: string): Promise<void> {
  const { checks, model } = ground;
  if (!await has("deno")) return checks.skip("deno", "no deno on PATH");
  await bundle(model, "deno", join(folder, "made"));
  const moved = join(folder, "moved");
  renameSync(join(folder, "made"), moved);
  const home = join(folder, "home");
  mkdirSync(home);
  const { key, line } = await makeKey("till-3");
  const program = await startDeno(moved, home, { ESPALIER_KEYS: line });
  try {
    await talk(ground, "deno", program, key);
    checks.that("deno: nothing failed", !/"event":"error"/.test(program.said()), program.said);
  } finally {
    checks.same("deno: it ends well", await program.stop(), 0);
  }
  const wrong = await startDeno(moved, home, { ESPALIER_KEYS: "no key" }).then(
    async (program) => {
      await program.stop();
      return "it runs";
    },
    ({ message }: Error) => message,
  );
  checks.that(
    "deno: wrong keys let nobody in",
    wrong.includes("ESPALIER_KEYS, line 1"),
    () => wrong,
  );
}

const checks = new Checks();
await withFolder(async (folder) => {
  const [{ folder: model, expected }] = await makeModels(folder, TOKENS, [MODEL]);
  const text = openTokenizer(model).decode([...expected.tokens.slice(0, TOKENS)]);
  await withFolder(async (client) => {
    writeFileSync(join(client, "package.json"), '{ "private": true, "type": "module" }\n');
    const failed = await npmInstall(client, [OPENAI]);
    if (failed) checks.missing(OPENAI, failed);
    copyFileSync(fromRoot("test/consumers/edge_client.mjs"), join(client, "edge_client.mjs"));
    const ground = { checks, model, text, client: failed ? undefined : client };
    await withFolder((made) => checks.part("cloudflare", () => checkCloudflare(ground, made)));
    await withFolder((made) => checks.part("deno", () => checkDeno(ground, made)));
  });
});
process.exitCode = checks.end();
