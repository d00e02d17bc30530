/**
 * Bun as a tool: what bundles JavaScript and makes binaries, whatever runtime runs this program.
 * @module
 */
import process from "node:process";
import { PermissionMissingError, ToolMissingError } from "../errors.ts";
import { runToEnd } from "../platform/run_to_end.ts";
import { runtime } from "../platform/runtime.ts";

/**
 * The version that binaries carry, and that is fetched where there is none. Its runtime is the smallest that
 * has relaxed SIMD: 80 MB for Linux on x64, where 1.4.5 has 107, and 1.3.14, without it, 93.
 */
export const BUN_VERSION = "1.4.2";

/**
 * The words that start Bun: the runtime itself, `bun` on the path, or npm's `npx`, which fetches it.
 *
 * @throws {ToolMissingError} When there is none of them.
 * @throws {PermissionMissingError} When Deno was not told to allow starting them.
 * @throws {AbortError} When the signal says so.
 */
export async function findBun(signal?: AbortSignal): Promise<readonly string[]> {
  if (runtime().name === "bun") return [process.execPath];
  const ways = [["bun"], ["npx", "-y", `bun@${BUN_VERSION}`]];
  const denials: string[] = [];
  for (const words of ways) {
    const { code, denial } = await runToEnd([...words, "--version"], { signal });
    if (code === 0) return words;
    if (denial !== undefined) denials.push(denial);
  }
  if (denials.length > 0) {
    throw new PermissionMissingError(
      `this target is built with Bun, a program of its own: ${denials[0]}`,
    );
  }
  throw new ToolMissingError(
    `this target is built with Bun, which is not here: install Bun ${BUN_VERSION} (npm install -g bun@${BUN_VERSION}), or npm, which brings it`,
  );
}

/** What Bun is asked: its version and its file, a line each. */
const WHICH = "[Bun.version, process.execPath].join('\\n')";

/**
 * The words that start the Bun whose runtime binaries carry: the one that is here, where it has that version,
 * or one that it or `npx` fetches.
 *
 * @param bun Starts the one that is here, as {@linkcode findBun} says.
 * @returns Nothing where it cannot be fetched.
 * @throws {AbortError} When the signal says so.
 */
export async function findBunForBinaries(
  bun: readonly string[],
  signal?: AbortSignal,
): Promise<readonly string[] | undefined> {
  const fetched = `bun@${BUN_VERSION}`;
  // Where there is no network, npm would take minutes to say so.
  const env = { npm_config_fetch_retries: "0" };
  for (const words of [bun, [...bun, "x", fetched], ["npx", "-y", fetched]]) {
    const { stdout } = await runToEnd([...words, "-p", WHICH], { signal, env });
    const [version, path] = stdout.split("\n");
    if (version === BUN_VERSION && path) return [path];
  }
  return undefined;
}
