/**
 * Packs the package in a clean clone, and uses it from other projects: in Node with TypeScript that is strict, in
 * Deno, and the library and the command line in Bun.
 *
 *     bun test/consumers/package.ts
 *
 * Where there is no git, npm or registry it is skipped; with CI=true a registry that fails is a failure.
 * @module
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { cleanClone } from "./readme.ts";
import { Checks, has, lastLines, npmInstall, ProgramError, run, withFolder } from "./support.ts";

const TYPESCRIPT = "typescript@5.9.3";

/** A module that only types which say something let through. */
const TYPED = `
import { dlp, EspalierError } from "espalier/prune";
import { type Message, type Model, runCompiled, type TextPiece, urlSource } from "espalier/run";
import { type AppOptions, createApp } from "espalier/server";

// Their types have names that declarations can import.
export const written = (model: Model) => model.generate("x");
export const told = (model: Model) => [model.info, model.card, model.cacheUse()] as const;
export const served = (model: Model, options: AppOptions) => [createApp(model), options.log] as const;
export const drawn = (piece: TextPiece) => piece.logprobs;
export const made = (options: Parameters<Model["prepare"]>[1]) => options;
export const opened = (model: Model) => [model.open(), model.constrain("json")] as const;

export const messages: Message[] = [{ role: "tool", content: "7", name: "f" }];

export function codeOf(error: unknown): string {
  return error instanceof EspalierError ? error.code : "none";
}

export async function first(url: string): Promise<string> {
  const model = await runCompiled(urlSource(url), { threads: 1 });
  for await (const piece of model.generate("x", { maxTokens: 3 })) {
    if (piece.type === "text") return piece.text;
  }
  // @ts-expect-error There is no such option.
  model.generate("x", { maxToken: 3 });
  // @ts-expect-error It wants scores.
  dlp(7);
  createApp(model, { parallel: 2 });
  return "";
}
`;

/** Prints what the exports are, in plain JavaScript. */
const PLAIN = `
import { dlp, EspalierError } from "espalier/prune";
import { runCompiled, urlSource } from "espalier/run";
import { createApp } from "espalier/server";
let error;
try {
  urlSource("nowhere");
} catch (thrown) {
  error = thrown;
}
console.log(typeof dlp, typeof runCompiled, typeof createApp, error instanceof EspalierError);
`;

/** Runs a compiled model on two threads. */
const onTwoThreads = (folder: string) => `
import { readdirSync, readFileSync } from "node:fs";
import { filesSource, runCompiled } from "espalier/run";
const folder = ${JSON.stringify(folder)};
const names = readdirSync(folder).filter((name) => name !== "onnx");
const paths = [...names, "onnx/model.onnx", "onnx/model.onnx_data"];
const files = paths.map((path) => [path, readFileSync(folder + "/" + path)]);
const model = await runCompiled(filesSource(Object.fromEntries(files)), { threads: 2 });
for await (const piece of model.generate("The river", { maxTokens: 5 })) {
  if (piece.type === "end") console.log(model.info.threads, piece.completionTokens);
}
await model.close();
`;

/** Imports the server as text. */
const NOWHERE = `
import { readFileSync } from "node:fs";
const bytes = readFileSync("node_modules/espalier/dist/server.js");
// Its text is a part of what is said of an error.
await import("data:text/javascript;base64," + bytes.toString("base64")).then(
  ({ createApp }) => console.log(typeof createApp),
  ({ message }) => console.log(message.slice(0, 200)),
);
`;

const TSCONFIG = {
  compilerOptions: {
    strict: true,
    exactOptionalPropertyTypes: true,
    module: "nodenext",
    target: "es2022",
    noEmit: true,
    declaration: true,
    types: [],
  },
  files: ["typed.ts"],
};

async function runOrThrow(words: readonly string[], cwd: string): Promise<string> {
  const { code, stdout, stderr } = await run(words, cwd);
  if (code === 0) return stdout;
  throw new ProgramError(`${words.join(" ")} ended with ${code}: ${lastLines(stdout + stderr)}`);
}

async function checkPackage(checks: Checks, folder: string): Promise<void> {
  for (const tool of ["bun", "node", "npm"]) {
    if (!await has(tool)) return checks.skip("the package", `no ${tool} on PATH`);
  }
  const clone = await cleanClone(folder);
  if (clone === undefined) return checks.skip("the package", "no git, or this is no clone");
  const installed = await run(["bun", "install", "--frozen-lockfile"], clone);
  if (installed.code !== 0) return checks.missing("the package", lastLines(installed.stderr));
  const packed = await runOrThrow(["npm", "pack", "--loglevel=error"], clone);

  const project = join(folder, "project");
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }\n');
  const file = join(clone, packed.trim().split("\n").at(-1)!);
  const why = await npmInstall(project, [file, TYPESCRIPT]);
  if (why) return checks.missing("the package", why);
  writeFileSync(join(project, "typed.ts"), TYPED);
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify(TSCONFIG));
  writeFileSync(join(project, "plain.mjs"), PLAIN);
  writeFileSync(join(project, "nowhere.mjs"), NOWHERE);
  const typed = await run(["node", "node_modules/typescript/bin/tsc"], project);
  checks.that("has types", typed.code === 0, () => lastLines(typed.stdout));
  const all = "function function function true\n";
  // As where another bundler has put it into a Worker: there is no place from which a module is required.
  const nowhere = await runOrThrow(["node", "nowhere.mjs"], project);
  checks.same("serves from a module that lies nowhere", nowhere, "function\n");
  checks.same("runs in Node", await runOrThrow(["node", "plain.mjs"], project), all);
  const model = join(folder, "compiled");
  await runOrThrow(["bun", "mod.ts", "compile", "examples/tiny", "--output", model], clone);
  // Threads begin as the program did.
  const evaluated = ["node", "--input-type=module", "--eval", onTwoThreads(model)];
  const generated = await runOrThrow(evaluated, project);
  checks.same("runs a model on two threads in Node, also for a line of code", generated, "2 5\n");
  checks.same("runs in Bun", await runOrThrow(["bun", "plain.mjs"], project), all);
  if (await has("deno")) {
    checks.same("runs in Deno", await runOrThrow(["deno", "run", "-A", "plain.mjs"], project), all);
  } else checks.skip("the package in Deno", "no deno on PATH");
  const program = "node_modules/espalier/mod.ts";
  const help = await runOrThrow(["bun", program, "prune", "--help"], project);
  checks.that("has its commands in Bun", help.includes("--sparsity"), () => help);
}

const checks = new Checks();
await withFolder((folder) => checks.part("the package", () => checkPackage(checks, folder)));
process.exitCode = checks.end();
