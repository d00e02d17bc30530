/**
 * Servers for clients to talk to: `serve`, each in a process of its own.
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { fromRoot } from "../support/paths.ts";
import { lastLines, ProgramError } from "./support.ts";

/** The runtimes that serve, and how each runs a script. */
export const SERVING = { deno: ["deno", "run", "-A"], bun: ["bun"] } as const;
/** One of them. */
export type Serving = keyof typeof SERVING;

/** Milliseconds in which a server has to be ready: on a busy machine, with a cold cache. */
const PATIENCE = 120_000;
/** Milliseconds in which requests have to be over after the last of them was given up. */
const SETTLING = 10_000;

/** A server that is ready. */
export interface Server {
  readonly url: string;
  readonly pid: number;
  /** The value of a metric without labels. */
  metric(name: string): Promise<number>;
  /** Whether nobody waits, generates or holds a cache, soon at least. */
  isIdle(): Promise<boolean>;
  /** Ends it as an operator would; gives its exit code, its log, and whether it ran until now. */
  stop(): Promise<{ code: number | null; log: string; ran: boolean }>;
}

/**
 * Starts `serve` on a free port.
 *
 * @param words Further words of its command line.
 * @throws {ProgramError} When it ends before it is ready.
 */
export async function startServer(
  runtime: Serving,
  model: string,
  words: readonly string[] = [],
): Promise<Server> {
  const [command, ...before] = SERVING[runtime];
  const child = spawn(
    command,
    [...before, fromRoot("mod.ts"), "serve", model, "--port", "0", "--json", ...words],
    {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    },
  );
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => log += text);
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const url = await readyAt(child, () => log);
  const server: Server = {
    url,
    pid: child.pid!,
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`)).text();
      return Number(new RegExp(`^espalier_${name} (\\S+)$`, "m").exec(text)?.[1]);
    },
    async isIdle() {
      const names = ["sequences_open", "generating", "queue_depth"];
      const until = performance.now() + SETTLING;
      do {
        const values = await Promise.all(names.map((name) => server.metric(name)));
        if (values.every((value) => value === 0)) return true;
        await new Promise((resolve) => setTimeout(resolve, 50));
      } while (performance.now() < until);
      return false;
    },
    async stop() {
      const ran = child.exitCode === null && child.signalCode === null;
      child.kill("SIGTERM");
      return { code: await ended, log, ran };
    },
  };
  return server;
}

/** The address that a server prints when it is ready. */
function readyAt(child: ChildProcess, log: () => string): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill();
      reject(new ProgramError(`not ready after ${PATIENCE / 1000} s: ${lastLines(log())}`));
    }, PATIENCE);
    let stdout = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (!stdout.includes("\n")) return;
      clearTimeout(timer);
      resolve((JSON.parse(stdout) as { url: string }).url);
    });
    const failed = (why: string) => {
      clearTimeout(timer);
      reject(new ProgramError(`${why}: ${lastLines(log())}`));
    };
    child.on(
      "error",
      ({ message }) => failed(`${child.spawnfile} could not be started: ${message}`),
    );
    child.on("close", (code) => failed(`${child.spawnfile} ended with ${code}`));
  });
}

/** The address of a port on which nobody listens. */
export function nobody(): Promise<string> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(`http://127.0.0.1:${port}`));
    });
  });
}
