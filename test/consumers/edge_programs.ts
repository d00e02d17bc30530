/**
 * Bundles that run: a Worker in workerd, by wrangler, and a program of Deno.
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";

/** Milliseconds in which a program has to listen. */
const PATIENCE = 60_000;
/** Milliseconds between two looks whether it does. */
const LOOK = 50;

/** A program that listens. */
export interface Program {
  readonly url: string;
  readonly pid: number;
  /** What it has said, on both channels. */
  said(): string;
  /** Ends it as an operator would; gives its exit code. */
  stop(): Promise<number | null>;
}

/** A port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/**
 * Starts a program, and waits until `/health` answers.
 *
 * @param env In place of ours.
 */
export async function startProgram(
  words: readonly string[],
  { cwd, port, env }: { cwd: string; port: number; env: Readonly<Record<string, string>> },
): Promise<Program> {
  const child: ChildProcess = spawn(words[0], words.slice(1), {
    cwd,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  const hear = (text: string) => said += text;
  child.stdout!.setEncoding("utf8").on("data", hear);
  child.stderr!.setEncoding("utf8").on("data", hear);
  const ended = new Promise<number | null>((resolve) => {
    child.on("error", ({ message }) => {
      said += message;
      resolve(null);
    });
    child.on("close", resolve);
  });
  let isOver = false;
  void ended.then(() => isOver = true);
  const url = `http://127.0.0.1:${port}`;
  const stop = async () => {
    child.kill("SIGTERM");
    return await ended;
  };
  for (const begun = Date.now();; await new Promise((resolve) => setTimeout(resolve, LOOK))) {
    const answer = await fetch(`${url}/health`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer) return { url, pid: child.pid!, said: () => said, stop };
    if (!isOver && Date.now() - begun < PATIENCE) continue;
    await stop();
    throw new Error(`${words[0]} does not listen: ${said.slice(-2000)}`);
  }
}

/** Variables that a program cannot do without, and no others. */
export function fewVariables(more: Readonly<Record<string, string>> = {}): Record<string, string> {
  const kept = Object.entries(process.env).filter(([name]) =>
    ["PATH", "HOME", "SystemRoot", "TEMP", "TMPDIR"].includes(name)
  );
  return { ...Object.fromEntries(kept) as Record<string, string>, NO_COLOR: "1", ...more };
}

/** Starts a Worker's project as `npm run dev` does. */
export async function startWrangler(project: string): Promise<Program> {
  const port = await freePort();
  const env = fewVariables({ CI: "true", WRANGLER_SEND_METRICS: "false" });
  return await startProgram(["node", "dev.js", String(port)], { cwd: project, port, env });
}

/** Starts a bundle for Deno by its own task, in a home that is empty, so that nothing can be cached. */
export async function startDeno(
  folder: string,
  home: string,
  variables: Readonly<Record<string, string>> = {},
): Promise<Program> {
  const port = await freePort();
  const { execPath } = process;
  const deno = process.versions.deno ? execPath : "deno";
  return await startProgram([deno, ...startOf(folder)], {
    cwd: folder,
    port,
    env: fewVariables({
      HOME: home,
      DENO_DIR: home,
      DENO_NO_UPDATE_CHECK: "1",
      ESPALIER_PORT: String(port),
      ...variables,
    }),
  });
}

/** The words of the task `start`, without the shell: a signal to it would not come through. */
function startOf(folder: string): string[] {
  const task = JSON.parse(readFileSync(join(folder, "deno.json"), "utf8")).tasks.start as string;
  return ["run", "--cached-only", ...task.split(" ").slice(2)];
}
