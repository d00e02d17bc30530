/**
 * Finds a Chromium.
 * @module
 */
import process from "node:process";
import { has, lastLines, run } from "../../consumers/support.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];

async function onPath(): Promise<string | undefined> {
  for (const name of NAMES) {
    const { code, stdout } = await run(["sh", "-c", `command -v ${name}`]);
    if (code === 0) return stdout.trim();
  }
  return undefined;
}

/**
 * Where a Chromium lies, or why there is none. With CI=true, as root, it is installed where it is not
 * there.
 */
export async function findChromium(): Promise<{ path: string } | { why: string }> {
  const path = await onPath();
  if (path) return { path };
  if (!["true", "1"].includes(process.env.CI ?? "")) return { why: "no chromium on PATH" };
  if (process.getuid?.() !== 0 || !await has("apt-get")) {
    return { why: "no chromium on PATH, and no apt-get that may install it" };
  }
  const words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"];
  let installed = await run(words);
  if (installed.code !== 0) {
    await run(["apt-get", "update", "-qq"]);
    installed = await run(words);
  }
  const made = await onPath();
  if (made) return { path: made };
  return { why: `apt-get could not install chromium: ${lastLines(installed.stderr, 2)}` };
}
