/**
 * Runs `examples/standalone-binary` by the commands in its README, in a clean clone, and the binary that
 * comes of it in an empty folder with nothing on the path.
 *
 *     bun test/consumers/binary.ts
 *
 * Where there is no git or no registry it is skipped; with CI=true a registry that fails is a failure. A
 * bundle for Deno is made one file by `deno compile` where Deno can fetch what that takes.
 * @module
 */
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fromRoot } from "../support/paths.ts";
import { freePort, startProgram } from "./edge_programs.ts";
import { makeModels } from "./models.ts";
import { cleanClone, commandsIn, runLine } from "./readme.ts";
import { Checks, has, lastLines, run, withFolder } from "./support.ts";

const README = "examples/standalone-binary/README.md";
/** Milliseconds in which the server has to be ready. */
const PATIENCE = 60_000;

/** Starts a command that stays, and waits until its log says that it is ready. */
async function startServer(line: string, cwd: string) {
  const child = spawn("sh", ["-c", `exec ${line}`], { cwd, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => log += text);
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const started = Date.now();
  while (!log.includes("ready: ") && child.exitCode === null && Date.now() - started < PATIENCE) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    log: () => log,
    stop: () => {
      child.kill("SIGTERM");
      return ended;
    },
  };
}

async function checkBinary(checks: Checks, folder: string): Promise<void> {
  if (!await has("bun")) return checks.skip("the binary", "no bun on PATH");
  const clone = await cleanClone(folder);
  if (clone === undefined) return checks.skip("the binary", "no git, or this is no clone");
  const [[install, bundle], [generate, help, serve], [ask]] = commandsIn(README);
  const installed = await run(["sh", "-c", install], clone);
  if (installed.code !== 0) return checks.missing("the binary", installed.stderr.slice(-400));
  await runLine(bundle, clone);

  const text = await runLine(generate, clone);
  checks.that("generates", text.trim().length > 20, () => text);
  checks.that("has help", (await runLine(help, clone)).includes("./my-model"));
  const server = await startServer(serve, clone);
  try {
    if (await has("curl")) {
      const { choices } = JSON.parse(await runLine(ask, clone));
      checks.that("answers", choices[0].text.length > 20, () => JSON.stringify(choices));
    } else checks.skip("answers", "no curl on PATH");
  } finally {
    checks.same("ends with 0 on SIGTERM", await server.stop(), 0);
  }
  checks.that("has been ready", server.log().includes("ready: tiny"), server.log);

  const empty = join(folder, "empty");
  mkdirSync(empty);
  renameSync(join(clone, "my-model"), join(empty, "moved"));
  const words = ["--prompt", "The population of the country", "--max-tokens", "20"];
  // env -i: no path, no home.
  const moved = await run(["env", "-i", "./moved", "generate", ...words], empty);
  checks.same("moved, with an empty environment: exit code", moved.code, 0);
  checks.same("moved: text", moved.stdout, text);
  checks.same("leaves nothing", readdirSync(empty), ["moved"]);
}

/** A program of Deno as one file: `--target deno`, and its own task. */
async function checkDenoCompile(checks: Checks, folder: string): Promise<void> {
  if (!await has("deno")) return checks.skip("deno compile", "no deno on PATH");
  const [model] = await makeModels(folder, 1, ["f32-csr"]);
  const project = join(folder, "project");
  await runLine(`bun mod.ts bundle ${model.folder} --target deno -o ${project}`, fromRoot(""));
  const compiled = await run(["deno", "task", "compile"], project);
  if (compiled.code !== 0) {
    // What it takes to run comes from dl.deno.land, which is no registry of packages.
    return checks.skip("deno compile", lastLines(compiled.stderr.split("Stack backtrace")[0]));
  }
  const empty = join(folder, "empty");
  mkdirSync(empty);
  renameSync(join(project, "model-server"), join(empty, "moved"));
  const port = await freePort();
  const env = { ESPALIER_HOST: "127.0.0.1", ESPALIER_PORT: `${port}` };
  const program = await startProgram([join(empty, "moved")], { cwd: empty, port, env });
  checks.same("deno compile: ends with 0 on SIGTERM", await program.stop(), 0);
}

const checks = new Checks();
await withFolder((folder) => checks.part("the binary", () => checkBinary(checks, folder)));
await withFolder((folder) => checks.part("deno compile", () => checkDenoCompile(checks, folder)));
process.exitCode = checks.end();
