/**
 * Folders that a command writes its output to: whole or not at all, and never over something else.
 * @module
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
import process from "node:process";
import { clearInterval, setInterval } from "node:timers";
import { OutputExistsError } from "../errors.ts";
import { writeError } from "./file_errors.ts";
import { makeFolder, remove } from "./folders.ts";
import { exists, realPath, statOf } from "./paths.ts";
import { hostName, isRunning } from "./running.ts";

/** What the name of a former output ends with while another takes its place. */
const FORMER = ".former";

/** The file that tells the folder of a model. */
const MODEL_MARKER = "config.json";

/** Folders that this process is at work in. */
const underWay = new Set<string>();
/** Milliseconds between two touches of a folder that is being worked on. */
const BEAT = 60_000;
/**
 * Milliseconds without a touch after which a folder of another machine is nobody's. Volumes are shared, and
 * their clocks are not the same; and a machine may sleep for a while.
 */
const STALE = 3_600_000;

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
  readonly #beat: ReturnType<typeof setInterval>;
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
    this.path = join(place, `${pendingPrefix(this.#target)}${machine()}.${process.pid}.tmp`);
    // It would be taken for what was left, and the work of both would end up in one.
    if (underWay.has(this.path)) {
      throw new OutputExistsError(
        `output folder ${this.#target} is being written by this process: name another one, or wait for its end`,
      );
    }
    for (let above = place; !exists(above); above = dirname(above)) this.#made.push(above);
    makeFolder(place);
    remove(this.path);
    for (const path of leftIn(place, this.#target)) {
      // Until another output is whole, it is the only one; and it says that what is there was one.
      if (!path.endsWith(FORMER)) removeLeft(path);
    }
    makeFolder(this.path);
    underWay.add(this.path);
    // The last net, for an exit that no handler sees coming.
    this.#removeOnExit = () => this.#remove();
    process.on("exit", this.#removeOnExit);
    this.#beat = setInterval(() => touch(this.path), BEAT);
    this.#beat.unref();
  }

  /** Moves the finished folder, or what is in it, to its target. */
  commit(): void {
    assertFree(this.#target, this.#replace, this.#marker);
    try {
      if (exists(this.#target)) {
        replaceContent(this.#target, this.path);
        for (const path of leftIn(this.#target, this.#target)) removeLeft(path);
      } else fs.renameSync(this.path, this.#target);
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
    clearInterval(this.#beat);
    process.removeListener("exit", this.#removeOnExit);
  }
}

/**
 * Puts what is in one folder into the place of what is in another, which may hold the first. What others are
 * at work on there stays.
 */
function replaceContent(target: string, source: string): void {
  const former = `${source}${FORMER}`;
  const moved: [from: string, to: string][] = [];
  const moveAll = (from: string, to: string) => {
    for (const name of fs.readdirSync(from)) {
      const path = join(from, name);
      if (path === former || (from === target && workerOf(target, name))) continue;
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
  const left = leftIn(target, target);
  const names = namesIn(target).filter((name) => !left.includes(join(target, name)));
  if (names.length === 0) return;
  if (names.every((name) => workerOf(target, name))) {
    throw new OutputExistsError(
      `another process writes to the output folder ${target}, or was stopped on another machine: wait for it, ` +
        `or remove ${names.join(", ")} there`,
    );
  }
  if (!force) {
    throw new OutputExistsError(
      `output folder ${target} is not empty: name another one, or pass --force to replace it`,
    );
  }
  // --force must not turn a mistyped `-o ~` into an empty home. What a process that was killed had begun to replace was
  // an earlier output.
  if (!exists(join(target, marker)) && !left.some((path) => path.endsWith(FORMER))) {
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

/** What names of unfinished work on a target begin with. */
function pendingPrefix(target: string): string {
  return `.${basename(resolve(target))}.`;
}

/** Which machine and process a name of unfinished work on a target is of, or of what it replaces; undefined for others. */
function workerOf(target: string, name: string): { machine: string; process: number } | undefined {
  const prefix = pendingPrefix(target);
  if (!name.startsWith(prefix)) return undefined;
  const parts = /^([0-9a-f]{8})\.(\d+)\.tmp(?:\.former)?$/.exec(name.slice(prefix.length));
  return parts ? { machine: parts[1], process: Number(parts[2]) } : undefined;
}

/** What tells this machine from others that share a volume with it; processes of two have the same numbers. */
function machine(): string {
  return createHash("sha256").update(hostName()).digest("hex").slice(0, 8);
}

function touch(path: string): void {
  const now = new Date();
  try {
    fs.utimesSync(path, now, now);
  } catch {
    // Whoever writes to it next says what is wrong.
  }
}

/**
 * Unfinished work on a target in a folder: this process', that of processes that were killed, and that of
 * other machines which nobody has touched for long.
 */
function leftIn(folder: string, target: string): string[] {
  let names: string[];
  try {
    names = namesIn(folder);
  } catch {
    // A place may be one to write to and not to look into: what is left there stays.
    return [];
  }
  const here = machine();
  return names.filter((name) => {
    const worker = workerOf(target, name);
    if (!worker) return false;
    if (worker.machine === here) {
      return worker.process === process.pid || (worker.process > 0 && !isRunning(worker.process));
    }
    const stat = statOf(join(folder, name));
    return stat !== undefined && Date.now() - stat.mtimeMs > STALE;
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
