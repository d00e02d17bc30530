/**
 * Standard output: who reads it slowly, not to the end or not at all, and where it cannot be written.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { runtime } from "../../src/platform/runtime.ts";
import { Workshop } from "../checkpoint/support.ts";
import { runInShell, start, succeed, TINY } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const unix = process.platform !== "win32";
const LONG = 60_000;
/** What makes output longer than a pipe holds, and that output. */
const densities = join(workshop.path, "densities.json");
let recipe = "";
const printRecipe = `"$@" export '${densities}'`;

beforeAll(async () => {
  writeFileSync(densities, JSON.stringify(Array.from({ length: 4000 }, (_, i) => 0.5 + i / 1e5)));
  const file = join(workshop.path, "recipe.yaml");
  await succeed("export", densities, "-o", file);
  recipe = readFileSync(file, "utf8");
}, LONG);

describe("standard output", () => {
  test.if(unix)("is complete in a pipe, however slowly it is read", async () => {
    expect(recipe.length).toBeGreaterThan(100_000);
    const { stdout, stderr } = await runInShell(
      `{ ${printRecipe}; echo "code $?" >&2; } | (sleep 2; cat)`,
    );
    expect(stdout).toBe(recipe);
    expect(stderr).toContain("code 0\n");
  }, LONG);

  test.if(unix)("may be left by its reader, or be closed: that is no error", async () => {
    const lines = [
      `{ ${printRecipe}; echo "code $?" >&2; } | head -c 10`,
      `{ ${printRecipe}; echo "code $?" >&2; } | true`,
      `${printRecipe} >&-; echo "code $?" >&2`,
    ];
    for (const { stdout, stderr } of await Promise.all(lines.map(runInShell))) {
      expect(recipe.startsWith(stdout)).toBe(true);
      expect(stderr).toContain("code 0\n");
      expect(stderr).not.toContain("error");
    }
  }, LONG);

  test.if(process.platform === "linux")(
    "fails the command where it cannot be written",
    async () => {
      const commands = [printRecipe, `"$@" inspect '${TINY}' --json`, `"$@" --help`];
      const ended = await Promise.all(commands.map((line) => runInShell(`${line} > /dev/full`)));
      for (const { code, stderr } of ended) {
        expect(stderr).toMatch(/^error DISK_FULL: no room left .* standard output: .*$/m);
        expect(stderr).not.toContain("internal error");
        expect(code).toBe(1);
      }
    },
    LONG,
  );

  // Deno's write to a pipe returns when all has been read: no signal is seen before.
  const canStop = unix && runtime().name === "bun";
  test.if(canStop)("does not keep a program that is stopped, when nobody reads it", async () => {
    // The shell gives its process to the program, whose output stands still.
    const { code, stderr } = await runInShell(
      `mkfifo '${workshop.path}/pipe'; sleep 30 < '${workshop.path}/pipe' & reader=$!
      ${printRecipe} > '${workshop.path}/pipe' & sleep 3; kill -TERM $!; wait $!
      code=$?; kill $reader; exit $code`,
    );
    expect(stderr).toContain("error ABORTED: ");
    expect(code).toBe(1);
  }, LONG);

  test("of a command that is wrong is empty, and the code is 2", async () => {
    const { code, stdout } = await start(["export", densities, "--methd", "wanda"]).ended;
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  }, LONG);
});
