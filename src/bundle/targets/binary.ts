/**
 * One file for a machine: Bun, the program, the kernels and the model in one.
 * @module
 */
import { join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { BuildPlan } from "../../binary/build.ts";
import { emptyPlaces } from "../../binary/places.ts";
import { folderSource } from "../../engine/folder_source.ts";
import { checkedSource, checkModel } from "../../engine/integrity.ts";
import { lower } from "../../engine/sparse/lower.ts";
import { ModelReader } from "../../engine/sparse/model_reader.ts";
import { contextWithin } from "../../engine/tokens.ts";
import { quote, throwIfAborted } from "../../checks.ts";
import {
  DiskFullError,
  FileWriteError,
  TargetUnfitError,
  ToolMissingError,
  UnsupportedOperatorError,
  UsageError,
} from "../../errors.ts";
import { readText } from "../../generate/read_text.ts";
import { letEventsIn } from "../../platform/events.ts";
import { copyFile, writeBytes } from "../../platform/files.ts";
import { makeFolder, remove } from "../../platform/folders.ts";
import { exists } from "../../platform/paths.ts";
import { runToEnd } from "../../platform/run_to_end.ts";
import { pathWord } from "../../platform/shell.ts";
import { BUN_VERSION, findBun, findBunForBinaries } from "../bun.ts";
import { bytesOf, modelFiles } from "../model_files.ts";
import { MADE, type Target, type TargetInput } from "../target.ts";

/** Bytes of the largest model in a binary: Bun counts them with 32 bits, itself included. */
const LARGEST_MODEL = 2 ** 32 - 2 ** 28;

/** Makes the binary, and with `externalModel` a folder for the model. */
export const makeBinary: Target = async (input) => {
  const { name, model, folder, settings, hooks } = input;
  const { externalModel, withOrt, platform, context, kv } = settings;
  await assertSound(model, hooks.signal);
  const why = await whyNotSparse(model, context);
  const needsOrt = why !== undefined;
  if (needsOrt && !withOrt) {
    throw new TargetUnfitError(
      `${model}: ${why}: bundle it with --with-ort, for ONNX Runtime`,
    );
  }
  const { files } = modelFiles(model);
  const paths = files.map(({ path }) => path);
  const bytes = bytesOf(files);
  if (!externalModel && bytes > LARGEST_MODEL) {
    throw new TargetUnfitError(
      `${model} has ${bytes} bytes, and a binary holds at most ${LARGEST_MODEL}: ` +
        `leave it in a folder beside with --external-model`,
    );
  }
  if (!externalModel) assertNamesFit(model, paths);
  const bunHere = await findBun(hooks.signal);
  await installPackages(bunHere, hooks.signal);
  const places = externalModel || !isForLinux(platform)
    ? undefined
    : join(folder, `${MADE}.places`);
  if (places !== undefined) writeBytes(places, emptyPlaces());
  // A platform with a version says which Bun a binary carries.
  const version = platform?.match(/-v([\d.]+)$/)?.[1];
  const plan: BuildPlan = {
    model: { name, context, kv, needsOrt },
    // Bun runs elsewhere.
    folder: externalModel ? undefined : resolve(model),
    paths: externalModel ? [] : paths,
    places,
    outfile: join(folder, MADE),
    platform,
    version,
    withOrt,
  };
  const progress = (done: number) =>
    hooks.onProgress?.({ type: "progress", phase: "make binary", done, total: 1, unit: "files" });
  progress(0);
  const isSmallest = version === undefined;
  const smallest = isSmallest ? await findBunForBinaries(bunHere, hooks.signal) : undefined;
  const bun = smallest ?? bunHere;
  const script = fileURLToPath(new URL("../../binary/build.ts", import.meta.url));
  const { code, stderr } = await runToEnd([...bun, script, JSON.stringify(plan)], {
    signal: hooks.signal,
    cwd: folder,
  });
  if (code !== 0) throw buildError(stderr, input);
  if (places !== undefined) remove(places);
  progress(1);
  if (externalModel) await copyModel(input, paths);
  const output = settings.output ?? `${name}-binary`;
  const program = pathWord(/[/\\]/.test(output) ? output : `./${output}`);
  const notes: string[] = [];
  if (externalModel) notes.push("the model lies beside it: move both together");
  if (isSmallest && !smallest) {
    notes.push(
      `it carries the Bun that is here; Bun ${BUN_VERSION}, which is smaller, could not be fetched`,
    );
  }
  return {
    next: [`${program} generate --prompt "Once upon a time"`, `${program} serve`],
    notes,
  };
};

/**
 * Checks names of files: Bun writes those that it takes in into modules, between quotes, as they are.
 *
 * @throws {TargetUnfitError} Naming the one that would break them.
 */
function assertNamesFit(model: string, paths: readonly string[]): void {
  const folder = process.platform === "win32" ? [] : [resolve(model).replaceAll('"', "")];
  // deno-lint-ignore no-control-regex
  const unfit = [...paths, ...folder].find((path) => /["\\\x00-\x1f]/.test(path));
  if (unfit === undefined) return;
  throw new TargetUnfitError(
    `${
      quote(unfit)
    }: no file of this name can be in a binary: rename it, or leave the model in a folder beside ` +
      `with --external-model`,
  );
}

/** Whether a binary is for Linux, which signs no programs. */
function isForLinux(platform: string | undefined): boolean {
  return platform === undefined ? process.platform === "linux" : platform.startsWith("bun-linux");
}

/**
 * Reads what the binary will read: what is refused there is refused before it is made.
 *
 * @throws {IntegrityError} When a file is not what `compile` wrote.
 * @throws {EspalierError} When the tokenizer or the chat template cannot be used.
 * @throws {AbortError} When the signal says so.
 */
async function assertSound(model: string, signal?: AbortSignal): Promise<void> {
  const checked = await checkedSource(folderSource(model));
  await readText(checked.source);
  await checkModel(checked, signal);
}

/**
 * Why the sparse engine does not run a model; nothing where it does.
 *
 * @throws {ContextOverflowError} When the model has no such context.
 */
async function whyNotSparse(model: string, context?: number): Promise<string | undefined> {
  const reader = await ModelReader.open(folderSource(model));
  try {
    const { positions } = lower(reader.graph, reader.path);
    if (positions !== undefined) contextWithin(context, positions);
    return undefined;
  } catch (error) {
    if (error instanceof UnsupportedOperatorError) return error.message;
    throw error;
  } finally {
    reader.close();
  }
}

/**
 * Has Bun install the packages that a binary is bundled from, where they are not there: Deno has its own.
 *
 * @throws {ToolMissingError} When it cannot.
 */
async function installPackages(bun: readonly string[], signal?: AbortSignal): Promise<void> {
  const root = fileURLToPath(new URL("../../../", import.meta.url));
  // In a clone, or where this package is one of those of another.
  if ([root, join(root, "..", "..")].some((at) => exists(join(at, "node_modules", "hono")))) return;
  const words = [...bun, "install", "--frozen-lockfile", "--production", "--omit=optional"];
  const { code, stderr } = await runToEnd(words, { signal, cwd: root });
  if (code === 0) return;
  throw new ToolMissingError(
    `a binary is bundled from the packages in ${root}node_modules, which could not be installed: ` +
      `${lastLine(stderr)}: run bun install (or npm install) there`,
  );
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1)!;
}

function buildError(stderr: string, { settings, folder }: TargetInput): Error {
  const reason = stderr.trim().replaceAll(/\s*\n\s*/g, "; ") || "it said nothing";
  if (/ENOSPC|no space left/i.test(reason)) {
    return new DiskFullError(
      `no room left on the device while writing ${folder}: free some space or name an output elsewhere`,
    );
  }
  if (/unknown compile target|unsupported/i.test(reason)) {
    return new UsageError(`--platform ${settings.platform}: ${reason}`);
  }
  if (settings.platform !== undefined) {
    return new ToolMissingError(
      `Bun made no binary for ${settings.platform}: ${reason}: it fetches its runtime of that platform ` +
        `from the npm registry once; see that there is one and that the network is there`,
    );
  }
  return new FileWriteError(`Bun made no binary: ${reason}`);
}

/** Copies the model to where the binary looks for it. */
async function copyModel({ model, folder, hooks }: TargetInput, paths: readonly string[]) {
  for (const [done, path] of paths.entries()) {
    throwIfAborted(hooks.signal);
    const to = join(folder, `${MADE}.model`, path);
    makeFolder(join(to, ".."));
    copyFile(join(model, path), to);
    const total = paths.length;
    hooks.onProgress?.({
      type: "progress",
      phase: "copy model",
      done: done + 1,
      total,
      unit: "files",
    });
    await letEventsIn();
  }
}
