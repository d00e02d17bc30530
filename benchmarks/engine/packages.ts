/**
 * What the peers need, installed into a cache folder: they are no dependencies of the project.
 * @module
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { ProgramError, run } from "../support/process.ts";

/** Packages of the programs that write model files. */
const PYTHON_PACKAGES = [
  "gguf==0.19.0",
  "ml_dtypes==0.6.0",
  "numpy==2.4.6",
  "onnx==1.23.2",
  "onnx-ir==1.1.0",
  "onnxruntime==1.32.0",
  "safetensors==0.8.0",
];

/**
 * Installs npm packages into a folder of their own, without running their scripts.
 *
 * @param cache Where all such folders are.
 * @param packages With their versions.
 * @param optional Whether to take their optional dependencies, too.
 * @returns The folder.
 * @throws {ProgramError} When npm fails.
 */
export function npmFolder(
  cache: string,
  packages: readonly string[],
  optional: boolean,
): Promise<string> {
  const folder = join(cache, "npm", packages.join("+").replaceAll("/", "-"));
  return once(folder, async () => {
    writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
    const npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"];
    const quiet = ["--loglevel=error", ...optional ? [] : ["--omit=optional"]];
    await install("npm", packages, [...npm, ...quiet, "--prefix", folder]);
  });
}

/**
 * Makes a Python environment.
 *
 * @returns Its interpreter.
 * @throws {ProgramError} When there is no Python, or pip fails.
 */
export async function pythonIn(cache: string): Promise<string> {
  const folder = join(cache, "python");
  const path = join(
    folder,
    ...process.platform === "win32" ? ["Scripts", "python.exe"] : ["bin", "python"],
  );
  await once(folder, async () => {
    await run(["python3", "-m", "venv", folder]);
    const pip = [path, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    await install("pip", PYTHON_PACKAGES, [...pip, "--only-binary=:all:"]);
  });
  return path;
}

async function install(
  program: string,
  packages: readonly string[],
  command: readonly string[],
): Promise<void> {
  try {
    await run([...command, ...packages]);
  } catch (error) {
    if (!(error instanceof ProgramError)) throw error;
    throw new ProgramError(`${program} could not install ${packages.join(", ")}: ${error.message}`);
  }
}

/** Work that is under way, by its folder. */
const underWay = new Map<string, Promise<string>>();

/**
 * Fills a folder unless that was done before, in this run or another.
 *
 * @returns The folder.
 */
export function once(folder: string, fill: () => Promise<void>): Promise<string> {
  const made = underWay.get(folder) ?? (async () => {
    // Written last: without it, what is there is the rest of a run that failed.
    const complete = join(folder, "complete");
    if (!existsSync(complete)) {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { recursive: true });
      await fill();
      writeFileSync(complete, "");
    }
    return folder;
  })();
  underWay.set(folder, made);
  return made;
}
