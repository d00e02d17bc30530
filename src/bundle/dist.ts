/**
 * The build of this package for other runtimes (`scripts/build.ts`): what bundles are made of.
 * @module
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { RunHooks } from "../api/options.ts";
import { ToolMissingError } from "../errors.ts";
import { pathsIn } from "../platform/folders.ts";
import { writtenAt } from "../platform/paths.ts";
import { lockFile } from "../platform/lock.ts";
import { runToEnd } from "../platform/run_to_end.ts";
import { findBun } from "./bun.ts";

/** What a build has: some of it, and what is written when all of it is there. */
export const BUILT = [
  ...["run.js", "server.js", "edge.js", "page/page.js", "page/worker.js"],
  "complete.json",
];
/** Lines of a failed build that are told. */
const TOLD = 3;

/**
 * The folder of the build; it is built first where it is missing or, in a clone, older than the sources.
 *
 * @param root The package; for tests.
 * @throws {ToolMissingError} When it must be built and cannot be.
 * @throws {AbortError} When the signal says so.
 */
export async function distribution(
  hooks: RunHooks,
  root = fileURLToPath(new URL("../..", import.meta.url)),
): Promise<string> {
  const dist = join(root, "dist");
  if (isFresh(root, dist)) return dist;
  const { signal } = hooks;
  // Two at once would read what the other has half written.
  const lock = await lockFile(join(root, "dist", ".lock"), { signal });
  try {
    if (isFresh(root, dist)) return dist;
    hooks.onProgress?.({ type: "note", text: "building the package for other runtimes" });
    const bun = await findBun(signal);
    await runBun(bun, ["install", "--frozen-lockfile"], root, signal);
    await runBun(bun, ["scripts/build.ts"], root, signal);
    return dist;
  } finally {
    lock.release();
  }
}

/** @throws {ToolMissingError} When it fails. */
async function runBun(
  bun: readonly string[],
  words: readonly string[],
  root: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { code, stdout, stderr } = await runToEnd([...bun, ...words], { signal, cwd: root });
  if (code === 0) return;
  const lines = (stderr || stdout).trim().split("\n");
  // A stack comes after what went wrong.
  const errors = lines.filter((line) => /^\s*error\b/i.test(line));
  const said = (errors.length > 0 ? errors : lines).slice(-TOLD).join("; ");
  throw new ToolMissingError(
    `the package cannot be built for other runtimes: bun ${words.join(" ")}: ${said}: ` +
      `mend it and build with: bun install && bun scripts/build.ts`,
  );
}

/** Whether the build is there, and made from what is there. */
function isFresh(root: string, dist: string): boolean {
  const built = Math.min(...BUILT.map((name) => writtenAt(join(dist, name)) ?? -Infinity));
  if (built === -Infinity) return false;
  // A package manager writes files in any order; their build is that which was packed with them.
  if (/[\\/]node_modules[\\/]/.test(root)) return true;
  const sources = [
    ...["src", "compile"].flatMap((folder) =>
      pathsIn(join(root, folder)).map((path) => join(root, folder, path))
    ),
    join(root, "scripts/build.ts"),
    join(root, "package.json"),
  ];
  return sources.every((path) => (writtenAt(path) ?? -Infinity) <= built);
}
