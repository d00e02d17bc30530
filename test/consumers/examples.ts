/**
 * Runs examples by the commands in their READMEs, in a clean clone: `examples/browser-chat` in Chromium,
 * `examples/transformers-js` in Node, and `examples/peft`, which wants a Python that has its packages.
 *
 *     PYTHON=path/to/python bun test/consumers/examples.ts [NAME]
 *
 * What this machine lacks is skipped with the reason; with CI=true a registry that fails is a failure.
 * PyTorch is a large download, so that nothing of Python is installed here.
 * @module
 */
import { cpSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { findChromium } from "../browser/pages/chromium.ts";
import { fromRoot } from "../support/paths.ts";
import { cleanClone, commandsIn, runLine } from "./readme.ts";
import { Checks, has, lastLines, npmInstall, run, runJson, withFolder } from "./support.ts";

const PLAYWRIGHT = "playwright-core@1.65.1";
const PYTHON = process.env.PYTHON ?? "python3";

/** What browser_chat.mjs prints. */
interface Chatted {
  readonly visits: { answer: string; state: string; requests: string[] }[];
  readonly stopped: string;
  readonly said: string[];
}

/** Runs lines one after the other; gives what each printed. */
async function runAll(lines: readonly string[], clone: string): Promise<string[]> {
  const printed: string[] = [];
  for (const line of lines) printed.push(await runLine(line, clone));
  return printed;
}

async function checkBrowserChat(checks: Checks, clone: string, tools: string): Promise<void> {
  if (!await has("node")) return checks.skip("browser-chat", "no node on PATH");
  const chromium = await findChromium();
  if ("why" in chromium) return checks.skip("browser-chat", chromium.why);
  writeFileSync(join(tools, "package.json"), '{ "private": true, "type": "module" }\n');
  const failed = await npmInstall(tools, [PLAYWRIGHT]);
  if (failed) return checks.missing("browser-chat", failed);
  const [make, [serve]] = commandsIn("examples/browser-chat/README.md");
  await runAll(make, clone);
  const folder = / --directory (\S+) /.exec(serve)![1];
  const [script, server] = ["consumers/browser_chat.mjs", "browser/site/server.mjs"];
  for (const file of [script, server]) cpSync(fromRoot(`test/${file}`), join(tools, file));
  const { visits: [first, second], stopped, said } = await runJson<Chatted>(
    ["node", join(tools, script), chromium.path, join(clone, folder)],
  );
  checks.that("it writes", first.answer.length > 40, () => first.answer);
  const isPart = (path: string) => /^model\/(onnx|tokenizer|config)/.test(path);
  checks.that("the first time it fetches the model", first.requests.some(isPart));
  checks.same("the second time it does not", second.requests.filter(isPart), []);
  checks.that("it stops", stopped.includes("stopped"), () => stopped);
  checks.same("the page said nothing", said, []);
}

async function checkTransformersJs(checks: Checks, clone: string): Promise<void> {
  if (!await has("node")) return checks.skip("transformers-js", "no node on PATH");
  const [make, compare] = commandsIn("examples/transformers-js/README.md");
  const install = make.pop()!;
  await runAll(make, clone);
  const { code, stderr } = await run(["sh", "-c", install], clone);
  if (code !== 0) return checks.missing("transformers-js", lastLines(stderr, 2));
  const [theirs, ours] = await runAll(compare, clone);
  const prompt = /"(.*?)"/.exec(compare[0])![1];
  checks.same("the same text as our own command", theirs.trim(), `${prompt}${ours}`.trim());
}

async function checkPeft(checks: Checks, clone: string): Promise<void> {
  const ask = "import torch, transformers, peft";
  const { code, stderr } = await run([PYTHON, "-c", ask]);
  if (code !== 0) {
    const why = `${PYTHON}: ${lastLines(stderr, 1)}: set PYTHON to one that has the packages`;
    return checks.skip("peft", `${why} of examples/peft/requirements.txt`);
  }
  const [, make, compare] = commandsIn("examples/peft/README.md");
  const own = (line: string) => line.replace(".venv/bin/python", PYTHON);
  await runAll(make.map(own), clone);
  const measured = await runAll(compare, clone);
  const [before, after] = measured.map((json) => JSON.parse(json).perplexity as number);
  checks.that(
    `perplexity ${before.toFixed(2)} before, ${after.toFixed(2)} after`,
    after < before,
    () => "it did not get better",
  );
  const bytes = ["pruned", "tuned"].map((name) =>
    statSync(join(clone, `out/tiny-${name}-onnx/onnx/model.onnx_data`)).size
  );
  checks.same("no more bytes than before", bytes[1], bytes[0]);
}

const CHECKS = {
  "browser-chat": checkBrowserChat,
  "transformers-js": checkTransformersJs,
  peft: checkPeft,
};

const checks = new Checks();
const [only] = process.argv.slice(2);
await withFolder(async (folder) => {
  const clone = await has("bun") ? await cleanClone(folder) : undefined;
  if (clone === undefined) return checks.skip("examples", "no bun on PATH, no git, or no clone");
  for (const [name, check] of Object.entries(CHECKS)) {
    if (only !== undefined && only !== name) continue;
    console.log(`\nexamples/${name}`);
    await checks.part(name, () => withFolder((tools) => check(checks, clone, tools)));
  }
});
process.exitCode = checks.end();
