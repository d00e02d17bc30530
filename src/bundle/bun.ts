/**
 * Bun as a tool: what bundles JavaScript and makes binaries, whatever runtime runs this program.
 * @module
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { AbortError, ToolMissingError } from "../errors.ts";
import { runtime } from "../platform/runtime.ts";

/** The version that is fetched where there is none, as `@types/bun` in package.json. */
const VERSION = "1.4.5";

/** How a program ended. */
export interface Ended {
  /** Undefined when it could not be started. */
  readonly code: number | null | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * The words that start Bun: the runtime itself, `bun` on the path, or npm's `npx`, which fetches it.
 *
 * @throws {ToolMissingError} When there is none of them.
 * @throws {AbortError} When the signal says so.
 */
export async function findBun(signal?: AbortSignal): Promise<readonly string[]> {
  if (runtime().name === "bun") return [process.execPath];
  const ways = [["bun"], ["npx", "-y", `bun@${VERSION}`]];
  for (const words of ways) {
    if ((await runTool([...words, "--version"], { signal })).code === 0) return words;
  }
  throw new ToolMissingError(
    `this target is built with Bun, which is not here: install Bun ${VERSION} (npm install -g bun@${VERSION}), or npm, which brings it`,
  );
}

/** How a program is run. */
export interface RunOptions {
  /** Stops it. */
  readonly signal?: AbortSignal;
  /** The folder that it runs in. */
  readonly cwd?: string;
  /** Variables beside ours. */
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * Runs a program to its end.
 *
 * @throws {AbortError} When the signal says so, after the program has ended.
 */
export function runTool(
  [command, ...words]: readonly string[],
  { signal, cwd, env }: RunOptions = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, words, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const stop = () => void child.kill("SIGTERM");
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
    const end = (code: number | null | undefined) => {
      signal?.removeEventListener("abort", stop);
      if (signal?.aborted) reject(new AbortError("stopped before the end"));
      else resolve({ code, stdout, stderr });
    };
    child.on("error", ({ message }) => {
      stderr += message;
      end(undefined);
    });
    child.on("close", end);
  });
}
