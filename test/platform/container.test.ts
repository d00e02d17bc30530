import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { processors } from "../../src/platform/machine.ts";
import { freeBytes } from "../../src/platform/memory.ts";
import { runtime } from "../../src/platform/runtime.ts";

const root = mkdtempSync(join(tmpdir(), "espalier-memory-"));
afterAll(() => rmSync(root, { recursive: true }));

/** A folder in which the kernel tells of a container. */
function group(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(root, "group-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

describe("memory that a container can still give", () => {
  const limit = { "memory.max": "60000000\n" };

  test("is what its limit leaves", () => {
    expect(freeBytes(group({ ...limit, "memory.current": "25000000\n" }))).toBe(35_000_000);
    expect(freeBytes(group({ ...limit, "memory.current": "70000000\n" }))).toBe(0);
  });

  test("is also what files take that were read, which the kernel gives up when it is asked", () => {
    const statistics = [
      ...["anon 9000000", "file 47000000", "shmem 2000000", "inactive_anon 8000000"],
      ...["active_anon 3000000", "inactive_file 40000000", "active_file 5000000", "unevictable 0"],
    ];
    const files = { "memory.current": "59000000\n", "memory.stat": `${statistics.join("\n")}\n` };
    expect(freeBytes(group({ ...limit, ...files }))).toBe(46_000_000);
  });

  test("is the machine's where there is no limit, or no container", () => {
    const free = freeBytes(group({ "memory.max": "max\n", "memory.current": "1000\n" }));
    expect(free).toBeGreaterThan(60_000_000);
    expect(freeBytes(group({}))).toBeGreaterThan(60_000_000);
  });
});

describe("threads in a container", () => {
  const all = availableParallelism();
  /** Deno counts the limit in by itself. */
  const isOurs = runtime().name !== "deno" && process.getBuiltinModule !== undefined;

  test.if(isOurs)("are no more than it may have the time of", () => {
    expect(processors(group({ "cpu.max": "100000 100000\n" }))).toBe(1);
    expect(processors(group({ "cpu.max": "190000 100000\n" }))).toBe(1);
    expect(processors(group({ "cpu.max": "50000 100000\n" }))).toBe(1);
  });

  test("are all processors where there is no limit, or no container", () => {
    for (const text of ["max 100000\n", "6400000 100000\n", "", "?"]) {
      expect(processors(group({ "cpu.max": text }))).toBe(all);
    }
    expect(processors(group({}))).toBe(all);
  });
});
