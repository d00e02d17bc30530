/**
 * Runs `examples/edge-function-cloudflare` and `examples/deno-deploy` by the commands in their READMEs, in a
 * clean clone, as far as nobody needs an account for them.
 *
 *     bun test/consumers/edge_examples.ts
 *
 * What this machine lacks is skipped with the reason; with CI=true a registry that fails is a failure.
 * @module
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { cleanClone, commandsIn, runLine } from "./readme.ts";
import { Checks, has, ProgramError, withFolder } from "./support.ts";

/** Milliseconds in which a server has to answer. */
const PATIENCE = 60_000;
/** Milliseconds between two questions. */
const LOOK = 100;

/**
 * Runs a line that does not end until `/health` of the address that another line asks answers, then that
 * other line; ends the first one, and all that it has started.
 *
 * @returns What the other line printed.
 */
async function askWhileRunning(line: string, ask: string, cwd: string): Promise<string> {
  const [origin] = /http:\/\/127\.0\.0\.1:\d+/.exec(ask)!;
  const env = { ...process.env, CI: "true", WRANGLER_SEND_METRICS: "false" };
  const child = spawn("sh", ["-c", line], { cwd, env, detached: true, stdio: "pipe" });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream!.setEncoding("utf8").on("data", (text: string) => said += text);
  }
  let isOver = false;
  const ended = new Promise<void>((resolve) =>
    child.on("close", () => {
      isOver = true;
      resolve();
    })
  );
  try {
    for (const begun = Date.now();; await new Promise((resolve) => setTimeout(resolve, LOOK))) {
      const answer = await fetch(`${origin}/health`).catch(() => undefined);
      await answer?.body?.cancel();
      if (answer?.ok) return await runLine(ask, cwd);
      if (isOver || Date.now() - begun > PATIENCE) {
        throw new ProgramError(`${line}: no answer: ${said.slice(-1000)}`);
      }
    }
  } finally {
    // The line is a shell's; what it started is in its group.
    if (!isOver) process.kill(-child.pid!, "SIGTERM");
    await ended;
  }
}

function checkAnswer(checks: Checks, what: string, answer: string): void {
  const { choices } = JSON.parse(answer);
  checks.that(`${what}: it writes`, choices[0].text.length > 10, () => answer);
}

async function checkCloudflare(checks: Checks, clone: string): Promise<void> {
  const [[install, bundle], [tools, dev], [ask], [, deploy]] = commandsIn(
    "examples/edge-function-cloudflare/README.md",
  );
  if (!await has("node")) return checks.skip("edge-function-cloudflare", "no node on PATH");
  await runLine(install, clone);
  await runLine(bundle, clone);
  const failed = await runLine(tools, clone).then(() => undefined, (error: Error) => error.message);
  if (failed) return checks.missing("edge-function-cloudflare", failed);
  checkAnswer(checks, "edge-function-cloudflare", await askWhileRunning(dev, ask, clone));
  const said = await runLine(`${deploy} --dry-run`, clone);
  checks.that(
    "edge-function-cloudflare: it could be deployed",
    said.includes("--dry-run: exiting"),
  );
}

async function checkDeno(checks: Checks, clone: string): Promise<void> {
  const [[bundle], [start], [ask]] = commandsIn("examples/deno-deploy/README.md");
  if (!await has("deno")) return checks.skip("deno-deploy", "no deno on PATH");
  await runLine(bundle, clone);
  checkAnswer(checks, "deno-deploy", await askWhileRunning(start, ask, clone));
}

const checks = new Checks();
await withFolder(async (folder) => {
  if (!await has("git")) return checks.skip("examples", "no git on PATH");
  const clone = await cleanClone(folder);
  if (!clone) return checks.skip("examples", "this is no repository of git");
  await checks.part("edge-function-cloudflare", () => checkCloudflare(checks, clone));
  await checks.part("deno-deploy", () => checkDeno(checks, clone));
});
process.exitCode = checks.end();
