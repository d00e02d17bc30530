/**
 * `bundle`: a model and all that serves it, ready for where its users are.
 * @module
 */
import { join, resolve } from "node:path";
import { flagName, parseOptions, type RunHooks } from "../api/options.ts";
import { throwIfAborted } from "../checks.ts";
import { OutputExistsError, UsageError } from "../errors.ts";
import { folderPlace } from "../generate/folder_place.ts";
import { loadSchema } from "../generate/load_options.ts";
import { localFolder } from "../hub/local_folder.ts";
import { writeText } from "../platform/files.ts";
import { folderName } from "../checkpoint/folder_name.ts";
import { straysText } from "../checkpoint/own_files.ts";
import { bytesIn, listFolder, move, remove } from "../platform/folders.ts";
import { exists, isFolder } from "../platform/paths.ts";
import { assertApart, assertFree, PendingFolder } from "../platform/output_folder.ts";
import { VERSION } from "../version.ts";
import { bytesOf, modelFiles } from "./model_files.ts";
import {
  type BundleOptions,
  bundleSchema,
  type BundleSettings,
  OPTIONS_OF_TARGETS,
  type TargetName,
} from "./options.ts";
import { MADE, type Target, type TargetReport } from "./target.ts";

/** What `bundle` made. */
export interface BundleReport extends TargetReport {
  readonly model: string;
  readonly target: TargetName;
  readonly output: string;
  /** Bytes of all that was written, and of the model in it. */
  readonly bytes: { readonly all: number; readonly model: number };
  readonly seconds: number;
}

/** Each target is read when it is asked for. */
const TARGETS: Readonly<Record<TargetName, () => Promise<Target>>> = {
  binary: async () => (await import("./targets/binary.ts")).makeBinary,
  deno: async () => (await import("./targets/deno.ts")).makeDeno,
  cloudflare: async () => (await import("./targets/cloudflare.ts")).makeCloudflare,
  static: async () => (await import("./targets/static.ts")).makeStatic,
};
/** The file that tells a folder that `bundle` wrote. */
const MARKER = "bundle.json";

/**
 * Bundles a model.
 *
 * @param options See `deno run mod.ts bundle --help`.
 * @param hooks Progress and abort.
 * @throws {OutputExistsError} When the output is there, and `force` is off.
 * @throws {UsageError} When options do not go together.
 * @throws {TargetUnfitError} When the model does not fit the target; nothing is written then.
 * @throws {ToolMissingError} When the target needs a program that is not here.
 * @throws {EspalierError} Of the class that says what else is wrong.
 */
export async function bundle(
  options: BundleOptions & { readonly model: string },
  hooks: RunHooks = {},
): Promise<BundleReport> {
  const started = performance.now();
  const settings = parseOptions(bundleSchema, options);
  const { target } = settings;
  assertFits(options, target);
  throwIfAborted(hooks.signal);
  const { context, values, format } = settings;
  const folder = await localFolder(options.model, hooks);
  const output = outputOf(settings, folderName(folder));
  assertApart(output, folder);
  assertWritable(output, settings);
  const place = await folderPlace(
    folder,
    parseOptions(loadSchema, { context, values, format }),
    hooks,
  );
  try {
    const model = place.folder!;
    const make = await TARGETS[target]();
    const isFile = target === "binary";
    // Of a binary, the folder that it is made in; it is moved out of there.
    const pending = new PendingFolder(isFile ? `${output}.making` : output, {
      force: settings.force,
      marker: MARKER,
    });
    try {
      const report = await make({ name: place.name, model, folder: pending.path, settings, hooks });
      throwIfAborted(hooks.signal);
      const all = bytesIn(pending.path);
      let made = output;
      if (isFile) made = moveBinary(pending.path, output, settings.force);
      else {
        const record = { format: 1, espalier: VERSION, target, model: place.name };
        writeText(join(pending.path, MARKER), `${JSON.stringify(record, null, 2)}\n`);
        pending.commit();
      }
      const { files, strays } = modelFiles(model);
      return {
        model: place.name,
        target,
        output: made,
        bytes: { all, model: bytesOf(files) },
        ...report,
        notes: strays.length > 0 ? [...report.notes, straysText(strays)] : report.notes,
        seconds: (performance.now() - started) / 1000,
      };
    } finally {
      pending.discard();
    }
  } finally {
    place.dispose();
  }
}

/**
 * Checks what can be checked before there is a model, which may have to be made.
 *
 * @param options As those of {@linkcode bundle}.
 * @param name What the model will be called.
 * @throws {EspalierError} As {@linkcode bundle} does.
 */
export function assertBundles(options: BundleOptions, name: string): void {
  const settings = parseOptions(bundleSchema, options);
  assertFits(options, settings.target);
  assertWritable(outputOf(settings, name), settings);
}

/** Where a bundle goes. */
function outputOf({ output, target }: BundleSettings, name: string): string {
  return resolve(output ?? `${name}-${target}`);
}

/** @throws {OutputExistsError} When something is in the way that may not be replaced. */
function assertWritable(output: string, { target, externalModel, force }: BundleSettings): void {
  if (target !== "binary") return assertFree(output, force, MARKER);
  assertReplaceable(output, force);
  if (externalModel) assertFree(modelBeside(output), force);
}

/** @throws {UsageError} When an option is given that the target has no use for. */
function assertFits(options: BundleOptions, target: TargetName): void {
  for (const [option, targets] of Object.entries(OPTIONS_OF_TARGETS)) {
    const value = options[option as keyof BundleOptions];
    if (value === undefined || value === false || targets.includes(target)) continue;
    throw new UsageError(
      `--${flagName(option)} is for --target ${targets.join(" and ")}: leave it out for ${target}`,
    );
  }
}

/** @throws {OutputExistsError} When a file is in the way that may not be replaced, or a folder. */
function assertReplaceable(output: string, force: boolean): void {
  if (isFolder(output)) throw new OutputExistsError(`${output} is a folder: name a file`);
  if (exists(output) && !force) {
    throw new OutputExistsError(`${output} is there: name another file, or pass --force`);
  }
}

/** Where a binary looks for a model that is not in it. */
function modelBeside(output: string): string {
  return `${output}.model`;
}

/**
 * Moves a binary, and the model beside it where there is one, to where they are wanted.
 *
 * @returns Where the binary is.
 */
function moveBinary(folder: string, output: string, force: boolean): string {
  let binary = output;
  for (const { name: made, kind } of listFolder(folder)) {
    const suffix = made.slice(MADE.length);
    // On Windows a binary has .exe at its end, which the user may have written or not.
    const isModel = kind === "folder";
    const to = isModel
      ? modelBeside(output)
      : output.endsWith(suffix)
      ? output
      : `${output}${suffix}`;
    if (isModel) remove(to);
    else assertReplaceable(binary = to, force);
    move(join(folder, made), to);
  }
  return binary;
}
