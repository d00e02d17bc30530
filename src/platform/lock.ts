/**
 * Locks between processes, as files.
 *
 * No call of the runtimes locks a file in all of them. A lock is a file that is made only where there
 * is none, and touched while it is held. One that nobody touches, or whose process on this machine has
 * ended, is taken away. That cannot be made exact where clocks and machines differ: what is guarded must
 * bear two holders in the worst case.
 * @module
 */
import * as fs from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { throwIfAborted } from "../checks.ts";
import { FileWriteError } from "../errors.ts";
import { letEventsIn } from "./events.ts";
import { writeError } from "./file_errors.ts";
import { makeFolder, remove } from "./folders.ts";
import { hostName, isRunning } from "./running.ts";
import { sleep } from "./sleep.ts";

/** Milliseconds between two touches of a lock that is held. */
const BEAT = 5_000;
/** Milliseconds without a touch after which a lock is nobody's. */
const STALE = 60_000;
/** Milliseconds between two looks at a lock of somebody else. */
const LOOK = 200;

/** Turns after which a lock that is never there, and that cannot be made, is taken for something else. */
const MOST_MISSES = 1000;

/** A lock that is held. */
export interface FileLock {
  /** Whether it still is: another process may have taken it from one that slept. */
  readonly held: boolean;
  /** Gives it back; a second call does nothing. */
  release(): void;
}

/**
 * Takes a lock, and waits for it as long as it is somebody else's.
 *
 * @param path The file; folders above it are made.
 * @param options `signal` ends the waiting; `onWait` is told once when there is some.
 * @throws {AbortError} When the signal says so.
 * @throws {FileWriteError} When the file cannot be made.
 */
export async function lockFile(
  path: string,
  options: { readonly signal?: AbortSignal; readonly onWait?: () => void } = {},
): Promise<FileLock> {
  const mark = JSON.stringify({ process: process.pid, host: hostName(), id: crypto.randomUUID() });
  let told = false;
  // Turns in which it was somebody's, and gone at the next look, or nobody's: others may be as quick as we are.
  let misses = 0;
  for (;;) {
    throwIfAborted(options.signal);
    if (create(path, mark)) return hold(path, mark);
    const seen = look(path);
    if (!seen || isStale(seen)) {
      if (++misses === MOST_MISSES) throw inTheWay(path);
      if (seen) takeAway(path, seen.mark);
      await letEventsIn();
      continue;
    }
    misses = 0;
    if (!told) options.onWait?.();
    told = true;
    await sleep(LOOK, options.signal);
  }
}

/** For what is no lock and stays where it is, such as a folder. */
function inTheWay(path: string): FileWriteError {
  return new FileWriteError(
    `cannot make ${path}: something of that name can be neither read nor taken away; remove it`,
  );
}

/** Makes the file; false where there is one. */
function create(path: string, mark: string): boolean {
  makeFolder(dirname(path));
  try {
    fs.writeFileSync(path, mark, { flag: "wx" });
    return true;
  } catch (cause) {
    if ((cause as { code?: string }).code === "EEXIST") return false;
    throw writeError(path, cause);
  }
}

/** What this process holds: it is given back when the process ends, in whatever way it is told to. */
const releases = new Set<() => void>();

function releaseAll(): void {
  for (const release of [...releases]) release();
}

function hold(path: string, mark: string): FileLock {
  let held = true;
  const beat = () => {
    if (look(path)?.mark !== mark) {
      held = false;
      return;
    }
    const now = new Date();
    try {
      fs.utimesSync(path, now, now);
    } catch {
      // It went away just now: the next beat sees that.
    }
  };
  const release = () => {
    clearInterval(timer);
    if (releases.delete(release) && releases.size === 0) process.removeListener("exit", releaseAll);
    if (held && look(path)?.mark === mark) remove(path);
    held = false;
  };
  const timer = setInterval(beat, BEAT);
  if (releases.size === 0) process.on("exit", releaseAll);
  releases.add(release);
  return {
    get held() {
      return held;
    },
    release,
  };
}

/** What a lock says, and how many milliseconds ago it was touched; undefined when it is gone. */
function look(path: string): { mark: string; age: number } | undefined {
  try {
    const mark = fs.readFileSync(path, "utf8");
    return { mark, age: Date.now() - fs.statSync(path).mtimeMs };
  } catch {
    return undefined;
  }
}

function isStale({ mark, age }: { mark: string; age: number }): boolean {
  if (age > STALE) return true;
  let holder: { process?: unknown; host?: unknown };
  try {
    holder = JSON.parse(mark);
  } catch {
    // Made a moment ago, and not written yet; or by somebody else, who does not touch it.
    return false;
  }
  const here = hostName();
  // Machines without a name are not the same one.
  if (here === "" || holder?.host !== here || typeof holder.process !== "number") return false;
  return !isRunning(holder.process);
}

/** Takes away a lock that was seen to be stale, and puts it back if it is another one by now. */
function takeAway(path: string, mark: string): void {
  const aside = `${path}.${crypto.randomUUID()}`;
  try {
    fs.renameSync(path, aside);
  } catch {
    return;
  }
  if (look(aside)?.mark !== mark) {
    try {
      fs.linkSync(aside, path);
    } catch {
      // A third one has it; the beat of the second tells him.
    }
  }
  remove(aside);
}
