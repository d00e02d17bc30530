/**
 * Bundles the example as a folder for any web server, and uses its page in headless Chromium: with the
 * headers that isolate it and without, from the browser's cache, with everything that can go wrong.
 *
 *     bun test/browser/site/run.ts [--pictures FOLDER]
 *
 * Without Chromium and Node it is skipped; playwright-core and axe-core go into a temporary folder.
 * @module
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { compile } from "../../../mod.ts";
import { bundle } from "../../../src/bundle/bundle.ts";
import { load } from "../../../src/generate/load.ts";
import type { Prompt } from "../../../src/generate/prompt.ts";
import { Checks, has, npmInstall, runJson, withFolder } from "../../consumers/support.ts";
import { TEMPLATE } from "../../server/behaviour.ts";
import { fromRoot } from "../../support/paths.ts";
import { findChromium } from "../pages/chromium.ts";

const PACKAGES = ["playwright-core@1.65.1", "axe-core@4.14.1"];
const PROMPT = "The population of the country";
/** Tokens that are compared. */
const TOKENS = 40;

/** What drive.mjs prints. */
interface Driven {
  readonly version: string;
  readonly checks: { what: string; ok: boolean; why: string }[];
}

/** A folder with a page, and what its model writes outside of it. */
interface Site {
  readonly folder: string;
  readonly prompt: string;
  readonly expected: string;
}

/** The example in float32, which makes four parts, with a chat template or without. */
async function makeSite(place: string, template: string | undefined): Promise<Site> {
  const [source, compiled] = [join(place, "checkpoint"), join(place, "compiled")];
  const folder = join(place, "site");
  cpSync(fromRoot("examples/tiny"), source, { recursive: true });
  if (template !== undefined) {
    const path = join(source, "tokenizer_config.json");
    const config = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...config, chat_template: template }));
  }
  await compile({ model: source, output: compiled, values: "f32" });
  await bundle({ model: compiled, target: "static", output: folder });
  const prompt: Prompt = template === undefined ? PROMPT : [{ role: "user", content: PROMPT }];
  await using model = await load(compiled, { threads: 1 });
  let expected = "";
  for await (const piece of model.generate(prompt, { maxTokens: TOKENS })) {
    if (piece.type === "text") expected += piece.text;
  }
  return { folder, prompt: PROMPT, expected };
}

async function checkSites(checks: Checks, tools: string, place: string): Promise<void> {
  if (!await has("node")) return checks.skip("sites", "no node on PATH");
  const chromium = await findChromium();
  if ("why" in chromium) return checks.skip("sites", chromium.why);
  writeFileSync(join(tools, "package.json"), '{ "private": true, "type": "module" }\n');
  const failed = await npmInstall(tools, PACKAGES);
  if (failed) return checks.missing("sites", failed);
  for (const folder of ["site", "pages"]) {
    cpSync(fromRoot(`test/browser/${folder}`), join(tools, folder), { recursive: true });
  }

  const words = process.argv.slice(2);
  const pictures = words[0] === "--pictures" ? resolve(words[1]) : undefined;
  if (pictures) mkdirSync(pictures, { recursive: true });
  const task = {
    chromium: chromium.path,
    pictures,
    text: await makeSite(join(place, "text"), undefined),
    chat: await makeSite(join(place, "chat"), TEMPLATE),
    tokens: TOKENS,
  };
  const path = join(tools, "task.json");
  writeFileSync(path, JSON.stringify(task));
  const driven = await runJson<Driven>(["node", join(tools, "site/drive.mjs"), path], tools);
  console.log(`Chromium ${driven.version}`);
  for (const { what, ok, why } of driven.checks) checks.that(what, ok, () => why);
}

const checks = new Checks();
await withFolder((tools) =>
  withFolder((place) => checks.part("sites", () => checkSites(checks, tools, place)))
);
process.exitCode = checks.end();
