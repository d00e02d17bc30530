/**
 * The server to be measured, in a process of its own.
 * @module
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { espalier, findRuntime, ProgramError, ROOT, type RuntimeName } from "../support/process.ts";

/** Milliseconds in which it has to be ready: a checkpoint is compiled on the way. */
const PATIENCE = 600_000;

/** An entry of the log, as much of it as is read. */
export interface RequestEntry {
  readonly status: number;
  /** From the request to the end of the answer. */
  readonly milliseconds: number;
  readonly firstTokenMilliseconds: number;
  readonly completionTokens: number;
}

/** A server that is ready. */
export interface Child {
  readonly url: string;
  readonly pid: number;
  /** The runtime, with its version. */
  readonly runtime: string;
  /** What its log says of the next request that ends; needs `--log json`. */
  nextRequest(): Promise<RequestEntry>;
  /** Ends it as an operator would; gives its exit code. */
  stop(): Promise<number | null>;
}

/**
 * Starts `serve` on a free port.
 *
 * @param words Further words of its command line.
 * @throws {ProgramError} When it ends before it is ready.
 */
export async function startServer(
  runtime: RuntimeName,
  model: string,
  words: readonly string[],
): Promise<Child> {
  const { path, version } = await findRuntime(runtime);
  const [command, ...before] = espalier(runtime, path);
  const child = spawn(command, [...before, "serve", model, "--port", "0", "--json", ...words], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  let tell: ((entry: RequestEntry) => void) | undefined;
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    // The log of many requests: its end is enough to say what went wrong.
    stderr = (stderr + text).slice(-4000);
    if (!tell) return;
    const entry = /\{[^\n]*"event":"request"[^\n]*\}\n$/.exec(stderr)?.[0];
    if (!entry) return;
    tell(JSON.parse(entry) as RequestEntry);
    tell = undefined;
  });
  const url = await new Promise<string>((resolve, reject) => {
    const fail = (why: string) => reject(new ProgramError(`${runtime} serve ${why}: ${stderr}`));
    const timer = setTimeout(() => fail("is not ready"), PATIENCE);
    child.on("error", ({ message }) => fail(message));
    child.on("close", (code) => fail(`ended with ${code}`));
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (!stdout.includes("\n")) return;
      clearTimeout(timer);
      resolve((JSON.parse(stdout) as { url: string }).url);
    });
  });
  process.on("exit", () => child.kill("SIGKILL"));
  return {
    url,
    pid: child.pid!,
    nextRequest: () => new Promise((resolve) => tell = resolve),
    runtime: `${runtime} ${version}`,
    stop: () => {
      child.kill("SIGTERM");
      return ended;
    },
  };
}
