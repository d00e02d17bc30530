/**
 * Bun as a tool: what bundles JavaScript and makes binaries, whatever runtime runs this program.
 * @module
 */
import process from "node:process";
import { ToolMissingError } from "../errors.ts";
import { runToEnd } from "../platform/run_to_end.ts";
import { runtime } from "../platform/runtime.ts";

/** The version that is fetched where there is none, as `@types/bun` in package.json. */
const VERSION = "1.4.5";

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
    if ((await runToEnd([...words, "--version"], { signal })).code === 0) return words;
  }
  throw new ToolMissingError(
    `this target is built with Bun, which is not here: install Bun ${VERSION} (npm install -g bun@${VERSION}), or npm, which brings it`,
  );
}
