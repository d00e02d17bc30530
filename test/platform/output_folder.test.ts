import { afterAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { OutputExistsError } from "../../src/errors.ts";
import { PendingFolder } from "../../src/platform/output_folder.ts";
import { Workshop } from "../checkpoint/support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** Runs with a folder of its own. */
function inFolder(run: (place: string) => void): void {
  run(workshop.folder());
}

/** The hidden folder of work on `out` by a process, of this machine where no other is named. */
function workOf(pid: number, machine?: string): string {
  if (machine === undefined) {
    const pending = new PendingFolder(workshop.fresh(), { force: false });
    pending.discard();
    machine = basename(pending.path).split(".")[2];
  }
  return `.out.${machine}.${pid}.tmp`;
}

/** Writes a model of two files, one in a folder. */
function fill(folder: string, text: string): void {
  mkdirSync(join(folder, "onnx"), { recursive: true });
  writeFileSync(join(folder, "config.json"), text);
  writeFileSync(join(folder, "onnx", "model.onnx"), text);
}

test("a folder that is there stays the same one, and gets all or nothing", () =>
  inFolder((place) => {
    const target = join(place, "out");
    mkdirSync(target);
    const { ino } = statSync(target);
    // Where a volume is mounted, nothing can be put in the folder's place, and beside it is another device.
    for (const text of ["first", "second"]) {
      const pending = new PendingFolder(target, { force: text === "second" });
      fill(pending.path, text);
      expect(readdirSync(place)).toEqual(["out"]);
      pending.commit();
      pending.discard();
      expect(statSync(target).ino).toBe(ino);
      expect(readdirSync(target).sort()).toEqual(["config.json", "onnx"]);
      expect(readFileSync(join(target, "onnx", "model.onnx"), "utf8")).toBe(text);
    }
    const stopped = new PendingFolder(target, { force: true });
    fill(stopped.path, "third");
    stopped.discard();
    expect(readdirSync(target).sort()).toEqual(["config.json", "onnx"]);
    expect(readFileSync(join(target, "config.json"), "utf8")).toBe("second");
  }));

test("what comes into the folder meanwhile is not replaced", () =>
  inFolder((place) => {
    const target = join(place, "out");
    for (const isThere of [false, true]) {
      if (isThere) mkdirSync(target);
      const pending = new PendingFolder(target, { force: false });
      fill(pending.path, "ours");
      mkdirSync(target, { recursive: true });
      writeFileSync(join(target, "notes.txt"), "mine");
      expect(() => pending.commit()).toThrow(OutputExistsError);
      pending.discard();
      expect(readdirSync(target)).toEqual(["notes.txt"]);
      expect(readdirSync(place)).toEqual(["out"]);
      rmSync(target, { recursive: true });
    }
  }));

test("what a process that was killed left in the folder is no obstacle, and goes", () =>
  inFolder((place) => {
    const target = join(place, "out");
    const { pid } = spawnSync(process.execPath, ["--version"]);
    const left = join(target, workOf(pid));
    mkdirSync(left, { recursive: true });
    fill(left, "half");
    const pending = new PendingFolder(target, { force: false });
    expect(readdirSync(target)).toEqual([workOf(process.pid)]);
    fill(pending.path, "ours");
    pending.commit();
    expect(readdirSync(target).sort()).toEqual(["config.json", "onnx"]);
  }));

test("an output that a process was killed over while it replaced it is replaced by the next one", () =>
  inFolder((place) => {
    const target = join(place, "out");
    const { pid } = spawnSync(process.execPath, ["--version"]);
    // What was there has been moved away, and of what comes in its place the first file has come.
    fill(join(target, `${workOf(pid)}.former`), "old");
    fill(join(target, workOf(pid)), "half");
    mkdirSync(join(target, "onnx"));
    expect(() => new PendingFolder(target, { force: false })).toThrow("is not empty");
    const pending = new PendingFolder(target, { force: true });
    fill(pending.path, "ours");
    pending.commit();
    expect(readdirSync(target).sort()).toEqual(["config.json", "onnx"]);
    expect(readFileSync(join(target, "config.json"), "utf8")).toContain("ours");
  }));

test("what a process that was killed left beside a folder that is not there yet goes, and nothing else", () =>
  inFolder((place) => {
    const target = join(place, "out");
    const { pid } = spawnSync(process.execPath, ["--version"]);
    const others = [
      workOf(pid).replace("out", "other"),
      workOf(process.ppid),
      ".out.tmp",
      workOf(pid).slice(1),
    ];
    for (const name of [workOf(pid), ...others]) {
      mkdirSync(join(place, name));
      fill(join(place, name), "half");
    }
    const pending = new PendingFolder(target, { force: false });
    expect(readdirSync(place).sort()).toEqual([workOf(process.pid), ...others].sort());
    fill(pending.path, "ours");
    pending.commit();
    expect(readdirSync(place).sort()).toEqual([...others, "out"].sort());
  }));

test.if(process.platform !== "win32")(
  "what was left beside it and is somebody else's to remove stays, and is no obstacle",
  () =>
    inFolder((place) => {
      const { pid } = spawnSync(process.execPath, ["--version"]);
      const left = workOf(pid);
      mkdirSync(join(place, left));
      fill(join(place, left), "half");
      // As of another user in a place like /tmp. Root may remove everything.
      const isRoot = process.getuid?.() === 0;
      chmodSync(workshop.path, 0o755);
      chmodSync(place, 0o1777);
      chmodSync(join(place, left), 0o555);
      if (isRoot) process.seteuid!(65534);
      try {
        const pending = new PendingFolder(join(place, "out"), { force: false });
        fill(pending.path, "ours");
        pending.commit();
      } finally {
        if (isRoot) process.seteuid!(0);
        chmodSync(join(place, left), 0o755);
      }
      expect(readdirSync(place).sort()).toEqual([left, "out"]);
    }),
);

test("what this process is at work on is refused to a second run, and free again after the first", () =>
  inFolder((place) => {
    for (const isThere of [false, true]) {
      const target = join(place, `out-${isThere}`);
      if (isThere) mkdirSync(target);
      const first = new PendingFolder(target, { force: false });
      fill(first.path, "first");
      for (const force of [false, true]) {
        expect(() => new PendingFolder(target, { force })).toThrow(OutputExistsError);
      }
      first.commit();
      expect(readFileSync(join(target, "onnx", "model.onnx"), "utf8")).toBe("first");
      new PendingFolder(target, { force: true }).discard();
      const second = new PendingFolder(target, { force: true });
      fill(second.path, "second");
      second.commit();
      expect(readFileSync(join(target, "onnx", "model.onnx"), "utf8")).toBe("second");
      expect(readdirSync(target).sort()).toEqual(["config.json", "onnx"]);
    }
    expect(readdirSync(place).sort()).toEqual(["out-false", "out-true"]);
  }));

test("what another process is at work on in the folder is in the way", () =>
  inFolder((place) => {
    const target = join(place, "out");
    const work = workOf(process.ppid);
    mkdirSync(join(target, work), { recursive: true });
    for (const force of [false, true]) {
      const open = () => new PendingFolder(target, { force });
      expect(open).toThrow(OutputExistsError);
      expect(open).toThrow(work);
    }
  }));

test("what another machine is at work on stays, whatever its process is called, until nobody touches it", () =>
  inFolder((place) => {
    // Of containers that share a volume each may have this process' number.
    const others = [workOf(process.pid, "0123abcd"), workOf(99_999_999, "0123abcd")];
    const target = join(place, "out");
    for (const at of [place, target]) {
      for (const name of others) mkdirSync(join(at, name), { recursive: true });
    }
    expect(() => new PendingFolder(target, { force: true })).toThrow(others[0]);
    writeFileSync(join(target, "config.json"), "earlier");
    const pending = new PendingFolder(target, { force: true });
    fill(pending.path, "ours");
    pending.commit();
    expect(readdirSync(target).sort()).toEqual([...others, "config.json", "onnx"].sort());
    expect(readFileSync(join(target, "config.json"), "utf8")).toBe("ours");

    const hourAgo = new Date(Date.now() - 3_700_000);
    for (const name of others) utimesSync(join(target, name), hourAgo, hourAgo);
    new PendingFolder(target, { force: true }).discard();
    expect(readdirSync(target).sort()).toEqual(["config.json", "onnx"]);
    expect(readdirSync(place).sort()).toEqual([...others, "out"].sort());
  }));

test("a link to a folder is followed, and one to nothing refused before any work", () =>
  inFolder((place) => {
    const [folder, link] = [join(place, "folder"), join(place, "link")];
    symlinkSync(folder, link);
    expect(() => new PendingFolder(link, { force: true })).toThrow(/a link to what is not there/);
    mkdirSync(folder);
    const pending = new PendingFolder(link, { force: false });
    fill(pending.path, "ours");
    pending.commit();
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(["config.json", "onnx"]);
  }));
