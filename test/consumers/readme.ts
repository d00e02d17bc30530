/**
 * The commands that a README gives, and a clean clone to run them in.
 * @module
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fromRoot } from "../support/paths.ts";
import { lastLines, ProgramError, run } from "./support.ts";

/** The blocks of shell commands in a README, each a list of lines. */
export function commandsIn(readme: string): string[][] {
  const text = readFileSync(fromRoot(readme), "utf8");
  return [...text.matchAll(/^```sh\n(.*?)^```/gms)]
    .map(([, block]) => block.trim().split("\n"));
}

/**
 * Clones the repository as it was committed last.
 *
 * @returns Its folder; nothing where there is no git, or no repository.
 */
export async function cleanClone(folder: string): Promise<string | undefined> {
  const clone = join(folder, "clone");
  const { code } = await run(["git", "clone", "--quiet", fromRoot(""), clone]);
  return code === 0 ? clone : undefined;
}

/**
 * Runs a command line of a README.
 *
 * @returns What it printed.
 * @throws {ProgramError} When it fails.
 */
export async function runLine(line: string, cwd: string): Promise<string> {
  const { code, stdout, stderr } = await run(["sh", "-c", line], cwd);
  if (code !== 0) throw new ProgramError(`${line} ended with ${code}: ${lastLines(stderr)}`);
  return stdout;
}
