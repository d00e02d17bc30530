/** Locks between processes. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { lockFile } from "../../src/platform/lock.ts";
import { rejectionOf, Workshop } from "../checkpoint/support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** A path for a lock, in a folder that is not there yet. */
const fresh = () => join(workshop.fresh(), "a", "x.lock");
/** A lock that somebody else left. */
function left(mark: unknown, secondsAgo = 0): string {
  const path = fresh();
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, typeof mark === "string" ? mark : JSON.stringify(mark));
  const time = new Date(Date.now() - 1000 * secondsAgo);
  utimesSync(path, time, time);
  return path;
}
/** Whether a lock can be had at once. */
async function isFree(path: string): Promise<boolean> {
  const lock = await lockFile(path, { signal: AbortSignal.timeout(400) }).catch(() => undefined);
  lock?.release();
  return lock !== undefined;
}

describe("a lock", () => {
  test("is a file while it is held, and nothing after", async () => {
    const path = fresh();
    const lock = await lockFile(path);
    expect({ held: lock.held, exists: existsSync(path) }).toEqual({ held: true, exists: true });
    lock.release();
    lock.release();
    expect(lock.held).toBe(false);
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test("that is held is waited for, and that is told once", async () => {
    const path = fresh();
    const first = await lockFile(path);
    let waits = 0;
    const second = lockFile(path, { onWait: () => waits++ });
    setTimeout(() => first.release(), 500);
    (await second).release();
    expect(waits).toBe(1);
  });

  test("is waited for until the signal says otherwise", async () => {
    const path = fresh();
    const lock = await lockFile(path);
    const error = await rejectionOf(lockFile(path, { signal: AbortSignal.timeout(50) }));
    expect(error.code).toBe("ABORTED");
    lock.release();
  });

  test("of a process of this machine that has ended is nobody's", async () => {
    const { pid } = spawnSync(process.execPath, ["--version"]);
    expect(await isFree(left({ process: pid, host: hostname(), id: "x" }))).toBe(true);
  });

  test("of a process that runs, or of another machine, is somebody's while it is touched", async () => {
    const others = [
      { process: process.pid, host: hostname(), id: "x" },
      { process: 999_999_999, host: `not-${hostname()}`, id: "x" },
      "",
      "{",
      "null",
      { process: "1; rm -rf /", host: hostname() },
    ];
    for (const mark of others) {
      expect({ mark, free: await isFree(left(mark)) }).toEqual({ mark, free: false });
    }
    for (const mark of others) {
      expect({ mark, free: await isFree(left(mark, 90)) }).toEqual({ mark, free: true });
    }
  });

  test("that is nobody's is taken by one of many at a time", async () => {
    const path = left("{}", 90);
    let inside = 0;
    let most = 0;
    await Promise.all(Array.from({ length: 8 }, async () => {
      const lock = await lockFile(path);
      most = Math.max(most, ++inside);
      await new Promise((done) => setTimeout(done, 5));
      inside--;
      lock.release();
    }));
    expect(most).toBe(1);
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test("is refused where something else is that is no lock", async () => {
    const [folder, link] = [fresh(), fresh()];
    mkdirSync(folder, { recursive: true });
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(dirname(link), "nothing"), link);
    for (const path of [folder, link]) {
      const error = await rejectionOf(lockFile(path));
      expect(error.code).toBe("FILE_UNWRITABLE");
      expect(error.message).toContain(path);
    }
  });
});
