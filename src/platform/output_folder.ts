/**
 * Folders that a command writes its output to: whole or not at all, and never over something else.
 * @module
 */
import * as fs from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
import process from "node:process";
import { OutputExistsError } from "../errors.ts";
import { exists, makeFolder, realPath, remove, statOf, writeError } from "./files.ts";
import { isRunning } from "./running.ts";

/** The file that tells the folder of a model. */
const MODEL_MARKER = "config.json";

/** Folders that this process is at work in. */
const underWay = new Set<string>();

/**
 * A folder that becomes the result when it is complete, and leaves nothing behind when it is not.
 *
 * Work goes into a hidden sibling of the target, so that the final rename stays on one device. A target that
 * is there already keeps its place, which may be a mounted volume, behind a link, or the folder that a shell
 * is in: work goes into a hidden folder in it, whose content comes out in the end.
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
   * @throws {OutputExistsError} When the target exists, is not an empty folder, and `force` is off; or when this
   *   process is at work on it already.
   * @throws {FileWriteError} When the hidden folder cannot be made.
   */
  constructor(target: string, options: { force: boolean; marker?: string }) {
    this.#target = resolve(target);
    this.#replace = options.force;
    this.#marker = options.marker ?? MODEL_MARKER;
    assertFree(this.#target, options.force, this.#marker);
    const place = exists(this.#target) ? this.#target : dirname(this.#target);
    this.path = join(place, `.${basename(this.#target)}.${process.pid}.tmp`);
    // It would be taken for what was left, and the work of both would end up in one.
    if (underWay.has(this.path)) {
      throw new OutputExistsError(
        `output folder ${this.#target} is being written by this process: name another one, or wait for its end`,
      );
    }
    for (let above = place; !exists(above); above = dirname(above)) this.#made.push(above);
    makeFolder(place);
    remove(this.path);
    for (const path of leftIn(place, this.#target)) removeLeft(path);
    makeFolder(this.path);
    underWay.add(this.path);
    // The last net, for an exit that no handler sees coming.
    this.#removeOnExit = () => this.#remove();
    process.on("exit", this.#removeOnExit);
  }

  /** Moves the finished folder, or what is in it, to its target. */
  commit(): void {
    assertFree(this.#target, this.#replace, this.#marker);
    try {
      if (exists(this.#target)) replaceContent(this.#target, this.path);
      else fs.renameSync(this.path, this.#target);
    } catch (cause) {
      throw writeError(this.#target, cause);
    }
    remove(this.path);
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
    underWay.delete(this.path);
    process.removeListener("exit", this.#removeOnExit);
  }
}

/** Puts what is in one folder into the place of what is in another, which may hold the first. */
function replaceContent(target: string, source: string): void {
  const former = `${source}.former`;
  const moved: [from: string, to: string][] = [];
  const moveAll = (from: string, to: string) => {
    for (const name of fs.readdirSync(from)) {
      const path = join(from, name);
      if (path === source || path === former) continue;
      fs.renameSync(path, join(to, name));
      moved.push([path, join(to, name)]);
    }
  };
  fs.mkdirSync(former);
  try {
    moveAll(target, former);
    moveAll(source, target);
  } catch (cause) {
    for (const [from, to] of moved.reverse()) fs.renameSync(to, from);
    removeIfEmpty(former);
    throw cause;
  }
  remove(former);
}

/**
 * Checks that a folder may be written.
 *
 * @param marker A file that every earlier output holds.
 * @throws {OutputExistsError} When there is something in the way.
 */
export function assertFree(target: string, force: boolean, marker = MODEL_MARKER): void {
  const stat = statOf(target);
  if (!stat && isLink(target)) {
    throw new OutputExistsError(`${target} is a link to what is not there; name a folder`);
  }
  if (!stat) return;
  if (!stat.isDirectory()) {
    throw new OutputExistsError(`${target} is a file; name a folder for the output`);
  }
  if (namesIn(target).length === leftIn(target, target).length) return;
  if (!force) {
    throw new OutputExistsError(
      `output folder ${target} is not empty: name another one, or pass --force to replace it`,
    );
  }
  // --force must not turn a mistyped `-o ~` into an empty home.
  if (!exists(join(target, marker))) {
    throw new OutputExistsError(
      `output folder ${target} is not empty and holds no ${
        marker === MODEL_MARKER ? "model" : marker
      }: ` +
        `--force replaces only earlier output`,
    );
  }
}

/** Removes what was left, where we may. */
function removeLeft(path: string): void {
  try {
    remove(path);
  } catch {
    // It is another user's, and in nobody's way.
  }
}

function namesIn(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch (cause) {
    throw writeError(folder, cause);
  }
}

/** Unfinished work on a target in a folder: this process', and that of processes that were killed. */
function leftIn(folder: string, target: string): string[] {
  const before = `.${basename(resolve(target))}.`;
  let names: string[];
  try {
    names = namesIn(folder);
  } catch {
    // A place may be one to write to and not to look into: what is left there stays.
    return [];
  }
  return names.filter((name) => {
    if (!name.startsWith(before)) return false;
    const id = Number(/^(\d+)\.tmp$/.exec(name.slice(before.length))?.[1]);
    return id === process.pid || (id > 0 && !isRunning(id));
  }).map((name) => join(folder, name));
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

function isLink(path: string): boolean {
  try {
    return fs.lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

function removeIfEmpty(folder: string): void {
  try {
    fs.rmdirSync(folder);
  } catch {
    // Somebody put something there since.
  }
}
