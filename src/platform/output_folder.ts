/**
 * Folders that a command writes its output to: whole or not at all, and never over something else.
 * @module
 */
import * as fs from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
import process from "node:process";
import { OutputExistsError } from "../errors.ts";
import { exists, makeFolder, realPath, remove, statOf, writeError } from "./files.ts";

/** The file that tells the folder of a model. */
const MODEL_MARKER = "config.json";

/**
 * A folder that becomes the result when it is complete, and leaves nothing behind when it is not.
 *
 * Work goes into a hidden sibling of the target, so that the final rename stays on one device.
 */
export class PendingFolder {
  readonly path: string;
  readonly #target: string;
  readonly #replace: boolean;
  readonly #marker: string;
  /** Folders above the target that were made for it, the deepest first. */
  readonly #made: string[] = [];
  readonly #removeOnExit: () => void;
  #settled = false;

  /**
   * @param target The folder that is wanted in the end.
   * @param options `force`: replace what is there. `marker`: a file that every earlier output holds.
   * @throws {OutputExistsError} When the target exists, is not an empty folder, and `force` is off.
   * @throws {FileWriteError} When the sibling cannot be made.
   */
  constructor(target: string, options: { force: boolean; marker?: string }) {
    this.#target = resolve(target);
    this.#replace = options.force;
    this.#marker = options.marker ?? MODEL_MARKER;
    assertFree(this.#target, options.force, this.#marker);
    for (let above = dirname(this.#target); !exists(above); above = dirname(above)) {
      this.#made.push(above);
    }
    makeFolder(dirname(this.#target));
    this.path = join(dirname(this.#target), `.${basename(this.#target)}.${process.pid}.tmp`);
    remove(this.path);
    makeFolder(this.path);
    // The last net, for an exit that no handler sees coming.
    this.#removeOnExit = () => this.#remove();
    process.on("exit", this.#removeOnExit);
  }

  /** Moves the finished folder to its target. */
  commit(): void {
    assertFree(this.#target, this.#replace, this.#marker);
    const former = `${this.path}.former`;
    try {
      if (exists(this.#target)) fs.renameSync(this.#target, former);
      fs.renameSync(this.path, this.#target);
    } catch (cause) {
      if (exists(former) && !exists(this.#target)) fs.renameSync(former, this.#target);
      throw writeError(this.#target, cause);
    }
    remove(former);
    this.#settle();
  }

  /** Removes the unfinished folder, unless it has been committed. */
  discard(): void {
    if (this.#settled) return;
    this.#remove();
    this.#settle();
  }

  #remove(): void {
    remove(this.path);
    for (const folder of this.#made) removeIfEmpty(folder);
  }

  #settle(): void {
    this.#settled = true;
    process.removeListener("exit", this.#removeOnExit);
  }
}

/**
 * Checks that a folder may be written.
 *
 * @param marker A file that every earlier output holds.
 * @throws {OutputExistsError} When there is something in the way.
 */
export function assertFree(target: string, force: boolean, marker = MODEL_MARKER): void {
  const stat = statOf(target);
  if (!stat) return;
  if (!stat.isDirectory()) {
    throw new OutputExistsError(`${target} is a file; name a folder for the output`);
  }
  if (!force && fs.readdirSync(target).length > 0) {
    throw new OutputExistsError(
      `output folder ${target} is not empty: name another one, or pass --force to replace it`,
    );
  }
  // --force must not turn a mistyped `-o ~` into an empty home.
  if (force && fs.readdirSync(target).length > 0 && !exists(join(target, marker))) {
    throw new OutputExistsError(
      `output folder ${target} is not empty and holds no ${
        marker === MODEL_MARKER ? "model" : marker
      }: ` +
        `--force replaces only earlier output`,
    );
  }
}

/**
 * Checks that an output folder is not the model's, nor in it or around it: replacing it would take the
 * model away.
 *
 * @throws {OutputExistsError} When it is.
 */
export function assertApart(target: string, model: string): void {
  const [a, b] = [target, model].map((path) => realPath(path) + sep);
  if (a.startsWith(b) || b.startsWith(a)) {
    throw new OutputExistsError(
      `output folder ${target} and the model's folder lie in one another: name another output`,
    );
  }
}

function removeIfEmpty(folder: string): void {
  try {
    fs.rmdirSync(folder);
  } catch {
    // Somebody put something there since.
  }
}
